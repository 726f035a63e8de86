//! As much of DER (X.690) as private key files need. Reads only; definite lengths, canonical.

/// Takes elements off the front of a constructed value.
pub struct Der<'a> {
    rest: &'a [u8],
}

/// Not DER, or not the element that belongs here.
#[derive(Debug, PartialEq, Eq)]
pub struct NotDer;

impl<'a> Der<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The content of the next element, whose tag must be `tag`.
    pub fn element(&mut self, tag: u8) -> Result<&'a [u8], NotDer> {
        let [found, length, rest @ ..] = self.rest else {
            return Err(NotDer);
        };
        if *found != tag {
            return Err(NotDer);
        }
        let (length, rest) = match length {
            0..=0x7f => (usize::from(*length), rest),
            // One to four bytes, as few as possible; 0x80 (indefinite) is not DER.
            0x81..=0x84 => {
                let (bytes, rest) = rest
                    .split_at_checked(usize::from(length & 0x7f))
                    .ok_or(NotDer)?;
                let length = bytes
                    .iter()
                    .try_fold(0_usize, |length, byte| {
                        length.checked_mul(256)?.checked_add(usize::from(*byte))
                    })
                    .ok_or(NotDer)?;
                if bytes.first() == Some(&0) || length < 0x80 {
                    return Err(NotDer);
                }
                (length, rest)
            }
            _ => return Err(NotDer),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(NotDer)?;
        self.rest = rest;
        Ok(content)
    }

    /// Like [`Self::element`], where the element may be missing.
    pub fn optional(&mut self, tag: u8) -> Result<Option<&'a [u8]>, NotDer> {
        if self.rest.first() == Some(&tag) {
            self.element(tag).map(Some)
        } else {
            Ok(None)
        }
    }

    /// The content of a SEQUENCE.
    pub fn sequence(&mut self) -> Result<Self, NotDer> {
        self.element(SEQUENCE).map(Self::new)
    }

    /// An INTEGER that is not negative: its magnitude without leading zeroes.
    pub fn integer(&mut self) -> Result<&'a [u8], NotDer> {
        match self.element(INTEGER)? {
            [0] => Ok(&[]),
            [0, rest @ ..] if rest.first().is_some_and(|first| first & 0x80 != 0) => Ok(rest),
            [first, ..] if *first & 0x80 != 0 || *first == 0 => Err(NotDer),
            [] => Err(NotDer),
            magnitude => Ok(magnitude),
        }
    }

    /// The bytes of a BIT STRING of whole bytes.
    pub fn bit_string(&mut self) -> Result<&'a [u8], NotDer> {
        match self.element(BIT_STRING)? {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(NotDer),
        }
    }

    /// Ends the value: nothing may be left.
    pub fn finish(self) -> Result<(), NotDer> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(NotDer)
        }
    }
}

pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const NULL: u8 = 0x05;
pub const OBJECT_IDENTIFIER: u8 = 0x06;
pub const SEQUENCE: u8 = 0x30;
/// Context-specific, constructed, number 0 and 1.
pub const CONTEXT_0: u8 = 0xa0;
pub const CONTEXT_1: u8 = 0xa1;
/// Context-specific, primitive, number 1.
pub const CONTEXT_1_PRIMITIVE: u8 = 0x81;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_out_with_short_and_long_lengths() {
        assert_eq!(
            Der::new(&[4, 2, 7, 8]).element(OCTET_STRING),
            Ok(&[7, 8][..])
        );
        let long = [&[4, 0x82, 1, 0][..], &[9; 256]].concat();
        assert_eq!(Der::new(&long).element(OCTET_STRING), Ok(&[9; 256][..]));
        assert_eq!(Der::new(&[5, 0]).optional(OCTET_STRING), Ok(None));
    }

    #[test]
    fn other_encodings_are_refused() {
        let mut padded = vec![4, 0x82, 0, 0x80];
        padded.extend([0; 128]);
        for wrong in [
            &[][..],
            &[4],
            &[4, 1],
            &[4, 2, 0],
            &[3, 1, 0],
            &[4, 0x80, 0, 0],
            &[4, 0x81, 5, 0, 0, 0, 0, 0],
            &[4, 0x85, 0, 0, 0, 0, 0],
            &[4, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[4, 0xff],
            &padded,
        ] {
            assert_eq!(
                Der::new(wrong).element(OCTET_STRING),
                Err(NotDer),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn integers_are_canonical_and_not_negative() {
        let integer = |content: &[u8]| {
            let bytes = [&[2, u8::try_from(content.len()).unwrap_or(0)][..], content].concat();
            Der::new(&bytes).integer().map(<[u8]>::to_vec)
        };
        assert_eq!(integer(&[0]), Ok(vec![]));
        assert_eq!(integer(&[1]), Ok(vec![1]));
        assert_eq!(integer(&[0, 0x80]), Ok(vec![0x80]));
        for wrong in [&[][..], &[0, 0], &[0, 1], &[0x80], &[0xff, 1]] {
            assert_eq!(integer(wrong), Err(NotDer), "{wrong:?}");
        }
    }
}
