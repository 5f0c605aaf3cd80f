//! Names and what is behind them.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Answer, Ino, Inode, Kernel, Node, PAGE, Pages, Who};

const READ: u32 = 4;
const WRITE: u32 = 2;
const SEARCH: u32 = 1;
const STICKY: u32 = 0o1000;
/// The longest name.
const NAME_MAX: usize = 255;

impl Kernel {
    /// A directory, before anything begins.
    pub fn mkdir(&mut self, path: &str, uid: u32, gid: u32, mode: u32) {
        let ino = self.new_inode(Node::Directory(BTreeMap::new()), mode, uid, gid);
        self.inodes[ino].links = 1;
        self.directories.insert(path.to_owned(), ino);
    }

    fn new_inode(&mut self, node: Node, mode: u32, uid: u32, gid: u32) -> Ino {
        let buffer = matches!(node, Node::Regular).then(|| {
            self.free_buffers.pop().unwrap_or_else(|| {
                self.buffers += 1;
                self.buffers - 1
            })
        });
        self.inodes.push(Inode {
            node,
            mode,
            uid,
            gid,
            links: 0,
            size: 0,
            extent: 0,
            pages: Pages::default(),
            buffer,
            refs: 0,
            locks: Vec::new(),
            is_foreign: false,
            named_at: 0,
            was_named: false,
        });
        self.inodes.len() - 1
    }

    /// Whether the process may do this with the file.
    fn may(&self, who: Who, ino: Ino, wanted: u32) -> bool {
        let (process, inode) = (&self.processes[who.process], &self.inodes[ino]);
        let shift = match () {
            () if process.uid == 0 => return true,
            () if process.uid == inode.uid => 6,
            () if process.gid == inode.gid => 3,
            () => 0,
        };
        inode.mode >> shift & wanted == wanted
    }

    /// The directory that a path leads through, and the last name in it.
    fn parent_of(&self, who: Who, path: &Path) -> Answer<(Ino, String)> {
        let parent = path.parent().and_then(Path::to_str).ok_or(libc::ENOENT)?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(libc::EINVAL)?;
        let &dir = self.directories.get(parent).ok_or(libc::ENOENT)?;
        if !self.may(who, dir, SEARCH) {
            return Err(libc::EACCES);
        }
        Ok((dir, name.to_owned()))
    }

    /// The same with a name that can be looked up.
    fn directory_of(&self, who: Who, path: &Path) -> Answer<(Ino, String)> {
        let (dir, name) = self.parent_of(who, path)?;
        check_len(&name)?;
        Ok((dir, name))
    }

    fn names(&self, dir: Ino) -> &BTreeMap<String, Ino> {
        match &self.inodes[dir].node {
            Node::Directory(names) => names,
            _ => unreachable!("only directories are listed as such"),
        }
    }

    fn names_mut(&mut self, dir: Ino) -> &mut BTreeMap<String, Ino> {
        match &mut self.inodes[dir].node {
            Node::Directory(names) => names,
            _ => unreachable!("only directories are listed as such"),
        }
    }

    /// What has this name.
    pub fn lookup(&self, who: Who, path: &Path) -> Answer<Option<Ino>> {
        let (dir, name) = self.directory_of(who, path)?;
        Ok(self.names(dir).get(&name).copied())
    }

    /// The same for the harness, whoever asks.
    pub fn at(&self, path: &Path) -> Option<Ino> {
        let &dir = self.directories.get(path.parent()?.to_str()?)?;
        self.names(dir).get(path.file_name()?.to_str()?).copied()
    }

    /// The process has seen what has this name.
    pub fn note_look(&mut self, who: Who, path: &Path) {
        let (now, name) = (self.now, path.display().to_string());
        self.processes[who.process].looked_at.insert(name, now);
    }

    fn may_change(&self, who: Who, dir: Ino) -> Answer<()> {
        if !self.may(who, dir, WRITE | SEARCH) {
            return Err(libc::EACCES);
        }
        if self.is_read_only { Err(libc::EROFS) } else { Ok(()) }
    }

    /// Whether the process may take away a name: in a sticky directory only that of its own file.
    fn may_take_away(&self, who: Who, dir: Ino, ino: Ino) -> Answer<()> {
        self.may_change(who, dir)?;
        let uid = self.processes[who.process].uid;
        let owns = uid == 0 || uid == self.inodes[ino].uid || uid == self.inodes[dir].uid;
        if self.inodes[dir].mode & STICKY != 0 && !owns { Err(libc::EPERM) } else { Ok(()) }
    }

    /// A file without a name, open for writing.
    pub fn open_unnamed(&mut self, who: Who, dir: &Path, mode: u32) -> Answer<i32> {
        let path = dir.to_str().ok_or(libc::EINVAL)?;
        let &dir = self.directories.get(path).ok_or(libc::ENOENT)?;
        self.may_change(who, dir)?;
        let (uid, gid) = (self.processes[who.process].uid, self.processes[who.process].gid);
        let ino = self.new_inode(Node::Regular, mode, uid, gid);
        self.inodes[ino].is_foreign = self.processes[who.process].is_foreign;
        self.open_ino(who, ino, true)
    }

