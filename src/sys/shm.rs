//! Files in shared memory: made whole without a name, named in one step, opened without surprise.
//!
//! It must never follow a symbolic link at the end of a path, never block on a FIFO, never leave
//! a sparse file (its missing pages would be a SIGBUS much later), and never look inside. And it
//! must never use or close a descriptor without looking whether the number still is this file: a
//! host program may close all that it did not open itself, and open something else.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{self, AT_FDCWD, AtFlags, FallocateFlags, OFlag};
use nix::sys::stat::{self, FileStat, Mode, SFlag};
use nix::sys::statvfs::fstatvfs;
use nix::{NixPath, unistd};

use super::fork::{self, Birth, Listed};
use super::{os_error, repeat};
use crate::error::{Error, Result};

/// How much is allocated in one call. tmpfs undoes an interrupted call completely, so one call for
/// the whole of a large file might never end under a fast timer signal; pieces do.
const PIECE: u64 = 8 << 20;

/// Which file, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    /// The device of its file system.
    pub dev: u64,
    /// Its number there.
    pub ino: u64,
}

/// What kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A plain file, the only kind a segment may be.
    Regular,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A FIFO, a socket or a device.
    Other,
}

/// What the kernel knows about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileFacts {
    /// Which file it is.
    pub id: FileId,
    /// Its length in bytes.
    pub size: u64,
    /// How many bytes of memory it takes.
    pub allocated: u64,
    /// Its permission bits, without the kind.
    pub mode: u32,
    /// The user who owns it.
    pub uid: u32,
    /// The group that owns it.
    pub gid: u32,
    /// How many names it has.
    pub links: u64,
    /// Its kind.
    pub kind: Kind,
}

impl From<FileStat> for FileFacts {
    // The widths of these fields differ between machines: a cast here is lossless there.
    #[allow(clippy::unnecessary_cast)]
    fn from(stat: FileStat) -> Self {
        FileFacts {
            id: FileId { dev: stat.st_dev as u64, ino: stat.st_ino as u64 },
            size: stat.st_size as u64,
            allocated: stat.st_blocks as u64 * 512, // whatever the size of a block
            mode: stat.st_mode as u32 & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            links: stat.st_nlink as u64,
            kind: kind_of(stat.st_mode),
        }
    }
}

fn kind_of(mode: libc::mode_t) -> Kind {
    match SFlag::from_bits_truncate(mode & libc::S_IFMT) {
        SFlag::S_IFREG => Kind::Regular,
        SFlag::S_IFLNK => Kind::Symlink,
        SFlag::S_IFDIR => Kind::Directory,
        _ => Kind::Other,
    }
}

// --- an open file ---------------------------------------------------------------------------

/// A file that is open for a moment: as long as it takes to lock, map and look at it. Closed when
/// dropped, and in every forked child at once.
#[derive(Debug)]
pub(crate) struct File {
    fd: RawFd,
    id: FileId,
    birth: Birth,
    path: PathBuf,
}

impl File {
    /// Opens and lists it in one step, so that no child is forked in between.
    fn open(path: &Path, flags: OFlag) -> nix::Result<File> {
        let mut hold = fork::hold();
        let owner_only = Mode::S_IRUSR | Mode::S_IWUSR;
        let fd = repeat(|| fcntl::open(path, flags | OFlag::O_CLOEXEC, owner_only))?;
        let fd = beyond_standard(fd)?;
        let id = FileFacts::from(repeat(|| stat::fstat(&fd))?).id;
        let file = File { fd: fd.into_raw_fd(), id, birth: Birth::now(), path: path.to_owned() };
        hold.list(file.listed());
        Ok(file)
    }

    fn listed(&self) -> Listed {
        Listed { fd: self.fd, dev: self.id.dev, ino: self.id.ino }
    }

    /// Which file it is.
    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// What to call it in an error: where it was opened or, without a name, made.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// That `operation` on it failed.
    pub(super) fn error(&self, operation: &'static str, errno: Errno) -> Error {
        os_error(operation, self.name(), errno as i32)
    }

    /// Its descriptor; an error if the number is not this file any more.
    pub(super) fn fd(&self) -> Result<BorrowedFd<'_>> {
        self.look().map(|(fd, _)| fd)
    }

    fn look(&self) -> Result<(BorrowedFd<'_>, FileFacts)> {
        // SAFETY: at worst it is another file's number, or none's; then only this call sees it.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd) };
        match repeat(|| stat::fstat(fd)).map(FileFacts::from) {
            Ok(facts) if self.birth.is_here() && facts.id == self.id => Ok((fd, facts)),
            Ok(_) => Err(self.error("fstat", Errno::EBADF)),
            Err(errno) => Err(self.error("fstat", errno)),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // In a child the list has closed it, and the number may be another handle's.
        if self.birth.is_here() {
            let mut hold = fork::hold();
            hold.unlist(self.listed());
            self.listed().close();
        }
    }
}

