//! One segment: a file in shared memory, mapped and checked.
//!
//! Built whole and nameless, then given its name in one step, so a name never leads to something
//! half-made. Attached with suspicion: the header is read once, through the file and not through
//! the mapping; everything in it is checked against what this build would have laid out; and from
//! then on only the private copy of that plan is used.
//!
//! This file must never create on attach, and never touch what failed its checks. Read next:
//! `session.rs`, which decides who holds a role in a segment.

use std::mem::{ManuallyDrop, offset_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use crate::config::{Direction, Geometry, Options, Overflow, Role, segment_path};
use crate::error::{Error, Result};
use crate::layout::*;
use crate::ring::{Place, Ring};
use crate::stats::Refusal;
use crate::sync::{Frames, Ordering};
use crate::sys::failpoint::hit;
use crate::sys::fork::{self, Birth};
use crate::sys::map::Mapping;
use crate::sys::shm::{self, FileId, Kind};
use crate::sys::{clock, process, sigbus};

/// The word that begins a segment of the older C++ library.
const OLD_MAGIC: u32 = 0x4553_484D;

/// A mapped segment.
pub(crate) struct Segment {
    /// Holds the role locks. Closed by hand: in a forked child it is not ours any more.
    fd: ManuallyDrop<OwnedFd>,
    /// Dropped before the mapping that it guards.
    guard: Option<sigbus::Guard>,
    /// In a forked child there is nothing at these addresses, or something of its own.
    map: ManuallyDrop<Mapping>,
    birth: Birth,
    pub plan: Plan,
    pub id: FileId,
    pub path: PathBuf,
    pub lineage: u64,
    pub generation: u64,
}

/// How often a file may be replaced between opening it and looking at it.
const REPLACED_MOST: usize = 100;

/// What was found at a path.
enum Attached {
    Whole(Box<Segment>),
    /// A file that lost its name after it was opened.
    Nameless,
    Nothing,
}

/// What a new segment is to be.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub name: String,
    pub path: PathBuf,
    pub plan: Plan,
    pub mode: u32,
    pub lineage: u64,
    pub generation: u64,
    pub created_ns: u64,
    pub beat_interval_us: u32,
    pub stale_after_ms: u32,
}

impl Spec {
    /// The first segment of a bus.
    pub(crate) fn first(options: &Options) -> Result<Spec> {
        Ok(Spec {
            name: options.name.clone(),
            path: options.path(),
            plan: Plan::new(options.asked.map(|asked| asked.or_default()))?,
            mode: options.mode,
            lineage: random(),
            generation: 0,
            created_ns: clock::wall_ns(),
            beat_interval_us: options.beat_interval.as_micros().min(u32::MAX.into()) as u32,
            stale_after_ms: options.stale_after.as_millis().min(u32::MAX.into()) as u32,
        })
    }
}

/// A number that nobody else has.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u64(clock::monotonic_ns() ^ u64::from(process::pid()) << 40);
    // Neither "no successor" nor "retired".
    hasher.finish().clamp(1, u64::MAX - 1)
}

impl Segment {
    /// Makes a segment that has no name yet: nobody can see it before [`Segment::publish`].
    pub(crate) fn build(spec: &Spec) -> Result<Segment> {
        let directory = spec.path.parent().unwrap_or(Path::new("/"));
        let mut hold = fork::hold();
        let fd = shm::create_unnamed(directory, spec.plan.size, spec.mode)?;
        hold.close_after_fork(fd.as_raw_fd());
        drop(hold);
        let segment = Segment::map(fd, spec.clone(), true)?;
        hit("build.mapped")?;
        segment.write_header(spec);
        for direction in Direction::BOTH {
            segment.ring(direction).format(Place { pos: 0, number: 0, epoch: 1, bytes: 0 });
        }
        hit("build.formatted")?;
        Ok(segment)
    }

    /// Opens and checks the segment at a path. `None` if there is none.
    pub(crate) fn attach(
        path: &Path,
        name: Option<&str>,
        mode: u32,
        writable: bool,
    ) -> Result<Option<Segment>> {
        for _ in 0..REPLACED_MOST {
            match Segment::try_attach(path, name, mode, writable)? {
                Attached::Whole(segment) => return Ok(Some(*segment)),
                Attached::Nothing => return Ok(None),
                // The name leads to another one by now, or to none.
                Attached::Nameless => {}
            }
        }
        Ok(None)
    }

