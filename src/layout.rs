//! What lies where in shared memory. The memory is a document; this file is its table of contents.
//!
//! ```text
//!  0          slots_off        + slot_stride
//!  +----------+----------------+----------------+- - -
//!  | header   | slot 0         | slot 1         |
//!  +----------+----------------+----------------+- - -
//!    one page
//!
//!  slot:
//!  0          4096          8192          ...          ...           slot_len
//!  +----------+-------------+-------------+-------------+-------------+
//!  | its page | m2s cursors | m2s frames  | s2m cursors | s2m frames  |
//!  +----------+-------------+-------------+-------------+-------------+
//! ```
//!
//! Only fixed-width atomics and explicit padding; no bool, enum, usize or pointer. Little-endian
//! (the magic reads differently elsewhere). Offsets are asserted below, written down in
//! `docs/layout.md`, and folded into [`LAYOUT_ID`], which two builds must share to talk.
//!
//! Words that are written often by one side stand on a pair of cache lines of their own (128
//! bytes, since processors fetch lines in pairs). Read next: `ring.rs`, which says what the words
//! mean, and `docs/one-file.md`, which says why there are slots.
#![forbid(unsafe_code)]

use std::mem::{offset_of, size_of};

use crate::config::{Geometry, Overflow};
use crate::error::{Error, Result};
use crate::schema::SCHEMA_NAME_MAX;
use crate::sync::{AtomicU32, AtomicU64, FIRST_LINE, REAL};

/// First word of a segment: the bytes `eshmbus\n`. Its low half differs from `0x4553484D`, which
/// the older C++ library puts there.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"eshmbus\n");
/// Raised with every change of meaning.
pub(crate) const LAYOUT_VERSION: u32 = 3;
/// Written where the older library looks before it deletes a segment that it does not know.
pub(crate) const GUARD: u32 = 0x6d68_7365;
/// Everything is laid out in these; independent of the page size of the machine.
pub(crate) const PAGE: u64 = 4096;
/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER: usize = 8;
/// Frame sizes are multiples of this, a cache line; or a fraction of it.
pub(crate) const FRAME_ALIGN: u32 = 64;
/// The smallest frame: a header and one word.
pub(crate) const FRAME_SIZE_MIN: u32 = 16;
const _: () = assert!(FRAME_HEADER + FIRST_LINE == FRAME_ALIGN as usize);
/// The largest frame.
pub(crate) const FRAME_SIZE_MAX: u32 = 1 << 20;
/// The largest segment: what every 64-bit Linux can map.
const SEGMENT_MAX: u64 = 1 << 46;
/// The longest name.
pub(crate) const NAME_MAX: usize = 200;
/// Slots of a file: two, and one for each process that is frozen in the middle of something.
pub(crate) const SLOTS_MAX: usize = 16;
/// Records of a cut, each belonging to a lock: master's, slave's, and that of each slot in the making.
pub(crate) const CUT_RECORDS: usize = 2 + SLOTS_MAX;
/// Entries of the table of optional regions.
pub(crate) const REGIONS: usize = 8;
/// Slots begin at multiples of this, which is the largest page of any machine...
const SLOT_ALIGN: u64 = 64 << 10;
/// ...and large ones at multiples of a huge page.
const LARGE_SLOT_ALIGN: u64 = 2 << 20;
/// Records of a producer's place, written in turn. Whoever reads the one that counts reads it whole, unless
/// the producer stores its place three times meanwhile.
pub(crate) const PLACES: usize = 4;
/// Boundaries remembered per ring, one per eighth.
pub(crate) const MARKS: usize = 8;