/// Moves a descriptor out of the three standard places. A host that closed them may still print, and
/// would print into the file.
fn beyond_standard(fd: OwnedFd) -> nix::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    const FIRST: RawFd = 3;
    if fd.as_raw_fd() >= FIRST {
        return Ok(fd);
    }
    let moved = repeat(|| fcntl::fcntl(&fd, fcntl::FcntlArg::F_DUPFD_CLOEXEC(FIRST)))?;
    // SAFETY: just made, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(moved) })
}

/// The facts of an open file.
pub(crate) fn facts(file: &File) -> Result<FileFacts> {
    file.look().map(|(_, facts)| facts)
}

/// The facts of whatever has this name, a symbolic link being itself; `None` if nothing has it.
pub(crate) fn facts_at(path: &Path) -> Result<Option<FileFacts>> {
    match repeat(|| stat::lstat(path)) {
        Ok(stat) => Ok(Some(stat.into())),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(path_error("lstat", path, errno)),
    }
}

/// The `len` bytes of a file from `off` on, or as many as it has.
pub(crate) fn read_at(file: &File, off: u64, len: usize) -> Result<Vec<u8>> {
    let fd = file.fd()?;
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        let at = off.checked_add(filled as u64).and_then(|at| i64::try_from(at).ok());
        let at = at.ok_or_else(|| file.error("pread", Errno::EOVERFLOW))?;
        match nix::sys::uio::pread(fd, &mut bytes[filled..], at) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(file.error("pread", errno)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// A new file in `dir` that has no name yet and no bytes, with exactly the permissions `mode`.
pub(crate) fn create_unnamed(dir: &Path, mode: u32) -> Result<File> {
    let file = File::open(dir, OFlag::O_TMPFILE | OFlag::O_RDWR)
        .map_err(|errno| path_error("open", dir, errno))?;
    // Said again and not only at the creation, where the umask would take bits away.
    let exact = Mode::from_bits_truncate(mode as libc::mode_t);
    let fd = file.fd()?;
    repeat(|| stat::fchmod(fd, exact)).map_err(|errno| file.error("fchmod", errno))?;
    Ok(file)
}

// --- its memory -----------------------------------------------------------------------------

/// Gives these bytes all their pages, so that a full file system is met here and not in use, and
/// makes the file long enough for them. What they held must not be needed any more: if there is no
/// room for all of them, they are all given back and the file stays as long as it was.
pub(crate) fn allocate(file: &File, off: u64, len: u64) -> Result<()> {
    let (fd, facts) = file.look()?;
    let end = off.checked_add(len).filter(|&end| i64::try_from(end).is_ok());
    let end = end.ok_or_else(|| refused(file, len, Errno::EFBIG, None))?;
    // The kernel would say it with a signal that kills, SIGXFSZ.
    if let Some(limit) = file_size_limit().filter(|&limit| end > facts.size && end > limit) {
        return Err(refused(file, len, Errno::EFBIG, Some(format!("a limit of {limit}"))));
    }
    if let Some(free) = free_bytes(fd).filter(|&free| len > free) {
        // What can never fit must not fill the whole memory, piece by piece, before it fails.
        return Err(refused(file, len, Errno::ENOSPC, Some(format!("{free} free"))));
    }
    allocate_pieces(fd, off, end).map_err(|errno| give_back(file, off, len, errno))
}

/// What was allocated before `errno` came; the error for it.
fn give_back(file: &File, off: u64, len: u64, errno: Errno) -> Error {
    let _ = punch(file, off, len); // fails only where nothing can be done about it
    let free = file.fd().ok().and_then(free_bytes).map(|free| format!("{free} free"));
    refused(file, len, errno, free)
}

fn allocate_pieces(fd: BorrowedFd<'_>, off: u64, end: u64) -> nix::Result<()> {
    let call = |flags, from: u64, len: u64| {
        repeat(|| fcntl::fallocate(fd, flags, from as libc::off_t, len as libc::off_t))
    };
    let mut done = off;
    loop {
        let piece = (end - done).min(PIECE);
        call(FallocateFlags::FALLOC_FL_KEEP_SIZE, done, piece)?;
        done += piece;
        if done == end {
            break;
        }
    }
    // The length last, so that no byte within it is ever without its page.
    call(FallocateFlags::empty(), end - 1, 1)
}

fn refused(file: &File, len: u64, errno: Errno, room: Option<String>) -> Error {
    let room = room.map_or(String::new(), |room| format!(", {room}"));
    let object = format!("{} ({len} bytes needed{room})", file.path.display());
    os_error("fallocate", object, errno as i32)
}

/// How long a file of this process may become.
// The field has another width on other machines.
#[allow(clippy::unnecessary_cast)]
fn file_size_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes the record, which lives across it.
    let asked = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    (asked == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur as u64)
}

/// How many bytes the file system has left; `None` if that is not known, or has no end.
// These fields have another width on other machines.
#[allow(clippy::unnecessary_cast)]
fn free_bytes(fd: BorrowedFd<'_>) -> Option<u64> {
    let room = repeat(|| fstatvfs(fd)).ok()?;
    let free = (room.blocks_available() as u64).saturating_mul(room.fragment_size() as u64);
    (room.blocks() != 0).then_some(free) // a tmpfs may be without a limit
}

/// Gives the pages of these bytes back; they read as zeros then. The length stays.
pub(crate) fn punch(file: &File, off: u64, len: u64) -> Result<()> {
    let place = libc::off_t::try_from(off).ok().zip(libc::off_t::try_from(len).ok());
    let (from, len) = place.ok_or_else(|| file.error("fallocate", Errno::EFBIG))?;
    let (fd, hole) =
        (file.fd()?, FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE);
    repeat(|| fcntl::fallocate(fd, hole, from, len)).map_err(|errno| file.error("fallocate", errno))
}

// --- names ----------------------------------------------------------------------------------

/// Gives a file without a name its name; `false` if something else has that name.
pub(crate) fn link_unnamed(file: &File, path: &Path) -> Result<bool> {
    let fd = file.fd()?;
    // Not `/proc/self`, which shows the main thread's descriptors: this thread may have its own.
    let through_proc = format!("/proc/thread-self/fd/{}", fd.as_raw_fd());
    let follow = AtFlags::AT_SYMLINK_FOLLOW;
    let linked =
        match repeat(|| unistd::linkat(AT_FDCWD, through_proc.as_str(), AT_FDCWD, path, follow)) {
            // Without /proc. Second choice, because many kernels allow it only to root.
            Err(Errno::ENOENT) => {
                repeat(|| unistd::linkat(fd, "", AT_FDCWD, path, AtFlags::AT_EMPTY_PATH))
            }
            linked => linked,
        };
    unless(linked, Errno::EEXIST).map_err(|errno| path_error("linkat", path, errno))
}

/// Opens the file of this name; `None` if nothing has it. What it is must still be looked at.
pub(crate) fn open(path: &Path, writable: bool) -> Result<Option<File>> {
    let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let safely = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    match File::open(path, access | safely) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(path_error("open", path, errno)),
    }
}

