//! The SSH encoding of values (RFC 4251 section 5).

use super::error::ProtocolError;

/// Takes fields off the front of a message. Every error names the field.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from `bytes`, front to back.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Takes `len` bytes.
    pub fn bytes(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], ProtocolError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(ProtocolError::Truncated { field })?;
        self.rest = rest;
        Ok(head)
    }

    /// Takes one `byte`.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, ProtocolError> {
        let (first, rest) = self
            .rest
            .split_first()
            .ok_or(ProtocolError::Truncated { field })?;
        self.rest = rest;
        Ok(*first)
    }

    /// Takes one `boolean`; every value but 0 is true.
    pub fn boolean(&mut self, field: &'static str) -> Result<bool, ProtocolError> {
        Ok(self.u8(field)? != 0)
    }

    /// Takes one `uint32`.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, ProtocolError> {
        let bytes = self.bytes(4, field)?;
        bytes
            .try_into()
            .map(u32::from_be_bytes)
            .map_err(|_| ProtocolError::Truncated { field })
    }

    /// Takes one `uint64`.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, ProtocolError> {
        let bytes = self.bytes(8, field)?;
        bytes
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| ProtocolError::Truncated { field })
    }

    /// Takes one `string`: a `u32` length in bytes, then that many bytes.
    pub fn string(&mut self, field: &'static str) -> Result<&'a [u8], ProtocolError> {
        let len =
            usize::try_from(self.u32(field)?).map_err(|_| ProtocolError::Truncated { field })?;
        self.bytes(len, field)
    }

    /// Takes one `mpint` that is not negative; gives its magnitude without leading zeroes.
    pub fn mpint(&mut self, field: &'static str) -> Result<&'a [u8], ProtocolError> {
        let bytes = self.string(field)?;
        match bytes {
            [first, ..] if first & 0x80 != 0 => Err(ProtocolError::BadValue { field }),
            [0, rest @ ..] => match rest.first() {
                Some(next) if next & 0x80 != 0 => Ok(rest),
                // An unneeded leading zero is forbidden, and zero itself is the empty string.
                _ => Err(ProtocolError::BadValue { field }),
            },
            _ => Ok(bytes),
        }
    }

    /// Takes one `name-list` and gives its names; empty ones are skipped.
    pub fn name_list(
        &mut self,
        field: &'static str,
    ) -> Result<impl Iterator<Item = &'a [u8]> + Clone + 'a, ProtocolError> {
        let list = self.string(field)?;
        Ok(list
            .split(|byte| *byte == b',')
            .filter(|name| !name.is_empty()))
    }

    /// What is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Whether all is taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends message `number`: nothing may be left.
    pub fn finish(self, number: u8) -> Result<(), ProtocolError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(ProtocolError::TrailingBytes { number })
        }
    }
}

/// Appends fields to a message.
pub trait Writer {
    /// One `byte`.
    fn put_u8(&mut self, value: u8);
    /// One `boolean`.
    fn put_boolean(&mut self, value: bool) {
        self.put_u8(u8::from(value));
    }
    /// One `uint32`.
    fn put_u32(&mut self, value: u32);
    /// One `uint64`.
    fn put_u64(&mut self, value: u64);
    /// Bytes as they are.
    fn put_bytes(&mut self, bytes: &[u8]);
    /// One `string`.
    fn put_string(&mut self, bytes: &[u8]) {
        // Saturates: nothing of ours comes near 4 GiB.
        self.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.put_bytes(bytes);
    }
    /// One `mpint` from a big-endian magnitude, leading zeroes allowed.
    fn put_mpint(&mut self, magnitude: &[u8]) {
        let start = magnitude
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(magnitude.len());
        let digits = magnitude.get(start..).unwrap_or(&[]);
        let sign = usize::from(digits.first().is_some_and(|first| first & 0x80 != 0));
        self.put_u32(u32::try_from(digits.len() + sign).unwrap_or(u32::MAX));
        if sign == 1 {
            self.put_u8(0);
        }
        self.put_bytes(digits);
    }
    /// One `name-list`.
    fn put_name_list<'n>(&mut self, names: impl IntoIterator<Item = &'n [u8]>)
    where
        Self: Sized,
    {
        let mut list = Vec::new();
        for name in names {
            if !list.is_empty() {
                list.push(b',');
            }
            list.extend_from_slice(name);
        }
        self.put_string(&list);
    }
}

impl Writer for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}