/// The first page.
#[repr(C)]
pub(crate) struct Header {
    pub magic: AtomicU64,
    pub layout_version: AtomicU32,
    pub header_len: AtomicU32,
    pub layout_id: AtomicU64,
    pub slot_len: AtomicU64,
    pub mode: AtomicU32,
    pub guard: AtomicU32,
    pub slots_off: AtomicU64,
    pub slot_stride: AtomicU64,
    pub created_ns: AtomicU64,
    pub shapes: [Shape; 2],
    pub beat_interval_us: AtomicU32,
    pub stale_after_ms: AtomicU32,
    pub name_len: AtomicU32,
    _pad0: [u32; 29],
    pub name: [AtomicU64; 32],
    pub turn: TurnLine,
    pub regions: [Region; REGIONS],
    _pad1: [u64; 408],
}

/// The shape of one ring. Offsets count from the beginning of a slot.
#[repr(C)]
pub(crate) struct Shape {
    pub frame_size: AtomicU32,
    /// Bit 0: the oldest messages are overwritten.
    pub flags: AtomicU32,
    pub frames: AtomicU64,
    pub cursors_off: AtomicU64,
    pub frames_off: AtomicU64,
}

/// The word that says which slot counts: a [`Turn`].
#[repr(C, align(128))]
pub(crate) struct TurnLine {
    pub word: AtomicU64,
}

/// Something that later builds add: what it is, and where in the file. Kind 0 is none.
#[repr(C)]
pub(crate) struct Region {
    pub kind: AtomicU32,
    /// Bit 0: who does not know the kind must not use the bus.
    pub flags: AtomicU32,
    pub offset: AtomicU64,
    pub len: AtomicU64,
}

/// In [`Region::flags`].
pub(crate) const REGION_REQUIRED: u32 = 1;
/// In [`Region::flags`]: the offset counts from the beginning of each slot.
pub(crate) const REGION_IN_SLOT: u32 = 2;
/// A [`Region::kind`]: what the messages are, in [`SlotPage::schemas`].
pub(crate) const REGION_SCHEMAS: u32 = 1;

/// Which slot counts, and since how many changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn(pub u64);

/// In the low bits of a [`Turn`]: no slot counts, the last endpoint has left.
pub(crate) const RETIRED: u64 = 0xffff;

impl Turn {
    /// How many changes there were.
    pub(crate) fn generation(self) -> u64 {
        self.0 >> 16
    }

    /// The slot that counts, if any does.
    pub(crate) fn slot(self) -> Option<usize> {
        let place = self.0 & RETIRED;
        (place < SLOTS_MAX as u64).then_some(place as usize)
    }

    /// Whether the bus is retired.
    pub(crate) fn is_retired(self) -> bool {
        self.0 & RETIRED == RETIRED
    }

    /// The turn after this one: another slot, or none.
    pub(crate) fn next(self, slot: Option<usize>) -> Turn {
        let place = slot.map_or(RETIRED, |slot| slot as u64);
        Turn(self.generation().wrapping_add(1) << 16 | place)
    }
}

/// The page that begins a slot.
#[repr(C)]
pub(crate) struct SlotPage {
    /// The generation of the turn in which the slot came to count; 0 before.
    pub generation: AtomicU64,
    /// Random, made with the bus; a slot that replaces another has the same.
    pub lineage: AtomicU64,
    _pad0: [u64; 14],
    pub fate: Fate,
    pub roles: [RoleLines; 2],
    pub cuts: [Cut; CUT_RECORDS],
    /// An optional region: of meaning only if the header has one of kind [`REGION_SCHEMAS`]. Written
    /// before the slot comes to count, and never again.
    pub schemas: [SchemaLines; 2],
    _pad1: [u64; 96],
}

/// How the slot ends. All zero while it lives.
#[repr(C, align(128))]
pub(crate) struct Fate {
    /// [`SEALED`] once somebody began to replace it.
    pub sealed: AtomicU32,
    /// One more than the chosen record of [`SlotPage::cuts`]; also a futex.
    pub cut: AtomicU32,
}

/// In [`Fate::sealed`].
pub(crate) const SEALED: u32 = 1;

