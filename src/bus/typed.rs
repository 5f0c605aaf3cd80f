//! Halves that carry messages of one type. What the bus carries is compared once, when a half is
//! made; afterwards each call is the one of the untyped half.
#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use bytemuck::{AnyBitPattern, NoUninit};

use super::{Endpoint, Lease, Reader, Writer};
use crate::config::Direction;
use crate::error::{Error, Result};
use crate::schema::{Message, Schema};
use crate::session::check_schema;

/// What the messages of a direction are, as the bus says it.
pub(super) fn schema(lease: &Lease, direction: Direction) -> Result<Option<Schema>> {
    if !lease.is_home() {
        return Err(Error::Forked);
    }
    let trouble = || lease.trouble().unwrap_or(Error::Forked);
    lease.segment().ok_or_else(trouble)?.schema(direction)
}

impl Endpoint {
    /// Two halves that carry messages of one type each: what this side writes, and what it reads.
    ///
    /// # Errors
    /// As for [`Writer::typed`], and the bus is left.
    pub fn typed<Out, In>(self) -> Result<(TypedWriter<Out>, TypedReader<In>)>
    where
        Out: Message + NoUninit,
        In: Message + AnyBitPattern,
    {
        let (writer, reader) = self.split();
        Ok((writer.typed()?, reader.typed()?))
    }
}

impl Writer {
    /// The same half for messages of one type only. The bus must carry the type's schema in this
    /// direction, whoever said it: this side with [`crate::Options::writes`], or the other one.
    ///
    /// # Errors
    /// `Schema`, and this half is dropped; `Corrupt`.
    pub fn typed<T: Message + NoUninit>(self) -> Result<TypedWriter<T>> {
        let direction = self.role().writes();
        check_schema(direction, &Schema::of::<T>(), self.schema(direction)?)?;
        Ok(TypedWriter { half: self, of: PhantomData })
    }
}

impl Reader {
    /// As [`Writer::typed`], with [`crate::Options::reads`].
    ///
    /// # Errors
    /// As there.
    pub fn typed<T: Message + AnyBitPattern>(self) -> Result<TypedReader<T>> {
        let direction = self.role().peer().writes();
        check_schema(direction, &Schema::of::<T>(), self.schema(direction)?)?;
        Ok(TypedReader { half: self, of: PhantomData })
    }
}

/// A half that writes values of one type, and nothing else.
pub struct TypedWriter<T> {
    half: Writer,
    of: PhantomData<fn(&T)>,
}

impl<T: Message + NoUninit> TypedWriter<T> {
    /// Writes a value.
    ///
    /// # Errors
    /// As for [`Writer::write`].
    #[inline]
    pub fn write(&mut self, value: &T) -> Result<()> {
        self.half.write_value(value)
    }

    /// Writes a value, or says `Full` at once.
    ///
    /// # Errors
    /// As for [`Writer::try_write`].
    #[inline]
    pub fn try_write(&mut self, value: &T) -> Result<()> {
        self.half.try_write_value(value)
    }
}

/// A half that reads values of one type, and nothing else.
pub struct TypedReader<T> {
    half: Reader,
    of: PhantomData<fn() -> T>,
}

impl<T: Message + AnyBitPattern> TypedReader<T> {
    /// Reads a value.
    ///
    /// # Errors
    /// As for [`Reader::read_value`]; a message of another length is named, and stays.
    #[inline]
    pub fn read(&mut self) -> Result<T> {
        self.half.read_value()
    }

    /// Reads a value, or says `Empty` at once.
    ///
    /// # Errors
    /// As for [`Reader::try_read_value`].
    #[inline]
    pub fn try_read(&mut self) -> Result<T> {
        self.half.try_read_value()
    }
}

/// What both halves have in common.
macro_rules! typed_half {
    ($typed:ident, $half:ident) => {
        impl<T> $typed<T> {
            /// The half as it was, for messages of any kind.
            #[must_use]
            pub fn untyped(self) -> $half {
                self.half
            }
        }

        /// What the half tells; it cannot write or read by this.
        impl<T> Deref for $typed<T> {
            type Target = $half;

            fn deref(&self) -> &$half {
                &self.half
            }
        }

        impl<T> fmt::Debug for $typed<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.half.fmt(f)
            }
        }
    };
}

typed_half!(TypedWriter, Writer);
typed_half!(TypedReader, Reader);
