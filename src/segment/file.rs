//! The file of a bus: made whole, opened with suspicion, locked by the byte.
//!
//! The header is read once, through the file and not through a mapping; everything in it is checked
//! against what this build would have laid out; and from then on only the private copy of that plan
//! is used. Afterwards the header is mapped, for the one word in it that changes: whose turn it is.
//!
//! This file must never create on opening, and never touch what failed its checks.

use std::mem::offset_of;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Segment;
use super::view::FromBytes;
use crate::config::{Direction, Geometry, Options, Overflow, Role};
use crate::error::{Error, Result};
use crate::layout::*;
use crate::sync::Ordering;
use crate::sys::failpoint::hit;
use crate::sys::lock::Hold;
use crate::sys::map::Mapping;
use crate::sys::shm::{self, File, FileFacts, FileId, Kind};
use crate::sys::{clock, lock, process, sigbus};

/// The word that begins a segment of the older C++ library.
const OLD_MAGIC: u32 = 0x4553_484D;

/// Where the schemas lie in a slot, and how many bytes they take.
const SCHEMAS_AT: usize = offset_of!(SlotPage, schemas);
const SCHEMAS_LEN: usize = size_of::<[SchemaLines; 2]>();

/// Pages given back in one go by the background thread.
const TIDY_PIECE: u64 = 16 << 20;

/// The lock byte of a role in a slot.
pub(crate) fn byte_of(slot: usize, role: Role) -> u64 {
    locks_of(slot) + u64::from(role == Role::Slave)
}

/// All lock bytes of a slot.
pub(crate) fn bytes_of(slot: usize) -> Range<u64> {
    locks_of(slot)..locks_of(slot) + SLOT_LOCKS
}

/// An open file of a bus, whose header was checked and mapped. It has locks of its own, which last
/// until it and the [`Segment`] made from it are gone.
pub(crate) struct BusFile {
    /// Dropped before the mapping that it guards.
    guard: Option<sigbus::Guard>,
    /// Not for those who only look: a mapping can be cut short under them.
    header: Option<Mapping>,
    /// Closed once no more locks are to change; the mappings keep those that are held.
    file: Option<File>,
    facts: Facts,
}

/// What does not change as long as there is a file.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub name: String,
    pub path: PathBuf,
    pub id: FileId,
    pub plan: Plan,
    /// Whether its slots have a place for schemas.
    pub has_schemas: bool,
    pub is_writable: bool,
    pub is_guarded: bool,
}

impl BusFile {
    /// A new file without a name: a header, and no slot yet.
    pub(crate) fn create(options: &Options) -> Result<BusFile> {
        let path = options.path();
        let directory = path.parent().unwrap_or(Path::new("/"));
        let plan = Plan::new(options.asked.map(|asked| asked.or_default()))?;
        let mode = options.mode.unwrap_or(0o600);
        let file = shm::create_unnamed(directory, mode)?;
        shm::allocate(&file, 0, PAGE)?;
        let id = shm::facts(&file)?.id;
        let name = options.name.clone();
        let facts = Facts {
            name,
            path,
            id,
            plan,
            has_schemas: true,
            is_writable: true,
            is_guarded: options.guard_sigbus,
        };
        let created = BusFile::map(file, facts)?;
        created.write_header(options, mode);
        Ok(created)
    }

    /// Opens and checks the file of a bus for a role in it. `None` if there is none.
    pub(crate) fn open(options: &Options) -> Result<Option<BusFile>> {
        BusFile::open_at(&options.path(), Some(options), true)
    }

    /// Opens and checks a file; with options it must be what they ask for.
    pub(crate) fn open_at(
        path: &Path,
        options: Option<&Options>,
        is_writable: bool,
    ) -> Result<Option<BusFile>> {
        let checked = BusFile::open_checked(path, options, is_writable)?;
        checked.map(|(file, facts)| BusFile::map(file, facts)).transpose()
    }

