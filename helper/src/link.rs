//! One end of a `SOCK_SEQPACKET` pair between processes of ours.
//!
//! A datagram is a 16-byte [`Header`] and up to [`CONTENT_MAX_BYTES`] of content; a longer frame
//! comes as consecutive datagrams under one announced, bounded total. Descriptors ride on the first
//! one. Short datagrams, `MSG_TRUNC`, surplus descriptors, and pieces that do not continue the frame
//! under way are [`LinkError::Violation`]: the caller ends the link. Descriptors that arrived with a
//! bad frame are closed. A frame whose descriptors found no place in this process arrives without any.
//!
//! Sources: unix(7), cmsg(3).
#![forbid(unsafe_code)]

use alloc::vec;
use alloc::vec::Vec;
use core::mem::MaybeUninit;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

use crate::wire::{Wire, WireError};

/// Bytes of the header in front of each datagram.
pub const HEADER_BYTES: usize = 16;
/// Content bytes in one datagram at most.
pub const CONTENT_MAX_BYTES: usize = 32 * 1024 - HEADER_BYTES;
/// Descriptors with one frame at most.
pub const DESCRIPTORS_MAX: usize = 3;
/// Bytes of one frame in all, chunks together: an `exec` request of OpenSSH's largest packet (256 KiB) and room.
pub const FRAME_MAX_BYTES: usize = 512 * 1024;

/// What stands in front of each datagram: four little-endian `u32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which connection the frame is about; 0 where there is no choice.
    pub connection: u32,
    /// Bytes of the whole frame.
    pub total: u32,
    /// Where this piece's content begins in the frame.
    pub offset: u32,
}

const MAGIC: u32 = 0x3146_6741; // "AgF1", so that a stray datagram is recognised

impl Header {
    fn encode(self) -> [u8; HEADER_BYTES] {
        let words = [MAGIC, self.connection, self.total, self.offset];
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(words.map(u32::to_le_bytes).as_flattened());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes
            .get(..HEADER_BYTES)?
            .chunks_exact(4)
            .map(|word| word.try_into().map(u32::from_le_bytes).unwrap_or(0));
        (words.next()? == MAGIC).then_some(())?;
        Some(Self {
            connection: words.next()?,
            total: words.next()?,
            offset: words.next()?,
        })
    }
}

/// What none of ours sends. Fieldless, so that it fits a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// More bytes or descriptors than a frame may have, from us.
    OursTooLarge,
    /// More bytes or descriptors than a frame may have.
    TooLarge,
    /// A datagram or its descriptors did not fit the buffer.
    Truncated,
    /// A datagram from elsewhere.
    NoHeader,
    /// A piece of another frame.
    OutOfPlace,
    /// A piece with more bytes than its frame, or none.
    Misfit,
}

impl Violation {
    /// What happened, in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::OursTooLarge => "a frame of ours is too large",
            Self::TooLarge => "a frame is larger than any of ours",
            Self::Truncated => "a truncated datagram arrived",
            Self::NoHeader => "a datagram without our header arrived",
            Self::OutOfPlace => "a piece does not continue the frame under way",
            Self::Misfit => "a piece does not fit its frame",
        }
    }
}

/// Why a link cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkError {
    /// The other end is gone.
    Closed,
    /// The other end broke the rules of the link.
    Violation(Violation),
    /// The other end sent what none of ours sends.
    Protocol(&'static str),
    /// The content is not the frame expected here.
    Frame(WireError),
    /// A system call failed.
    System(Errno),
}

impl From<WireError> for LinkError {
    fn from(error: WireError) -> Self {
        Self::Frame(error)
    }
}

impl core::fmt::Display for LinkError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Closed => f.write_str("the other process is gone"),
            Self::Violation(violation) => f.write_str(violation.text()),
            Self::Protocol(why) => f.write_str(why),
            Self::Frame(error) => error.fmt(f),
            Self::System(errno) => write!(f, "system error {}", errno.raw_os_error()),
        }
    }
}

