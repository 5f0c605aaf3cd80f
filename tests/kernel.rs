//! The simulated kernel answers as the real one does: random sequences of calls, made on both.
//!
//! Part of the simulation's own build: `tools/simulate --kernel`. Root has a small file system of its
//! own to fill up, and becomes other users; without root both are left out.
#![allow(missing_docs)]

#[cfg(not(eshm_sim))]
fn main() {
    println!("the simulation is a build of its own: tools/simulate --kernel");
}

#[cfg(eshm_sim)]
fn main() {
    real::main();
}

#[cfg(eshm_sim)]
mod real {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::{Path, PathBuf};

    use eshm::sim::{Outside, Stage, Strange, compare};
    use nix::errno::Errno;
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::stat::{Mode, mkdirat, umask};

    /// Pages of the file system; a sequence wants more of them.
    const PAGES: u64 = 48;
    /// Sequences, and calls in each.
    const SEQUENCES: u64 = 2000;
    const CALLS: usize = 250;

    struct Here {
        is_root: bool,
    }

    impl Outside for Here {
        fn become_user(&self, uid: u32, gid: u32) {
            if !self.is_root {
                return;
            }
            // SAFETY: numbers only. The bare calls change this thread alone; back to root first, which
            // may change to anybody.
            unsafe {
                libc::syscall(libc::SYS_setresuid, -1, 0, -1);
                libc::syscall(libc::SYS_setresgid, -1, gid, -1);
                assert_eq!(libc::syscall(libc::SYS_setresuid, -1, uid, -1), 0);
            }
        }

        fn plant(&self, what: Strange, path: &Path) -> Result<(), i32> {
            let mode = Mode::from_bits_truncate(0o600);
            let planted = match what {
                Strange::Fifo => nix::unistd::mkfifo(path, mode),
                Strange::Directory => mkdirat(nix::fcntl::AT_FDCWD, path, mode),
                Strange::Symlink => symlink("nowhere", path)
                    .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))),
            };
            planted.map_err(|errno| errno as i32)
        }
    }

    fn prepare(place: &Path, is_root: bool) {
        for (name, mode) in [("shm", 0o1777), ("own", 0o770)] {
            let path = place.join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        if is_root {
            chown(place.join("own"), Some(1000), Some(100)).unwrap();
        }
    }

    /// One sequence in a place of its own.
    fn play(seed: u64, place: &Path, pages: Option<u64>, is_root: bool) -> Result<(), String> {
        prepare(place, is_root);
        let outside = Here { is_root };
        let me = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let stage = Stage { place, pages, has_users: is_root, me, outside: &outside };
        let compared = compare(seed, CALLS, &stage);
        outside.become_user(0, 0);
        for name in ["shm", "own"] {
            fs::remove_dir_all(place.join(name)).unwrap();
        }
        compared
    }

    fn mount_at(place: &Path) -> bool {
        let options = format!("size={},mode=0755", PAGES * 4096);
        let none = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).is_ok()
            && mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).is_ok()
            && mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), Some(&*options)).is_ok()
    }

    pub fn main() {
        let place = PathBuf::from(format!("/dev/shm/eshm-kernel-{}", std::process::id()));
        fs::create_dir(&place).unwrap();
        umask(Mode::empty());
        let is_root = nix::unistd::geteuid().is_root();
        let has_mount = is_root && mount_at(&place);
        if is_root {
            // SAFETY: no pointers are read for no groups.
            assert_eq!(unsafe { libc::setgroups(0, std::ptr::null()) }, 0);
        } else {
            println!("skipped: other users (needs root)");
        }
        if !has_mount {
            println!("skipped: a full file system (needs root and a mount namespace)");
        }
        let pages = has_mount.then_some(PAGES);
        let compared = (1..=SEQUENCES).try_for_each(|seed| play(seed, &place, pages, is_root));
        if has_mount {
            let _ = umount2(&place, MntFlags::MNT_DETACH);
        }
        fs::remove_dir(&place).unwrap();
        if let Err(difference) = compared {
            eprintln!("{difference}");
            std::process::exit(1);
        }
        println!("{SEQUENCES} sequences of {CALLS} calls: both kernels answer the same");
    }
}
