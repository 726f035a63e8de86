//! The fast path of SFTP: READ and WRITE of files that the helper opened as the user and handed over.
//!
//! Between the client and the helper's SFTP server stands this reader of packets. A READ or WRITE of
//! a file that is here is answered here, between file and packet; everything else goes on to the
//! helper, byte for byte. Order is kept by one rule: nothing is done here while the helper owes an
//! answer, and nothing goes to the helper before what came earlier was done here. What fails here
//! goes to the helper too, whose word on it is the client's answer; so this is never more than a
//! shorter way.
//!
//! Sources: draft-ietf-secsh-filexfer-02 sections 3 and 6.4.

use agent_helper::sftp::tally;
use rustix::fd::OwnedFd;
use rustix::io::{Errno, IoSlice, pread, pwrite, retry_on_intr};

use super::descriptors::{Access, regular_file};
use crate::limits::{FILE_REPLIES_BYTES, FILES_PER_SESSION_MAX};
use crate::ssh::{ChannelId, Core, Stream};

const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const STATUS: u8 = 101;
const DATA: u8 = 103;
const STATUS_END_OF_FILE: u32 = 1;

/// Length and number of a packet.
const START_BYTES: usize = 5;
/// A CLOSE with a handle of ours: length, number, id, handle.
const CLOSE_BYTES: usize = 4 + 1 + 4 + 4 + 4;
/// A READ with a handle of ours, or what stands in front of a WRITE's data.
const HEAD_BYTES: usize = CLOSE_BYTES + 8 + 4;
/// Behind the length: what a WRITE has besides its data.
const WRITE_FIELDS_BYTES: usize = HEAD_BYTES - 4;
/// In front of the data of a DATA packet: length, number, id, length of the data.
const DATA_HEAD_BYTES: usize = 13;
/// Data of one READ, as the helper's server has it and tells clients (limits@openssh.com).
const READ_MAX_BYTES: usize = 255 * 1024;

/// The files of one session, and how far its streams of packets are.
#[derive(Debug, Default)]
pub(super) struct Files {
    open: Vec<File>,
    /// Where it is noted how much of them was read and written, if somebody wants to know.
    tally: Option<OwnedFd>,
    /// The tally found no place here: what cannot be counted is the helper's.
    is_uncounted: bool,
    stage: Stage,
    /// The start of the packet that is arriving.
    head: Vec<u8>,
    /// For the helper, in front of what the client sends next.
    forward: Vec<u8>,
    /// Packets that the helper has not answered.
    owed: usize,
    helper_replies: Boundaries,
    replies: Replies,
    pipe_is_full: bool,
    packets_done: u64,
}

#[derive(Debug)]
struct File {
    handle: u32,
    descriptor: OwnedFd,
    access: Access,
    read_bytes: u64,
    written_bytes: u64,
    /// Both are in the tally.
    is_noted: bool,
}

/// What the next bytes of the client are.
#[derive(Debug, Default)]
enum Stage {
    /// The start of a packet.
    #[default]
    Head,
    /// The rest of a packet that is the helper's.
    Forward { left: usize },
    /// The data of a WRITE.
    Write {
        handle: u32,
        id: [u8; 4],
        offset: u64,
        left: usize,
    },
}

/// What to do with the packet whose head has arrived.
enum Decision {
    Forward,
    Read,
    Write,
    /// Not yet.
    Wait,
}

impl Files {
    /// The helper handed `descriptor` over, which the client calls `handle`. What is not fit to be
    /// used here is closed, and its requests go to the helper.
    pub(super) fn add(&mut self, handle: u32, descriptor: OwnedFd) {
        self.open.retain(|file| file.handle != handle);
        if self.is_uncounted || self.open.len() >= FILES_PER_SESSION_MAX {
            return;
        }
        if let Some((descriptor, access)) = regular_file(descriptor) {
            self.open.push(File {
                handle,
                descriptor,
                access,
                read_bytes: 0,
                written_bytes: 0,
                is_noted: true,
            });
        }
    }