/// A whole frame as it arrived.
#[derive(Debug)]
pub struct Received {
    /// Which connection the frame is about.
    pub connection: u32,
    /// The frame's content; decode it with [`Wire::from_wire`].
    pub content: Vec<u8>,
    /// Descriptors, close-on-exec; none where this process has as many as it may.
    pub descriptors: Vec<OwnedFd>,
}

/// One end of a link. `send` needs no `&mut`, so threads may share an `Arc<Link>` for sending as
/// long as they serialise frames of more than one datagram (see [`Link::send`]).
#[derive(Debug)]
pub struct Link {
    socket: OwnedFd,
}

/// The receiving state of a link: the frame that is still arriving.
#[derive(Debug, Default)]
pub struct Assembly {
    buffer: Vec<u8>,
    /// Length of the last datagram in it.
    filled: usize,
    partial: Option<(Header, Vec<u8>, Vec<OwnedFd>)>,
}

impl Assembly {
    /// What the last datagram was received into, to be wiped after a secret.
    pub fn buffer(&mut self) -> &mut [u8] {
        self.buffer.get_mut(..self.filled).unwrap_or_default()
    }
}

/// The two ends of a link, closed on exec.
///
/// # Errors
///
/// Those of socketpair(2).
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Link {
    /// Takes one end of a `SOCK_SEQPACKET` pair.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Gives the socket back.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Sends `frame`, about `connection`, with `descriptors`.
    ///
    /// With `wait` false a full queue is [`LinkError::System`] with `Errno::AGAIN`. A frame of more
    /// than one datagram must not interleave with another: callers with threads hold a lock.
    pub fn send(
        &self,
        connection: u32,
        frame: &impl Wire,
        descriptors: &[BorrowedFd<'_>],
        wait: bool,
    ) -> Result<(), LinkError> {
        self.send_content(connection, &frame.to_wire(), descriptors, wait)
    }

    /// [`Link::send`] for content that is already encoded.
    pub fn send_content(
        &self,
        connection: u32,
        content: &[u8],
        descriptors: &[BorrowedFd<'_>],
        wait: bool,
    ) -> Result<(), LinkError> {
        let mut offset = 0;
        loop {
            offset = self.send_piece(connection, content, offset, descriptors, wait)?;
            if offset >= content.len() {
                return Ok(());
            }
        }
    }

    /// Sends the datagram of a frame that begins at `offset` in its content; gives where the next
    /// one begins, which is the content's length after the last. `descriptors` go with the first.
    ///
    /// For senders that must not wait: a frame that stopped with `Errno::AGAIN` goes on later from
    /// the same offset, with nothing else in between.
    pub fn send_piece(
        &self,
        connection: u32,
        content: &[u8],
        offset: usize,
        descriptors: &[BorrowedFd<'_>],
        wait: bool,
    ) -> Result<usize, LinkError> {
        if content.len() > FRAME_MAX_BYTES || descriptors.len() > DESCRIPTORS_MAX {
            return Err(LinkError::Violation(Violation::OursTooLarge));
        }
        let flags = SendFlags::NOSIGNAL
            | if wait {
                SendFlags::empty()
            } else {
                SendFlags::DONTWAIT
            };
        let end = content.len().min(offset.saturating_add(CONTENT_MAX_BYTES));
        let header = Header {
            connection,
            total: u32::try_from(content.len()).unwrap_or(u32::MAX),
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
        }
        .encode();
        let piece = content.get(offset..end).unwrap_or(&[]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if offset == 0 && !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        loop {
            let parts = [IoSlice::new(&header), IoSlice::new(piece)];
            match sendmsg(&self.socket, &parts, &mut ancillary, flags) {
                Ok(_) => return Ok(end),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(LinkError::Closed),
                Err(errno) => return Err(LinkError::System(errno)),
            }
        }
    }

    /// Receives the next whole frame.
    ///
    /// `Ok(None)` with `wait` false means that no whole frame is there yet.
    pub fn receive(
        &self,
        assembly: &mut Assembly,
        wait: bool,
    ) -> Result<Option<Received>, LinkError> {
        let flags = RecvFlags::CMSG_CLOEXEC
            | if wait {
                RecvFlags::empty()
            } else {
                RecvFlags::DONTWAIT
            };
        loop {
            if assembly.buffer.is_empty() {
                assembly.buffer = vec![0; HEADER_BYTES + CONTENT_MAX_BYTES];
            }
            // Room for one more descriptor than allowed: a surplus shows as such, not as CTRUNC only.
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX + 1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let message = match recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut assembly.buffer)],
                &mut ancillary,
                flags,
            ) {
                Ok(message) => message,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::CONNRESET) => return Err(LinkError::Closed),
                Err(errno) => return Err(LinkError::System(errno)),
            };
            // Collected before anything is judged, so that no path leaks one.
            let mut descriptors: Vec<OwnedFd> = Vec::new();
            for entry in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = entry {
                    descriptors.extend(rights);
                }
            }
            assembly.filled = message.bytes;
            if message.bytes == 0 && descriptors.is_empty() {
                return Err(LinkError::Closed);
            }
            let is_short = message.flags.contains(ReturnFlags::CTRUNC);
            if message.flags.contains(ReturnFlags::TRUNC)
                || (is_short && descriptors.len() > DESCRIPTORS_MAX)
            {
                return Err(LinkError::Violation(Violation::Truncated));
            }
            if is_short {
                // Some are of no use: what they are for is refused, not the link ended.
                descriptors.clear();
            }
            let datagram = assembly.buffer.get(..message.bytes).unwrap_or(&[]);
            let Some(header) = Header::decode(datagram) else {
                return Err(LinkError::Violation(Violation::NoHeader));
            };
            let content = datagram.get(HEADER_BYTES..).unwrap_or(&[]);
            match accept_piece(&mut assembly.partial, header, content, descriptors) {
                Ok(None) => {}
                Ok(received) => return Ok(received),
                Err(error) => {
                    assembly.partial = None;
                    return Err(error);
                }
            }
        }
    }

    /// Gives back the receive buffer's memory; the next `receive` takes it anew.
    pub fn release_buffer(assembly: &mut Assembly) {
        assembly.buffer = Vec::new();
        assembly.filled = 0;
    }
}