/// Who holds a role: for people to read. The lock decides, not this.
#[repr(C, align(128))]
pub(crate) struct RoleLines {
    /// How many owners the role had.
    pub epoch: AtomicU64,
    pub start_time: AtomicU64,
    pub pid_ns: AtomicU64,
    /// While the state is [`ROLE_MOVING`]: what keeps the role, a [`Keeper`].
    pub keeper: AtomicU64,
    pub pid: AtomicU32,
    /// One of the `ROLE_*` constants.
    pub state: AtomicU32,
    /// [`REGISTERED`].
    pub capabilities: AtomicU32,
    /// What the owner wished for the end when it left: one of the `WISH_*` constants.
    pub wish: AtomicU32,
    /// How often the owner beats.
    pub beat_interval_us: AtomicU32,
    _pad0: AtomicU32,
    _pad1: [u64; 9],
    /// On lines of their own: the owner writes them every millisecond.
    pub beat: AtomicU64,
    /// Calls that found nothing to do; with the positions it tells a stuck application from an idle
    /// one.
    pub progress: AtomicU64,
    _pad2: [u64; 14],
}

/// Nobody held the role yet.
pub(crate) const ROLE_ABSENT: u32 = 0;
/// Somebody does, or died doing so.
pub(crate) const ROLE_JOINED: u32 = 1;
/// The last owner left cleanly.
pub(crate) const ROLE_LEFT: u32 = 2;
/// The owner lives on a slot before this one, and is about to move over.
pub(crate) const ROLE_MOVING: u32 = 3;
/// In [`RoleLines::capabilities`]: membarrier reaches this process.
pub(crate) const REGISTERED: u32 = 1;
/// In [`RoleLines::wish`]: remove the bus when nothing is unread.
pub(crate) const WISH_WHEN_READ: u32 = 1;
/// Remove it whatever is unread.
pub(crate) const WISH_ALWAYS: u32 = 2;
/// Leave it.
pub(crate) const WISH_NEVER: u32 = 3;
/// A yes of ESHM's own calls: enough if one of two such owners says it.
pub(crate) const WISH_CLASSIC_YES: u32 = 4;
/// A no of ESHM's own calls.
pub(crate) const WISH_CLASSIC_NO: u32 = 5;

/// The lock that keeps a role for an owner who still has to move: a byte of the file, and the
/// generation of the slot that it belongs to, since slots are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keeper {
    pub generation: u64,
    pub byte: u64,
}

impl Keeper {
    pub(crate) fn to_word(self) -> u64 {
        self.generation << 16 | (self.byte + 1)
    }

    pub(crate) fn from_word(word: u64) -> Option<Keeper> {
        let byte = (word & 0xffff).checked_sub(1).filter(|&byte| byte < LOCK_BYTES)?;
        Some(Keeper { generation: word >> 16, byte })
    }
}

/// Lock bytes per slot: master, slave, builder, readers, in this order.
pub(crate) const SLOT_LOCKS: u64 = 4;
/// Of those, the builder's.
pub(crate) const BUILDER: u64 = 2;
/// Of those, the readers'.
pub(crate) const READERS: u64 = 3;
/// All lock bytes of a bus.
pub(crate) const LOCK_BYTES: u64 = SLOT_LOCKS * SLOTS_MAX as u64;

/// The first lock byte of a slot.
pub(crate) fn locks_of(slot: usize) -> u64 {
    slot as u64 * SLOT_LOCKS
}

/// Where both rings ended when the segment was sealed.
#[repr(C, align(128))]
pub(crate) struct Cut {
    pub rings: [RingCut; 2],
}

/// Where one ring ended.
#[repr(C)]
pub(crate) struct RingCut {
    pub head: AtomicU64,
    pub head_number: AtomicU64,
    pub head_epoch: AtomicU64,
    pub bytes: AtomicU64,
    pub tail: AtomicU64,
    pub tail_number: AtomicU64,
    pub tail_epoch: AtomicU64,
    /// How many owners ago the last message before each place was written: the head's in the low half,
    /// the tail's in the high one.
    pub ages: AtomicU64,
}