    /// The helper's tally, sent ahead of all files. Without one that is fit, none is taken.
    pub(super) fn set_tally(&mut self, descriptor: Option<OwnedFd>) {
        self.tally = descriptor
            .and_then(regular_file)
            .filter(|(_, access)| access.write)
            .map(|(descriptor, _)| descriptor);
        self.is_uncounted = self.tally.is_none();
    }

    /// Takes bytes of the client off the front of `data`: does what they ask for, or writes them to
    /// the helper's `pipe`. Gives how many; the others wait.
    pub(super) fn take(&mut self, data: &[u8], pipe: &OwnedFd) -> Result<usize, Errno> {
        let mut taken = 0;
        self.pipe_is_full = false;
        loop {
            let rest = data.get(taken..).unwrap_or_default();
            let moved = match &mut self.stage {
                Stage::Head => {
                    let moved = self.fill_head(rest);
                    taken += moved;
                    if self.head.len() < head_bytes(&self.head) || !self.act() {
                        return Ok(taken);
                    }
                    continue;
                }
                Stage::Forward { left } => {
                    let piece = rest.get(..*left).unwrap_or(rest);
                    let (forward, moved) = write_both(pipe, &self.forward, piece)?;
                    self.forward.drain(..forward);
                    *left -= moved;
                    if *left == 0 && self.forward.is_empty() {
                        self.stage = Stage::Head;
                    } else if !self.forward.is_empty() || moved < piece.len() {
                        self.pipe_is_full = true;
                        return Ok(taken + moved);
                    } else if moved == rest.len() {
                        return Ok(taken + moved);
                    }
                    moved
                }
                Stage::Write { left: 0, id, .. } => {
                    let id = *id;
                    self.replies.status_ok(id);
                    self.stage = Stage::Head;
                    0
                }
                Stage::Write { .. } if rest.is_empty() => return Ok(taken),
                Stage::Write { .. } => self.write(rest),
            };
            taken += moved;
        }
    }

    /// Copies what belongs to the start of a packet; gives how many bytes.
    fn fill_head(&mut self, data: &[u8]) -> usize {
        let mut moved = 0;
        while let Some(missing @ 1..) = head_bytes(&self.head).checked_sub(self.head.len()) {
            let rest = data.get(moved..).unwrap_or_default();
            let piece = rest.get(..missing).unwrap_or(rest);
            if piece.is_empty() {
                break;
            }
            self.head.extend_from_slice(piece);
            moved += piece.len();
        }
        moved
    }

    /// Acts on the packet whose head is complete; false: not now.
    fn act(&mut self) -> bool {
        match self.decide() {
            Decision::Wait => return false,
            Decision::Forward => self.start_forward(),
            Decision::Read => {
                if self.read().is_err() {
                    self.start_forward();
                }
            }
            Decision::Write => {
                self.stage = Stage::Write {
                    handle: u32_at(&self.head, 13),
                    id: array_at(&self.head, 5),
                    offset: u64_at(&self.head, 17),
                    left: u32_at(&self.head, 25) as usize,
                };
            }
        }
        self.head.clear();
        self.packets_done = self.packets_done.wrapping_add(1);
        true
    }

    fn decide(&self) -> Decision {
        let length = u32_at(&self.head, 0) as usize;
        let kind = self.head.get(4).copied().unwrap_or_default();
        let has_handle = u32_at(&self.head, 9) == 4;
        let is_whole = match kind {
            READ => length == HEAD_BYTES - 4,
            WRITE => {
                length.checked_sub(WRITE_FIELDS_BYTES) == Some(u32_at(&self.head, 25) as usize)
                    && length <= READ_MAX_BYTES + 1024
            }
            _ => false,
        };
        let handle = u32_at(&self.head, 13);
        let file = self.open.iter().find(|file| file.handle == handle);
        let fits = match file {
            Some(file) if is_whole && has_handle => {
                (kind == READ && file.access.read) || (kind == WRITE && file.access.write)
            }
            _ => false,
        };
        if !fits {
            return Decision::Forward;
        }
        if self.owed > 0 {
            return Decision::Wait;
        }
        match kind {
            // One READ's answer at a time: that bounds what waits.
            READ if self.replies.is_empty() => Decision::Read,
            WRITE if self.replies.len() < FILE_REPLIES_BYTES => Decision::Write,
            _ => Decision::Wait,
        }
    }

