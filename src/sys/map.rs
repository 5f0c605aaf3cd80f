//! The memory of a segment.
//!
//! It must never hand out a reference or a slice: the peer writes these bytes at any time, so the
//! only thing that leaves is a raw pointer, valid as long as the [`Mapping`] is. And it must never
//! be in a forked child: a mapping holds the open file like a descriptor does, and with it the
//! locks, so that in a child it would keep its dead parent alive.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::sys::mman::mlock;
use nix::sys::stat::{major, minor};

use super::fork::{self, Birth};
use super::os_error;
use super::shm::File;
use crate::error::{Error, Result};

/// How much is filled with pages in one call: a millisecond or so.
const PIECE: usize = 4 << 20;

/// A shared mapping of a file, unmapped when dropped. In a forked child it is nowhere, and whatever
/// may lie at its address there is not ours: dropping it does nothing.
pub(crate) struct Mapping {
    raw: ManuallyDrop<MmapRaw>,
    birth: Birth,
    writable: bool,
    device: u64,
    object: String,
}

impl Mapping {
    /// Maps `len` bytes of a file from `off` on, which must be a multiple of the page size.
    pub(crate) fn shared(file: &File, off: u64, len: usize, writable: bool) -> Result<Self> {
        let object = file.name();
        let mut options = MmapOptions::new();
        options.offset(off).len(len);
        // No fork between the mapping and the word that keeps it out of children.
        let _hold = fork::hold();
        let number = file.fd()?.as_raw_fd();
        let mapped =
            if writable { options.map_raw(number) } else { options.map_raw_read_only(number) };
        let raw = mapped.map_err(|error| io_error("mmap", &object, &error))?;
        let (raw, birth, device) = (ManuallyDrop::new(raw), Birth::now(), file.id().dev);
        let mapping = Mapping { raw, birth, writable, device, object };
        mapping.advise(Advice::DontFork)?;
        Ok(mapping)
    }

    /// Where it begins; a multiple of the page size.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.raw.as_mut_ptr()
    }

    /// How many bytes it has.
    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Touches every page, so that none faults later.
    pub(crate) fn prefault(&self) -> Result<()> {
        let advice = if self.writable { Advice::PopulateWrite } else { Advice::PopulateRead };
        // In pieces: meanwhile no other thread of the process can map anything, hearts included.
        self.pieces()
            .try_for_each(|(off, len)| self.repeat(|| self.raw.advise_range(advice, off, len)))
    }

    /// Keeps every page in memory, or none if that is refused for some.
    pub(crate) fn lock_memory(&self) -> Result<()> {
        // In pieces, as above.
        for (off, len) in self.pieces() {
            let place = NonNull::new(self.as_ptr().wrapping_add(off).cast());
            // SAFETY: inside the mapping, whose bytes are not touched.
            let locked = place.map_or(Err(Errno::EINVAL), |place| unsafe { mlock(place, len) });
            if let Err(errno) = locked {
                let _ = self.raw.unlock(); // of what was locked here, or nothing
                return Err(os_error("mlock", &self.object, errno as i32));
            }
        }
        Ok(())
    }

    /// All of it, little by little: offsets and lengths.
    fn pieces(&self) -> impl Iterator<Item = (usize, usize)> {
        let len = self.len();
        (0..len).step_by(PIECE).map(move |off| (off, PIECE.min(len - off)))
    }

    /// Asks for huge pages. The kernel says yes even where its settings forbid them, which would
    /// be a quiet lie; that is an error here.
    pub(crate) fn huge_pages(&self) -> Result<()> {
        if !huge_pages_possible(self.device) {
            return Err(os_error("madvise", &self.object, Errno::ENOTSUP as i32));
        }
        self.advise(Advice::HugePage)
    }

    fn advise(&self, advice: Advice) -> Result<()> {
        self.repeat(|| self.raw.advise(advice))
    }

    fn repeat(&self, advise: impl Fn() -> io::Result<()>) -> Result<()> {
        loop {
            match advise() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                told => return told.map_err(|error| io_error("madvise", &self.object, &error)),
            }
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.birth.is_here() {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.raw) };
        }
    }
}

fn io_error(operation: &'static str, object: &str, error: &io::Error) -> Error {
    // memmap2 refuses a length beyond the address space by itself, without a number.
    os_error(operation, object, error.raw_os_error().unwrap_or(libc::EINVAL))
}

fn huge_pages_possible(device: u64) -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let system = read("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    let mounts = read("/proc/self/mountinfo");
    huge_pages_allowed(&system, mount_option(&mounts, device))
}

/// Whether advice can have an effect. `deny` and `force` hold for all of shared memory; else a
/// mounted tmpfs goes by its own option, and only what is not mounted by the system's.
fn huge_pages_allowed(system: &str, mount: Option<&str>) -> bool {
    let chosen = system.split_whitespace().find_map(|word| word.strip_prefix('['));
    match (chosen.and_then(|word| word.strip_suffix(']')), mount) {
        (None | Some("deny"), _) => false,
        (Some("force"), _) => true,
        (_, Some(option)) => option != "never",
        (Some(choice), None) => choice != "never",
    }
}