/// What the messages of one direction are. All zero if nobody has said.
#[repr(C, align(128))]
pub(crate) struct SchemaLines {
    pub name: [AtomicU64; SCHEMA_NAME_MAX / 8],
    /// A number for how the fields lie; 0 if it was not said.
    pub layout: AtomicU64,
    /// Bytes of a message; with a layout, or if it is not 0.
    pub size: AtomicU64,
    pub version: AtomicU32,
    /// Bytes of the name; 0 if there is no schema.
    pub name_len: AtomicU32,
}

/// The cursor page of one ring.
#[repr(C)]
pub(crate) struct RingLines {
    pub producer: ProducerLine,
    pub consumer: ConsumerLine,
    pub space: SpaceLine,
    pub data_bell: BellLine,
    pub room_bell: BellLine,
    pub reserve: ReserveLine,
    pub marks: [Mark; MARKS],
    pub producer_stats: ProducerStats,
    pub consumer_stats: ConsumerStats,
    _pad: [u64; 336],
}

/// The producer's truth as of its last reservation. The frames from there on tell the rest.
#[repr(C, align(128))]
pub(crate) struct ProducerLine {
    /// How often the place was stored, each time into the next record.
    pub stored: AtomicU64,
    pub places: [PlaceWords; PLACES],
}

/// A position of the producer with all that belongs to it.
#[repr(C)]
pub(crate) struct PlaceWords {
    pub pos: AtomicU64,
    pub number: AtomicU64,
    pub bytes: AtomicU64,
    /// The epoch that was announced last.
    pub epoch: AtomicU64,
    /// The epoch of the message before.
    pub last_epoch: AtomicU64,
}

/// The consumer's truth, stored at every message and polled by nobody.
#[repr(C, align(128))]
pub(crate) struct ConsumerLine {
    pub tail: AtomicU64,
    pub number: AtomicU64,
    /// The epoch of the messages at `tail`.
    pub epoch: AtomicU64,
    /// Messages that were overwritten before they could be read.
    pub lost: AtomicU64,
    /// The number from which on messages are of `epoch`.
    pub epoch_from: AtomicU64,
    /// The epoch of the message before that.
    pub epoch_before: AtomicU64,
}

/// How far the consumer has read, told rarely.
#[repr(C, align(128))]
pub(crate) struct SpaceLine {
    pub space: AtomicU64,
}

/// A doorbell: what the other side wants to be told of. Zero while nobody waits.
#[repr(C, align(128))]
pub(crate) struct BellLine {
    pub word: AtomicU32,
    _pad: AtomicU32,
    /// Names what a sleeper that polls is woken by; 0 is nothing.
    pub token: AtomicU64,
}

/// How far frames may have been overwritten.
#[repr(C, align(128))]
pub(crate) struct ReserveLine {
    pub reserve: AtomicU64,
}

/// A position where a frame begins, with what the message there is.
#[repr(C, align(32))]
pub(crate) struct Mark {
    pub pos: AtomicU64,
    pub number: AtomicU64,
    pub epoch: AtomicU64,
}

/// Rare events of the writing side.
#[repr(C, align(128))]
pub(crate) struct ProducerStats {
    pub times_full: AtomicU64,
    pub parks: AtomicU64,
    /// Sleeping readers that it woke.
    pub wakes: AtomicU64,
    /// Most frames seen in use.
    pub high_water: AtomicU64,
}

/// Rare events of the reading side.
#[repr(C, align(128))]
pub(crate) struct ConsumerStats {
    pub parks: AtomicU64,
    /// Sleeping writers that it woke.
    pub wakes: AtomicU64,
}

