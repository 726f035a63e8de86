//! The gzip format around bytes as they are: readers want the format, nobody needs these to be small.
//!
//! Source: RFC 1952; RFC 1951 section 3.2.4 (stored blocks).

#![forbid(unsafe_code)]

const BLOCK_MAX_BYTES: usize = 65_535;

pub fn gzip(content: &[u8]) -> Vec<u8> {
    // Magic, deflate, no flags, no time, no hints, Unix.
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    let mut blocks = content.chunks(BLOCK_MAX_BYTES).peekable();
    if blocks.peek().is_none() {
        out.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    }
    while let Some(block) = blocks.next() {
        let len = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(u8::from(blocks.peek().is_none()));
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(block);
    }
    out.extend_from_slice(&crc32(content).to_le_bytes());
    let len = u32::try_from(content.len() & 0xffff_ffff).unwrap_or(0);
    out.extend_from_slice(&len.to_le_bytes());
    out
}

fn crc32(content: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    let mut crc = u32::MAX;
    for byte in content {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
