//! Makes a program's image for x86-64 easier to deflate: the bytes of its instructions come apart by
//! what they are, so that each kind stands beside its own, and the targets of calls, jumps and address
//! computations become positions in the image, which are the same wherever they are named from.
//!
//! Also compiled into the build script, which does what the agent undoes. One walk over the
//! instructions serves both directions: each byte decides what the next one is, whether it is taken
//! from the image or put back into it. So nothing is lost whatever the bytes are; what only looks like
//! an instruction, or is one that is not known here, deflates less well.
//!
//! Source: Intel's manual, volume 2, chapter 2 for the parts of an instruction, appendix A for opcodes.
#![forbid(unsafe_code)]

use std::ops::Range;

/// Kinds of bytes, in the order in which they are stored.
#[derive(Clone, Copy)]
enum Kind {
    /// Prefixes, opcodes, and the byte behind them that says which operands there are.
    Code,
    /// Base and index of an address.
    Scale,
    /// Displacements and constants of one byte.
    Displacement,
    Constant,
    Jump,
    /// Displacements and constants of two or four bytes.
    Word,
    /// What is relative to the instruction, as a position, big-endian.
    Target,
}

const KINDS: usize = 7;
/// Bytes of a displacement or constant, but for the short ones.
const WORD_BYTES: usize = 4;
/// Begin and length of the code, and the length of each kind, in bytes: 32 bits each, little-endian.
const HEADER_WORDS: usize = 2 + KINDS;

/// Either direction of the walk. None ends it: there is no more code, or the input is damaged.
trait Side {
    /// Passes on the next byte, which is of `kind`.
    fn byte(&mut self, kind: Kind) -> Option<u8>;

    /// Passes on four bytes that are relative to what stands behind them.
    fn target(&mut self) -> Option<()>;

    fn word(&mut self, bytes: usize) -> Option<()> {
        for _ in 0..bytes {
            self.byte(Kind::Word)?;
        }
        Some(())
    }
}

/// Passes on the instructions of the whole code.
fn walk(side: &mut impl Side) {
    while instruction(side).is_some() {}
}

/// What an opcode is followed by.
#[derive(Clone, Copy)]
struct Shape {
    /// A byte that says which operands there are, and their address.
    has_mode: bool,
    constant: Constant,
}

/// The last part of an instruction.
#[derive(Clone, Copy)]
enum Constant {
    None,
    Byte,
    Word,
    Jump,
    Target,
    /// The opcode is no opcode, but a prefix of one.
    Prefix,
    /// In two of the eight operations of the opcode: a byte, or a word.
    ByteOfTest,
    WordOfTest,
    /// A word, or two.
    Wide,
}

const OF_ONE_BYTE: [Shape; 256] = shapes(true);
/// Behind 0x0f.
const OF_TWO_BYTES: [Shape; 256] = shapes(false);

const fn shapes(one_byte: bool) -> [Shape; 256] {
    let mut shapes = [of_two_bytes(0); 256];
    let mut opcode = 0;
    while opcode < shapes.len() {
        #[expect(clippy::cast_possible_truncation, reason = "an index of 256")]
        let byte = opcode as u8;
        shapes[opcode] = if one_byte {
            of_one_byte(byte)
        } else {
            of_two_bytes(byte)
        };
        opcode += 1;
    }
    shapes
}