    /// Opens and checks a file of which nothing is to be mapped: to ask for its locks, and to read
    /// what it says.
    pub(crate) fn open_to_look(path: &Path, options: Option<&Options>) -> Result<Option<BusFile>> {
        let checked = BusFile::open_checked(path, options, false)?;
        Ok(checked.map(BusFile::unmapped))
    }

    /// Opens and checks a file to take locks in it and give pages back, and maps nothing of it either:
    /// it may be anybody's, and the background thread must not wait while a thread of the host maps.
    pub(crate) fn open_to_tidy(path: &Path) -> Result<Option<BusFile>> {
        let checked = BusFile::open_checked(path, None, true)?;
        Ok(checked.map(BusFile::unmapped))
    }

    fn unmapped((file, facts): (File, Facts)) -> BusFile {
        BusFile { guard: None, header: None, file: Some(file), facts }
    }

    fn open_checked(
        path: &Path,
        options: Option<&Options>,
        is_writable: bool,
    ) -> Result<Option<(File, Facts)>> {
        let opened = match shm::open(path, is_writable) {
            Err(Error::Os { errno, .. }) => match errno {
                libc::ELOOP => Err(access(path, "it is a symbolic link")),
                libc::EISDIR => Err(access(path, "it is not a regular file")),
                libc::EACCES => Err(refused(path)),
                errno => Err(Error::Os { operation: "open", object: show(path), errno }),
            },
            other => other,
        };
        let Some(file) = opened? else { return Ok(None) };
        hit("attach.opened")?;
        let facts = shm::facts(&file)?;
        check_file(path, &facts)?;
        if let Some(options) = options.filter(|_| is_writable) {
            check_owner(path, &facts, options)?;
        }
        let bytes = shm::read_at(&file, 0, PAGE as usize)?;
        let mut facts = parse_header(&bytes, path, facts.id)?;
        facts.is_writable = is_writable;
        if let Some(options) = options {
            facts.is_guarded = options.guard_sigbus;
            if options.name != facts.name {
                return Err(Error::Name {
                    name: options.name.escape_default().to_string(),
                    why: "its file already belongs to a bus of another name that maps to the same \
                          file",
                });
            }
        }
        Ok(Some((file, facts)))
    }

    fn map(file: File, facts: Facts) -> Result<BusFile> {
        let header = Mapping::shared(&file, 0, PAGE as usize, facts.is_writable)?;
        let guard = facts.is_guarded.then(|| sigbus::guard(header.as_ptr(), header.len()));
        Ok(BusFile { guard, header: Some(header), file: Some(file), facts })
    }