    fn try_attach(path: &Path, name: Option<&str>, mode: u32, writable: bool) -> Result<Attached> {
        let mut hold = fork::hold();
        let opened = match shm::open(path, writable) {
            Err(Error::Os { errno, .. }) if errno == libc::ELOOP => {
                return Err(access(path, "it is a symbolic link"));
            }
            Err(Error::Os { errno, .. }) if errno == libc::EISDIR => {
                return Err(access(path, "it is not a regular file"));
            }
            Err(Error::Os { errno, .. }) if errno == libc::EACCES => {
                return Err(access(path, "permission denied; it belongs to somebody else"));
            }
            other => other?,
        };
        let Some(fd) = opened else { return Ok(Attached::Nothing) };
        hold.close_after_fork(fd.as_raw_fd());
        drop(hold);
        let looked_at =
            hit("attach.opened").and_then(|()| inspect(fd.as_fd(), path, name, mode, writable));
        match looked_at {
            Ok(Some(spec)) => {
                Segment::map(fd, spec, writable).map(|segment| Attached::Whole(Box::new(segment)))
            }
            other => {
                fork::forget(fd.as_raw_fd());
                other.map(|_| Attached::Nameless)
            }
        }
    }

    fn map(fd: OwnedFd, spec: Spec, writable: bool) -> Result<Segment> {
        let mapped = shm::facts(fd.as_fd()).and_then(|facts| {
            let _hold = fork::hold();
            let map = Mapping::shared(fd.as_fd(), spec.plan.size as usize, writable)?;
            if writable {
                map.keep_from_children()?;
            }
            Ok((facts.id, map))
        });
        let (id, map) = match mapped {
            Ok(mapped) => mapped,
            Err(error) => {
                fork::forget(fd.as_raw_fd());
                return Err(error);
            }
        };
        Ok(Segment {
            fd: ManuallyDrop::new(fd),
            map: ManuallyDrop::new(map),
            guard: None,
            birth: Birth::now(),
            plan: spec.plan,
            id,
            path: spec.path,
            lineage: spec.lineage,
            generation: spec.generation,
        })
    }