    pub fn open(&mut self, who: Who, path: &Path, is_writable: bool) -> Answer<Option<i32>> {
        self.note_look(who, path);
        let Some(ino) = self.lookup(who, path)? else { return Ok(None) };
        match self.inodes[ino].node {
            Node::Symlink => return Err(libc::ELOOP),
            Node::Directory(_) if is_writable => return Err(libc::EISDIR),
            _ => {}
        }
        let wanted = if is_writable { READ | WRITE } else { READ };
        if !self.may(who, ino, wanted) {
            return Err(libc::EACCES);
        }
        if is_writable && self.is_read_only {
            return Err(libc::EROFS);
        }
        self.open_ino(who, ino, is_writable).map(Some)
    }

    /// Names a file that is open; false if the name is taken.
    pub fn link(&mut self, who: Who, fd: i32, path: &Path) -> Answer<bool> {
        let desc = self.desc(who, fd)?;
        let ino = self.descriptions[desc].ino;
        let (dir, name) = self.directory_of(who, path)?;
        if self.names(dir).contains_key(&name) {
            return Ok(false);
        }
        self.may_change(who, dir)?;
        if matches!(self.inodes[ino].node, Node::Directory(_)) {
            return Err(libc::EPERM);
        }
        // What had a name and lost it never gets one again.
        if self.inodes[ino].links == 0 && self.inodes[ino].was_named {
            return Err(libc::ENOENT);
        }
        self.put(dir, name, ino);
        Ok(true)
    }

    fn put(&mut self, dir: Ino, name: String, ino: Ino) {
        self.names_mut(dir).insert(name, ino);
        let now = self.now;
        let inode = &mut self.inodes[ino];
        inode.links += 1;
        (inode.named_at, inode.was_named) = (now, true);
    }

    /// Moves a name; false if the new one is taken.
    pub fn rename(&mut self, who: Who, from: &Path, to: &Path) -> Answer<bool> {
        let (old, old_name) = self.parent_of(who, from)?;
        let (new, new_name) = self.parent_of(who, to)?;
        check_len(&old_name)?;
        let ino = *self.names(old).get(&old_name).ok_or(libc::ENOENT)?;
        check_len(&new_name)?;
        if self.names(new).contains_key(&new_name) {
            return Ok(false);
        }
        self.may_take_away(who, old, ino)?;
        self.may_change(who, new)?;
        let is_directory = matches!(self.inodes[ino].node, Node::Directory(_));
        if is_directory && old != new && !self.may(who, ino, WRITE) {
            return Err(libc::EACCES);
        }
        self.names_mut(old).remove(&old_name);
        self.inodes[ino].links -= 1;
        self.put(new, new_name, ino);
        Ok(true)
    }

    /// Takes a name away; the file it led to, or nothing if there was none.
    pub fn unlink(&mut self, who: Who, path: &Path) -> Answer<Option<Ino>> {
        let (dir, name) = self.directory_of(who, path)?;
        let Some(&ino) = self.names(dir).get(&name) else { return Ok(None) };
        self.may_take_away(who, dir, ino)?;
        if matches!(self.inodes[ino].node, Node::Directory(_)) {
            return Err(libc::EISDIR);
        }
        self.check_unlink(who, path, ino);
        self.names_mut(dir).remove(&name);
        self.inodes[ino].links -= 1;
        self.free_if_unused(ino);
        Ok(Some(ino))
    }

    /// The library unlinks nothing foreign, except what the same user put there after the look.
    fn check_unlink(&mut self, who: Who, path: &Path, ino: Ino) {
        let (process, inode) = (&self.processes[who.process], &self.inodes[ino]);
        if process.is_foreign || !inode.is_foreign {
            return;
        }
        let looked = process.looked_at.get(&path.display().to_string()).copied().unwrap_or(0);
        if inode.uid != process.uid || inode.named_at < looked {
            self.accuse(|| format!("the library unlinks a foreign file, {}", path.display()));
        }
    }

    pub fn list(&self, who: Who, dir: &Path) -> Answer<Vec<String>> {
        let path = dir.to_str().ok_or(libc::EINVAL)?;
        let &dir = self.directories.get(path).ok_or(libc::ENOENT)?;
        if !self.may(who, dir, READ) {
            return Err(libc::EACCES);
        }
        Ok(self.names(dir).keys().cloned().collect())
    }

