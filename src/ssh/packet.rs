//! The form of a binary packet (RFC 4253 section 6): lengths and padding, both directions.
//!
//! `uint32 packet_length, byte padding_length, payload, padding`, then the tag. Whether the length
//! field counts for the alignment is the cipher's matter: it does where it is encrypted with the rest.

use std::ops::Range;

use super::error::ProtocolError;

/// The packet_length field.
pub(super) const LENGTH_BYTES: usize = 4;
/// The fields before the payload.
pub(super) const HEADER_BYTES: usize = 5;
/// More padding than [`padding`] ever gives.
pub(super) const PADDING_MAX_BYTES: usize = 4 + 16;

const PADDING_MIN_BYTES: usize = 4;

/// How a direction aligns its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alignment {
    /// The padded part is a multiple of this.
    pub(super) block_bytes: usize,
    /// Whether the length field is in the padded part.
    pub(super) length_is_padded: bool,
}

/// The least padding for a payload.
pub(super) fn padding(payload_bytes: usize, alignment: Alignment) -> usize {
    let head = if alignment.length_is_padded {
        HEADER_BYTES
    } else {
        HEADER_BYTES - LENGTH_BYTES
    };
    let padding = alignment.block_bytes - (head + payload_bytes) % alignment.block_bytes;
    if padding < PADDING_MIN_BYTES {
        padding + alignment.block_bytes
    } else {
        padding
    }
}

/// Checks a packet_length field; `ceiling` bounds the packet without its tag.
pub(super) fn check_length(
    length: u32,
    alignment: Alignment,
    ceiling: usize,
) -> Result<usize, ProtocolError> {
    let length = usize::try_from(length).map_err(|_| ProtocolError::BadPacketLength)?;
    let least = HEADER_BYTES - LENGTH_BYTES + PADDING_MIN_BYTES;
    if length < least || length > ceiling - LENGTH_BYTES {
        return Err(ProtocolError::BadPacketLength);
    }
    let padded = if alignment.length_is_padded {
        length + LENGTH_BYTES
    } else {
        length
    };
    if padded % alignment.block_bytes != 0 {
        return Err(ProtocolError::BadPacketLength);
    }
    Ok(length)
}

/// Where the payload is in an opened packet.
pub(super) fn payload(packet: &[u8]) -> Result<Range<usize>, ProtocolError> {
    let padding = packet
        .get(LENGTH_BYTES)
        .map_or(0, |byte| usize::from(*byte));
    let end = packet
        .len()
        .checked_sub(padding)
        .ok_or(ProtocolError::BadPadding)?;
    if padding < PADDING_MIN_BYTES || end < HEADER_BYTES {
        return Err(ProtocolError::BadPadding);
    }
    Ok(HEADER_BYTES..end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ALIGNMENTS: [Alignment; 4] = [
        Alignment {
            block_bytes: 8,
            length_is_padded: true,
        },
        Alignment {
            block_bytes: 8,
            length_is_padded: false,
        },
        Alignment {
            block_bytes: 16,
            length_is_padded: true,
        },
        Alignment {
            block_bytes: 16,
            length_is_padded: false,
        },
    ];

    #[test]
    fn what_is_padded_here_passes_the_checks_of_the_other_side() {
        for alignment in ALIGNMENTS {
            for payload_bytes in 1..300 {
                let padding = padding(payload_bytes, alignment);
                assert!((4..PADDING_MAX_BYTES).contains(&padding));
                let length = 1 + payload_bytes + padding;
                let wire = u32::try_from(length).unwrap();
                assert_eq!(check_length(wire, alignment, 35_000), Ok(length));
                let mut packet = vec![0; LENGTH_BYTES + length];
                packet[LENGTH_BYTES] = u8::try_from(padding).unwrap();
                assert_eq!(payload(&packet), Ok(5..5 + payload_bytes));
            }
        }
    }

    #[test]
    fn lengths_outside_the_rfc_are_refused() {
        for alignment in ALIGNMENTS {
            for length in [0, 1, 4, 13, 15, 35_000, 1 << 20, u32::MAX - 3, u32::MAX] {
                assert_eq!(
                    check_length(length, alignment, 35_000),
                    Err(ProtocolError::BadPacketLength),
                    "{length} {alignment:?}"
                );
            }
        }
    }

    #[test]
    fn the_ceiling_counts_the_length_field() {
        let alignment = Alignment {
            block_bytes: 8,
            length_is_padded: true,
        };
        assert_eq!(check_length(1020, alignment, 1024), Ok(1020));
        assert!(check_length(1028, alignment, 1024).is_err());
    }

    #[test]
    fn padding_that_eats_the_header_is_refused() {
        for (padding, good) in [
            (0, false),
            (3, false),
            (4, true),
            (11, true),
            (12, false),
            (255, false),
        ] {
            let mut packet = [0; 16];
            packet[LENGTH_BYTES] = padding;
            assert_eq!(payload(&packet).is_ok(), good, "{padding}");
        }
    }
}
