//! What the simulated kernel knows: files, descriptors, locks, mappings and processes.
//!
//! Plain data and functions that change it; nothing here waits, refuses at random or knows of
//! schedules. Where Linux has a rule that the library leans on, it is here and only here, and
//! `tests/kernel.rs` holds it against the real one.
//!
//! ```text
//!   process -> table -> descriptor -> description -> inode -> buffer (memory that never moves)
//!   process -> mapping ---------------^    `- locks
//! ```

mod files;
mod locks;
mod memory;

use std::collections::BTreeMap;

pub(super) use memory::{Access, Fault, PAGE, Pages, place_of, prepare};

/// An index into [`Kernel::inodes`]; never used twice in a schedule.
pub(super) type Ino = usize;
/// An index into [`Kernel::descriptions`].
pub(super) type Desc = usize;
/// An index into [`Kernel::tables`].
pub(super) type TableId = usize;
/// An index into [`Kernel::processes`].
pub(super) type ProcessId = usize;

/// The descriptors that a program has open besides ours.
const FIRST_FD: i32 = 3;

/// What a file is.
pub(super) enum Node {
    Regular,
    /// Its names, in the order of the names.
    Directory(BTreeMap<String, Ino>),
    Symlink,
    Fifo,
}

pub(super) struct Inode {
    pub node: Node,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u64,
    pub size: u64,
    /// The longest that it ever was.
    pub extent: u64,
    /// The pages that it has.
    pub pages: Pages,
    /// Where its bytes are, for a regular file.
    pub buffer: Option<usize>,
    /// Open descriptions.
    pub refs: usize,
    pub locks: Vec<Lock>,
    /// Made by an actor that is not the library.
    pub is_foreign: bool,
    /// When it got its present name, and whether it ever had one.
    pub named_at: u64,
    pub was_named: bool,
}

/// A lock of an open file description on a range of bytes.
#[derive(Clone, Copy)]
pub(super) struct Lock {
    pub from: u64,
    pub to: u64,
    pub owner: Desc,
    pub is_shared: bool,
}

pub(super) struct Description {
    pub ino: Ino,
    pub is_writable: bool,
    /// Descriptors and mappings.
    pub refs: usize,
}

/// A descriptor.
#[derive(Clone, Copy)]
pub(super) struct Fd {
    pub desc: Desc,
    /// On the list of what a forked child closes.
    pub is_listed: bool,
}

#[derive(Default)]
pub(super) struct Table {
    pub fds: BTreeMap<i32, Fd>,
}

#[derive(Clone, Copy)]
pub(super) struct Map {
    /// Tells mappings apart that were at the same place.
    pub serial: u64,
    pub desc: Desc,
    pub ino: Ino,
    pub off: u64,
    pub len: u64,
    pub is_writable: bool,
    /// Watched over by a guard, and whether a page was missing.
    pub guard: Option<bool>,
}

/// How a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    Running,
    Stopped,
    /// No instruction of it runs any more, but what it holds is not given back yet.
    Dying,
    Dead,
}

pub(super) struct Process {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    pub started: u64,
    pub life: Life,
    pub table: TableId,
    /// Tables of threads that have their own.
    pub own_tables: Vec<TableId>,
    pub maps: Vec<Map>,
    /// The most descriptors of one table.
    pub fd_limit: usize,
    pub is_registered: bool,
    pub is_barrier_forbidden: bool,
    pub has_pidfds: bool,
    /// In a pid namespace of its own.
    pub is_contained: bool,
    /// What [`super::sys::process::Local`] keeps: the address of the static, and that of the value.
    pub locals: BTreeMap<usize, usize>,
    /// Made by a fork, of which process.
    pub parent: Option<ProcessId>,
    /// Does what the library does not: what it plants is foreign.
    pub is_foreign: bool,
    /// When it last looked at what is under a name.
    pub looked_at: BTreeMap<String, u64>,
}

/// Who asks for something, and in which table its descriptors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Who {
    pub process: ProcessId,
    pub table: TableId,
}

pub(super) struct Kernel {
    pub inodes: Vec<Inode>,
    pub descriptions: Vec<Description>,
    pub tables: Vec<Table>,
    pub processes: Vec<Process>,
    /// Directories by their path.
    pub directories: BTreeMap<String, Ino>,
    /// Pages that are free; none of it is counted if the file system has no limit.
    pub free_pages: u64,
    /// The file system is mounted read-only from now on.
    pub is_read_only: bool,
    pub has_barrier: bool,
    /// Counts mappings.
    serial: u64,
    next_pid: u32,
    buffers: usize,
    /// Those of files that are gone.
    free_buffers: Vec<usize>,
    /// What no correct program does; the first one ends the schedule.
    pub crime: Option<String>,
    /// Counts what happens, for [`Inode::named_at`].
    pub now: u64,
}

/// An answer, or the number of the error.
pub(super) type Answer<T> = Result<T, i32>;

impl Kernel {
    pub fn new(free_pages: u64) -> Kernel {
        Kernel {
            inodes: Vec::new(),
            descriptions: Vec::new(),
            tables: Vec::new(),
            processes: Vec::new(),
            directories: BTreeMap::new(),
            free_pages,
            is_read_only: false,
            has_barrier: true,
            serial: 0,
            next_pid: 1000,
            buffers: 0,
            free_buffers: Vec::new(),
            crime: None,
            now: 0,
        }
    }