    /// Something under a name that the library did not make.
    pub fn plant(&mut self, who: Who, path: &Path, node: Node, mode: u32) -> Answer<Ino> {
        let (dir, name) = self.directory_of(who, path)?;
        if self.names(dir).contains_key(&name) {
            return Err(libc::EEXIST);
        }
        self.may_change(who, dir)?;
        let (uid, gid) = (self.processes[who.process].uid, self.processes[who.process].gid);
        let ino = self.new_inode(node, mode, uid, gid);
        self.inodes[ino].is_foreign = true;
        self.put(dir, name, ino);
        Ok(ino)
    }

    // --- contents -----------------------------------------------------------------------------

    /// Gives the file all pages of the range, and makes it long enough. All or nothing; and nothing if
    /// less is free than the whole of it, as the real room asks first.
    pub fn allocate(&mut self, who: Who, fd: i32, off: u64, len: u64) -> Answer<()> {
        let desc = self.desc(who, fd)?;
        if len > self.free_pages.saturating_mul(PAGE) {
            return Err(libc::ENOSPC);
        }
        let ino = self.ready_to_change(desc, len)?;
        let end = off.checked_add(len).filter(|&end| end <= super::memory::BUFFER as u64);
        let end = end.ok_or(libc::EFBIG)?;
        self.touch(who, ino, "allocates pages of");
        let inode = &mut self.inodes[ino];
        let wanted = off / PAGE..end.div_ceil(PAGE);
        let missing = wanted.clone().filter(|&page| !inode.pages.has(page)).count() as u64;
        if missing > self.free_pages {
            return Err(libc::ENOSPC);
        }
        self.free_pages -= missing;
        wanted.for_each(|page| inode.pages.set(page));
        inode.size = inode.size.max(end);
        inode.extent = inode.extent.max(inode.size);
        Ok(())
    }

    /// The file behind a description, if so many of its pages may come or go.
    fn ready_to_change(&self, desc: super::Desc, len: u64) -> Answer<Ino> {
        let ino = self.descriptions[desc].ino;
        match self.inodes[ino].node {
            _ if len == 0 => Err(libc::EINVAL),
            _ if !self.descriptions[desc].is_writable => Err(libc::EBADF),
            Node::Fifo => Err(libc::ESPIPE),
            Node::Regular => Ok(ino),
            _ => Err(libc::ENODEV),
        }
    }

    /// Takes the pages of the range away.
    pub fn punch(&mut self, who: Who, fd: i32, off: u64, len: u64) -> Answer<()> {
        let desc = self.desc(who, fd)?;
        let ino = self.ready_to_change(desc, len)?;
        self.touch(who, ino, "punches");
        let end = off.saturating_add(len);
        let mapped_by = self.processes.iter().find(|process| {
            let meets =
                |map: &super::Map| map.ino == ino && map.off < end && off < map.off + map.len;
            process.maps.iter().any(meets)
        });
        if let Some(pid) = mapped_by.map(|process| process.pid) {
            self.accuse(|| format!("{off:#x}..{end:#x} is punched, and pid {pid} maps of it"));
        }
        self.drop_pages(ino, off, end);
        Ok(())
    }

    /// As `ftruncate`, for actors that are not the library.
    pub fn truncate(&mut self, ino: Ino, size: u64) {
        let old = self.inodes[ino].size;
        self.inodes[ino].size = size;
        if size < old {
            self.drop_pages(ino, size.next_multiple_of(PAGE), old.next_multiple_of(PAGE));
            super::memory::clear(&self.inodes[ino], size, size.next_multiple_of(PAGE));
        }
    }

    fn drop_pages(&mut self, ino: Ino, off: u64, end: u64) {
        let inode = &mut self.inodes[ino];
        super::memory::clear(inode, off, end);
        for page in off.div_ceil(PAGE)..end / PAGE {
            if inode.pages.has(page) {
                inode.pages.unset(page);
                self.free_pages += 1;
            }
        }
    }

    /// Bytes of a file, for the harness.
    pub fn peek(&self, ino: Ino, off: u64, len: usize) -> Vec<u8> {
        super::memory::copy_out(&self.inodes[ino], off, len)
    }

    pub fn read_at(&self, who: Who, fd: i32, off: u64, len: usize) -> Answer<Vec<u8>> {
        let desc = self.desc(who, fd)?;
        let inode = &self.inodes[self.descriptions[desc].ino];
        match inode.node {
            Node::Regular => Ok(super::memory::copy_out(inode, off, len)),
            Node::Directory(_) => Err(libc::EISDIR),
            _ => Err(libc::ESPIPE),
        }
    }

    /// The library changes nothing foreign.
    fn touch(&mut self, who: Who, ino: Ino, how: &str) {
        if self.inodes[ino].is_foreign && !self.processes[who.process].is_foreign {
            self.accuse(|| format!("the library {how} a foreign file"));
        }
    }
}

fn check_len(name: &str) -> Answer<()> {
    if name.len() > NAME_MAX { Err(libc::ENAMETOOLONG) } else { Ok(()) }
}
