//! Files in shared memory: made whole without a name, named in one step, opened without surprise.
//!
//! It must never follow a symbolic link at the end of a path, never block on a FIFO, never leave
//! a sparse file (its missing pages would be a SIGBUS much later), and never look inside.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{self, AT_FDCWD, AtFlags, FallocateFlags, OFlag};
use nix::sys::stat::{self, FileStat, Mode, SFlag};
use nix::sys::statvfs::fstatvfs;
use nix::{NixPath, unistd};

use super::{name_of, os_error, repeat};
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

/// The facts of an open file.
pub(crate) fn facts(fd: BorrowedFd<'_>) -> Result<FileFacts> {
    match repeat(|| stat::fstat(fd)) {
        Ok(stat) => Ok(stat.into()),
        Err(errno) => Err(os_error("fstat", name_of(fd), errno as i32)),
    }
}

/// The facts of whatever has this name, a symbolic link being itself; `None` if nothing has it.
pub(crate) fn facts_at(path: &Path) -> Result<Option<FileFacts>> {
    match repeat(|| stat::lstat(path)) {
        Ok(stat) => Ok(Some(stat.into())),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(path_error("lstat", path, errno)),
    }
}

/// The first `len` bytes of a file, or as many as it has.
pub(crate) fn read_start(fd: BorrowedFd<'_>, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match nix::sys::uio::pread(fd, &mut bytes[filled..], filled as i64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(os_error("pread", name_of(fd), errno as i32)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// A new file in `dir` that has no name yet, all of its `size` bytes allocated and zero, with
/// exactly the permissions `mode`.
pub(crate) fn create_unnamed(dir: &Path, size: u64, mode: u32) -> Result<OwnedFd> {
    if i64::try_from(size).is_err() {
        return Err(path_error("fallocate", dir, Errno::EFBIG));
    }
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let owner_only = Mode::S_IRUSR | Mode::S_IWUSR;
    let fd = repeat(|| fcntl::open(dir, flags, owner_only))
        .map_err(|errno| path_error("open", dir, errno))?;
    // Said again and not only at the creation, where the umask would take bits away.
    let exact = Mode::from_bits_truncate(mode as libc::mode_t);
    repeat(|| stat::fchmod(&fd, exact)).map_err(|errno| path_error("fchmod", dir, errno))?;
    allocate(&fd, size).map_err(|errno| path_error("fallocate", dir, errno))?;
    Ok(fd)
}

/// Gives an empty file all its pages, so that a full file system is met here and not in use.
fn allocate(fd: &OwnedFd, size: u64) -> nix::Result<()> {
    refuse_hopeless(fd, size)?;
    let mut done = 0;
    loop {
        let piece = (size - done).min(PIECE);
        let (from, len) = (done as libc::off_t, piece as libc::off_t);
        repeat(|| fcntl::fallocate(fd, FallocateFlags::empty(), from, len))?;
        done += piece;
        if done == size {
            return Ok(());
        }
    }
}

/// What can never fit must not fill the whole memory, piece by piece, before it fails.
// These fields have another width on other machines.
#[allow(clippy::unnecessary_cast)]
fn refuse_hopeless(fd: &OwnedFd, size: u64) -> nix::Result<()> {
    let room = repeat(|| fstatvfs(fd))?;
    let free = (room.blocks_available() as u64).saturating_mul(room.fragment_size() as u64);
    let limited = room.blocks() != 0; // a tmpfs may be without a limit
    if limited && size > free { Err(Errno::ENOSPC) } else { Ok(()) }
}

/// Gives a file without a name its name; `false` if something else has that name.
pub(crate) fn link_unnamed(fd: BorrowedFd<'_>, path: &Path) -> Result<bool> {
    let through_proc = format!("/proc/self/fd/{}", fd.as_raw_fd());
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
pub(crate) fn open(path: &Path, writable: bool) -> Result<Option<OwnedFd>> {
    let access = if writable { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let safely = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    match repeat(|| fcntl::open(path, access | safely, Mode::empty())) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(path_error("open", path, errno)),
    }
}

/// Moves a name, replacing what has the new one.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    repeat(|| fcntl::renameat(AT_FDCWD, from, AT_FDCWD, to))
        .map_err(|errno| path_error("rename", to, errno))
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
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

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
    fn a_new_file_is_whole_and_has_no_name() {
        let room = Room::new();
        let size = 2 * PIECE + 4096;
        let fd = create_unnamed(&room.0, size, 0o660).unwrap();
        let stat = stat::fstat(&fd).unwrap();
        assert!(stat.st_blocks as u64 * 512 >= size, "sparse: {} blocks", stat.st_blocks);
        let facts = facts(fd.as_fd()).unwrap();
        assert_eq!((facts.size, facts.mode, facts.links), (size, 0o660, 0));
        assert_eq!((facts.kind, facts.uid), (Kind::Regular, unistd::geteuid().as_raw()));
        assert!(names_in(&room.0).unwrap().is_empty());
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let dir = Path::new(SHM);
        assert_eq!(errno_of(create_unnamed(dir, i64::MAX as u64 + 1, 0o600)), libc::EFBIG);
        assert_eq!(errno_of(create_unnamed(dir, 0, 0o600)), libc::EINVAL);
        assert_eq!(errno_of(create_unnamed(dir, 1 << 60, 0o600)), libc::ENOSPC);
    }

    #[test]
    fn a_name_is_given_once() {
        let room = Room::new();
        let (first, second) =
            (create_unnamed(&room.0, 1, 0o600), create_unnamed(&room.0, 1, 0o600));
        let (first, second, path) = (first.unwrap(), second.unwrap(), room.at("name"));
        assert!(link_unnamed(first.as_fd(), &path).unwrap());
        assert!(!link_unnamed(second.as_fd(), &path).unwrap());
        let found = facts_at(&path).unwrap().unwrap();
        assert_eq!(found.id, facts(first.as_fd()).unwrap().id);
        assert_eq!(names_in(&room.0).unwrap(), ["name"]);
        let nowhere = room.at("missing/name");
        assert_eq!(errno_of(link_unnamed(second.as_fd(), &nowhere)), libc::ENOENT);
    }

    #[test]
    fn renaming_replaces_only_when_told() {
        let room = Room::new();
        let (a, b, c) = (room.at("a"), room.at("b"), room.at("c"));
        std::fs::write(&a, "a").unwrap();
        std::fs::write(&b, "b").unwrap();
        assert!(!rename_noreplace(&a, &b).unwrap());
        assert!(rename_noreplace(&a, &c).unwrap());
        rename(&c, &b).unwrap();
        assert_eq!(std::fs::read(&b).unwrap(), b"a");
        assert_eq!(facts_at(&c).unwrap(), None);
        assert_eq!(errno_of(rename(&c, &b)), libc::ENOENT);
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
        assert_eq!(facts(fifo.as_fd()).unwrap().kind, Kind::Other);
        assert_eq!(facts_at(&room.at("link")).unwrap().unwrap().kind, Kind::Symlink);
        assert_eq!(facts_at(&room.0).unwrap().unwrap().kind, Kind::Directory);
    }

    #[test]
    fn read_only_is_read_only() {
        let room = Room::new();
        std::fs::write(room.at("a"), "a").unwrap();
        let fd = open(&room.at("a"), false).unwrap().unwrap();
        assert_eq!(unistd::write(&fd, b"x"), Err(Errno::EBADF));
        let fd = open(&room.at("a"), true).unwrap().unwrap();
        assert_eq!(unistd::write(&fd, b"x"), Ok(1));
    }
}