    /// Notes what no correct program does.
    pub fn accuse(&mut self, crime: impl FnOnce() -> String) {
        if self.crime.is_none() {
            self.crime = Some(crime());
        }
    }

    // --- processes ----------------------------------------------------------------------------

    /// A process of this user, with the number `pid` if that is free.
    pub fn spawn(&mut self, uid: u32, gid: u32, pid: Option<u32>) -> ProcessId {
        let is_taken = |pid| {
            self.processes.iter().any(|process| process.pid == pid && process.life != Life::Dead)
        };
        let pid = pid.filter(|&pid| !is_taken(pid)).unwrap_or_else(|| {
            self.next_pid += 1;
            self.next_pid
        });
        let table = self.new_table();
        self.processes.push(Process {
            pid,
            uid,
            gid,
            started: self.now,
            life: Life::Running,
            table,
            own_tables: Vec::new(),
            maps: Vec::new(),
            fd_limit: 64,
            is_registered: false,
            is_barrier_forbidden: false,
            has_pidfds: true,
            is_contained: false,
            locals: BTreeMap::new(),
            parent: None,
            is_foreign: false,
            looked_at: BTreeMap::new(),
        });
        self.processes.len() - 1
    }

    /// A child of the caller. A bare one runs no handlers, so it keeps every descriptor.
    pub fn fork(&mut self, who: Who, is_bare: bool) -> ProcessId {
        let parent = &self.processes[who.process];
        let (uid, gid, fd_limit) = (parent.uid, parent.gid, parent.fd_limit);
        let child = self.spawn(uid, gid, None);
        let table = self.processes[child].table;
        let fds: Vec<(i32, Fd)> = self.tables[who.table]
            .fds
            .iter()
            .filter(|(_, fd)| is_bare || !fd.is_listed)
            .map(|(&number, &fd)| (number, fd))
            .collect();
        for (number, fd) in fds {
            self.descriptions[fd.desc].refs += 1;
            self.tables[table].fds.insert(number, fd);
        }
        let process = &mut self.processes[child];
        (process.parent, process.fd_limit) = (Some(who.process), fd_limit);
        child
    }

    pub fn new_table(&mut self) -> TableId {
        self.tables.push(Table::default());
        self.tables.len() - 1
    }

    /// Gives back one thing that a dying process holds. False when there is none left, and the
    /// process is dead.
    pub fn reap_one(&mut self, process: ProcessId) -> bool {
        if let Some(map) = self.processes[process].maps.pop() {
            self.release(map.desc);
            return true;
        }
        let own = &self.processes[process];
        let tables = own.own_tables.iter().copied().chain([own.table]);
        for table in tables.collect::<Vec<_>>() {
            if let Some((_, fd)) = self.tables[table].fds.pop_first() {
                self.release(fd.desc);
                return true;
            }
        }
        self.processes[process].life = Life::Dead;
        false
    }

    // --- descriptors --------------------------------------------------------------------------

    /// A descriptor for a new description of the file.
    fn open_ino(&mut self, who: Who, ino: Ino, is_writable: bool) -> Answer<i32> {
        let limit = self.processes[who.process].fd_limit;
        if self.tables[who.table].fds.len() >= limit {
            return Err(libc::EMFILE);
        }
        self.inodes[ino].refs += 1;
        self.descriptions.push(Description { ino, is_writable, refs: 1 });
        let fds = &mut self.tables[who.table].fds;
        let number = (FIRST_FD..).find(|number| !fds.contains_key(number)).expect("a number");
        let desc = self.descriptions.len() - 1;
        fds.insert(number, Fd { desc, is_listed: true });
        Ok(number)
    }

    /// The description behind a descriptor.
    pub fn desc(&self, who: Who, fd: i32) -> Answer<Desc> {
        self.tables[who.table].fds.get(&fd).map(|fd| fd.desc).ok_or(libc::EBADF)
    }

    pub fn close(&mut self, who: Who, fd: i32) -> Answer<()> {
        let closed = self.tables[who.table].fds.remove(&fd).ok_or(libc::EBADF)?;
        self.release(closed.desc);
        Ok(())
    }

    /// One descriptor or mapping less.
    fn release(&mut self, desc: Desc) {
        let description = &mut self.descriptions[desc];
        description.refs -= 1;
        if description.refs > 0 {
            return;
        }
        let ino = description.ino;
        let inode = &mut self.inodes[ino];
        inode.locks.retain(|lock| lock.owner != desc);
        inode.refs -= 1;
        self.free_if_unused(ino);
    }

    fn free_if_unused(&mut self, ino: Ino) {
        let inode = &mut self.inodes[ino];
        if inode.refs == 0 && inode.links == 0 {
            self.free_pages += inode.pages.count();
            inode.pages = Pages::default();
            memory::clear(inode, 0, inode.extent.max(inode.size));
            // Nobody has mapped it, so nobody knows the address.
            self.free_buffers.extend(self.inodes[ino].buffer.take());
        }
    }
}
