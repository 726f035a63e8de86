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
///
/// The first error sticks: from there on every value is empty or zero, and [`WireReader::finish`]
/// tells. A check at each field would be a tenth of the helper.
#[derive(Debug)]
pub struct WireReader<'a> {
    rest: &'a [u8],
    error: Option<WireError>,
}

impl<'a> WireReader<'a> {
    /// Reads from `content`, front to back.
    pub fn new(content: &'a [u8]) -> Self {
        Self {
            rest: content,
            error: None,
        }
    }

    /// Takes `len` bytes; none after an error.
    #[inline(never)]
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        match self.rest.split_at_checked(len) {
            Some((head, rest)) => {
                self.rest = rest;
                head
            }
            None => {
                self.fail(WireError::Truncated);
                &[]
            }
        }
    }

    /// Takes exactly `N` bytes; zeroes after an error.
    fn array<const N: usize>(&mut self) -> [u8; N] {
        self.take(N).try_into().unwrap_or([0; N])
    }

    /// Notes an error, if it is the first, and leaves nothing to be read.
    #[inline(never)]
    pub fn fail(&mut self, error: WireError) {
        self.error.get_or_insert(error);
        self.rest = &[];
    }

    /// Takes the tag of an enum; `first` after an error, so that there is a variant to end with.
    #[inline(never)]
    pub fn tag(&mut self, first: u8) -> u8 {
        let tag = u8::get(self);
        if self.error.is_some() { first } else { tag }
    }

    /// Bytes not taken yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// Ends the frame: nothing may have failed, and nothing may be left.
    pub fn finish(self) -> Result<(), WireError> {
        match self.error {
            Some(error) => Err(error),
            None if self.rest.is_empty() => Ok(()),
            None => Err(WireError::TrailingBytes),
        }
    }
}

/// A value that can cross a process boundary.
pub trait Wire: Sized {
    /// Appends the value's encoding.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes one value; an empty one where the reader has failed or now fails.
    fn get(reader: &mut WireReader<'_>) -> Self;

    /// The encoding as a buffer of its own.
    fn to_wire(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    /// Decodes exactly one value out of `content`.
    fn from_wire(content: &[u8]) -> Result<Self, WireError> {
        let mut reader = WireReader::new(content);
        let value = Self::get(&mut reader);
        reader.finish().map(|()| value)
    }
}

macro_rules! wire_integer {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            #[inline(never)]
            fn get(reader: &mut WireReader<'_>) -> Self {
                Self::from_le_bytes(reader.array())
            }
        }
    )*};
}
wire_integer!(u8, u16, u32, u64, i32, i64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    #[inline(never)]
    fn get(reader: &mut WireReader<'_>) -> Self {
        let byte = u8::get(reader);
        if byte > 1 {
            reader.fail(WireError::BadValue);
        }
        byte == 1
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
    fn get(reader: &mut WireReader<'_>) -> Self {
        let len = get_len(reader);
        Self(reader.take(len).to_vec())
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
    fn get(reader: &mut WireReader<'_>) -> Self {
        // Capacity is not reserved on the word of the sender.
        let mut items = Vec::new();
        let mut left = get_count(reader);
        while left > 0 && reader.error.is_none() {
            items.push(T::get(reader));
            left -= 1;
        }
        items
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
    fn get(reader: &mut WireReader<'_>) -> Self {
        bool::get(reader).then(|| T::get(reader))
    }
}

impl<T: Wire> Wire for Box<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (**self).put(out);
    }
    fn get(reader: &mut WireReader<'_>) -> Self {
        Self::new(T::get(reader))
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn get(reader: &mut WireReader<'_>) -> Self {
        (A::get(reader), B::get(reader))
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn get(reader: &mut WireReader<'_>) -> Self {
        reader.array()
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
    fn get(reader: &mut WireReader<'_>) -> Self {
        let ip = match reader.tag(6) {
            4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::get(reader))),
            tag => {
                if tag != 6 {
                    reader.fail(WireError::BadValue);
                }
                IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::get(reader)))
            }
        };
        Self::new(ip, u16::get(reader))
    }
}

fn put_len(len: usize, out: &mut Vec<u8>) {
    // Saturates: a value of 4 GiB fails at the receiver, whose frames are bounded far below.
    u32::try_from(len).unwrap_or(u32::MAX).put(out);
}

#[inline(never)]
fn get_len(reader: &mut WireReader<'_>) -> usize {
    // Saturates: more than any frame holds.
    usize::try_from(u32::get(reader)).unwrap_or(usize::MAX)
}

/// Takes the count of a list. Every encoding takes at least one byte, so a larger count than there are
/// bytes is a lie.
#[inline(never)]
fn get_count(reader: &mut WireReader<'_>) -> usize {
    let count = get_len(reader);
    if count > reader.left() {
        reader.fail(WireError::Truncated);
        return 0;
    }
    count
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
            fn get(reader: &mut $crate::wire::WireReader<'_>) -> Self {
                let _ = &reader;
                Self { $($field: $crate::wire::Wire::get(reader),)* }
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
            fn get(reader: &mut $crate::wire::WireReader<'_>) -> Self {
                const TAGS: &[u8] = &[$($tag),*];
                match reader.tag(TAGS[0]) {
                    $($tag => Self::$variant $({ $($field: $crate::wire::Wire::get(reader),)* })?,)*
                    _ => {
                        reader.fail($crate::wire::WireError::BadValue);
                        // Once: the tag after an error is the first one.
                        Self::get(reader)
                    }
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

#[cfg(test)]
mod tests {
    use super::*;

    wire_enum! {
        #[derive(Debug, PartialEq, Eq)]
        pub enum Choice {
            3 => Text { text: Bytes, number: u32, },
            4 => Nothing,
        }
    }

    #[test]
    fn the_first_error_is_the_one_told() {
        type Pair = (Choice, Choice);
        let good: Pair = (
            Choice::Text {
                text: Bytes::from("ab"),
                number: 7,
            },
            Choice::Nothing,
        );
        assert_eq!(good.1.kind(), (4, "Nothing"));
        let bytes = good.to_wire();
        assert_eq!(Pair::from_wire(&bytes), Ok(good));
        for len in 0..bytes.len() {
            let cut = bytes.get(..len).unwrap_or_default();
            assert_eq!(Pair::from_wire(cut), Err(WireError::Truncated), "{len}");
        }
        assert_eq!(Pair::from_wire(&[4, 9, 1]), Err(WireError::BadValue));
        assert_eq!(Pair::from_wire(&[9, 4]), Err(WireError::BadValue));
        assert_eq!(Pair::from_wire(&[4, 4, 4]), Err(WireError::TrailingBytes));
        assert_eq!(Option::<bool>::from_wire(&[1, 2]), Err(WireError::BadValue));
        assert_eq!(bool::from_wire(&[]), Err(WireError::Truncated));
        assert_eq!(SocketAddr::from_wire(&[5; 19]), Err(WireError::BadValue));
    }

    #[test]
    fn a_list_is_no_longer_than_its_bytes() {
        let lie = [255, 255, 255, 255, 0, 0];
        assert_eq!(Vec::<u8>::from_wire(&lie), Err(WireError::Truncated));
        assert_eq!(
            Vec::<u32>::from_wire(&[3, 0, 0, 0, 1, 2, 3]),
            Err(WireError::Truncated)
        );
        assert_eq!(Bytes::from_wire(&lie), Err(WireError::Truncated));
    }
}
