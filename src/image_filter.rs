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
/// Bytes of the longest operand: an address or displacement. (A constant of eight is two of these.)
const OPERAND_BYTES: usize = 4;
/// Begin and length of the code, and the length of each kind, in bytes: 32 bits each, little-endian.
const HEADER_WORDS: usize = 2 + KINDS;

/// Either direction of the walk.
trait Side {
    /// Passes on the next `count` bytes, at most [`OPERAND_BYTES`], which are of `kind`.
    ///
    /// None at the end of the code, where fewer are left, or damaged input: nothing more is passed on.
    fn pass(&mut self, kind: Kind, count: usize) -> Option<[u8; OPERAND_BYTES]>;

    fn byte(&mut self, kind: Kind) -> Option<u8> {
        self.pass(kind, 1).map(|[byte, ..]| byte)
    }
}

/// Passes on the instructions of the whole code.
fn walk(side: &mut impl Side) {
    while instruction(side).is_some() {}
}

/// What an opcode is followed by, in addition to the byte that says which operands there are.
#[derive(Clone, Copy, PartialEq)]
enum Constant {
    None,
    Byte,
    Word,
    Jump,
    Target,
    /// Of the length of the first operand, for two of the eight operations of the opcode.
    OfTest {
        is_byte: bool,
    },
}

fn instruction(side: &mut impl Side) -> Option<()> {
    let mut word_bytes = OPERAND_BYTES;
    let mut is_64_bits = false;
    let opcode = loop {
        match side.byte(Kind::Code)? {
            0x66 => word_bytes = 2,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67 | 0xf0 | 0xf2 | 0xf3 => {}
            prefix @ 0x40..=0x4f => is_64_bits = prefix & 8 != 0,
            opcode => break opcode,
        }
    };
    let (has_mode, mut constant) = match opcode {
        0x0f => match side.byte(Kind::Code)? {
            0x38 => side.byte(Kind::Code).map(|_| (true, Constant::None))?,
            0x3a => side.byte(Kind::Code).map(|_| (true, Constant::Byte))?,
            opcode => of_two_bytes(opcode),
        },
        opcode => of_one_byte(opcode),
    };
    if has_mode {
        let mode = operands(side)?;
        if let Constant::OfTest { is_byte } = constant {
            constant = match (mode >> 3 & 7, is_byte) {
                (0 | 1, true) => Constant::Byte,
                (0 | 1, false) => Constant::Word,
                _ => Constant::None,
            };
        }
    }
    match constant {
        Constant::None | Constant::OfTest { .. } => {}
        Constant::Byte => drop(side.pass(Kind::Constant, 1)?),
        Constant::Jump => drop(side.pass(Kind::Jump, 1)?),
        Constant::Word => drop(side.pass(Kind::Word, word_bytes)?),
        Constant::Target => drop(side.pass(Kind::Target, OPERAND_BYTES)?),
    }
    if is_64_bits && matches!(opcode, 0xb8..=0xbf) {
        side.pass(Kind::Word, OPERAND_BYTES)?;
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
        0 if base == 5 => drop(side.pass(Kind::Target, OPERAND_BYTES)?),
        0 if base == 4 && scale & 7 == 5 => drop(side.pass(Kind::Word, OPERAND_BYTES)?),
        0 => {}
        1 => drop(side.pass(Kind::Displacement, 1)?),
        _ => drop(side.pass(Kind::Word, OPERAND_BYTES)?),
    }
    Some(mode)
}

/// Whether an opcode is followed by a byte that says which operands there are, and by which constant.
fn of_one_byte(opcode: u8) -> (bool, Constant) {
    match opcode {
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
        0x68 | 0xa9 | 0xb8..=0xbf => (false, Constant::Word),
        0x6a | 0xa8 | 0xb0..=0xb7 | 0xcd => (false, Constant::Byte),
        0x70..=0x7f | 0xe0..=0xe3 | 0xeb => (false, Constant::Jump),
        0xe8 | 0xe9 => (false, Constant::Target),
        0xf6 => (true, Constant::OfTest { is_byte: true }),
        0xf7 => (true, Constant::OfTest { is_byte: false }),
        _ => (false, Constant::None),
    }
}

/// The same for opcodes behind 0x0f.
fn of_two_bytes(opcode: u8) -> (bool, Constant) {
    match opcode {
        // syscall, ud2, rdtsc, cpuid, bswap
        0x05 | 0x0b | 0x31 | 0xa2 | 0xc8..=0xcf => (false, Constant::None),
        0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => (true, Constant::Byte),
        0x80..=0x8f => (false, Constant::Target),
        _ => (true, Constant::None),
    }
}

/// From an image to its sorted bytes.
struct Sorting<'a> {
    /// What is left of the code.
    code: &'a [u8],
    passed: u32,
    kinds: [Vec<u8>; KINDS],
}

impl Side for Sorting<'_> {
    fn pass(&mut self, kind: Kind, count: usize) -> Option<[u8; OPERAND_BYTES]> {
        let Some((passed, rest)) = self.code.split_at_checked(count) else {
            self.kinds[Kind::Code as usize].extend_from_slice(self.code);
            self.code = &[];
            return None;
        };
        self.code = rest;
        self.passed += u32::try_from(count).ok()?;
        let mut bytes = [0; OPERAND_BYTES];
        bytes[..count].copy_from_slice(passed);
        let stored = match kind {
            Kind::Target => u32::from_le_bytes(bytes)
                .wrapping_add(self.passed)
                .to_be_bytes(),
            _ => bytes,
        };
        self.kinds[kind as usize].extend_from_slice(&stored[..count]);
        Some(bytes)
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
    fn pass(&mut self, kind: Kind, count: usize) -> Option<[u8; OPERAND_BYTES]> {
        let left = self.code.end.checked_sub(self.image.len())?;
        let (kind, taken) = match left < count {
            true => (Kind::Code, left),
            false => (kind, count),
        };
        let source = self.kinds.get_mut(kind as usize)?;
        let (stored, rest) = source.split_at_checked(taken)?;
        *source = rest;
        let mut bytes = [0; OPERAND_BYTES];
        bytes.get_mut(..taken)?.copy_from_slice(stored);
        if matches!(kind, Kind::Target) {
            let end = self.image.len() + count - self.code.start;
            let position = u32::from_be_bytes(bytes);
            bytes = position
                .wrapping_sub(u32::try_from(end).ok()?)
                .to_le_bytes();
        }
        self.image.extend_from_slice(bytes.get(..taken)?);
        (taken == count).then_some(bytes)
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