    /// The packet is the helper's.
    fn start_forward(&mut self) {
        self.note_totals();
        let length = u32_at(&self.head, 0) as usize;
        if self.head.get(4) == Some(&CLOSE)
            && self.head.len() == CLOSE_BYTES
            && u32_at(&self.head, 9) == 4
        {
            self.forget(u32_at(&self.head, 13));
        }
        self.owed += 1;
        self.forward.extend_from_slice(&self.head);
        self.stage = Stage::Forward {
            left: length.saturating_sub(self.head.len() - 4),
        };
    }

    /// Closes a file, before the helper does: when the client hears of it, it is closed.
    fn forget(&mut self, handle: u32) {
        self.open.retain(|file| file.handle != handle);
        if self.open.is_empty() {
            self.replies.release();
        }
    }

    /// Notes for the helper what was read and written here, before it gets a packet that it may end
    /// with, or one to close a file.
    fn note_totals(&mut self) {
        let Some(tally) = &self.tally else { return };
        for file in self.open.iter_mut().filter(|file| !file.is_noted) {
            let totals = (file.read_bytes, file.written_bytes);
            tally::note(tally, file.handle, totals);
            file.is_noted = true;
        }
    }

    /// Nothing is done here any more, and what was is noted.
    pub(super) fn close(&mut self) {
        self.note_totals();
        self.open.clear();
    }

    /// The client sends no more, or is gone: what of a packet arrived is the helper's to judge.
    pub(super) fn end_input(&mut self, pipe: &OwnedFd) {
        self.close();
        let _ = write_both(pipe, &self.forward, &[]);
        self.forward.clear();
    }

