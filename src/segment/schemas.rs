//! What the messages of a bus are, as its slot says it.
//!
//! Written while a slot is made, before anybody can see it, and never again. Whoever reads copies it
//! once and believes only the copy: a peer that lies may change it at any time.
#![forbid(unsafe_code)]

use super::{BusFile, Segment};
use crate::config::Direction;
use crate::error::{Error, Result};
use crate::layout::{SchemaLines, SlotPage};
use crate::schema::Schema;
use crate::sync::Ordering;

impl BusFile {
    /// What the messages of a direction are, as a slot with this page says it; none if nobody has.
    pub(crate) fn schema_in(
        &self,
        page: &SlotPage,
        direction: Direction,
    ) -> Result<Option<Schema>> {
        if !self.facts().has_schemas {
            return Ok(None);
        }
        read(&page.schemas[direction as usize])
    }
}

impl Segment {
    /// What the messages of a direction are; none if nobody has said.
    pub(crate) fn schema(&self, direction: Direction) -> Result<Option<Schema>> {
        self.bus().schema_in(self.page(), direction)
    }

    /// Says what the messages are, in a slot that does not count yet, of a file with a place for it.
    pub(crate) fn say_schemas(&self, schemas: [Option<&Schema>; 2]) {
        for (lines, schema) in self.page().schemas.iter().zip(schemas) {
            if let Some(schema) = schema {
                write(lines, schema);
            }
        }
    }

    /// Says in a slot that does not count yet what the slot says that it replaces.
    pub(crate) fn repeat_schemas(&self, old: &Segment) {
        for (to, from) in self.page().schemas.iter().zip(&old.page().schemas) {
            // Relaxed: it never changes, and the new slot does not count yet.
            let (load, store) = (Ordering::Relaxed, Ordering::Relaxed);
            let name_len = from.name_len.load(load);
            if name_len == 0 {
                continue;
            }
            to.name_len.store(name_len, store);
            to.version.store(from.version.load(load), store);
            to.size.store(from.size.load(load), store);
            to.layout.store(from.layout.load(load), store);
            for (to, from) in to.name.iter().zip(&from.name) {
                to.store(from.load(load), store);
            }
        }
    }
}

fn write(lines: &SchemaLines, schema: &Schema) {
    // Relaxed: the slot does not count yet.
    let store = Ordering::Relaxed;
    let name = schema.name().as_bytes();
    lines.name_len.store(name.len() as u32, store);
    lines.version.store(schema.version(), store);
    lines.size.store(schema.size().unwrap_or(0), store);
    lines.layout.store(schema.layout().unwrap_or(0), store);
    for (word, chunk) in lines.name.iter().zip(name.chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        word.store(u64::from_le_bytes(bytes), store);
    }
}

fn read(lines: &SchemaLines) -> Result<Option<Schema>> {
    // Relaxed: written before the slot came to count. Each word is loaded once.
    let load = Ordering::Relaxed;
    let name_len = lines.name_len.load(load) as usize;
    if name_len == 0 {
        return Ok(None);
    }
    let mut name = [0; size_of::<[u64; 8]>()];
    for (bytes, word) in name.chunks_mut(8).zip(&lines.name) {
        bytes.copy_from_slice(&word.load(load).to_le_bytes());
    }
    let corrupt = || Error::Corrupt { what: "a schema that is none" };
    let name = name.get(..name_len).ok_or_else(corrupt)?;
    let name = std::str::from_utf8(name).map_err(|_| corrupt())?;
    let schema = Schema::new(name, lines.version.load(load))
        .with_size(lines.size.load(load))
        .with_layout(lines.layout.load(load));
    schema.check().map_err(|_| corrupt())?;
    Ok(Some(schema))
}

#[cfg(all(test, not(eshm_sim)))]
mod tests {
    use super::*;
    use crate::schema::SCHEMA_NAME_MAX;
    use crate::sync::{AtomicU32, AtomicU64};

    fn empty() -> SchemaLines {
        SchemaLines {
            name: [const { AtomicU64::new(0) }; SCHEMA_NAME_MAX / 8],
            layout: AtomicU64::new(0),
            size: AtomicU64::new(0),
            version: AtomicU32::new(0),
            name_len: AtomicU32::new(0),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&empty()), Ok(None));
        let longest = "é".repeat(SCHEMA_NAME_MAX / 2);
        for name in ["a", "telemetry", longest.as_str()] {
            for schema in [
                Schema::new(name, u32::MAX),
                Schema::new(name, 0).with_size(48),
                Schema::new(name, 1).with_size(0).with_layout(u64::MAX),
            ] {
                let lines = empty();
                write(&lines, &schema);
                assert_eq!(read(&lines), Ok(Some(schema)));
            }
        }
    }

    /// Seeded dice over all words: an answer, and one that can be printed.
    #[test]
    fn any_bytes_at_all_are_answered() {
        let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
        let mut roll = || {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice
        };
        let (mut read_well, mut refused) = (0, 0);
        for _ in 0..100_000 {
            let lines = empty();
            let is_text = roll() % 2 == 0;
            for word in &lines.name {
                let bytes = roll();
                // Half of them are plain letters, so that some get through.
                let letters = (bytes & 0x0707_0707_0707_0707) | 0x6060_6060_6060_6060;
                word.store(if is_text { letters } else { bytes }, Ordering::Relaxed);
            }
            let len = if roll() % 4 == 0 { roll() as u32 } else { (roll() % 70) as u32 };
            lines.name_len.store(len, Ordering::Relaxed);
            lines.size.store(roll(), Ordering::Relaxed);
            lines.layout.store(roll(), Ordering::Relaxed);
            match read(&lines) {
                Ok(None) => assert_eq!(len, 0),
                Ok(Some(schema)) => {
                    read_well += 1;
                    let text = schema.to_string();
                    assert_eq!(schema.name().len(), len as usize);
                    assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(error, Error::Corrupt { what: "a schema that is none" });
                }
            }
        }
        assert!(read_well > 10_000 && refused > 10_000, "{read_well} {refused}");
    }
}
