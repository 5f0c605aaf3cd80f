//! The segments of this machine: what there is, and how to remove it.

use std::ffi::{CString, c_char, c_int};
use std::path::Path;
use std::time::UNIX_EPOCH;

use eshm::{Entry, EntryKind, Error, Schema, SegmentState, Snapshot};

use crate::classic::string;
use crate::fault::{Fault, SHM_DELETE};
use crate::guard::{call, status};
use crate::open::{DIRECTORY, directory};
use crate::seat::{Seat, Value};
use crate::sized;
use crate::slab::{Found, Slab};
use crate::thread::Kind;
use crate::types::{ESHMEntry, ESHMGeometry, ESHMRingStats, ESHMRoleState, ESHMSchema};

/// What a program holds a pointer to; nothing is ever there.
#[repr(C)]
pub struct ESHMList {
    _nothing: [u8; 0],
}

static LISTS: Slab<Seat<Vec<Item>>> = Slab::new(3, || Seat::new(Kind::Reading));

/// One file, with its texts as C wants them.
struct Item {
    name: CString,
    path: CString,
    why: CString,
    /// The names of the schemas.
    schemas: [CString; 2],
    kind: EntryKind,
}

impl From<Entry> for Item {
    fn from(entry: Entry) -> Self {
        let why = match &entry.kind {
            EntryKind::Bus(_) => String::new(),
            EntryKind::Leftover(why) | EntryKind::Foreign(why) => why.to_string(),
            EntryKind::Unreadable(error) => error.to_string(),
            _ => "of a kind newer than this interface".to_string(),
        };
        // Names of files hold no NUL.
        let text = |text: &str| CString::new(text).unwrap_or_default();
        let path = entry.path.display().to_string();
        let schemas = match &entry.kind {
            EntryKind::Bus(bus) => {
                [0, 1].map(|way: usize| text(bus.schemas[way].as_ref().map_or("", Schema::name)))
            }
            _ => Default::default(),
        };
        let (name, path, why) = (text(&entry.name), text(&path), text(&why));
        Item { name, path, why, schemas, kind: entry.kind }
    }
}

impl Value for Vec<Item> {}

fn find(list: *const ESHMList) -> Result<Found<Seat<Vec<Item>>>, Fault> {
    LISTS.find(list.addr()).ok_or(Fault::NoHandle)
}

/// `eshm_list_open`
///
/// # Safety
///
/// `path` is NULL or a text of C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_list_open(path: *const c_char) -> *mut ESHMList {
    call(|| {
        // SAFETY: as the caller promises.
        let path = unsafe { directory(path)? }.unwrap_or(DIRECTORY);
        let items = eshm::list_in(Path::new(path))?.into_iter().map(Item::from).collect();
        let reserved = LISTS.reserve().ok_or(Fault::Param("too many open lists"))?;
        reserved.slot.body.fill(reserved.handle(), items)?;
        Ok(std::ptr::without_provenance_mut(reserved.publish()))
    })
}

/// `eshm_list_count`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_list_count(list: *mut ESHMList) -> usize {
    call(|| {
        let found = find(list)?;
        Ok(found.slot.body.by(found.key()).take_briefly()?.len())
    })
}

/// `eshm_list_get`
///
/// # Safety
///
/// `entry` is NULL or has its size in front.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_list_get(
    list: *mut ESHMList,
    index: usize,
    entry: *mut ESHMEntry,
) -> c_int {
    status(|| {
        let found = find(list)?;
        let items = found.slot.body.by(found.key()).take_briefly()?;
        let item = items.get(index).ok_or(Fault::Param("the list has no such index"))?;
        // SAFETY: as the caller promises.
        unsafe { sized::write(entry, &described(item)) }
    })
}

fn described(item: &Item) -> ESHMEntry {
    let mut entry = empty();
    (entry.name, entry.path, entry.why) =
        (item.name.as_ptr(), item.path.as_ptr(), item.why.as_ptr());
    entry.kind = match &item.kind {
        EntryKind::Bus(_) => 0,
        EntryKind::Leftover(_) => 1,
        EntryKind::Foreign(_) => 2,
        _ => 3,
    };
    if let EntryKind::Bus(bus) = &item.kind {
        describe_bus(&mut entry, bus);
        let [down, up] = [0, 1].map(|way| schema_of(bus.schemas[way].as_ref(), &item.schemas[way]));
        (entry.master_to_slave_schema, entry.slave_to_master_schema) = (down, up);
    }
    entry
}

/// A schema as C has it, with its name as C wants it.
fn schema_of(schema: Option<&Schema>, name: &CString) -> ESHMSchema {
    schema.map_or(ESHMSchema::NONE, |schema| ESHMSchema {
        name: name.as_ptr(),
        version: schema.version(),
        reserved: 0,
        size: schema.size().unwrap_or(0),
        layout: schema.layout().unwrap_or(0),
    })
}

fn empty() -> ESHMEntry {
    ESHMEntry {
        struct_size: size_of::<ESHMEntry>(),
        name: c"".as_ptr(),
        path: c"".as_ptr(),
        why: c"".as_ptr(),
        kind: 0,
        state: 0,
        size: 0,
        mode: 0,
        uid: 0,
        created_ns: 0,
        generation: 0,
        master_to_slave: ESHMGeometry::default(),
        slave_to_master: ESHMGeometry::default(),
        master: ESHMRoleState::default(),
        slave: ESHMRoleState::default(),
        master_to_slave_stats: ESHMRingStats::default(),
        slave_to_master_stats: ESHMRingStats::default(),
        master_to_slave_schema: ESHMSchema::NONE,
        slave_to_master_schema: ESHMSchema::NONE,
    }
}

fn describe_bus(entry: &mut ESHMEntry, bus: &Snapshot) {
    entry.state = match bus.state {
        SegmentState::Live => 0,
        SegmentState::Sealed => 1,
        SegmentState::Retired => 2,
    };
    let since_1970 = bus.created.duration_since(UNIX_EPOCH).unwrap_or_default();
    (entry.size, entry.mode, entry.uid) = (bus.size, bus.mode, bus.uid);
    entry.created_ns = i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX);
    entry.generation = bus.generation;
    entry.master_to_slave = bus.master_to_slave.into();
    entry.slave_to_master = bus.slave_to_master.into();
    entry.master = (&bus.stats.master).into();
    entry.slave = (&bus.stats.slave).into();
    entry.master_to_slave_stats = (&bus.stats.master_to_slave).into();
    entry.slave_to_master_stats = (&bus.stats.slave_to_master).into();
}

/// `eshm_list_close`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_list_close(list: *mut ESHMList) -> c_int {
    status(|| crate::tap::close(find(list)?))
}

/// `eshm_remove`
///
/// # Safety
///
/// `name` and `path` are NULL or texts of C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_remove(name: *const c_char, path: *const c_char, force: u8) -> c_int {
    status(|| {
        // SAFETY: as the caller promises.
        let name = unsafe { string(name, "name is NULL")? };
        // SAFETY: as the caller promises.
        let path = unsafe { directory(path)? }.unwrap_or(DIRECTORY);
        eshm::remove_in(Path::new(path), name, force != 0).map_err(|error| match error {
            Error::Os { .. } | Error::Access { .. } => Fault::As(SHM_DELETE, error),
            other => Fault::Eshm(other),
        })
    })
}