    /// Answers a READ. An error is for the helper to meet, too.
    fn read(&mut self) -> Result<(), Errno> {
        let (handle, offset) = (u32_at(&self.head, 13), u64_at(&self.head, 17));
        let id = array_at(&self.head, 5);
        let file = self.open.iter_mut().find(|file| file.handle == handle);
        let file = file.ok_or(Errno::BADF)?;
        // Clients ask for much and small files have little: no memory for what is not there.
        let size = rustix::fs::fstat(&file.descriptor)?.st_size;
        let there = u64::try_from(size).unwrap_or(0).saturating_sub(offset);
        let wanted = (u32_at(&self.head, 25) as usize).min(READ_MAX_BYTES);
        let is_end = there == 0 && wanted > 0;
        let wanted = wanted.min(usize::try_from(there).unwrap_or(usize::MAX));
        if is_end {
            self.replies.end_of_file(id);
            return Ok(());
        }
        let filled = self.replies.data(id, wanted, |place| {
            let mut filled = 0;
            while let Some(rest) = place.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                let at = offset.wrapping_add(filled as u64);
                match retry_on_intr(|| pread(&file.descriptor, &mut *rest, at)) {
                    Ok(0) => break,
                    Ok(more) => filled += more,
                    // What was read is told; the next READ meets the error again.
                    Err(_) if filled > 0 => break,
                    Err(errno) => return Err(errno),
                }
            }
            Ok(filled)
        })?;
        file.read_bytes = file.read_bytes.saturating_add(filled as u64);
        file.is_noted = false;
        Ok(())
    }

    /// Writes a piece of a WRITE's data; gives how much. Where it fails, the rest of the WRITE becomes
    /// one of its own, for the helper.
    fn write(&mut self, data: &[u8]) -> usize {
        let Stage::Write {
            handle,
            id,
            ref mut offset,
            ref mut left,
        } = self.stage
        else {
            return 0;
        };
        let piece = data.get(..*left).unwrap_or(data);
        let file = self.open.iter_mut().find(|file| file.handle == handle);
        let written = file.as_ref().map_or(Err(Errno::BADF), |file| {
            retry_on_intr(|| pwrite(&file.descriptor, piece, *offset))
        });
        match written {
            Ok(written @ 1..) => {
                *offset = offset.wrapping_add(written as u64);
                *left -= written;
                if let Some(file) = file {
                    file.written_bytes = file.written_bytes.saturating_add(written as u64);
                    file.is_noted = false;
                }
                written
            }
            Ok(0) | Err(_) => {
                let (offset, left) = (*offset, *left);
                self.note_totals();
                self.owed += 1;
                let fields = u32::try_from(WRITE_FIELDS_BYTES + left).unwrap_or(u32::MAX);
                self.forward.extend_from_slice(&fields.to_be_bytes());
                self.forward.push(WRITE);
                self.forward.extend_from_slice(&id);
                self.forward.extend_from_slice(&4_u32.to_be_bytes());
                self.forward.extend_from_slice(&handle.to_be_bytes());
                self.forward.extend_from_slice(&offset.to_be_bytes());
                let left_field = u32::try_from(left).unwrap_or(u32::MAX);
                self.forward.extend_from_slice(&left_field.to_be_bytes());
                self.stage = Stage::Forward { left };
                0
            }
        }
    }

    /// All that arrived was acted on: nothing goes on before the client sends more.
    pub(super) fn is_at_rest(&self) -> bool {
        match self.stage {
            Stage::Head => self.head.len() < head_bytes(&self.head),
            Stage::Forward { .. } => self.forward.is_empty(),
            Stage::Write { .. } => true,
        }
    }

    /// How many packets were acted on.
    pub(super) fn packets_done(&self) -> u64 {
        self.packets_done
    }

    /// The helper's pipe took less than there is for it.
    pub(super) fn waits_for_pipe(&self) -> bool {
        self.pipe_is_full
    }

    /// Answers wait for room on the channel. Until they left, the helper's wait behind them.
    pub(super) fn has_replies(&self) -> bool {
        !self.replies.is_empty()
    }

    /// Sends answers, as far as there is room.
    pub(super) fn flush(&mut self, core: &mut Core, channel: ChannelId) {
        while !self.replies.is_empty() {
            let Some(slot) = core.send_slot(channel, Stream::Data) else {
                return;
            };
            let len = self.replies.move_into(slot);
            core.send_commit(len);
        }
    }

    /// The helper sent `bytes` to the client: counts what it answered.
    pub(super) fn observe(&mut self, bytes: &[u8]) {
        let ended = self.helper_replies.pass(bytes);
        self.owed = self.owed.saturating_sub(ended);
    }
}

/// How much of a packet must be there to decide about it.
fn head_bytes(head: &[u8]) -> usize {
    if head.len() < START_BYTES {
        return START_BYTES;
    }
    let length = u32_at(head, 0) as usize;
    match head.get(4) {
        // The helper does not mind what stands behind the handle.
        Some(&CLOSE) if length >= CLOSE_BYTES - 4 => CLOSE_BYTES,
        Some(&(READ | WRITE)) if length >= HEAD_BYTES - 4 => HEAD_BYTES,
        _ => START_BYTES,
    }
}

/// Writes `first` and then `second` in one call; gives how much of each.
fn write_both(pipe: &OwnedFd, first: &[u8], second: &[u8]) -> Result<(usize, usize), Errno> {
    if first.is_empty() && second.is_empty() {
        return Ok((0, 0));
    }
    let parts = [IoSlice::new(first), IoSlice::new(second)];
    let written = match retry_on_intr(|| rustix::io::writev(pipe, &parts)) {
        Err(Errno::AGAIN) => 0,
        result => result?,
    };
    let of_first = written.min(first.len());
    Ok((of_first, written - of_first))
}

fn array_at<const N: usize>(bytes: &[u8], position: usize) -> [u8; N] {
    bytes
        .get(position..position + N)
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or([0; N])
}

fn u32_at(bytes: &[u8], position: usize) -> u32 {
    u32::from_be_bytes(array_at(bytes, position))
}