/// Opens what a link of `/proc` leads to.
#[cfg(test)]
pub(super) fn open_through(path: &Path, writable: bool) -> File {
    let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    File::open(path, access).expect("it opens")
}

/// Moves a name; `false`, and nothing done, if something has the new one.
pub(crate) fn rename_noreplace(from: &Path, to: &Path) -> Result<bool> {
    let renamed = repeat(|| renameat2_noreplace(from, to));
    unless(renamed, Errno::EEXIST).map_err(|errno| path_error("renameat2", to, errno))
}

/// The bare call, because not every C library has a function for it.
fn renameat2_noreplace(from: &Path, to: &Path) -> nix::Result<()> {
    let (here, keep) = (libc::AT_FDCWD, libc::RENAME_NOREPLACE);
    let result = from.with_nix_path(|from| {
        to.with_nix_path(|to| {
            let (from, to) = (from.as_ptr(), to.as_ptr());
            // SAFETY: both paths end in NUL and live across the call, which only reads them.
            unsafe { libc::syscall(libc::SYS_renameat2, here, from, here, to, keep) }
        })
    })??;
    Errno::result(result).map(drop)
}

/// Removes a name; `false` if nothing has it.
pub(crate) fn unlink(path: &Path) -> Result<bool> {
    unless(repeat(|| unistd::unlink(path)), Errno::ENOENT)
        .map_err(|errno| path_error("unlink", path, errno))
}

