//! Memory that processes share beside the bus, and directories that vanish.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A page of counters that children can share with their parent.
pub struct Board {
    file: File,
    cells: NonNull<AtomicU64>,
}

const CELLS: usize = 512;

// SAFETY: what is shared is atomics in a mapping that lives as long as the board.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
    pub fn new() -> Board {
        // SAFETY: the name is a string that ends in NUL.
        let fd = unsafe { libc::memfd_create(c"board".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "no memory file");
        // SAFETY: just made, and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(4096).expect("a page");
        Board::map(file)
    }

    /// The parent's board.
    pub fn open(path: &str) -> Board {
        Board::map(File::options().read(true).write(true).open(path).expect("the board"))
    }

    fn map(file: File) -> Board {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping where the kernel likes touches nothing that exists.
        let page = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(page, libc::MAP_FAILED);
        Board { file, cells: NonNull::new(page.cast()).expect("a mapping") }
    }

    /// What a child opens.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    pub fn cell(&self, index: usize) -> &AtomicU64 {
        assert!(index < CELLS);
        // SAFETY: inside the page, which stays mapped as long as `self`, and only atomics live there.
        unsafe { self.cells.add(index).as_ref() }
    }

    pub fn get(&self, index: usize) -> u64 {
        self.cell(index).load(Ordering::SeqCst)
    }

    pub fn set(&self, index: usize, value: u64) {
        self.cell(index).store(value, Ordering::SeqCst);
    }

    /// Sets a cell and wakes whoever waits for it in [`Board::meet`].
    pub fn announce(&self, index: usize, value: u64) {
        self.set(index, value);
        // SAFETY: the address is only used to find the sleepers.
        unsafe {
            libc::syscall(libc::SYS_futex, self.cell(index), libc::FUTEX_WAKE, i32::MAX);
        }
    }

    /// Waits for a cell to reach a value: by looking, so that two that meet go on at once, and after
    /// a while asleep, so that a busy machine has a core for the other one.
    pub fn meet(&self, index: usize, value: u64) {
        let mut turns = 0;
        loop {
            let found = self.get(index);
            if found >= value {
                return;
            }
            turns += 1;
            if turns > 2000 {
                self.sleep_on(index, found);
            }
            std::hint::spin_loop();
        }
    }

    fn sleep_on(&self, index: usize, found: u64) {
        let limit = libc::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        // SAFETY: the low half of the cell is a word to sleep on, and the limit lives across the
        // call, which only reads both.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.cell(index),
                libc::FUTEX_WAIT,
                found as u32,
                &raw const limit,
            );
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and no reference outlives `self`.
        unsafe { libc::munmap(self.cells.as_ptr().cast(), 4096) };
    }
}

/// A directory in shared memory that is a test's own.
pub struct Room(PathBuf);

impl Room {
    pub fn new() -> Room {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/eshmtest_{}_{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a directory");
        Room(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("the directory");
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
