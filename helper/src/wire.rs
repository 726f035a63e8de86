//! How values cross a process boundary inside `agent`: the codec of every frame.
//!
//! Little-endian, fixed-width integers; byte strings and lists carry a `u32` length. Both ends are
//! built from one source and compare build ids first, so there are no versions. The other end is
//! untrusted all the same: decoding is bounded by the bytes at hand, allocates no more than they
//! hold, and ends in [`WireError`], never in a panic.
//!
//! This is not the SSH encoding (RFC 4251 section 5); that is the agent's `ssh::wire`.

#![forbid(unsafe_code)]

use alloc::boxed::Box;
pub use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Why bytes from another process of ours are not a frame. Carries our own words only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// A value ran past the end of its frame.
    Truncated,
    /// Bytes were left over after the last field.
    TrailingBytes,
    /// An enum tag, a bool or a count that no sender of ours writes.
    BadValue,
}

impl core::fmt::Display for WireError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "a field runs past the end of the frame",
            Self::TrailingBytes => "bytes left over at the end of the frame",
            Self::BadValue => "a field has an impossible value",
        })
    }
}

/// Takes values off the front of a frame's content.
#[derive(Debug)]
pub struct WireReader<'a> {
    rest: &'a [u8],
}

impl<'a> WireReader<'a> {
    /// Reads from `content`, front to back.
    pub fn new(content: &'a [u8]) -> Self {
        Self { rest: content }
    }

    /// Takes `len` bytes.
    #[inline(never)]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Bytes not taken yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Ends the frame: nothing may be left.
    pub fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::TrailingBytes)
        }
    }
}

/// A value that can cross a process boundary.
pub trait Wire: Sized {
    /// Appends the value's encoding.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes one value.
    fn get(reader: &mut WireReader<'_>) -> Result<Self, WireError>;

    /// The encoding as a buffer of its own.
    fn to_wire(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Decodes exactly one value out of `content`.
    fn from_wire(content: &[u8]) -> Result<Self, WireError> {
        let mut reader = WireReader::new(content);
        let value = Self::get(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

macro_rules! wire_integer {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            #[inline(never)]
            fn get(reader: &mut WireReader<'_>) -> Result<Self, WireError> {
                let bytes = reader.take(size_of::<$t>())?;
                bytes.try_into().map(<$t>::from_le_bytes).map_err(|_| WireError::Truncated)
            }
        }
    )*};
}
wire_integer!(u8, u16, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(reader: &mut WireReader<'_>) -> Result<Self, WireError> {
        match u8::get(reader)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::BadValue),
        }
    }
}

/// A byte string. Bytes stay bytes: nothing that crosses a boundary is assumed to be UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bytes(pub Vec<u8>);

impl core::fmt::Debug for Bytes {
    // Frames carry keys and commands; a derived Debug in a log line must not spill them.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

impl core::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

// Frames have many of these fields: inlined they would be a third of the helper.
impl Wire for Bytes {
    #[inline(never)]
    fn put(&self, out: &mut Vec<u8>) {
        put_len(self.0.len(), out);
        out.extend_from_slice(&self.0);
    }
    #[inline(never)]
    fn get(reader: &mut WireReader<'_>) -> Result<Self, WireError> {
        let len = get_len(reader)?;
        Ok(Self(reader.take(len)?.to_vec()))
    }
}

impl<T: Wire> Wire for Vec<T> {
    #[inline(never)]
    fn put(&self, out: &mut Vec<u8>) {
        put_len(self.len(), out);
        for item in self {
            item.put(out);
        }
    }
    #[inline(never)]
    fn get(reader: &mut WireReader<'_>) -> Result<Self, WireError> {
        let count = get_len(reader)?;
        // Every encoding takes at least one byte, so a larger count is a lie; and capacity is not
        // reserved on the word of the sender.
        if count > reader.left() {
            return Err(WireError::Truncated);
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(T::get(reader)?);
        }
        Ok(items)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.put(out);
            }
        }
    }
    fn get(reader: &mut WireReader<'_>) -> Result<Self, WireError> {
        match u8::get(reader)? {
            0 => Ok(None),
            1 => T::get(reader).map(Some),
            _ => Err(WireError::BadValue),
        }
    }
}

