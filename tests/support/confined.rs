//! Processes with less than the usual: without rights, calls, memory or descriptors.

use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Child, Room, Servant, Talk, servant};

/// The group that users of a test share.
pub const GROUP: u32 = 60_600;
/// Ordinary users. Nobody has these numbers, so nothing else runs in their name.
pub const ALICE: u32 = 60_601;
pub const BOB: u32 = 60_602;

/// From here on this process is an ordinary user's, in no group but this one.
pub fn become_user(uid: u32, gid: u32) {
    // SAFETY: changes who this process is; no memory is touched.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setresgid(gid, gid, gid), 0);
        assert_eq!(libc::setresuid(uid, uid, uid), 0);
        // Both were lost with the old name.
        libc::prctl(libc::PR_SET_DUMPABLE, 1);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
}

/// The part of a servant that is an ordinary user.
pub fn serve_as(talk: &mut Talk) {
    become_user(talk.number(0) as u32, talk.number(1) as u32);
    servant::serve(talk);
}

pub fn servant_of(uid: u32, gid: u32) -> Servant {
    Servant(Child::spawn("user", &format!("{uid} {gid}")))
}

/// A directory as `/dev/shm` is one: everybody may make files, and remove only his own.
pub fn sticky_room() -> Room {
    let room = Room::new();
    std::fs::set_permissions(room.path(), PermissionsExt::from_mode(0o1777)).expect("its owner");
    room
}

/// Forbids system calls to this process from here on: they fail with EPERM. False if that cannot be
/// had here.
pub fn forbid(calls: &[libc::c_long]) -> bool {
    let jump = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let give = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = vec![line(load, 0, 0, 0)];
    for &call in calls {
        filter.push(line(jump, 0, 1, call as u32));
        filter.push(line(give, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    }
    filter.push(line(give, 0, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its lines live across the calls, which only read them. All threads,
    // also those that a library started before `main`.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_TSYNC,
                &raw const program,
            ) == 0
    }
}

/// Mounts a small tmpfs that this process alone sees. False if that is forbidden.
pub fn mount_small(place: &str, size: &str) -> bool {
    let target = CString::new(place).expect("a path");
    let size = CString::new(format!("size={size}")).expect("a size");
    // SAFETY: strings that end in NUL, alive across the calls; what is mounted is seen by this
    // process alone.
    unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                c"none".as_ptr(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
            && libc::mount(
                c"none".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                size.as_ptr().cast(),
            ) == 0
    }
}

/// Sets the soft limit of a resource, and gives the one before.
pub fn limit(what: libc::__rlimit_resource_t, most: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the calls write and read the record, which lives across them.
    unsafe {
        assert_eq!(libc::getrlimit(what, &raw mut limit), 0);
        let before = std::mem::replace(&mut limit.rlim_cur, most.min(limit.rlim_max));
        assert_eq!(libc::setrlimit(what, &raw const limit), 0);
        before
    }
}

/// The bytes of memory that a file takes.
pub fn allocated(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).expect("a file")) * 512
}