/// What `docs/layout.md` lists: every name with its offset in its structure.
pub(crate) const FIELDS: &[(&str, usize)] = &[
    ("header.magic", offset_of!(Header, magic)),
    ("header.layout_version", offset_of!(Header, layout_version)),
    ("header.header_len", offset_of!(Header, header_len)),
    ("header.layout_id", offset_of!(Header, layout_id)),
    ("header.slot_len", offset_of!(Header, slot_len)),
    ("header.mode", offset_of!(Header, mode)),
    ("header.guard", offset_of!(Header, guard)),
    ("header.slots_off", offset_of!(Header, slots_off)),
    ("header.slot_stride", offset_of!(Header, slot_stride)),
    ("header.created_ns", offset_of!(Header, created_ns)),
    ("header.shapes", offset_of!(Header, shapes)),
    ("header.beat_interval_us", offset_of!(Header, beat_interval_us)),
    ("header.stale_after_ms", offset_of!(Header, stale_after_ms)),
    ("header.name_len", offset_of!(Header, name_len)),
    ("header.name", offset_of!(Header, name)),
    ("header.turn", offset_of!(Header, turn)),
    ("header.regions", offset_of!(Header, regions)),
    ("header (size)", size_of::<Header>()),
    ("region.kind", offset_of!(Region, kind)),
    ("region.flags", offset_of!(Region, flags)),
    ("region.offset", offset_of!(Region, offset)),
    ("region.len", offset_of!(Region, len)),
    ("region (size)", size_of::<Region>()),
    ("slot.generation", offset_of!(SlotPage, generation)),
    ("slot.lineage", offset_of!(SlotPage, lineage)),
    ("slot.fate", offset_of!(SlotPage, fate)),
    ("slot.roles", offset_of!(SlotPage, roles)),
    ("slot.cuts", offset_of!(SlotPage, cuts)),
    ("slot page (size)", size_of::<SlotPage>()),
    ("shape.frame_size", offset_of!(Shape, frame_size)),
    ("shape.flags", offset_of!(Shape, flags)),
    ("shape.frames", offset_of!(Shape, frames)),
    ("shape.cursors_off", offset_of!(Shape, cursors_off)),
    ("shape.frames_off", offset_of!(Shape, frames_off)),
    ("shape (size)", size_of::<Shape>()),
    ("fate.sealed", offset_of!(Fate, sealed)),
    ("fate.cut", offset_of!(Fate, cut)),
    ("fate (size)", size_of::<Fate>()),
    ("role.epoch", offset_of!(RoleLines, epoch)),
    ("role.start_time", offset_of!(RoleLines, start_time)),
    ("role.pid_ns", offset_of!(RoleLines, pid_ns)),
    ("role.keeper", offset_of!(RoleLines, keeper)),
    ("role.pid", offset_of!(RoleLines, pid)),
    ("role.state", offset_of!(RoleLines, state)),
    ("role.capabilities", offset_of!(RoleLines, capabilities)),
    ("role.wish", offset_of!(RoleLines, wish)),
    ("role.beat_interval_us", offset_of!(RoleLines, beat_interval_us)),
    ("role.beat", offset_of!(RoleLines, beat)),
    ("role.progress", offset_of!(RoleLines, progress)),
    ("role (size)", size_of::<RoleLines>()),
    ("cut.head", offset_of!(RingCut, head)),
    ("cut.head_number", offset_of!(RingCut, head_number)),
    ("cut.head_epoch", offset_of!(RingCut, head_epoch)),
    ("cut.bytes", offset_of!(RingCut, bytes)),
    ("cut.tail", offset_of!(RingCut, tail)),
    ("cut.tail_number", offset_of!(RingCut, tail_number)),
    ("cut.tail_epoch", offset_of!(RingCut, tail_epoch)),
    ("cut.ages", offset_of!(RingCut, ages)),
    ("cut of one ring (size)", size_of::<RingCut>()),
    ("cut (size)", size_of::<Cut>()),
    ("ring.producer.stored", offset_of!(RingLines, producer.stored)),
    ("ring.producer.places", offset_of!(RingLines, producer.places)),
    ("place.pos", offset_of!(PlaceWords, pos)),
    ("place.number", offset_of!(PlaceWords, number)),
    ("place.bytes", offset_of!(PlaceWords, bytes)),
    ("place.epoch", offset_of!(PlaceWords, epoch)),
    ("place.last_epoch", offset_of!(PlaceWords, last_epoch)),
    ("place (size)", size_of::<PlaceWords>()),
    ("ring.consumer.tail", offset_of!(RingLines, consumer.tail)),
    ("ring.consumer.number", offset_of!(RingLines, consumer.number)),
    ("ring.consumer.epoch", offset_of!(RingLines, consumer.epoch)),
    ("ring.consumer.lost", offset_of!(RingLines, consumer.lost)),
    ("ring.consumer.epoch_from", offset_of!(RingLines, consumer.epoch_from)),
    ("ring.consumer.epoch_before", offset_of!(RingLines, consumer.epoch_before)),
    ("ring.space", offset_of!(RingLines, space.space)),
    ("ring.data_bell", offset_of!(RingLines, data_bell.word)),
    ("ring.data_token", offset_of!(RingLines, data_bell.token)),
    ("ring.room_bell", offset_of!(RingLines, room_bell.word)),
    ("ring.room_token", offset_of!(RingLines, room_bell.token)),
    ("ring.reserve", offset_of!(RingLines, reserve.reserve)),
    ("ring.marks", offset_of!(RingLines, marks)),
    ("mark.pos", offset_of!(Mark, pos)),
    ("mark.number", offset_of!(Mark, number)),
    ("mark.epoch", offset_of!(Mark, epoch)),
    ("mark (size)", size_of::<Mark>()),
    ("ring.producer_stats.times_full", offset_of!(RingLines, producer_stats.times_full)),
    ("ring.producer_stats.parks", offset_of!(RingLines, producer_stats.parks)),
    ("ring.producer_stats.wakes", offset_of!(RingLines, producer_stats.wakes)),
    ("ring.producer_stats.high_water", offset_of!(RingLines, producer_stats.high_water)),
    ("ring.consumer_stats.parks", offset_of!(RingLines, consumer_stats.parks)),
    ("ring.consumer_stats.wakes", offset_of!(RingLines, consumer_stats.wakes)),
    ("ring cursors (size)", size_of::<RingLines>()),
    ("frame.commit", 0),
    ("frame.payload", FRAME_HEADER),
];

