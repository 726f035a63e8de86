//! Terminals: opening one where the monitor does not, and what the client wants of it.
//!
//! Sources: RFC 4254 sections 6.2 and 8, RFC 8160, pty(7), termios(3).

use alloc::vec::Vec;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    Winsize, tcgetattr, tcsetattr, tcsetwinsize,
};

use crate::sys;
use crate::text::decimal;

/// Bytes of encoded modes that are looked at: each opcode below 160 once.
const MODES_MAX_BYTES: usize = 160 * 5;
/// The first opcode whose argument has no known length.
const OPCODE_UNKNOWN: u8 = 160;
const OPCODE_END: u8 = 0;
const OPCODE_INPUT_SPEED: u8 = 128;
const OPCODE_OUTPUT_SPEED: u8 = 129;
/// "No such character" in the protocol; Linux has 0 for it.
const CHARACTER_DISABLED: u32 = 255;

/// A pair of descriptors and the slave's path.
#[derive(Debug)]
pub struct Terminal {
    /// For `net`.
    pub master: OwnedFd,
    /// For the session.
    pub slave: OwnedFd,
    /// For SSH_TTY.
    pub path: Vec<u8>,
}

/// Opens a terminal with the process's own rights.
pub fn open() -> Result<Terminal, Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let number = decimal(sys::terminal_number(&master)?);
    let path = [b"/dev/pts/".as_slice(), &number].concat();
    // By the master, so that no other mount of devpts is in the way; by its path before 4.13.
    let slave =
        ioctl_tiocgptpeer(&master, flags).or_else(|_| crate::path::open(&path, OFlags::RDWR))?;
    Ok(Terminal {
        master,
        slave,
        path,
    })
}

/// Gives the terminal the size of `pty-req`: columns, rows, width and height in pixels, each a
/// big-endian `u32`. A size without columns or rows leaves it as it is.
pub fn set_size(terminal: &impl AsFd, size: &[u8; 16]) -> Result<(), Errno> {
    let mut words = size.chunks_exact(4).map(|word| {
        let wide = word.try_into().map_or(0, u32::from_be_bytes);
        u16::try_from(wide).unwrap_or(u16::MAX)
    });
    let mut next = || words.next().unwrap_or(0);
    let (columns, rows, width, height) = (next(), next(), next(), next());
    if columns == 0 && rows == 0 {
        return Ok(());
    }
    tcsetwinsize(
        terminal,
        Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: width,
            ws_ypixel: height,
        },
    )
}

/// Gives the terminal the encoded modes of `pty-req`.
pub fn set_modes(terminal: &impl AsFd, encoded: &[u8]) -> Result<(), Errno> {
    let mut modes = tcgetattr(terminal)?;
    apply(&mut modes, encoded);
    tcsetattr(terminal, OptionalActions::Now, &modes)
}

/// Opcodes that are not known are skipped; from 160 on nobody knows how long the argument is.
fn apply(modes: &mut Termios, encoded: &[u8]) {
    let mut rest = encoded.get(..MODES_MAX_BYTES).unwrap_or(encoded);
    while let Some((&opcode, behind)) = rest.split_first() {
        let Some((argument, behind)) = behind.split_first_chunk::<4>() else {
            return;
        };
        if opcode == OPCODE_END || opcode >= OPCODE_UNKNOWN {
            return;
        }
        apply_one(modes, opcode, u32::from_be_bytes(*argument));
        rest = behind;
    }
}

fn apply_one(modes: &mut Termios, opcode: u8, value: u32) {
    if let Some(index) = special_code(opcode) {
        modes.special_codes[index] = if value == CHARACTER_DISABLED {
            0
        } else {
            value.to_le_bytes()[0]
        };
    } else if let Some((_, word, bits)) = FLAGS.iter().find(|entry| entry.0 == opcode) {
        let is_on = value != 0;
        match word {
            Word::Input => modes
                .input_modes
                .set(InputModes::from_bits_retain(*bits), is_on),
            Word::Local => modes
                .local_modes
                .set(LocalModes::from_bits_retain(*bits), is_on),
            Word::Output => modes
                .output_modes
                .set(OutputModes::from_bits_retain(*bits), is_on),
            Word::Control => modes
                .control_modes
                .set(ControlModes::from_bits_retain(*bits), is_on),
        }
    } else if opcode == OPCODE_INPUT_SPEED && value != 0 {
        // A speed that the kernel does not know changes nothing: there is no line.
        let _ = modes.set_input_speed(value);
    } else if opcode == OPCODE_OUTPUT_SPEED && value != 0 {
        let _ = modes.set_output_speed(value);
    }
}