fn accept_piece(
    partial: &mut Option<(Header, Vec<u8>, Vec<OwnedFd>)>,
    header: Header,
    content: &[u8],
    descriptors: Vec<OwnedFd>,
) -> Result<Option<Received>, LinkError> {
    let total = usize::try_from(header.total).unwrap_or(usize::MAX);
    if total > FRAME_MAX_BYTES || descriptors.len() > DESCRIPTORS_MAX {
        return Err(LinkError::Violation(Violation::TooLarge));
    }
    let (first, gathered, _) = match partial {
        None if header.offset == 0 => partial.insert((header, Vec::new(), descriptors)),
        Some(partial)
            if partial.0.connection == header.connection
                && partial.0.total == header.total
                && usize::try_from(header.offset) == Ok(partial.1.len())
                && header.offset != 0
                && descriptors.is_empty() =>
        {
            partial
        }
        _ => {
            return Err(LinkError::Violation(Violation::OutOfPlace));
        }
    };
    gathered.extend_from_slice(content);
    if gathered.len() > total || (content.is_empty() && total != 0) {
        return Err(LinkError::Violation(Violation::Misfit));
    }
    if gathered.len() < total {
        return Ok(None);
    }
    let connection = first.connection;
    Ok(partial.take().map(|(_, content, descriptors)| Received {
        connection,
        content,
        descriptors,
    }))
}