/// The `huge=` of the tmpfs on this device, `never` if it has none; `None` if it is not mounted.
fn mount_option(mounts: &str, device: u64) -> Option<&str> {
    let wanted = format!("{}:{}", major(device), minor(device));
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(&wanted))?;
    let options = line.rsplit(' ').next()?;
    Some(options.split(',').find_map(|option| option.strip_prefix("huge=")).unwrap_or("never"))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::os::unix::fs::FileExt;

    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

    use super::super::shm;
    use super::super::testing::{bare_child_agrees, child_agrees, std_file, unnamed};
    use super::*;

    #[test]
    fn what_is_written_to_the_file_is_in_the_memory() {
        let file = unnamed(3 * 4096);
        let map = Mapping::shared(&file, 4096, 8192, true).unwrap();
        assert_eq!(map.len(), 8192);
        assert_eq!(map.as_ptr() as usize % 4096, 0);
        let bytes = std_file(&file);
        bytes.write_all_at(b"x", 4096 + 5000).unwrap();
        let place = map.as_ptr().wrapping_add(5000);
        // SAFETY: mapped, and written by nobody else now.
        assert_eq!(unsafe { place.read_volatile() }, b'x');
        // SAFETY: as above, and mapped writable.
        unsafe { place.write_volatile(b'y') };
        let mut back = [0];
        bytes.read_exact_at(&mut back, 4096 + 5000).unwrap();
        assert_eq!(&back, b"y");
    }

    /// Whether something is mapped there.
    fn is_mapped(place: *mut u8) -> bool {
        // SAFETY: asks only whether the page is mapped.
        unsafe { libc::msync(place.cast(), 4096, libc::MS_ASYNC) == 0 }
    }

    #[test]
    fn a_child_has_neither_the_memory_nor_the_end_of_it() {
        let file = unnamed(4096);
        for writable in [true, false] {
            let mut map = ManuallyDrop::new(Mapping::shared(&file, 0, 4096, writable).unwrap());
            let place = map.as_ptr();
            let mut check = || {
                let was_there = is_mapped(place);
                // The child maps something of its own there, which dropping must leave alone.
                let access = ProtFlags::PROT_READ;
                let kind = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
                let (at, page) = (NonZeroUsize::new(place.addr()), NonZeroUsize::MIN);
                // SAFETY: refused if anything is there.
                let own = unsafe { mmap_anonymous(at, page, access, kind) };
                // SAFETY: once in this process, which then ends.
                unsafe { ManuallyDrop::drop(&mut map) };
                !was_there && own.is_ok() && is_mapped(place)
            };
            assert!(child_agrees(&mut check), "writable: {writable}");
            assert!(bare_child_agrees(&mut check), "writable: {writable}");
            assert!(is_mapped(place), "the parent keeps its own");
            // SAFETY: the first time in this process.
            unsafe { ManuallyDrop::drop(&mut map) };
        }
    }

    #[test]
    fn every_page_can_be_touched_beforehand() {
        let file = unnamed(1 << 20);
        for writable in [true, false] {
            let map = Mapping::shared(&file, 0, 1 << 20, writable).unwrap();
            assert_eq!(resident(&map), 0, "writable: {writable}");
            map.prefault().unwrap();
            assert_eq!(resident(&map), 1 << 10, "writable: {writable}");
        }
    }

    /// How many KiB of the mapping this process has in its page table.
    fn resident(map: &Mapping) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let start = format!("{:x}-", map.as_ptr() as usize);
        let rest = maps.split_once(&format!("\n{start}")).expect("the mapping").1;
        let line = rest.lines().find_map(|line| line.strip_prefix("Rss:")).expect("its size");
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_wrong_length_names_the_file() {
        let path = "/proc/self/stat";
        let file = shm::open(path.as_ref(), false).unwrap().unwrap();
        let Err(Error::Os { operation, object, .. }) = Mapping::shared(&file, 0, 4096, true) else {
            panic!("mapped a file of /proc");
        };
        assert_eq!((operation, object.as_str()), ("mmap", path));
        assert!(Mapping::shared(&file, 0, usize::MAX, true).is_err());
    }

    #[test]
    fn advice_without_effect_is_an_error() {
        let never = "always within_size advise [never] deny force\n";
        assert!(!huge_pages_allowed(never, None));
        assert!(!huge_pages_allowed(never, Some("never")));
        assert!(huge_pages_allowed(never, Some("advise")));
        assert!(huge_pages_allowed("always within_size [advise] never", None));
        assert!(!huge_pages_allowed("always within_size [advise] never", Some("never")));
        assert!(!huge_pages_allowed("advise never [deny] force", Some("always")));
        assert!(huge_pages_allowed("advise never deny [force]", Some("never")));
        assert!(!huge_pages_allowed("", None));
    }

    #[test]
    fn the_option_is_that_of_the_right_mount() {
        let mounts = "24 1 0:21 / /a rw - tmpfs tmpfs rw,size=4k,huge=advise\n\
                      25 1 0:22 / /b rw shared:4 - tmpfs tmpfs rw\n";
        let device = |number| nix::sys::stat::makedev(0, number);
        assert_eq!(mount_option(mounts, device(21)), Some("advise"));
        assert_eq!(mount_option(mounts, device(22)), Some("never"));
        assert_eq!(mount_option(mounts, device(2)), None);
    }
}