const fn of_one_byte(opcode: u8) -> Shape {
    let (has_mode, constant) = match opcode {
        0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3 => {
            (false, Constant::Prefix)
        }
        // arithmetic of the eight kinds
        0x00..=0x3f => match opcode & 7 {
            0..=3 => (true, Constant::None),
            4 => (false, Constant::Byte),
            5 => (false, Constant::Word),
            _ => (false, Constant::None),
        },
        0x63 | 0x84..=0x8f | 0xd0..=0xd3 | 0xfe | 0xff => (true, Constant::None),
        0x69 | 0x81 | 0xc7 => (true, Constant::Word),
        0x6b | 0x80 | 0x83 | 0xc0 | 0xc1 | 0xc6 => (true, Constant::Byte),
        0x68 | 0xa9 => (false, Constant::Word),
        0x6a | 0xa8 | 0xb0..=0xb7 | 0xcd => (false, Constant::Byte),
        0x70..=0x7f | 0xe0..=0xe3 | 0xeb => (false, Constant::Jump),
        0xb8..=0xbf => (false, Constant::Wide),
        0xe8 | 0xe9 => (false, Constant::Target),
        0xf6 => (true, Constant::ByteOfTest),
        0xf7 => (true, Constant::WordOfTest),
        _ => (false, Constant::None),
    };
    Shape { has_mode, constant }
}

const fn of_two_bytes(opcode: u8) -> Shape {
    let (has_mode, constant) = match opcode {
        // syscall, ud2, rdtsc, cpuid, bswap
        0x05 | 0x0b | 0x31 | 0xa2 | 0xc8..=0xcf => (false, Constant::None),
        0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => (true, Constant::Byte),
        0x80..=0x8f => (false, Constant::Target),
        _ => (true, Constant::None),
    };
    Shape { has_mode, constant }
}

fn instruction(side: &mut impl Side) -> Option<()> {
    let mut word_bytes = WORD_BYTES;
    let mut is_64_bits = false;
    let (opcode, mut shape) = loop {
        let byte = side.byte(Kind::Code)?;
        let shape = OF_ONE_BYTE[usize::from(byte)];
        match (shape.constant, byte) {
            (Constant::Prefix, 0x66) => word_bytes = 2,
            (Constant::Prefix, _) => is_64_bits = byte & 0xf8 == 0x48,
            _ => break (byte, shape),
        }
    };
    if opcode == 0x0f {
        let second = side.byte(Kind::Code)?;
        shape = OF_TWO_BYTES[usize::from(second)];
        if let 0x38 | 0x3a = second {
            side.byte(Kind::Code)?;
            if second == 0x3a {
                shape.constant = Constant::Byte;
            }
        }
    }
    let operation = match shape.has_mode {
        true => operands(side)? >> 3 & 7,
        false => 0,
    };
    match shape.constant {
        Constant::Byte => drop(side.byte(Kind::Constant)?),
        Constant::Jump => drop(side.byte(Kind::Jump)?),
        Constant::Word => side.word(word_bytes)?,
        Constant::Target => side.target()?,
        Constant::ByteOfTest if operation < 2 => drop(side.byte(Kind::Constant)?),
        Constant::WordOfTest if operation < 2 => side.word(word_bytes)?,
        Constant::Wide if is_64_bits => side.word(2 * WORD_BYTES)?,
        Constant::Wide => side.word(word_bytes)?,
        _ => {}
    }
    Some(())
}

/// Passes on the byte that says which operands there are, and returns it; then their address.
fn operands(side: &mut impl Side) -> Option<u8> {
    let mode = side.byte(Kind::Code)?;
    let (addressing, base) = (mode >> 6, mode & 7);
    if addressing == 3 {
        return Some(mode);
    }
    let scale = match base {
        4 => side.byte(Kind::Scale)?,
        _ => 0,
    };
    match addressing {
        0 if base == 5 => side.target()?,
        0 if base == 4 && scale & 7 == 5 => side.word(WORD_BYTES)?,
        0 => {}
        1 => drop(side.byte(Kind::Displacement)?),
        _ => side.word(WORD_BYTES)?,
    }
    Some(mode)
}

/// Fewer than four bytes are left where a target should be: they are passed on as they are.
fn remainder(side: &mut impl Side) -> Option<()> {
    while side.byte(Kind::Code).is_some() {}
    None
}

/// From an image to its sorted bytes.
struct Sorting<'a> {
    code: &'a [u8],
    /// How much of it was passed on, in bytes.
    passed: usize,
    kinds: [Vec<u8>; KINDS],
}