/// The optional regions, which `docs/layout.md` lists too. They are not part of [`LAYOUT_ID`]: builds
/// that know them talk to builds that do not.
#[cfg(test)]
pub(crate) const OPTIONAL: &[(&str, usize)] = &[
    ("slot.schemas", offset_of!(SlotPage, schemas)),
    ("schema.name", offset_of!(SchemaLines, name)),
    ("schema.layout", offset_of!(SchemaLines, layout)),
    ("schema.size", offset_of!(SchemaLines, size)),
    ("schema.version", offset_of!(SchemaLines, version)),
    ("schema.name_len", offset_of!(SchemaLines, name_len)),
    ("schema (size)", size_of::<SchemaLines>()),
];

/// All names and offsets of [`FIELDS`] in one number (FNV-1a): builds that differ in any of them do not
/// talk to each other.
pub(crate) const LAYOUT_ID: u64 = fold_fields();

const fn fold_fields() -> u64 {
    let mut hash = fold(0xcbf2_9ce4_8422_2325, LAYOUT_VERSION as u64);
    let mut index = 0;
    while index < FIELDS.len() {
        let (name, offset) = FIELDS[index];
        let bytes = name.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            hash = fold(hash, bytes[at] as u64);
            at += 1;
        }
        hash = fold(hash, offset as u64);
        index += 1;
    }
    hash
}

const fn fold(hash: u64, value: u64) -> u64 {
    (hash ^ value).wrapping_mul(0x0000_0100_0000_01b3)
}

const _: () = assert!(!REAL || size_of::<Header>() as u64 == PAGE);
const _: () = assert!(!REAL || size_of::<SlotPage>() as u64 == PAGE);
const _: () = assert!(!REAL || size_of::<RingLines>() as u64 == PAGE);
const _: () = assert!(!REAL || offset_of!(Header, guard) == 36);
const _: () = assert!(!REAL || size_of::<Cut>() == 128 && size_of::<Mark>() == 32);
const _: () = assert!(cfg!(target_endian = "little"), "the segment is little-endian");

