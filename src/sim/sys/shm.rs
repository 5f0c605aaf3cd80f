//! Files: made whole without a name, named in one step, opened without surprise.

use std::ffi::OsString;
use std::path::Path;

use super::super::calls::Call;
use super::super::kernel::{Answer, Desc, Ino, Kernel, Node, PAGE, Who};
use super::super::world::{is_inside, step_with, with};
use super::ask;
use crate::error::Result;

/// The device of every file here.
const DEVICE: u64 = 25;

/// An open file, known by its number and by which file it was.
pub(crate) struct File {
    fd: i32,
    ino: Ino,
    birth: super::fork::Birth,
}

/// Which file, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    pub dev: u64,
    pub ino: u64,
}

/// What kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    Symlink,
    Directory,
    Other,
}

/// What the kernel knows about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileFacts {
    pub id: FileId,
    pub size: u64,
    pub allocated: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u64,
    pub kind: Kind,
}

impl File {
    fn new(fd: i32) -> File {
        let ino = with(|world| {
            let desc = world.kernel.desc(world.who(), fd).expect("just opened");
            world.kernel.descriptions[desc].ino
        });
        File { fd, ino, birth: super::fork::Birth::now() }
    }

    /// The number, if it still is an open file.
    pub(super) fn check(&self, kernel: &Kernel, who: Who) -> Answer<i32> {
        kernel.desc(who, self.fd).map(|_| self.fd)
    }

    fn is_still_it(&self, kernel: &Kernel, who: Who) -> bool {
        let is_it = |desc: Desc| kernel.descriptions[desc].ino == self.ino;
        kernel.desc(who, self.fd).is_ok_and(is_it)
    }
}

impl std::fmt::Display for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "file {} (descriptor {})", self.ino, self.fd)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if !is_inside() || !self.birth.is_here() {
            return;
        }
        step_with(Call::Close, || self.to_string());
        with(|world| {
            let who = world.who();
            if self.is_still_it(&world.kernel, who) {
                let _ = world.kernel.close(who, self.fd);
            }
        });
    }
}

/// A new file in `dir` that has no name yet, and nothing in it.
pub(crate) fn create_unnamed(dir: &Path, mode: u32) -> Result<File> {
    let fd = ask(Call::CreateUnnamed, "open", dir.display(), || {
        with(|world| world.kernel.open_unnamed(world.who(), dir, mode))
    })?;
    Ok(File::new(fd))
}

/// Gives a file all the pages of a range, or none.
pub(crate) fn allocate(file: &File, off: u64, len: u64) -> Result<()> {
    let free = with(|world| world.kernel.free_pages) * PAGE;
    let about = format_args!("{file} ({len} bytes needed, {free} free)");
    ask(Call::Allocate, "fallocate", about, || {
        with(|world| {
            let who = world.who();
            let fd = file.check(&world.kernel, who)?;
            world.kernel.allocate(who, fd, off, len)
        })
    })
}

/// Gives the pages of a range back; the file stays as long as it is.
pub(crate) fn punch(file: &File, off: u64, len: u64) -> Result<()> {
    ask(Call::Punch, "fallocate", file, || {
        with(|world| {
            let who = world.who();
            let fd = file.check(&world.kernel, who)?;
            world.kernel.punch(who, fd, off, len)
        })
    })
}

/// Gives a file without a name its name; `false` if something else has that name.
pub(crate) fn link_unnamed(file: &File, path: &Path) -> Result<bool> {
    ask(Call::Link, "linkat", path.display(), || {
        with(|world| {
            let who = world.who();
            let fd = file.check(&world.kernel, who)?;
            world.kernel.link(who, fd, path)
        })
    })
}

/// Opens the file of this name; `None` if nothing has it.
pub(crate) fn open(path: &Path, writable: bool) -> Result<Option<File>> {
    let fd = ask(Call::Open, "open", path.display(), || {
        with(|world| match world.kernel.open(world.who(), path, writable) {
            Err(libc::ENOENT) => Ok(None),
            opened => opened,
        })
    })?;
    let file = fd.map(File::new);
    if let Some(file) = &file {
        with(|world| {
            let process = world.who().process;
            // Whoever removes buses by hand does so to what it opens, whatever is unread there.
            if world.actor_mut(process).is_some_and(|actor| actor.may_remove) {
                world.ledger.excuse(file.ino);
            }
        });
    }
    Ok(file)
}

/// The facts of an open file.
pub(crate) fn facts(file: &File) -> Result<FileFacts> {
    ask(Call::Facts, "fstat", file, || {
        with(|world| {
            let desc = world.kernel.desc(world.who(), file.fd)?;
            Ok(facts_of(&world.kernel, world.kernel.descriptions[desc].ino))
        })
    })
}

/// The facts of whatever has this name; `None` if nothing has it.
pub(crate) fn facts_at(path: &Path) -> Result<Option<FileFacts>> {
    ask(Call::FactsAt, "lstat", path.display(), || {
        with(|world| {
            let who = world.who();
            world.kernel.note_look(who, path);
            match world.kernel.lookup(who, path) {
                Ok(found) => Ok(found.map(|ino| facts_of(&world.kernel, ino))),
                Err(libc::ENOENT) => Ok(None),
                Err(errno) => Err(errno),
            }
        })
    })
}

fn facts_of(kernel: &Kernel, ino: Ino) -> FileFacts {
    let inode = &kernel.inodes[ino];
    FileFacts {
        id: FileId { dev: DEVICE, ino: ino as u64 },
        size: inode.size,
        allocated: inode.pages.count() * PAGE,
        mode: inode.mode,
        uid: inode.uid,
        gid: inode.gid,
        links: inode.links,
        kind: match inode.node {
            Node::Regular => Kind::Regular,
            Node::Directory(_) => Kind::Directory,
            Node::Symlink => Kind::Symlink,
            Node::Fifo => Kind::Other,
        },
    }
}

/// So many bytes of a file from there on, or as many as it has.
pub(crate) fn read_at(file: &File, off: u64, len: usize) -> Result<Vec<u8>> {
    ask(Call::ReadAt, "pread", format_args!("{file} {off:#x}+{len:#x}"), || {
        with(|world| {
            let who = world.who();
            let fd = file.check(&world.kernel, who)?;
            world.kernel.read_at(who, fd, off, len)
        })
    })
}

/// Moves a name; `false`, and nothing done, if something has the new one.
pub(crate) fn rename_noreplace(from: &Path, to: &Path) -> Result<bool> {
    ask(Call::Rename, "renameat2", to.display(), || {
        with(|world| world.kernel.rename(world.who(), from, to))
    })
}

/// Removes a name; `false` if nothing has it.
pub(crate) fn unlink(path: &Path) -> Result<bool> {
    let gone = ask(Call::Unlink, "unlink", path.display(), || {
        with(|world| {
            world.check_removal(world.who().process, path);
            match world.kernel.unlink(world.who(), path) {
                Err(libc::ENOENT) => Ok(None),
                gone => gone,
            }
        })
    })?;
    Ok(gone.is_some())
}

/// All names in a directory.
pub(crate) fn names_in(dir: &Path) -> Result<Vec<OsString>> {
    let names = ask(Call::NamesIn, "readdir", dir.display(), || {
        with(|world| world.kernel.list(world.who(), dir))
    })?;
    Ok(names.into_iter().map(OsString::from).collect())
}
