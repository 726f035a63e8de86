//! Makes a program's image easier to deflate: the targets of its calls, jumps and address
//! computations become positions in the image, which are the same wherever they are named from.
//!
//! Also compiled into the build script, which does what the agent undoes. Nothing is lost whatever the
//! bytes are: what only looks like an instruction goes back and forth just so. Source: Intel's
//! manual, volume 2, appendix A, for the one-byte and two-byte opcodes.
#![forbid(unsafe_code)]

/// Bytes of the displacement at the end of the instructions here.
const DISPLACEMENT_BYTES: usize = 4;

/// For deflating.
#[allow(dead_code, reason = "the build script's direction")]
pub fn to_positions(image: &mut [u8]) {
    convert(image, |bytes, end| {
        u32::from_le_bytes(bytes).wrapping_add(end).to_be_bytes()
    });
}

/// As the processor wants it: undoes [`to_positions`].
#[allow(dead_code, reason = "the agent's direction")]
pub fn to_displacements(image: &mut [u8]) {
    convert(image, |bytes, end| {
        u32::from_be_bytes(bytes).wrapping_sub(end).to_le_bytes()
    });
}

/// Rewrites each displacement; `change` also gets the position behind it. Only opcodes decide what is
/// one, so that both directions find the same.
fn convert(image: &mut [u8], change: impl Fn([u8; DISPLACEMENT_BYTES], u32) -> [u8; 4]) {
    let mut at = 0;
    while let Some(rest) = image.get_mut(at..) {
        let Some(opcode_bytes) = opcode_bytes(rest) else {
            at += 1;
            if rest.is_empty() {
                return;
            }
            continue;
        };
        let Some(place) = rest
            .get_mut(opcode_bytes..)
            .and_then(<[u8]>::first_chunk_mut)
        else {
            return;
        };
        at += opcode_bytes + DISPLACEMENT_BYTES;
        *place = change(*place, u32::try_from(at).unwrap_or(u32::MAX));
    }
}

/// How many bytes stand in front of a displacement that begins here.
fn opcode_bytes(code: &[u8]) -> Option<usize> {
    match code {
        // call, jmp
        [0xe8 | 0xe9, ..] => Some(1),
        // lea of an address relative to the instruction
        [0x8d, mode, ..] if mode & 0xc7 == 5 => Some(2),
        // conditional jumps
        [0x0f, 0x80..=0x8f, ..] => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_one_function_become_alike_and_come_back() {
        // Two calls of position 0x20, a lea of it, and a jump back to the start.
        let code = [
            &[0xe8, 0x1b, 0, 0, 0][..],
            &[0xe8, 0x16, 0, 0, 0],
            &[0x48, 0x8d, 0x05, 0x0f, 0, 0, 0],
            &[0x0f, 0x84, 0xe9, 0xff, 0xff, 0xff],
        ]
        .concat();
        let mut image = code.clone();
        to_positions(&mut image);
        assert_eq!(image[1..5], [0, 0, 0, 0x20]);
        assert_eq!(image[1..5], image[6..10]);
        assert_eq!(image[1..5], image[13..17]);
        assert_eq!(image[19..], [0, 0, 0, 0]);
        to_displacements(&mut image);
        assert_eq!(image, code);
    }

    #[test]
    fn any_bytes_come_back() {
        let mut state = 1_u64;
        for length in 0..400 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    // Opcodes are frequent.
                    [0xe8, 0xe9, 0x8d, 0x05, 0x0f, 0x84, 0xff, 0, 1][(state >> 40) as usize % 9]
                })
                .collect();
            let mut image = bytes.clone();
            to_positions(&mut image);
            to_displacements(&mut image);
            assert_eq!(image, bytes, "{length} bytes");
        }
    }
}