/// Where everything of a file lies: computed from the two geometries with checked arithmetic, and
/// kept in private memory. The mapping's own copy is read once and compared, never used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub rings: [RingPlan; 2],
    pub slot_len: u64,
    pub slots_off: u64,
    pub slot_stride: u64,
}

/// Where one ring lies in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingPlan {
    pub geometry: Geometry,
    pub cursors_off: u64,
    pub frames_off: u64,
}

impl Plan {
    /// The plan for these geometries, or what is wrong with them.
    pub(crate) fn new(geometries: [Geometry; 2]) -> Result<Plan> {
        let mut len = PAGE;
        let mut rings = [RingPlan { geometry: geometries[0], cursors_off: 0, frames_off: 0 }; 2];
        for (ring, geometry) in rings.iter_mut().zip(geometries) {
            geometry.check()?;
            let bytes = u64::from(geometry.frame_size)
                .checked_mul(geometry.frames)
                .and_then(|bytes| bytes.checked_next_multiple_of(PAGE))
                .filter(|&bytes| bytes <= SEGMENT_MAX)
                .ok_or(Error::Config {
                    what: "frames",
                    value: geometry.frames,
                    why: "frames times frame size is more than a machine can map",
                })?;
            *ring = RingPlan { geometry, cursors_off: len, frames_off: len + PAGE };
            len += PAGE + bytes;
        }
        let align = if len < LARGE_SLOT_ALIGN { SLOT_ALIGN } else { LARGE_SLOT_ALIGN };
        let stride = len.next_multiple_of(align);
        Ok(Plan { rings, slot_len: len, slots_off: align, slot_stride: stride })
    }

    /// Where a slot begins.
    pub(crate) fn slot_off(&self, slot: usize) -> u64 {
        self.slots_off + slot as u64 * self.slot_stride
    }

    /// Where a slot ends.
    pub(crate) fn slot_end(&self, slot: usize) -> u64 {
        self.slot_off(slot) + self.slot_len
    }
}

impl Geometry {
    /// The longest message: half the ring, so that one always fits between the positions and the
    /// end.
    #[must_use]
    pub fn max_message(&self) -> usize {
        let frames = (self.frames / 2).max(1);
        let bytes = frames.saturating_mul(u64::from(self.frame_size)) - FRAME_HEADER as u64;
        // The highest length values name control frames.
        bytes.min(u64::from(u32::MAX / 2)) as usize
    }

    fn check(&self) -> Result<()> {
        let bad = |what, value, why| Err(Error::Config { what, value, why });
        let size = u64::from(self.frame_size);
        let is_small = matches!(self.frame_size, FRAME_SIZE_MIN | 32);
        if self.frame_size == 0 || !is_small && !self.frame_size.is_multiple_of(FRAME_ALIGN) {
            return bad("frame_size", size, "must be 16, 32 or a multiple of 64");
        }
        if self.frame_size > FRAME_SIZE_MAX {
            return bad("frame_size", size, "must be at most 1048576");
        }
        if self.frames < 2 || !self.frames.is_power_of_two() {
            return bad("frames", self.frames, "must be a power of two, at least 2");
        }
        Ok(())
    }