fn special_code(opcode: u8) -> Option<SpecialCodeIndex> {
    Some(match opcode {
        1 => SpecialCodeIndex::VINTR,
        2 => SpecialCodeIndex::VQUIT,
        3 => SpecialCodeIndex::VERASE,
        4 => SpecialCodeIndex::VKILL,
        5 => SpecialCodeIndex::VEOF,
        6 => SpecialCodeIndex::VEOL,
        7 => SpecialCodeIndex::VEOL2,
        8 => SpecialCodeIndex::VSTART,
        9 => SpecialCodeIndex::VSTOP,
        10 => SpecialCodeIndex::VSUSP,
        12 => SpecialCodeIndex::VREPRINT,
        13 => SpecialCodeIndex::VWERASE,
        14 => SpecialCodeIndex::VLNEXT,
        16 => SpecialCodeIndex::VSWTC,
        18 => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

/// Where a flag is.
#[derive(Clone, Copy)]
enum Word {
    Input,
    Local,
    Output,
    Control,
}

/// Opcodes of flags.
const FLAGS: [(u8, Word, u32); 36] = [
    (30, Word::Input, InputModes::IGNPAR.bits()),
    (31, Word::Input, InputModes::PARMRK.bits()),
    (32, Word::Input, InputModes::INPCK.bits()),
    (33, Word::Input, InputModes::ISTRIP.bits()),
    (34, Word::Input, InputModes::INLCR.bits()),
    (35, Word::Input, InputModes::IGNCR.bits()),
    (36, Word::Input, InputModes::ICRNL.bits()),
    (37, Word::Input, InputModes::IUCLC.bits()),
    (38, Word::Input, InputModes::IXON.bits()),
    (39, Word::Input, InputModes::IXANY.bits()),
    (40, Word::Input, InputModes::IXOFF.bits()),
    (41, Word::Input, InputModes::IMAXBEL.bits()),
    (42, Word::Input, InputModes::IUTF8.bits()),
    (50, Word::Local, LocalModes::ISIG.bits()),
    (51, Word::Local, LocalModes::ICANON.bits()),
    (52, Word::Local, LocalModes::XCASE.bits()),
    (53, Word::Local, LocalModes::ECHO.bits()),
    (54, Word::Local, LocalModes::ECHOE.bits()),
    (55, Word::Local, LocalModes::ECHOK.bits()),
    (56, Word::Local, LocalModes::ECHONL.bits()),
    (57, Word::Local, LocalModes::NOFLSH.bits()),
    (58, Word::Local, LocalModes::TOSTOP.bits()),
    (59, Word::Local, LocalModes::IEXTEN.bits()),
    (60, Word::Local, LocalModes::ECHOCTL.bits()),
    (61, Word::Local, LocalModes::ECHOKE.bits()),
    (62, Word::Local, LocalModes::PENDIN.bits()),
    (70, Word::Output, OutputModes::OPOST.bits()),
    (71, Word::Output, OutputModes::OLCUC.bits()),
    (72, Word::Output, OutputModes::ONLCR.bits()),
    (73, Word::Output, OutputModes::OCRNL.bits()),
    (74, Word::Output, OutputModes::ONOCR.bits()),
    (75, Word::Output, OutputModes::ONLRET.bits()),
    (90, Word::Control, ControlModes::CS7.bits()),
    (91, Word::Control, ControlModes::CS8.bits()),
    (92, Word::Control, ControlModes::PARENB.bits()),
    (93, Word::Control, ControlModes::PARODD.bits()),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(list: &[(u8, u32)]) -> Vec<u8> {
        list.iter()
            .flat_map(|(code, value)| [&[*code], &value.to_be_bytes()[..]].concat())
            .collect()
    }

    #[test]
    fn modes_reach_the_terminal() {
        let terminal = open().expect("a terminal");
        assert!(terminal.path.starts_with(b"/dev/pts/"));
        let encoded = encode(&[
            (1, 7),
            (5, 255),
            (36, 0),
            (42, 1),
            (53, 0),
            (72, 0),
            (90, 1),
            (91, 1),
            (99, 5),
            (128, 9600),
            (129, 9600),
            (0, 0),
            (50, 0),
        ]);
        set_modes(&terminal.slave, &encoded).expect("modes");
        let modes = tcgetattr(&terminal.slave).expect("modes");
        assert_eq!(modes.special_codes[SpecialCodeIndex::VINTR], 7);
        assert_eq!(modes.special_codes[SpecialCodeIndex::VEOF], 0);
        assert!(!modes.input_modes.contains(InputModes::ICRNL));
        assert!(modes.input_modes.contains(InputModes::IUTF8));
        assert!(!modes.local_modes.contains(LocalModes::ECHO));
        assert!(
            modes.local_modes.contains(LocalModes::ISIG),
            "behind the end"
        );
        assert!(!modes.output_modes.contains(OutputModes::ONLCR));
        assert!(modes.control_modes.contains(ControlModes::CS8));
        assert_eq!((modes.input_speed(), modes.output_speed()), (9600, 9600));
    }

    #[test]
    fn nonsense_modes_change_nothing_and_do_not_fail() {
        let terminal = open().expect("a terminal");
        let before = tcgetattr(&terminal.slave).expect("modes");
        for encoded in [
            encode(&[(160, 1), (53, 0)]),
            encode(&[(255, 1), (53, 0)]),
            alloc::vec![53],
            alloc::vec![53, 0, 0, 0],
            encode(&[(128, 4_000_000_000)]),
        ] {
            set_modes(&terminal.slave, &encoded).expect("modes");
        }
        set_modes(&terminal.slave, &[99; 100_000]).expect("modes");
        let after = tcgetattr(&terminal.slave).expect("modes");
        assert_eq!(before.local_modes, after.local_modes);
        assert_eq!(before.input_modes, after.input_modes);
    }

    #[test]
    fn a_size_of_zero_is_ignored_and_a_huge_one_cut() {
        let terminal = open().expect("a terminal");
        let size = |words: [u32; 4]| -> [u8; 16] {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            bytes.try_into().expect("16 bytes")
        };
        let current = || rustix::termios::tcgetwinsize(&terminal.slave).expect("a size");
        set_size(&terminal.slave, &size([80, 25, 640, 480])).expect("a size");
        set_size(&terminal.slave, &size([0, 0, 0, 0])).expect("a size");
        assert_eq!(
            (current().ws_col, current().ws_row, current().ws_xpixel),
            (80, 25, 640)
        );
        set_size(&terminal.slave, &size([70_000, 1, 0, 0])).expect("a size");
        assert_eq!((current().ws_col, current().ws_row), (u16::MAX, 1));
    }
}
