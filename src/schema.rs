//! What is on the wire: a name and a version for the messages of one direction, and how their fields
//! lie, as far as it is said. Plain values, compared when a bus is opened and never afterwards.
//!
//! ```text
//!   Schema::new("telemetry", 3)      what two programs agreed on
//!   Schema::of::<Sample>()           the same, with the size and the fields of a type: #[derive(Message)]
//! ```
//!
//! The number for the fields is not meant to withstand somebody who looks for another type with the
//! same one: it finds mistakes. Read next: `segment/schemas.rs`, where it is stored.
#![forbid(unsafe_code)]

use std::fmt;

use crate::error::{Error, Result};

/// The longest name of a schema, in bytes.
pub(crate) const SCHEMA_NAME_MAX: usize = 64;

/// What the messages of one direction are.
///
/// Two schemas agree if name and version are the same, and also size and layout where both sides say
/// them: a program in C, or the command, can name what it knows by name and version alone.
///
/// ```
/// use eshm::{Error, Options, Role, Schema};
///
/// # let name = format!("doc-schema-{}", std::process::id());
/// let mut options = Options::new(&name);
/// let master = options.role(Role::Master).writes(Schema::new("telemetry", 3)).open()?;
///
/// let mut options = Options::new(&name);
/// let error = options.role(Role::Slave).reads(Schema::new("telemetry", 2)).open().unwrap_err();
/// assert!(matches!(error, Error::Schema { .. }));
/// assert_eq!(
///     error.to_string(),
///     "the bus carries telemetry:3 from master to slave, not telemetry:2 as this side says"
/// );
///
/// // A side that says nothing passes.
/// let slave = Options::new(&name).role(Role::Slave).open()?;
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Schema {
    name: String,
    version: u32,
    /// 0 if it was not said.
    layout: u64,
    /// Only of meaning with a layout, or if it is not 0.
    size: u64,
}

impl Schema {
    /// A schema that two programs agreed on. The name has 1 to 64 bytes and no control characters;
    /// another one is refused when the bus is opened.
    #[must_use]
    pub fn new(name: impl Into<String>, version: u32) -> Schema {
        Schema { name: name.into(), version, layout: 0, size: 0 }
    }

    /// The schema of a type: its name and version, its size, and how its fields lie.
    #[must_use]
    pub fn of<T: Message>() -> Schema {
        let schema = Schema::new(T::NAME, T::VERSION);
        schema.with_size(size_of::<T>() as u64).with_layout(T::LAYOUT)
    }

    /// The same, with the length of every message; 0 takes it back.
    #[must_use]
    pub fn with_size(self, bytes: u64) -> Schema {
        Schema { size: bytes, ..self }
    }

    /// The same, with a number for how the fields lie; 0 takes it back. For programs in which no
    /// [`derive`](Message) computes it.
    #[must_use]
    pub fn with_layout(self, layout: u64) -> Schema {
        Schema { layout, ..self }
    }

    /// What the messages are called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of what they are.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The length of every message, if it was said.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        (self.size != 0 || self.layout != 0).then_some(self.size)
    }

    /// The number for how the fields lie, if it was said.
    #[must_use]
    pub fn layout(&self) -> Option<u64> {
        (self.layout != 0).then_some(self.layout)
    }

    /// Whether messages of the one are messages of the other: the same name and version, and the same
    /// size and layout where both are known.
    #[must_use]
    pub fn agrees_with(&self, other: &Schema) -> bool {
        let same = |ours: Option<u64>, theirs: Option<u64>| {
            ours.is_none() || theirs.is_none() || ours == theirs
        };
        self.name == other.name
            && self.version == other.version
            && same(self.size(), other.size())
            && same(self.layout(), other.layout())
    }

    /// What is wrong with the name, if anything is.
    pub(crate) fn check(&self) -> Result<()> {
        let bad = |why| Err(Error::Name { name: self.name.escape_default().to_string(), why });
        if self.name.is_empty() {
            return bad("the name of a schema is empty");
        }
        if self.name.len() > SCHEMA_NAME_MAX {
            return bad("the name of a schema has more than 64 bytes");
        }
        if self.name.chars().any(char::is_control) {
            return bad("the name of a schema holds a control character");
        }
        Ok(())
    }
}

/// `name:version`, and what is known beyond.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.version)?;
        match (self.size(), self.layout()) {
            (None, _) => Ok(()),
            (Some(size), None) => write!(f, " ({size} bytes)"),
            (Some(size), Some(layout)) => write!(f, " ({size} bytes, layout {layout:016x})"),
        }
    }
}