    fn write_header(&self, spec: &Spec) {
        // Relaxed throughout: the name that makes the segment visible is given afterwards.
        let header = self.header();
        let store = Ordering::Relaxed;
        header.layout_version.store(LAYOUT_VERSION, store);
        header.header_len.store(PAGE as u32, store);
        header.layout_id.store(LAYOUT_ID, store);
        header.size.store(spec.plan.size, store);
        header.mode.store(spec.mode, store);
        header.guard.store(GUARD, store);
        header.lineage.store(spec.lineage, store);
        header.generation.store(spec.generation, store);
        header.created_ns.store(spec.created_ns, store);
        header.beat_interval_us.store(spec.beat_interval_us, store);
        header.stale_after_ms.store(spec.stale_after_ms, store);
        header.name_len.store(spec.name.len() as u32, store);
        for (word, chunk) in header.name.iter().zip(spec.name.as_bytes().chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(bytes), store);
        }
        for (shape, ring) in header.shapes.iter().zip(&spec.plan.rings) {
            shape.frame_size.store(ring.geometry.frame_size, store);
            shape.flags.store(ring.geometry.flags(), store);
            shape.frames.store(ring.geometry.frames, store);
            shape.cursors_off.store(ring.cursors_off, store);
            shape.frames_off.store(ring.frames_off, store);
        }
        header.magic.store(MAGIC, store);
    }

    /// Gives the segment its name; false if the name is taken.
    pub(crate) fn publish(&self, path: &Path) -> Result<bool> {
        shm::link_unnamed(self.fd(), path)
    }

    /// The file, for locks and looks.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The first page.
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the mapping is page aligned, at least a page long, and lives as long as `self`;
        // the header holds only atomics.
        unsafe { &*self.map.as_ptr().cast() }
    }

    /// The lines of a role.
    pub(crate) fn role(&self, role: Role) -> &RoleLines {
        &self.header().roles[usize::from(role == Role::Slave)]
    }

    /// One direction as a ring. The view must not outlive the segment; the endpoints keep both.
    pub(crate) fn ring(&self, direction: Direction) -> Ring {
        let plan = &self.plan.rings[direction as usize];
        let base = self.map.as_ptr();
        // SAFETY: both offsets come from the private plan, whose size is that of the mapping.
        let (lines, frames) =
            unsafe { (base.add(plan.cursors_off as usize), base.add(plan.frames_off as usize)) };
        let geometry = plan.geometry;
        // SAFETY: the frames lie page aligned inside the mapping, `frames * frame_size` bytes of
        // them; the geometry was checked when the plan was made.
        let frames = unsafe { Frames::new(frames, geometry.frames, geometry.frame_size as usize) };
        // SAFETY: the cursor page lies inside the mapping and is not at address zero.
        unsafe { Ring::new(NonNull::new_unchecked(lines.cast()), frames, geometry) }
    }

    /// The shape of one direction.
    pub(crate) fn geometry(&self, direction: Direction) -> Geometry {
        self.plan.rings[direction as usize].geometry
    }

    /// The specification of a segment that takes the place of this one.
    pub(crate) fn next_spec(&self, name: &str) -> Spec {
        // Relaxed: written before the segment was published, never changed.
        let header = self.header();
        Spec {
            name: name.to_owned(),
            path: self.path.clone(),
            plan: self.plan,
            mode: shm::facts(self.fd()).map_or(0o600, |facts| facts.mode),
            lineage: self.lineage,
            generation: self.generation.wrapping_add(1),
            created_ns: header.created_ns.load(Ordering::Relaxed),
            beat_interval_us: header.beat_interval_us.load(Ordering::Relaxed),
            stale_after_ms: header.stale_after_ms.load(Ordering::Relaxed),
        }
    }

    /// Whether the name still leads to this very file.
    pub(crate) fn is_named(&self) -> Result<bool> {
        Ok(shm::facts_at(&self.path)?.is_some_and(|facts| facts.id == self.id))
    }

    /// Whether the descriptor still is the segment's file, whole.
    pub(crate) fn check_file(&self) -> Result<()> {
        if self.guard.as_ref().is_some_and(sigbus::Guard::hit) {
            return Err(Error::Lost { what: "its file was truncated" });
        }
        let facts =
            shm::facts(self.fd()).map_err(|_| Error::Lost { what: "its descriptor was closed" })?;
        if facts.id != self.id {
            return Err(Error::Lost { what: "its descriptor was closed and used again" });
        }
        if facts.size < self.plan.size {
            return Err(Error::Lost { what: "its file was truncated" });
        }
        Ok(())
    }

    /// Whether the process changed under this handle by a fork.
    pub(crate) fn is_home(&self) -> bool {
        self.birth.is_here()
    }

    /// Survives a truncated file. Before the first look at a mapping that others may cut short.
    fn guard(&mut self) {
        self.guard = Some(sigbus::guard(self.map.as_ptr(), self.map.len()));
    }

    /// Does what the options wish for the memory, and reports what was refused.
    pub(crate) fn prepare_memory(&mut self, options: &Options) -> Vec<Refusal> {
        if options.guard_sigbus && self.guard.is_none() {
            self.guard();
        }
        let mut refused = Vec::new();
        let mut wish = |wanted: bool, what, act: &dyn Fn() -> Result<()>| {
            if let (true, Err(error)) = (wanted, wanted.then(act).unwrap_or(Ok(()))) {
                refused.push(Refusal { what, why: error.to_string() });
            }
        };
        wish(options.huge_pages, "huge_pages", &|| self.map.huge_pages());
        wish(options.prefault, "prefault", &|| self.map.prefault());
        wish(options.lock_memory, "lock_memory", &|| self.map.lock_memory());
        refused
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // In a forked child the descriptor was closed by the fork handler, and its number may be
        // somebody else's; the same if it was closed behind our back.
        let is_ours = self.birth.is_here()
            && shm::facts(self.fd.as_fd()).is_ok_and(|facts| facts.id == self.id);
        let mut hold = fork::hold();
        self.guard = None;
        if self.birth.is_here() {
            hold.forget(self.fd.as_raw_fd());
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.map) };
        }
        if is_ours {
            // SAFETY: dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

fn access(path: &Path, why: impl Into<String>) -> Error {
    Error::Access { path: path.display().to_string(), why: why.into() }
}

fn foreign(path: &Path, why: &str) -> Error {
    Error::Foreign { path: path.display().to_string(), why: why.to_owned() }
}

/// Checks a file from outside, without mapping it. `None` if it lost its name meanwhile.
fn inspect(
    fd: BorrowedFd<'_>,
    path: &Path,
    name: Option<&str>,
    mode: u32,
    writable: bool,
) -> Result<Option<Spec>> {
    let facts = shm::facts(fd)?;
    if facts.kind != Kind::Regular {
        return Err(access(path, "it is not a regular file"));
    }
    if facts.links > 1 {
        return Err(access(path, format!("it has {} hard links", facts.links)));
    }
    if writable {
        let is_shared = mode & 0o066 != 0;
        if facts.uid != process::effective_uid() && !is_shared {
            return Err(access(path, format!("it belongs to user {}", facts.uid)));
        }
        if facts.mode & 0o022 & !mode != 0 {
            let why = format!("others may write it (mode {:04o}, asked {mode:04o})", facts.mode);
            return Err(access(path, why));
        }
    }
    // Through the file: a mapping of a truncated one would be a trap.
    let header = shm::read_start(fd, PAGE as usize)?;
    let spec = parse_header(&header, path, facts.size)?;
    if let Some(name) = name.filter(|name| *name != spec.name) {
        return Err(Error::Name {
            name: name.escape_default().to_string(),
            why: "its file already belongs to a bus of another name that maps to the same file",
        });
    }
    Ok((facts.links == 1).then_some(Spec { mode: facts.mode, ..spec }))
}

/// Takes a header apart, and checks each value against what this build would have written.
fn parse_header(header: &[u8], path: &Path, size: u64) -> Result<Spec> {
    if header.len() >= 4 && u32_at(header, 0) == OLD_MAGIC {
        return Err(foreign(path, "it is a segment of the older C++ ESHM"));
    }
    if header.len() < PAGE as usize {
        return Err(foreign(path, "it is too short"));
    }
    if u64_at(header, offset_of!(Header, magic)) != MAGIC {
        return Err(foreign(path, "it begins with other bytes"));
    }
    let same = |what, ours: u64, theirs: u64| {
        if ours == theirs { Ok(()) } else { Err(Error::Layout { what, ours, theirs }) }
    };
    let version = u32_at(header, offset_of!(Header, layout_version));
    same("layout version", LAYOUT_VERSION.into(), version.into())?;
    same("layout id", LAYOUT_ID, u64_at(header, offset_of!(Header, layout_id)))?;
    let header_len = u32_at(header, offset_of!(Header, header_len));
    same("header length", PAGE, header_len.into())?;
    let plan = parse_plan(header)?;
    let stated = u64_at(header, offset_of!(Header, size));
    if stated != plan.size || size != plan.size {
        return Err(Error::Corrupt { what: "the size of the file is not that of its geometry" });
    }
    Ok(Spec {
        name: parse_name(header)?,
        path: path.to_owned(),
        plan,
        mode: 0,
        lineage: u64_at(header, offset_of!(Header, lineage)),
        generation: u64_at(header, offset_of!(Header, generation)),
        created_ns: u64_at(header, offset_of!(Header, created_ns)),
        beat_interval_us: u32_at(header, offset_of!(Header, beat_interval_us)),
        stale_after_ms: u32_at(header, offset_of!(Header, stale_after_ms)),
    })
}

fn parse_plan(header: &[u8]) -> Result<Plan> {
    let shape = |index: usize| offset_of!(Header, shapes) + index * size_of::<Shape>();
    let geometry = |index: usize| {
        let at = shape(index);
        let flags = u32_at(header, at + offset_of!(Shape, flags));
        Geometry {
            frame_size: u32_at(header, at + offset_of!(Shape, frame_size)),
            frames: u64_at(header, at + offset_of!(Shape, frames)),
            overflow: if flags & 1 == 1 { Overflow::Overwrite } else { Overflow::Refuse },
        }
    };
    let plan = Plan::new([geometry(0), geometry(1)])
        .map_err(|_| Error::Corrupt { what: "an impossible geometry" })?;
    for (index, ring) in plan.rings.iter().enumerate() {
        let at = shape(index);
        let is_planned = u64_at(header, at + offset_of!(Shape, cursors_off)) == ring.cursors_off
            && u64_at(header, at + offset_of!(Shape, frames_off)) == ring.frames_off
            && u32_at(header, at + offset_of!(Shape, flags)) <= 1;
        if !is_planned {
            return Err(Error::Corrupt { what: "offsets that do not follow from the geometry" });
        }
    }
    Ok(plan)
}

fn parse_name(header: &[u8]) -> Result<String> {
    let len = u32_at(header, offset_of!(Header, name_len)) as usize;
    let at = offset_of!(Header, name);
    let bytes = header.get(at..at + len.min(256)).filter(|bytes| bytes.len() == len);
    bytes
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .filter(|name| check_name(name).is_ok())
        .map(str::to_owned)
        .ok_or(Error::Corrupt { what: "a name that is none" })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// What a name may be.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let bad = |why| Err(Error::Name { name: name.escape_default().to_string(), why });
    if name.is_empty() {
        return bad("it is empty");
    }
    if name.len() > NAME_MAX {
        return bad("it is longer than 200 bytes");
    }
    if name.contains('\0') {
        return bad("it contains a NUL");
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    if !name.bytes().all(is_plain) {
        return bad("only letters, digits and . _ - / are allowed");
    }
    Ok(())
}

/// Opens a bus's segment as its options say.
pub(crate) fn attach_for(options: &Options, writable: bool) -> Result<Option<Segment>> {
    let path = segment_path(&options.directory, &options.name);
    let mode = if writable { options.mode } else { 0o777 };
    let mut attached = Segment::attach(&path, Some(&options.name), mode, writable)?;
    if let Some(segment) = attached.as_mut().filter(|_| options.guard_sigbus) {
        segment.guard();
    }
    Ok(attached)
}