impl Side for Sorting<'_> {
    fn byte(&mut self, kind: Kind) -> Option<u8> {
        let byte = *self.code.get(self.passed)?;
        self.passed += 1;
        self.kinds[kind as usize].push(byte);
        Some(byte)
    }

    fn target(&mut self) -> Option<()> {
        let Some(bytes) = self.code[self.passed..].first_chunk() else {
            return remainder(self);
        };
        self.passed += WORD_BYTES;
        let passed = u32::try_from(self.passed).ok()?;
        let position = u32::from_le_bytes(*bytes).wrapping_add(passed);
        self.kinds[Kind::Target as usize].extend(position.to_be_bytes());
        Some(())
    }
}

/// From sorted bytes to the image.
struct Joining<'a> {
    image: Vec<u8>,
    /// Where the code begins and ends in it.
    code: Range<usize>,
    kinds: [&'a [u8]; KINDS],
}

impl Side for Joining<'_> {
    fn byte(&mut self, kind: Kind) -> Option<u8> {
        if self.image.len() >= self.code.end {
            return None;
        }
        let source = &mut self.kinds[kind as usize];
        let (byte, rest) = source.split_first()?;
        *source = rest;
        self.image.push(*byte);
        Some(*byte)
    }

    fn target(&mut self) -> Option<()> {
        if self.image.len() + WORD_BYTES > self.code.end {
            return remainder(self);
        }
        let source = &mut self.kinds[Kind::Target as usize];
        let (bytes, rest) = source.split_first_chunk()?;
        *source = rest;
        let passed = self.image.len() + WORD_BYTES - self.code.start;
        let displacement = u32::from_be_bytes(*bytes).wrapping_sub(u32::try_from(passed).ok()?);
        self.image.extend(displacement.to_le_bytes());
        Some(())
    }
}

/// Sorts the bytes of `image`, whose instructions are at `code`: for deflating.
///
/// # Panics
///
/// Where `code` is not within `image`, or that is of 4 GiB and more.
#[allow(dead_code, reason = "the build script's direction")]
pub fn sort(image: &[u8], code: Range<usize>) -> Vec<u8> {
    let mut sorting = Sorting {
        code: &image[code.clone()],
        passed: 0,
        kinds: Default::default(),
    };
    walk(&mut sorting);
    let lengths = sorting.kinds.iter().map(Vec::len);
    let words = [code.start, code.len()].into_iter().chain(lengths);
    let mut sorted: Vec<u8> = words
        .flat_map(|word| {
            u32::try_from(word)
                .expect("an image is small")
                .to_le_bytes()
        })
        .collect();
    sorted.extend_from_slice(&image[..code.start]);
    sorted.extend_from_slice(&image[code.end..]);
    sorted.extend(sorting.kinds.concat());
    sorted
}