impl<T: Wire> Wire for Box<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (**self).put(out);
    }
    fn get(reader: &mut WireReader<'_>) -> Result<Self, WireError> {
        T::get(reader).map(Box::new)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn get(reader: &mut WireReader<'_>) -> Result<Self, WireError> {
        Ok((A::get(reader)?, B::get(reader)?))
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn get(reader: &mut WireReader<'_>) -> Result<Self, WireError> {
        reader.take(N)?.try_into().map_err(|_| WireError::Truncated)
    }
}

impl Wire for SocketAddr {
    fn put(&self, out: &mut Vec<u8>) {
        match self.ip() {
            IpAddr::V4(ip) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
        }
        self.port().put(out);
    }
    fn get(reader: &mut WireReader<'_>) -> Result<Self, WireError> {
        let ip = match u8::get(reader)? {
            4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::get(reader)?)),
            6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::get(reader)?)),
            _ => return Err(WireError::BadValue),
        };
        Ok(Self::new(ip, u16::get(reader)?))
    }
}

fn put_len(len: usize, out: &mut Vec<u8>) {
    // Saturates: a value of 4 GiB fails at the receiver, whose frames are bounded far below.
    u32::try_from(len).unwrap_or(u32::MAX).put(out);
}

#[inline(never)]
fn get_len(reader: &mut WireReader<'_>) -> Result<usize, WireError> {
    usize::try_from(u32::get(reader)?).map_err(|_| WireError::BadValue)
}

/// Defines a struct whose encoding is its fields in order.
#[macro_export]
macro_rules! wire_struct {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $t:ty,)* }) => {
        $(#[$meta])*
        pub struct $name { $($(#[$fmeta])* pub $field: $t,)* }
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut $crate::wire::Vec<u8>) {
                let _ = &out;
                $($crate::wire::Wire::put(&self.$field, out);)*
            }
            #[inline(never)]
            fn get(reader: &mut $crate::wire::WireReader<'_>) -> Result<Self, $crate::wire::WireError> {
                let _ = &reader;
                Ok(Self { $($field: $crate::wire::Wire::get(reader)?,)* })
            }
        }
    };
}

/// Defines an enum whose encoding is a `u8` tag and then the variant's fields in order.
#[macro_export]
macro_rules! wire_enum {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$vmeta:meta])* $tag:literal => $variant:ident $({ $($(#[$fmeta:meta])* $field:ident: $t:ty,)* })?,)*
    }) => {
        $(#[$meta])*
        pub enum $name { $($(#[$vmeta])* $variant $({ $($(#[$fmeta])* $field: $t,)* })?,)* }
        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut $crate::wire::Vec<u8>) {
                match self {
                    $(Self::$variant $({ $($field,)* })? => {
                        out.push($tag);
                        $($($crate::wire::Wire::put($field, out);)*)?
                    })*
                }
            }
            // Two variants with one tag.
            #[deny(unreachable_patterns)]
            #[inline(never)]
            fn get(reader: &mut $crate::wire::WireReader<'_>) -> Result<Self, $crate::wire::WireError> {
                match <u8 as $crate::wire::Wire>::get(reader)? {
                    $($tag => Ok(Self::$variant $({ $($field: $crate::wire::Wire::get(reader)?,)* })?),)*
                    _ => Err($crate::wire::WireError::BadValue),
                }
            }
        }
        impl $name {
            /// The variant's tag and name, for permit tables and log lines.
            pub fn kind(&self) -> (u8, &'static str) {
                match self { $(Self::$variant $({ $($field: _,)* })? => ($tag, stringify!($variant)),)* }
            }
        }
    };
}