/// A type whose fields are known down to their numbers: fixed-width numbers, arrays of what is
/// described, and what derives [`Message`].
///
/// A description that is wrong does no harm but a bus that is refused, or one that is not.
pub trait Described {
    /// How its fields lie, in a number that is not 0.
    const LAYOUT: u64;
}

/// A type that is a message: what `#[derive(Message)]` makes.
///
/// The derive comes with the feature `derive`. The name is that of the type and the version 1 unless
/// said otherwise: `#[message(name = "telemetry", version = 3)]`. Every field must be [`Described`].
pub trait Message: Described {
    /// The name of the schema.
    const NAME: &'static str;
    /// The version of the schema.
    const VERSION: u32;
}

/// The number for a struct with these fields, each with its name, its offset and the number of its
/// type. What the derive calls.
#[doc(hidden)]
#[must_use]
pub const fn layout_of(fields: &[(&str, usize, u64)], size: usize) -> u64 {
    let mut hash = fold(fold(START, b'{' as u64), size as u64);
    let mut index = 0;
    while index < fields.len() {
        let (name, offset, layout) = fields[index];
        hash = fold(fold(fold_text(hash, name), offset as u64), layout);
        index += 1;
    }
    never_zero(hash)
}

const START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, over the eight bytes of a number.
const fn fold(mut hash: u64, value: u64) -> u64 {
    let bytes = value.to_le_bytes();
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

/// FNV-1a, over a text behind its length.
const fn fold_text(hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut hash = fold(hash, bytes.len() as u64);
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

const fn never_zero(hash: u64) -> u64 {
    if hash == 0 { 1 } else { hash }
}

macro_rules! described {
    ($($number:ty)*) => {
        $(
            impl Described for $number {
                const LAYOUT: u64 =
                    never_zero(fold_text(fold(START, size_of::<$number>() as u64), stringify!($number)));
            }
        )*
    };
}

described!(u8 i8 u16 i16 u32 i32 u64 i64 u128 i128 usize isize f32 f64);

impl<T: Described, const N: usize> Described for [T; N] {
    const LAYOUT: u64 = never_zero(fold(fold(fold(START, b'[' as u64), N as u64), T::LAYOUT));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_not_compared() {
        let plain = Schema::new("telemetry", 3);
        let sized = plain.clone().with_size(48);
        let whole = sized.clone().with_layout(7);
        for (ours, theirs) in [(&plain, &plain), (&plain, &sized), (&sized, &whole)] {
            assert!(ours.agrees_with(theirs) && theirs.agrees_with(ours), "{ours} {theirs}");
        }
        let others = [
            Schema::new("telemetry", 4),
            Schema::new("Telemetry", 3),
            sized.clone().with_size(47),
            whole.clone().with_layout(8),
            // Nothing at all, described.
            whole.clone().with_size(0),
        ];
        for other in others {
            assert!(!whole.agrees_with(&other) && !other.agrees_with(&whole), "{other}");
        }
    }

    #[test]
    fn names_that_cannot_be_used_say_why() {
        let longest = "é".repeat(32);
        for name in ["a", "a::b c:1", longest.as_str()] {
            assert_eq!(Schema::new(name, 0).check(), Ok(()), "{name}");
        }
        let long = "x".repeat(65);
        for (name, why) in [("", "empty"), (long.as_str(), "64 bytes"), ("a\nb", "control")] {
            let text = Schema::new(name, 0).check().unwrap_err().to_string();
            assert!(text.contains(why) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn layouts_tell_fields_apart() {
        let u32s = <u32 as Described>::LAYOUT;
        let pair = layout_of(&[("a", 0, u32s), ("b", 4, u32s)], 8);
        let others = [
            layout_of(&[("b", 0, u32s), ("a", 4, u32s)], 8),
            layout_of(&[("a", 4, u32s), ("b", 0, u32s)], 8),
            layout_of(&[("a", 0, u32s), ("b", 4, <f32 as Described>::LAYOUT)], 8),
            layout_of(&[("a", 0, u32s), ("b", 4, <[u32; 1] as Described>::LAYOUT)], 8),
            layout_of(&[("a", 0, u32s), ("b", 4, u32s)], 12),
            layout_of(&[("a", 0, u32s)], 8),
        ];
        assert!(others.iter().all(|&other| other != pair), "{others:x?}");
        assert_ne!(<[u8; 4]>::LAYOUT, <[[u8; 2]; 2]>::LAYOUT);
    }
}