/// Undoes [`sort`]. None if the bytes are not what it made.
#[allow(dead_code, reason = "the agent's direction")]
pub fn join(sorted: &[u8]) -> Option<Vec<u8>> {
    let mut rest = sorted;
    let mut words = [0; HEADER_WORDS];
    for word in &mut words {
        let (bytes, behind) = rest.split_first_chunk()?;
        *word = usize::try_from(u32::from_le_bytes(*bytes)).ok()?;
        rest = behind;
    }
    let [start, length, lengths @ ..] = words;
    let mut kinds = [&[][..]; KINDS];
    for (kind, length) in kinds.iter_mut().zip(lengths).rev() {
        (rest, *kind) = rest.split_at_checked(rest.len().checked_sub(length)?)?;
    }
    let (head, tail) = rest.split_at_checked(start)?;
    let mut image = Vec::with_capacity(sorted.len());
    image.extend_from_slice(head);
    let mut joining = Joining {
        image,
        code: start..start.checked_add(length)?,
        kinds,
    };
    walk(&mut joining);
    let is_whole = joining.image.len() == joining.code.end;
    joining.image.extend_from_slice(tail);
    is_whole.then_some(joining.image)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each kind holds.
    fn kinds_of(code: &[u8]) -> [Vec<u8>; KINDS] {
        let mut sorting = Sorting {
            code,
            passed: 0,
            kinds: Default::default(),
        };
        walk(&mut sorting);
        sorting.kinds
    }

    #[test]
    fn each_part_of_an_instruction_is_of_its_kind() {
        let code = [
            // mov eax, [rsp+rcx*4+8]; add dword [rbx], 0x01020304; cmp byte [rip+0x10], 7
            &[0x8b, 0x44, 0x8c, 0x08][..],
            &[0x81, 0x03, 4, 3, 2, 1],
            &[0x80, 0x3d, 0x10, 0, 0, 0, 7],
            // test cl, 9; not ecx; je +2; mov ax, 0x0605; movabs rax
            &[0xf6, 0xc1, 9, 0xf7, 0xd1, 0x74, 2],
            &[0x66, 0xb8, 5, 6],
            &[0x48, 0xb8, 1, 1, 1, 1, 2, 2, 2, 2],
            // pshufd xmm0, xmm1, 0x4e; syscall
            &[0x66, 0x0f, 0x70, 0xc1, 0x4e, 0x0f, 0x05],
        ]
        .concat();
        let [code, scale, displacements, constants, jumps, words, targets] = kinds_of(&code);
        assert_eq!(
            code,
            [
                0x8b, 0x44, 0x81, 0x03, 0x80, 0x3d, 0xf6, 0xc1, 0xf7, 0xd1, 0x74, 0x66, 0xb8, 0x48,
                0xb8, 0x66, 0x0f, 0x70, 0xc1, 0x0f, 0x05
            ]
        );
        assert_eq!(scale, [0x8c]);
        assert_eq!(displacements, [8]);
        assert_eq!(constants, [7, 9, 0x4e]);
        assert_eq!(jumps, [2]);
        assert_eq!(words, [4, 3, 2, 1, 5, 6, 1, 1, 1, 1, 2, 2, 2, 2]);
        assert_eq!(targets, [0, 0, 0, 0x20]);
    }

    #[test]
    fn what_is_named_from_several_places_becomes_alike() {
        // Two calls of position 0x20, a lea of it, and a jump back to the start.
        let code = [
            &[0xe8, 0x1b, 0, 0, 0][..],
            &[0xe8, 0x16, 0, 0, 0],
            &[0x48, 0x8d, 0x05, 0x0f, 0, 0, 0],
            &[0x0f, 0x84, 0xe9, 0xff, 0xff, 0xff],
        ]
        .concat();
        let targets = &kinds_of(&code)[Kind::Target as usize];
        assert_eq!(
            *targets,
            [0, 0, 0, 0x20]
                .repeat(3)
                .into_iter()
                .chain([0; 4])
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn any_bytes_come_back() {
        let mut state = 1_u64;
        for length in 0..600 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let byte = state.to_be_bytes()[0];
                    // What is decided on is frequent.
                    let frequent = [0xe8, 0x8d, 0x05, 0x0f, 0x84, 0x66, 0x48, 0xf7, 0xff, 0];
                    frequent.get(usize::from(byte) / 2).copied().unwrap_or(byte)
                })
                .collect();
            for code in [0..length, length / 3..length / 2, length..length] {
                assert_eq!(join(&sort(&bytes, code)).as_ref(), Some(&bytes));
            }
        }
    }

    #[test]
    fn damage_is_noticed_or_harmless() {
        let image: Vec<u8> = (0..=255).cycle().take(700).collect();
        let sorted = sort(&image, 40..650);
        for length in 0..sorted.len() {
            assert_ne!(join(&sorted[..length]).as_ref(), Some(&image), "{length}");
        }
        for at in 0..sorted.len() {
            let mut damaged = sorted.clone();
            damaged[at] ^= 0x81;
            let _ = join(&damaged);
        }
    }
}