    fn write_header(&self, options: &Options, mode: u32) {
        // Relaxed throughout: the name that makes the file visible is given afterwards.
        let (header, plan, store) = (self.header(), &self.facts.plan, Ordering::Relaxed);
        let least = |value: u128| value.min(u32::MAX.into()) as u32;
        header.layout_version.store(LAYOUT_VERSION, store);
        header.header_len.store(PAGE as u32, store);
        header.layout_id.store(LAYOUT_ID, store);
        header.slot_len.store(plan.slot_len, store);
        header.mode.store(mode, store);
        header.guard.store(GUARD, store);
        header.slots_off.store(plan.slots_off, store);
        header.slot_stride.store(plan.slot_stride, store);
        header.created_ns.store(clock::wall_ns(), store);
        header.beat_interval_us.store(least(options.beat_interval.as_micros()), store);
        header.stale_after_ms.store(least(options.stale_after.as_millis()), store);
        header.name_len.store(options.name.len() as u32, store);
        for (word, chunk) in header.name.iter().zip(options.name.as_bytes().chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(bytes), store);
        }
        for (shape, ring) in header.shapes.iter().zip(&plan.rings) {
            shape.frame_size.store(ring.geometry.frame_size, store);
            shape.flags.store(ring.geometry.flags(), store);
            shape.frames.store(ring.geometry.frames, store);
            shape.cursors_off.store(ring.cursors_off, store);
            shape.frames_off.store(ring.frames_off, store);
        }
        let region = &header.regions[0];
        region.flags.store(REGION_IN_SLOT, store);
        region.offset.store(SCHEMAS_AT as u64, store);
        region.len.store(SCHEMAS_LEN as u64, store);
        region.kind.store(REGION_SCHEMAS, store);
        // No slot counts yet.
        header.turn.word.store(RETIRED, store);
        header.magic.store(MAGIC, store);
    }

    /// What does not change.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The first page.
    fn header(&self) -> &Header {
        let map = self.header.as_ref().expect("who changes a bus has its header mapped");
        // SAFETY: the mapping is page aligned, a page long, and lives as long as `self`; the header
        // holds only atomics.
        unsafe { &*map.as_ptr().cast() }
    }

    /// A copy of the first page.
    pub(crate) fn look_at_header(&self) -> Result<Box<Header>> {
        Ok(Header::from_bytes(&shm::read_at(self.file(), 0, PAGE as usize)?))
    }

    /// What the system says of the file.
    pub(crate) fn file_facts(&self) -> Result<FileFacts> {
        shm::facts(self.file())
    }

    /// Which slot counts now.
    pub(crate) fn turn(&self) -> Turn {
        if self.header.is_none() {
            let word = self.look_at_header().map(|header| header.turn.word.load(Ordering::Relaxed));
            return Turn(word.unwrap_or(RETIRED));
        }
        // pairs TURN: acquire, so that a slot seen to count is whole.
        Turn(self.header().turn.word.load(Ordering::Acquire))
    }

    /// Makes another slot count, or none; false if the turn is not `from` any more.
    pub(crate) fn swap_turn(&self, from: Turn, slot: Option<usize>) -> bool {
        let word = &self.header().turn.word;
        // pairs TURN: released when the slot is whole. Nothing follows from a swap that was lost.
        word.compare_exchange(from.0, from.next(slot).0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// The file, for locks and looks. Only before [`BusFile::close`].
    pub(crate) fn file(&self) -> &File {
        self.file.as_ref().expect("a file is closed only when its segment is done")
    }

    /// Closes the descriptor. The locks stay with the mappings.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Whether a page was missing and had to be replaced.
    pub(super) fn is_hit(&self) -> bool {
        self.guard.as_ref().is_some_and(sigbus::Guard::hit)
    }

    /// Gives the file its name; false if the name is taken.
    pub(crate) fn publish(&self) -> Result<bool> {
        shm::link_unnamed(self.file(), &self.facts.path)
    }

    /// Whether the name still leads to this very file.
    pub(crate) fn is_named(&self) -> Result<bool> {
        self.facts.is_named()
    }

    // --- locks --------------------------------------------------------------------------------

    /// Takes lock bytes; false if somebody else holds one of them.
    pub(crate) fn try_lock(&self, bytes: Range<u64>) -> Result<bool> {
        lock::try_lock(self.file(), bytes, Hold::Alone)
    }

    /// Takes the readers' byte of a slot, beside others; false if somebody holds it alone.
    pub(crate) fn try_lock_as_reader(&self, slot: usize) -> Result<bool> {
        let byte = locks_of(slot) + READERS;
        lock::try_lock(self.file(), byte..byte + 1, Hold::Shared)
    }

    /// Gives lock bytes back.
    pub(crate) fn unlock(&self, bytes: Range<u64>) -> Result<()> {
        lock::unlock(self.file(), bytes)
    }

    /// Whether somebody else holds a byte.
    pub(crate) fn is_locked(&self, byte: u64) -> Result<bool> {
        lock::is_locked(self.file(), byte..byte + 1)
    }

    /// Whether the owner that a role is kept for lives. The lock is asked first: a slot that is used
    /// again was locked by somebody else before its generation changes.
    pub(crate) fn is_kept(&self, keeper: Option<Keeper>) -> Result<bool> {
        let Some(keeper) = keeper else { return Ok(false) };
        if !self.is_locked(keeper.byte)? {
            return Ok(false);
        }
        let slot = (keeper.byte / SLOT_LOCKS) as usize;
        let bytes = shm::read_at(self.file(), self.facts.plan.slot_off(slot), 8)?;
        Ok(bytes.len() == 8
            && u64_at(&bytes, offset_of!(SlotPage, generation)) == keeper.generation)
    }

    // --- slots --------------------------------------------------------------------------------

    /// Locks a slot that nobody uses, and fills it with zeros. `None` if the turn is not this one any
    /// more. What fails here has changed nothing that anybody looks at.
    pub(crate) fn take_slot(&self, turn: Turn) -> Result<Option<usize>> {
        match self.try_take_slot(turn) {
            // Others may have died with pages in slots that do not count.
            Err(Error::Os { errno: libc::ENOSPC, .. }) => {
                self.tidy()?;
                self.try_take_slot(turn)
            }
            taken => taken,
        }
    }

    fn try_take_slot(&self, turn: Turn) -> Result<Option<usize>> {
        for slot in (0..SLOTS_MAX).filter(|&slot| turn.slot() != Some(slot)) {
            if !self.try_lock_unused(slot, turn)? {
                // Not for want of slots, then: somebody else was faster.
                if self.turn() != turn {
                    return Ok(None);
                }
                continue;
            }
            hit("slot.locked")?;
            if self.turn() != turn {
                self.unlock(bytes_of(slot))?;
                return Ok(None);
            }
            let taken = self.wipe(slot).and_then(|()| {
                shm::allocate(self.file(), self.facts.plan.slot_off(slot), self.facts.plan.slot_len)
            });
            hit("slot.allocated")?;
            if let Err(error) = taken {
                self.unlock(bytes_of(slot))?;
                return Err(error);
            }
            return Ok(Some(slot));
        }
        Err(Error::Os {
            operation: "find a free slot in",
            object: show(&self.facts.path),
            errno: libc::EBUSY,
        })
    }

    /// Locks all bytes of a slot that does not count. The builder's byte first, and a look at the turn
    /// before the others: a slot can come to count only under a lock of its builder, so whoever is
    /// stopped in between is in nobody's way.
    fn try_lock_unused(&self, slot: usize, turn: Turn) -> Result<bool> {
        let builder = locks_of(slot) + BUILDER;
        if !self.try_lock(builder..builder + 1)? {
            return Ok(false);
        }
        if self.turn() == turn && self.try_lock(bytes_of(slot))? {
            return Ok(true);
        }
        self.unlock(bytes_of(slot))?;
        Ok(false)
    }

    /// Gives the pages of a slot back; they are zeros then. The caller holds all of its bytes.
    pub(crate) fn wipe(&self, slot: usize) -> Result<()> {
        let off = self.facts.plan.slot_off(slot);
        let punched = shm::punch(self.file(), off, self.facts.plan.slot_stride);
        // Behind the end of the file is only what somebody allocated who was killed meanwhile.
        if shm::facts(self.file())?.size > off { punched } else { Ok(()) }
    }

    /// Gives back a piece of what lies from `at` on in slots that nobody maps and that do not count:
    /// little enough for a thread whose time is short. Says where the next piece begins, and whether
    /// somebody was in the way; `None` at the end of the file.
    pub(crate) fn tidy_piece(&self, at: u64) -> Result<Option<(u64, bool)>> {
        let (turn, plan) = (self.turn(), &self.facts.plan);
        let size = shm::facts(self.file())?.size;
        let at = at.max(plan.slots_off);
        let slot = ((at - plan.slots_off) / plan.slot_stride) as usize;
        if at >= size || slot >= SLOTS_MAX {
            return Ok(None);
        }
        let end = plan.slot_off(slot) + plan.slot_stride;
        if turn.slot() == Some(slot) {
            return Ok(Some((end, false)));
        }
        if !self.try_lock_unused(slot, turn)? {
            return Ok(Some((end, true)));
        }
        let len = (end - at).min(TIDY_PIECE);
        if self.turn() == turn {
            shm::punch(self.file(), at, len)?;
        }
        self.unlock(bytes_of(slot))?;
        Ok(Some((at + len, false)))
    }

    /// Gives the pages of all slots back that nobody maps and that do not count. True if none is left.
    pub(crate) fn tidy(&self) -> Result<bool> {
        let turn = self.turn();
        let mut is_tidy = true;
        for slot in (0..SLOTS_MAX).filter(|&slot| turn.slot() != Some(slot)) {
            if !self.try_lock_unused(slot, turn)? {
                is_tidy = false;
                continue;
            }
            if self.turn() == turn {
                self.wipe(slot)?;
            }
            self.unlock(bytes_of(slot))?;
        }
        Ok(is_tidy)
    }

    /// Maps a slot, under the locks that were taken.
    pub(crate) fn map_slot(self, slot: usize) -> Result<Segment> {
        self.check_len(slot)?;
        Segment::new(self, slot)
    }

    /// Whether a turn leads to a slot that is there and came to count in it.
    pub(crate) fn check_turn(&self, turn: Turn) -> Result<()> {
        let Some(slot) = turn.slot() else {
            return Err(Error::Corrupt { what: "a turn that leads to no slot" });
        };
        self.check_len(slot)?;
        let page = self.look_at_page(slot)?;
        // Relaxed: a private copy.
        let is_dated = page.generation.load(Ordering::Relaxed) == turn.generation();
        // Another turn by now: the slot may have been used again.
        if !is_dated && self.turn() == turn {
            return Err(Error::Corrupt { what: "a slot of another generation than its turn" });
        }
        Ok(())
    }

    fn check_len(&self, slot: usize) -> Result<()> {
        if shm::facts(self.file())?.size < self.facts.plan.slot_end(slot) {
            return Err(Error::Corrupt { what: "a file shorter than its geometry" });
        }
        Ok(())
    }
}

impl Facts {
    /// Whether the name still leads to this very file.
    pub(crate) fn is_named(&self) -> Result<bool> {
        Ok(shm::facts_at(&self.path)?.is_some_and(|facts| facts.id == self.id))
    }

    /// The shape of one direction.
    pub(crate) fn geometry(&self, direction: Direction) -> Geometry {
        self.plan.rings[direction as usize].geometry
    }
}

// --- checks -----------------------------------------------------------------------------------

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn access(path: &Path, why: impl Into<String>) -> Error {
    Error::Access { path: show(path), why: why.into() }
}

/// Why a file could not be opened: its own permissions, or those of a directory above it.
fn refused(path: &Path) -> Error {
    match shm::facts_at(path) {
        Ok(Some(facts)) => {
            let owner = owner_name(facts.uid);
            access(
                path,
                format!("permission denied; it belongs to {owner}, mode {:04o}", facts.mode),
            )
        }
        _ => access(path, "permission denied in its directory"),
    }
}

fn owner_name(uid: u32) -> String {
    match process::user_name(uid) {
        Some(name) => format!("user {name} ({uid})"),
        None => format!("user {uid}"),
    }
}

fn check_file(path: &Path, facts: &FileFacts) -> Result<()> {
    if facts.kind != Kind::Regular {
        return Err(access(path, "it is not a regular file"));
    }
    if facts.links > 1 {
        return Err(access(path, format!("it has {} hard links", facts.links)));
    }
    Ok(())
}

/// Whoever owns a file may cut it short, so its owner must be trusted, whatever its mode.
fn check_owner(path: &Path, facts: &FileFacts, options: &Options) -> Result<()> {
    let ours = process::effective_uid();
    if facts.uid != ours && facts.uid != 0 && !options.trusted.contains(&facts.uid) {
        let owner = owner_name(facts.uid);
        return Err(access(path, format!("it belongs to {owner}, who is not trusted here")));
    }
    if let Some(mode) = options.mode.filter(|mode| facts.mode & 0o066 & !mode != 0) {
        let why = format!("others may use it (mode {:04o}, asked {mode:04o})", facts.mode);
        return Err(access(path, why));
    }
    Ok(())
}

/// Takes a header apart, and checks each value against what this build would have written.
fn parse_header(header: &[u8], path: &Path, id: FileId) -> Result<Facts> {
    let foreign = |why: &str| Err(Error::Foreign { path: show(path), why: why.to_owned() });
    if header.len() >= 4 && u32_at(header, 0) == OLD_MAGIC {
        return foreign("it is a segment of the older C++ ESHM");
    }
    if header.len() < PAGE as usize {
        return foreign("it is too short");
    }
    if u64_at(header, offset_of!(Header, magic)) != MAGIC {
        return foreign("it begins with other bytes");
    }
    let same = |what, ours: u64, theirs: u64| {
        if ours == theirs { Ok(()) } else { Err(Error::Layout { what, ours, theirs }) }
    };
    let version = u32_at(header, offset_of!(Header, layout_version));
    same("layout version", LAYOUT_VERSION.into(), version.into())?;
    same("layout id", LAYOUT_ID, u64_at(header, offset_of!(Header, layout_id)))?;
    let header_len = u32_at(header, offset_of!(Header, header_len));
    same("header length", PAGE, header_len.into())?;
    let has_schemas = parse_regions(header)?;
    let plan = parse_plan(header)?;
    let name = parse_name(header)?;
    let (is_writable, is_guarded) = (false, false);
    Ok(Facts { name, path: path.to_owned(), id, plan, has_schemas, is_writable, is_guarded })
}

/// Whether the slots have a place for schemas. Regions of later builds may be ignored, unless they
/// say otherwise.
fn parse_regions(header: &[u8]) -> Result<bool> {
    let mut has_schemas = false;
    for index in 0..REGIONS {
        let at = offset_of!(Header, regions) + index * size_of::<Region>();
        let kind = u32_at(header, at + offset_of!(Region, kind));
        let flags = u32_at(header, at + offset_of!(Region, flags));
        if kind == REGION_SCHEMAS {
            let is_planned = flags & !REGION_REQUIRED == REGION_IN_SLOT
                && u64_at(header, at + offset_of!(Region, offset)) == SCHEMAS_AT as u64
                && u64_at(header, at + offset_of!(Region, len)) == SCHEMAS_LEN as u64;
            if !is_planned {
                return Err(Error::Corrupt { what: "schemas in another place than theirs" });
            }
            has_schemas = true;
        } else if kind != 0 && flags & REGION_REQUIRED != 0 {
            return Err(Error::Layout { what: "required region", ours: 0, theirs: kind.into() });
        }
    }
    Ok(has_schemas)
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
    let is_planned = u64_at(header, offset_of!(Header, slot_len)) == plan.slot_len
        && u64_at(header, offset_of!(Header, slots_off)) == plan.slots_off
        && u64_at(header, offset_of!(Header, slot_stride)) == plan.slot_stride;
    let are_planned = plan.rings.iter().enumerate().all(|(index, ring)| {
        let at = shape(index);
        u64_at(header, at + offset_of!(Shape, cursors_off)) == ring.cursors_off
            && u64_at(header, at + offset_of!(Shape, frames_off)) == ring.frames_off
            && u32_at(header, at + offset_of!(Shape, flags)) <= 1
    });
    if !is_planned || !are_planned {
        return Err(Error::Corrupt { what: "offsets that do not follow from the geometry" });
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