fn u64_at(bytes: &[u8], position: usize) -> u64 {
    u64::from_be_bytes(array_at(bytes, position))
}

/// Where packets end in the helper's stream.
#[derive(Debug, Default)]
struct Boundaries {
    /// The length that is arriving.
    length: Vec<u8>,
    /// Bytes of the packet still to come.
    left: usize,
}

impl Boundaries {
    /// Passes over `bytes`; gives how many packets ended in them.
    fn pass(&mut self, mut bytes: &[u8]) -> usize {
        let mut ended = 0;
        while !bytes.is_empty() {
            let wanted = if self.left > 0 {
                self.left
            } else {
                4 - self.length.len()
            };
            let (piece, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            if self.left > 0 {
                self.left -= piece.len();
            } else {
                self.length.extend_from_slice(piece);
                if self.length.len() < 4 {
                    continue;
                }
                self.left = u32_at(&self.length, 0) as usize;
                self.length.clear();
            }
            ended += usize::from(self.left == 0);
        }
        ended
    }
}

/// Answers that wait for the channel.
#[derive(Debug, Default)]
struct Replies {
    buffer: Vec<u8>,
    start: usize,
    /// How much of the buffer is in use; what is behind stays initialised for the next READ.
    end: usize,
}

impl Replies {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn len(&self) -> usize {
        self.end - self.start
    }

    fn room(&mut self, len: usize) -> &mut [u8] {
        if self.end + len > self.buffer.len() && self.start >= self.len() {
            // A queue that is never empty must not wander off; moving at most half of what is in
            // use keeps the cost of a byte constant.
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let needed = self.end + len;
        if self.buffer.len() < needed {
            self.buffer.resize(needed, 0);
        }
        self.buffer.get_mut(self.end..needed).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.room(bytes.len());
        if room.len() == bytes.len() {
            room.copy_from_slice(bytes);
            self.end += bytes.len();
        }
    }

    fn status_ok(&mut self, id: [u8; 4]) {
        self.status(id, 0, b"Success");
    }

    fn end_of_file(&mut self, id: [u8; 4]) {
        self.status(id, STATUS_END_OF_FILE, b"End of file");
    }

    fn status(&mut self, id: [u8; 4], code: u32, text: &[u8]) {
        let text_len = u32::try_from(text.len()).unwrap_or(0);
        self.push(&(17 + text_len).to_be_bytes());
        self.push(&[STATUS]);
        self.push(&id);
        self.push(&code.to_be_bytes());
        self.push(&text_len.to_be_bytes());
        self.push(text);
        self.push(&[0; 4]);
    }

    /// A DATA packet whose data `fill` reads, or the end of the file.
    fn data(
        &mut self,
        id: [u8; 4],
        wanted: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let room = self.room(DATA_HEAD_BYTES + wanted);
        let Some((head, place)) = room.split_first_chunk_mut::<DATA_HEAD_BYTES>() else {
            return Err(Errno::INVAL);
        };
        let filled = fill(place)?;
        if filled == 0 && wanted > 0 {
            // Cut off since it was measured.
            self.end_of_file(id);
            return Ok(0);
        }
        let len = u32::try_from(filled).unwrap_or(0);
        let fields = [
            &(len + 9).to_be_bytes()[..],
            &[DATA],
            &id,
            &len.to_be_bytes(),
        ];
        let mut places = head.iter_mut();
        for (place, byte) in places.by_ref().zip(fields.iter().flat_map(|field| *field)) {
            *place = *byte;
        }
        self.end += DATA_HEAD_BYTES + filled;
        Ok(filled)
    }

    fn move_into(&mut self, slot: &mut [u8]) -> usize {
        let waiting = self.buffer.get(self.start..self.end).unwrap_or_default();
        let len = waiting.len().min(slot.len());
        if let (Some(from), Some(to)) = (waiting.get(..len), slot.get_mut(..len)) {
            to.copy_from_slice(from);
        }
        self.start += len;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        len
    }

    /// Gives the memory back where nothing waits.
    fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests;