    /// The flags of [`Shape`].
    pub(crate) fn flags(&self) -> u32 {
        u32::from(self.overflow == Overflow::Overwrite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of a document: each row `| name | number |`, the name in backquotes.
    fn rows(text: &str) -> Vec<(String, u64)> {
        text.lines()
            .filter_map(|line| {
                let mut cells = line.strip_prefix("| `")?.split('|');
                let name = cells.next()?.trim().trim_end_matches('`').to_owned();
                let number = cells.next()?.trim();
                let number = match number.strip_prefix("0x") {
                    Some(hex) => u64::from_str_radix(&hex.replace('_', ""), 16),
                    None => number.parse(),
                };
                Some((name, number.ok()?))
            })
            .collect()
    }

    #[test]
    fn the_document_says_what_the_code_does() {
        let text = include_str!("../docs/layout.md");
        let mut expected: Vec<(String, u64)> =
            FIELDS.iter().chain(OPTIONAL).map(|&(name, at)| (name.to_owned(), at as u64)).collect();
        let constants = [
            ("MAGIC", MAGIC),
            ("LAYOUT_VERSION", LAYOUT_VERSION.into()),
            ("LAYOUT_ID", LAYOUT_ID),
            ("GUARD", GUARD.into()),
            ("PAGE", PAGE),
            ("FRAME_ALIGN", FRAME_ALIGN.into()),
            ("FRAME_SIZE_MIN", FRAME_SIZE_MIN.into()),
            ("FRAME_SIZE_MAX", FRAME_SIZE_MAX.into()),
            ("SEGMENT_MAX", SEGMENT_MAX),
            ("NAME_MAX", NAME_MAX as u64),
            ("SLOTS_MAX", SLOTS_MAX as u64),
            ("CUT_RECORDS", CUT_RECORDS as u64),
            ("REGION_REQUIRED", REGION_REQUIRED.into()),
            ("REGION_IN_SLOT", REGION_IN_SLOT.into()),
            ("REGION_SCHEMAS", REGION_SCHEMAS.into()),
            ("SCHEMA_NAME_MAX", SCHEMA_NAME_MAX as u64),
            ("SLOT_LOCKS", SLOT_LOCKS),
            ("BUILDER", BUILDER),
            ("READERS", READERS),
            ("MARKS", MARKS as u64),
            ("PLACES", PLACES as u64),
            ("SEALED", SEALED.into()),
            ("RETIRED", RETIRED),
            ("ROLE_ABSENT", ROLE_ABSENT.into()),
            ("ROLE_JOINED", ROLE_JOINED.into()),
            ("ROLE_LEFT", ROLE_LEFT.into()),
            ("ROLE_MOVING", ROLE_MOVING.into()),
            ("REGISTERED", REGISTERED.into()),
            ("WISH_WHEN_READ", WISH_WHEN_READ.into()),
            ("WISH_ALWAYS", WISH_ALWAYS.into()),
            ("WISH_NEVER", WISH_NEVER.into()),
            ("WISH_CLASSIC_YES", WISH_CLASSIC_YES.into()),
            ("WISH_CLASSIC_NO", WISH_CLASSIC_NO.into()),
            ("bell SLEEP", crate::ring::SLEEP.into()),
            ("bell SEALED", crate::ring::SEALED.into()),
            ("bell FENCE", crate::ring::FENCE.into()),
            ("bell LOOK", crate::ring::LOOK.into()),
            ("length SKIP", crate::ring::SKIP.into()),
            ("length EPOCH", crate::ring::EPOCH.into()),
        ];
        expected.extend(constants.map(|(name, value)| (name.to_owned(), value)));
        let mut found = rows(text);
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "docs/layout.md and src/layout.rs differ");
    }

    #[test]
    fn a_plan_is_checked_arithmetic() {
        let plan = |frame_size, frames| {
            let geometry = Geometry { frame_size, frames, overflow: Overflow::Refuse };
            Plan::new([geometry, Geometry::default()])
        };
        assert_eq!(plan(64, 64).unwrap().slot_len, 4096 * (1 + 1 + 1 + 1 + 128));
        let large = plan(64, 1 << 20).unwrap();
        assert!(
            large.slot_off(3).is_multiple_of(2 << 20) && large.slot_end(2) <= large.slot_off(3)
        );
        for (frame_size, frames) in [
            (0, 8),
            (8, 8),
            (48, 8),
            (65, 8),
            (2 << 20, 8),
            (64, 0),
            (64, 1),
            (64, 3),
            (64, 1 << 63),
        ] {
            let error = plan(frame_size, frames).unwrap_err();
            assert!(matches!(error, Error::Config { .. }), "{frame_size} {frames}: {error}");
        }
    }
}