/// All names in a directory.
pub(crate) fn names_in(dir: &Path) -> Result<Vec<OsString>> {
    let names = std::fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    names.map_err(|error: io::Error| {
        os_error("readdir", dir.display(), error.raw_os_error().unwrap_or(libc::EIO))
    })
}

/// Whether it was done; the one `expected` refusal is an answer, not an error.
fn unless(done: nix::Result<()>, expected: Errno) -> nix::Result<bool> {
    match done {
        Ok(()) => Ok(true),
        Err(errno) if errno == expected => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn path_error(operation: &'static str, path: &Path, errno: Errno) -> Error {
    os_error(operation, path.display(), errno as i32)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::signal::{self, SigHandler, Signal};

    use super::super::testing::{bare_child_agrees, child_agrees, give_number, unnamed};
    use super::*;

    const SHM: &str = "/dev/shm";

    /// A directory of this test's own, gone at its end.
    struct Room(PathBuf);

    impl Room {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = PathBuf::from(format!("{SHM}/sys_shm_{}_{number}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Room(path)
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn errno_of<T>(result: Result<T>) -> i32 {
        match result {
            Err(Error::Os { errno, .. }) => errno,
            Err(other) => panic!("not of the system: {other}"),
            Ok(_) => 0,
        }
    }

    #[test]
    fn a_new_file_is_empty_and_has_no_name() {
        let room = Room::new();
        let file = create_unnamed(&room.0, 0o660).unwrap();
        let facts = facts(&file).unwrap();
        assert_eq!((facts.size, facts.allocated), (0, 0));
        assert_eq!((facts.mode, facts.links), (0o660, 0));
        assert_eq!((facts.kind, facts.uid), (Kind::Regular, unistd::geteuid().as_raw()));
        assert!(names_in(&room.0).unwrap().is_empty());
    }

    #[test]
    fn what_is_allocated_is_there_and_what_is_punched_is_not() {
        let file = create_unnamed(SHM.as_ref(), 0o600).unwrap();
        let first = 2 * PIECE + 4096;
        allocate(&file, 0, first).unwrap();
        allocate(&file, first, 4096).unwrap();
        let whole = facts(&file).unwrap();
        assert_eq!(whole.size, first + 4096);
        assert!(whole.allocated >= whole.size, "sparse: {} bytes", whole.allocated);
        unistd::write(file.fd().unwrap(), b"x").unwrap();
        punch(&file, 0, first).unwrap();
        let rest = facts(&file).unwrap();
        assert_eq!((rest.size, rest.allocated), (whole.size, 4096));
        assert_eq!(read_at(&file, 0, 3).unwrap(), [0; 3]);
        assert_eq!(read_at(&file, whole.size - 2, 10).unwrap(), [0; 2], "the file ends there");
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let file = create_unnamed(SHM.as_ref(), 0o600).unwrap();
        assert_eq!(errno_of(allocate(&file, 4096, i64::MAX as u64)), libc::EFBIG);
        assert_eq!(errno_of(allocate(&file, u64::MAX, 1)), libc::EFBIG);
        assert_eq!(errno_of(allocate(&file, 0, 0)), libc::EINVAL);
        let Err(Error::Os { object, errno, .. }) = allocate(&file, 0, 1 << 60) else {
            panic!("that much room");
        };
        assert_eq!(errno, libc::ENOSPC);
        let free = free_bytes(file.fd().unwrap()).map(|free| free.to_string().len());
        let said = object.strip_prefix("/dev/shm (1152921504606846976 bytes needed, ");
        let said = said.and_then(|rest| rest.strip_suffix(" free)")).expect(&object);
        assert!(said.len().abs_diff(free.unwrap()) <= 1, "{object}");
    }

    /// Runs `check` in a child that has a tmpfs of its own, mounted with `options`, at `/dev/shm`.
    fn with_tmpfs(options: &std::ffi::CStr, check: impl FnOnce() -> bool) -> bool {
        child_agrees(|| {
            let (none, shm, kind) = (c"none".as_ptr(), c"/dev/shm".as_ptr(), c"tmpfs".as_ptr());
            let private = libc::MS_REC | libc::MS_PRIVATE;
            // SAFETY: the child alone sees what it mounts; all strings end in NUL.
            let mounted = unsafe {
                (libc::unshare(libc::CLONE_NEWNS) == 0
                    || libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) == 0)
                    && libc::mount(none, c"/".as_ptr(), none, private, std::ptr::null()) == 0
                    && libc::mount(none, shm, kind, 0, options.as_ptr().cast()) == 0
            };
            !mounted || check() // where nobody may mount there is nothing to try
        })
    }

    #[test]
    fn a_small_file_system_gets_back_what_was_too_much() {
        assert!(with_tmpfs(c"size=20m", || {
            let file = create_unnamed(SHM.as_ref(), 0o600).unwrap();
            let refused = allocate(&file, 0, 24 << 20).unwrap_err();
            let said = "/dev/shm (25165824 bytes needed, 20971520 free)";
            assert_eq!(refused, os_error("fallocate", said, libc::ENOSPC));
            assert_eq!(facts(&file).unwrap().allocated, 0, "nothing was tried");
            // The way it goes when somebody else takes the room meanwhile.
            let tried = allocate_pieces(file.fd().unwrap(), 0, 24 << 20);
            let refused = give_back(&file, 0, 24 << 20, tried.unwrap_err());
            assert_eq!(refused, os_error("fallocate", said, libc::ENOSPC));
            let facts = facts(&file).unwrap();
            (facts.size, facts.allocated) == (0, 0) && allocate(&file, 0, 20 << 20).is_ok()
        }));
    }

    #[test]
    fn a_file_system_without_a_limit_is_not_full() {
        assert!(with_tmpfs(c"size=0", || {
            let file = create_unnamed(SHM.as_ref(), 0o600).unwrap();
            free_bytes(file.fd().unwrap()).is_none() && allocate(&file, 0, 1 << 20).is_ok()
        }));
    }

    /// A limit on the size of files is an error, not the signal that kills.
    #[test]
    fn a_limit_of_the_process_is_an_error() {
        let file = unnamed(8192);
        assert!(child_agrees(|| {
            let file = again_in_child(&file);
            // SAFETY: the default action, which is to kill.
            unsafe { signal::signal(Signal::SIGXFSZ, SigHandler::SigDfl) }.unwrap();
            let limit = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
            // SAFETY: reads the record, which lives across the call.
            unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) };
            errno_of(allocate(&file, 8192, 4096)) == libc::EFBIG
                && errno_of(allocate(&file, 0, 8192)) == 0
        }));
    }

    /// The parent's handle does nothing in a child, which has closed it.
    fn again_in_child(file: &File) -> File {
        assert_eq!(errno_of(facts(file)), libc::EBADF);
        let file = create_unnamed(SHM.as_ref(), 0o600).unwrap();
        allocate(&file, 0, 8192).unwrap();
        file
    }

    #[test]
    fn a_name_is_given_once() {
        let room = Room::new();
        let (first, second) =
            (create_unnamed(&room.0, 0o600).unwrap(), create_unnamed(&room.0, 0o600).unwrap());
        let path = room.at("name");
        assert!(link_unnamed(&first, &path).unwrap());
        assert!(!link_unnamed(&second, &path).unwrap());
        let found = facts_at(&path).unwrap().unwrap();
        assert_eq!(found.id, facts(&first).unwrap().id);
        assert_eq!(names_in(&room.0).unwrap(), ["name"]);
        let nowhere = room.at("missing/name");
        assert_eq!(errno_of(link_unnamed(&second, &nowhere)), libc::ENOENT);
    }

    fn is_open(fd: RawFd) -> bool {
        // SAFETY: asks only whether the number is in use.
        unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
    }

    #[test]
    fn a_file_is_closed_when_dropped_and_in_children() {
        // In a child, where no other test takes the number.
        assert!(child_agrees(|| {
            let file = unnamed(4096);
            let fd = file.fd;
            let not_in_child = child_agrees(|| !is_open(fd));
            drop(file);
            not_in_child && !is_open(fd)
        }));
    }

    /// A host closed every descriptor, ours too, and opened a file of its own, which got the number.
    #[test]
    fn a_number_that_the_host_uses_now_is_left_alone() {
        let (file, hosts) = (unnamed(4096), std::fs::File::open("/").unwrap());
        let fd = file.fd;
        give_number(&hosts, fd);
        let errors = [allocate(&file, 0, 4096), punch(&file, 0, 4096), facts(&file).map(drop)];
        for refused in errors {
            assert_eq!(errno_of(refused), libc::EBADF);
        }
        assert_eq!(errno_of(super::super::map::Mapping::shared(&file, 0, 4096, true)), libc::EBADF);
        assert_eq!(errno_of(link_unnamed(&file, "/dev/shm/never".as_ref())), libc::EBADF);
        assert!(child_agrees(|| is_open(fd)), "the child keeps it");
        drop(file);
        assert!(is_open(fd), "the host keeps it");
        unistd::close(fd).unwrap();
    }

    #[test]
    fn the_parents_file_does_nothing_in_a_child() {
        let room = Room::new();
        let path = room.at("name");
        std::fs::write(&path, "").unwrap();
        assert!(child_agrees(|| {
            let mut file = std::mem::ManuallyDrop::new(open(&path, true).unwrap().unwrap());
            assert!(bare_child_agrees(|| errno_of(facts(&file)) == libc::EBADF));
            child_agrees(|| {
                // The same file again, with the number that the parent's had.
                let own = open(&path, true).unwrap().unwrap();
                // SAFETY: once in this process, which then ends.
                unsafe { std::mem::ManuallyDrop::drop(&mut file) };
                own.fd == file.fd && is_open(own.fd)
            })
        }));
    }

    /// A daemon closes them, and its prints must not go into a bus.
    #[test]
    fn the_standard_numbers_are_never_used() {
        assert!(child_agrees(|| {
            for fd in 0..3 {
                // SAFETY: this child does not use them.
                unsafe { libc::close(fd) };
            }
            let file = unnamed(4096);
            file.fd >= 3 && !(0..3).any(is_open) && errno_of(facts(&file)) == 0
        }));
    }

    /// The main thread has another file under the same number.
    #[test]
    fn a_thread_with_descriptors_of_its_own_names_its_own_file() {
        let room = Room::new();
        let path = room.at("name");
        assert!(child_agrees(|| {
            let hosts = unnamed(4096);
            let named = || {
                assert!(super::super::thread::own_descriptors());
                let mut files = vec![create_unnamed(&room.0, 0o600).unwrap()];
                while files.last().unwrap().fd != hosts.fd {
                    files.push(create_unnamed(&room.0, 0o600).unwrap());
                }
                let file = files.last().unwrap();
                link_unnamed(file, &path).unwrap()
                    && facts_at(&path).unwrap().unwrap().id == file.id
            };
            std::thread::scope(|scope| scope.spawn(named).join().unwrap())
        }));
    }

    #[test]
    fn renaming_replaces_nothing() {
        let room = Room::new();
        let (a, b, c) = (room.at("a"), room.at("b"), room.at("c"));
        std::fs::write(&a, "a").unwrap();
        std::fs::write(&b, "b").unwrap();
        assert!(!rename_noreplace(&a, &b).unwrap());
        assert!(rename_noreplace(&a, &c).unwrap());
        assert_eq!(
            (std::fs::read(&c).unwrap(), std::fs::read(&b).unwrap()),
            (b"a".into(), b"b".into())
        );
        assert_eq!(facts_at(&a).unwrap(), None);
        assert_eq!(errno_of(rename_noreplace(&a, &c)), libc::ENOENT);
    }

    #[test]
    fn removing_says_whether_it_was_there() {
        let room = Room::new();
        std::fs::write(room.at("a"), "").unwrap();
        assert!(unlink(&room.at("a")).unwrap());
        assert!(!unlink(&room.at("a")).unwrap());
    }

    #[test]
    fn opening_neither_follows_nor_hangs() {
        let room = Room::new();
        assert!(open(&room.at("a"), true).unwrap().is_none());
        std::fs::write(room.at("a"), "a").unwrap();
        symlink(room.at("a"), room.at("link")).unwrap();
        let refused = open(&room.at("link"), true).unwrap_err();
        assert_eq!(refused, path_error("open", &room.at("link"), Errno::ELOOP));
        unistd::mkfifo(&room.at("fifo"), Mode::S_IRWXU).unwrap();
        let fifo = open(&room.at("fifo"), false).unwrap().unwrap();
        assert_eq!(facts(&fifo).unwrap().kind, Kind::Other);
        assert_eq!(facts_at(&room.at("link")).unwrap().unwrap().kind, Kind::Symlink);
        assert_eq!(facts_at(&room.0).unwrap().unwrap().kind, Kind::Directory);
    }

    #[test]
    fn read_only_is_read_only() {
        let room = Room::new();
        std::fs::write(room.at("a"), "a").unwrap();
        let file = open(&room.at("a"), false).unwrap().unwrap();
        assert_eq!(unistd::write(file.fd().unwrap(), b"x"), Err(Errno::EBADF));
        let file = open(&room.at("a"), true).unwrap().unwrap();
        assert_eq!(unistd::write(file.fd().unwrap(), b"x"), Ok(1));
    }
}
