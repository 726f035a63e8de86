//! The fast path in front of the helper's own server, and both against a model: whatever is read and
//! written here or there, a client sees one file changing in the order of its requests.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use agent_helper::frame::SessionToNet;
use agent_helper::link::{self, Assembly, Link};
use agent_helper::sftp::log::{Log, Sink};
use agent_helper::sftp::options::Options;
use agent_helper::sftp::server::{Account, Server};
use agent_helper::sftp::sharing::Sharing;
use agent_helper::sftp::stream;
use agent_helper::sftp::tally::Tally;
use agent_helper::wire::Wire;
use rustix::fd::AsFd;

use super::*;

const OPEN: u8 = 3;
const FSTAT: u8 = 8;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;
const HANDLE: u8 = 102;
const ATTRS: u8 = 105;
const EXTENDED: u8 = 200;
const READ_WRITE_CREATE: u32 = 1 | 2 | 8;

/// A generator whose numbers a failure can be repeated with.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| u8::try_from(self.below(256)).unwrap())
            .collect()
    }
}

/// A client, this module, and the helper's server in a thread.
struct Dialogue {
    files: Files,
    pipe: Option<OwnedFd>,
    answers: OwnedFd,
    frames: Link,
    assembly: Assembly,
    /// What this side did not take yet.
    waiting: Vec<u8>,
    /// What the client got and did not look at yet.
    got: Vec<u8>,
    next_id: u32,
    /// Files go to this module.
    shares: bool,
    server: Option<JoinHandle<i32>>,
}

impl Dialogue {
    fn new(directory: &Path) -> Self {
        let (from_client, pipe) = rustix::pipe::pipe().unwrap();
        let (answers, to_client) = rustix::pipe::pipe().unwrap();
        for descriptor in [&pipe, &answers] {
            rustix::io::ioctl_fionbio(descriptor, true).unwrap();
        }
        let (ours, theirs) = link::pair().unwrap();
        let account = Account {
            name: b"test".to_vec(),
            home: directory.as_os_str().as_bytes().to_vec(),
        };
        let server = std::thread::spawn(move || {
            let log = Log {
                sink: Sink::StandardError,
                level: 0,
                monitor: None,
                audit: false,
                is_scp: false,
            };
            let sharing = Sharing::new(Link::new(theirs), 1);
            let mut server = Server::new(Options::default(), account, log, Some(sharing));
            stream::run(&mut server, from_client.as_fd(), to_client.as_fd())
        });
        let mut dialogue = Self {
            files: Files::default(),
            pipe: Some(pipe),
            answers,
            frames: Link::new(ours),
            assembly: Assembly::default(),
            waiting: Vec::new(),
            got: Vec::new(),
            next_id: 0,
            shares: true,
            server: Some(server),
        };
        dialogue.send(&[1, 0, 0, 0, 3]);
        assert_eq!(dialogue.answer()[0], 2);
        dialogue
    }

    fn send(&mut self, packet: &[u8]) {
        self.waiting
            .extend_from_slice(&u32::try_from(packet.len()).unwrap().to_be_bytes());
        self.waiting.extend_from_slice(packet);
    }

    /// Sends a request; gives its number.
    fn request(&mut self, kind: u8, fields: &[&[u8]]) -> u32 {
        self.next_id += 1;
        let id = self.next_id.to_be_bytes();
        self.send(&[&[kind], &id[..], &fields.concat()].concat());
        self.next_id
    }

    /// Moves bytes, `piece` of the client's at most, and what came of it.
    fn turn(&mut self, piece: usize) {
        self.take_files();
        let piece = piece.min(self.waiting.len());
        let taken = self
            .files
            .take(&self.waiting[..piece], self.pipe.as_ref().unwrap())
            .unwrap();
        self.waiting.drain(..taken);
        let mut slot = [0; 30_000];
        while self.files.has_replies() {
            let len = self.files.replies.move_into(&mut slot);
            self.got.extend_from_slice(&slot[..len]);
        }
        if let Ok(len) = rustix::io::read(&self.answers, &mut slot) {
            self.files.observe(&slot[..len]);
            self.got.extend_from_slice(&slot[..len]);
        }
    }

    fn take_files(&mut self) {
        while let Ok(Some(mut received)) = self.frames.receive(&mut self.assembly, false) {
            let SessionToNet::File { handle, .. } =
                SessionToNet::from_wire(&received.content).unwrap()
            else {
                panic!("another frame");
            };
            if self.shares {
                self.files.add(handle, received.descriptors.pop().unwrap());
            }
        }
    }

    /// The next answer.
    fn answer(&mut self) -> Vec<u8> {
        loop {
            if let Some(length) = self.got.get(..4) {
                let end = 4 + u32_at(length, 0) as usize;
                if self.got.len() >= end {
                    let packet = self.got[4..end].to_vec();
                    self.got.drain(..end);
                    return packet;
                }
            }
            self.turn(usize::MAX);
        }
    }

    fn open(&mut self, path: &Path, flags: u32) -> u32 {
        let path = path.as_os_str().as_bytes();
        let len = u32::try_from(path.len()).unwrap().to_be_bytes();
        self.request(OPEN, &[&len, path, &flags.to_be_bytes(), &[0; 4]]);
        let answer = self.answer();
        assert_eq!(answer[0], HANDLE, "{path:?}");
        // The file comes in front of its handle.
        self.take_files();
        u32_at(&answer, 9)
    }

    fn write(&mut self, handle: u32, offset: u64, data: &[u8]) -> u32 {
        let len = u32::try_from(data.len()).unwrap().to_be_bytes();
        let fields = [&handle_field(handle), &offset.to_be_bytes()[..], &len, data];
        self.request(WRITE, &fields)
    }

    fn read(&mut self, handle: u32, offset: u64, len: u32) -> u32 {
        let fields = [
            &handle_field(handle),
            &offset.to_be_bytes()[..],
            &len.to_be_bytes(),
        ];
        self.request(READ, &fields)
    }

    fn finish(mut self) {
        self.pipe = None;
        assert_eq!(self.server.take().unwrap().join().unwrap(), 0);
    }
}

fn handle_field(handle: u32) -> Vec<u8> {
    [4_u32.to_be_bytes(), handle.to_be_bytes()].concat()
}

/// What an answer must be.
#[derive(Debug, PartialEq)]
enum Wanted {
    Status(u32),
    Data(Vec<u8>),
    Size(u64),
}

fn decoded(packet: &[u8]) -> (u32, Wanted) {
    let wanted = match packet[0] {
        STATUS => Wanted::Status(u32_at(packet, 5)),
        DATA => {
            assert_eq!(u32_at(packet, 5) as usize, packet.len() - 9);
            Wanted::Data(packet[9..].to_vec())
        }
        ATTRS => Wanted::Size(u64_at(packet, 9)),
        other => panic!("answer {other}"),
    };
    (u32_at(packet, 1), wanted)
}

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("agent-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read_model(model: &[u8], offset: usize, len: usize) -> Wanted {
    match model.get(offset..).unwrap_or_default() {
        [] if len > 0 => Wanted::Status(STATUS_END_OF_FILE),
        rest => Wanted::Data(rest[..len.min(rest.len())].to_vec()),
    }
}

fn write_model(model: &mut Vec<u8>, offset: usize, data: &[u8]) {
    if !data.is_empty() {
        model.resize(model.len().max(offset + data.len()), 0);
        model[offset..offset + data.len()].copy_from_slice(data);
    }
}

/// One round: a few files, bursts of requests that are not waited for, and every answer compared.
fn round(seed: u64, place: &Path) {
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut dialogue = Dialogue::new(place);
    let paths: Vec<PathBuf> = (0..3).map(|n| place.join(format!("{seed}-{n}"))).collect();
    let mut models = vec![Vec::new(); paths.len()];
    for _ in 0..6 {
        // Some rounds serve all here, some in the helper, some both.
        dialogue.shares = numbers.below(4) > 0;
        let handles: Vec<u32> = paths
            .iter()
            .map(|path| dialogue.open(path, READ_WRITE_CREATE))
            .collect();
        let mut wanted = Vec::new();
        for _ in 0..numbers.below(60) {
            let index = numbers.below(paths.len());
            let (handle, model) = (handles[index], &mut models[index]);
            let offset = numbers.below(90_000);
            wanted.push(match numbers.below(12) {
                0..=3 => {
                    let len = [0, 1, 700, 32_768, 100_000][numbers.below(5)];
                    let data = numbers.bytes(len);
                    write_model(model, offset, &data);
                    let id = dialogue.write(handle, offset as u64, &data);
                    (id, Wanted::Status(0))
                }
                4..=7 => {
                    let len = [0, 1, 5000, 40_000, 261_120, 400_000][numbers.below(6)];
                    let found = read_model(model, offset, len.min(READ_MAX_BYTES));
                    let id = dialogue.read(handle, offset as u64, u32::try_from(len).unwrap());
                    (id, found)
                }
                8 => {
                    let id = dialogue.request(FSTAT, &[&handle_field(handle)]);
                    (id, Wanted::Size(model.len() as u64))
                }
                9 => {
                    model.resize(offset, 0);
                    let size = (offset as u64).to_be_bytes();
                    let fields = [&handle_field(handle), &[0, 0, 0, 1][..], &size];
                    (dialogue.request(FSETSTAT, &fields), Wanted::Status(0))
                }
                10 => {
                    model.resize(offset, 0);
                    let path = paths[index].as_os_str().as_bytes();
                    let len = u32::try_from(path.len()).unwrap().to_be_bytes();
                    let size = (offset as u64).to_be_bytes();
                    let fields = [&len, path, &[0, 0, 0, 1][..], &size];
                    (dialogue.request(SETSTAT, &fields), Wanted::Status(0))
                }
                _ => {
                    // copy-data to the next file, from the start on.
                    let other = (index + 1) % paths.len();
                    let from = models[index].clone();
                    write_model(&mut models[other], 0, &from);
                    let zero = 0_u64.to_be_bytes();
                    let name = [&9_u32.to_be_bytes()[..], b"copy-data"].concat();
                    let fields = [
                        &name[..],
                        &handle_field(handle),
                        &zero,
                        &zero,
                        &handle_field(handles[other]),
                        &zero,
                    ];
                    (dialogue.request(EXTENDED, &fields), Wanted::Status(0))
                }
            });
            if numbers.below(3) == 0 {
                let piece = 1 + numbers.below(70_000);
                dialogue.turn(piece);
            }
        }
        for (position, (id, wanted)) in wanted.into_iter().enumerate() {
            let found = decoded(&dialogue.answer());
            assert_eq!(found.0, id, "seed {seed}: order at {position}");
            assert!(found.1 == wanted, "seed {seed}: answer {position}");
        }
        for handle in handles {
            dialogue.request(CLOSE, &[&handle_field(handle)]);
            assert_eq!(decoded(&dialogue.answer()).1, Wanted::Status(0));
        }
        assert!(dialogue.files.open.is_empty());
        for (path, model) in paths.iter().zip(&models) {
            assert!(fs::read(path).unwrap() == *model, "seed {seed}");
        }
    }
    dialogue.finish();
}

#[test]
fn one_file_changes_in_the_order_of_the_requests() {
    let place = Place::new("order");
    for seed in 1..=40 {
        round(seed, &place.0);
    }
}

#[test]
fn a_write_that_fails_here_is_answered_by_the_helper() {
    let place = Place::new("refused");
    let path = place.0.join("file");
    let mut dialogue = Dialogue::new(&place.0);
    let handle = dialogue.open(&path, READ_WRITE_CREATE);
    assert_eq!(dialogue.files.open.len(), 1);
    // Beyond what a file can hold: EFBIG or EINVAL, here and there.
    dialogue.write(handle, u64::MAX >> 1, &[1; 50_000]);
    dialogue.write(handle, 0, b"fine");
    let refused = decoded(&dialogue.answer()).1;
    assert!(matches!(refused, Wanted::Status(4 | 5)), "{refused:?}");
    assert_eq!(decoded(&dialogue.answer()).1, Wanted::Status(0));
    assert_eq!(fs::read(&path).unwrap(), b"fine");
    // What it may only read goes to the helper, which says no.
    let reader = dialogue.open(&path, 1);
    dialogue.write(reader, 0, b"no");
    assert!(matches!(decoded(&dialogue.answer()).1, Wanted::Status(2..)));
    dialogue.finish();
}

#[test]
fn files_that_are_here_are_served_without_the_helper() {
    let place = Place::new("alone");
    let path = place.0.join("file");
    fs::write(&path, vec![7; 300_000]).unwrap();
    let mut dialogue = Dialogue::new(&place.0);
    let handle = dialogue.open(&path, 1 | 2);
    // The helper's answers are not read from here on.
    let (nowhere, _kept) = rustix::pipe::pipe().unwrap();
    rustix::io::ioctl_fionbio(&nowhere, true).unwrap();
    dialogue.answers = nowhere;
    dialogue.read(handle, 0, 261_120);
    dialogue.read(handle, 261_120, 261_120);
    dialogue.write(handle, 5, b"x");
    dialogue.read(handle, 300_000, 1);
    for wanted in [
        Wanted::Data(vec![7; 261_120]),
        Wanted::Data(vec![7; 38_880]),
        Wanted::Status(0),
        Wanted::Status(STATUS_END_OF_FILE),
    ] {
        assert!(decoded(&dialogue.answer()).1 == wanted);
    }
    assert_eq!(dialogue.files.open[0].read_bytes, 300_000);
    assert_eq!(dialogue.files.open[0].written_bytes, 1);
}

#[test]
fn bytes_that_are_no_packets_go_to_the_helper_as_they_are() {
    for garbage in [
        &[0; 64][..],
        &[255; 64],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0, 0, 0, 25, 5, 0, 0, 0, 1, 0, 0, 0, 9],
        &[0, 0, 0, 2, 6, 1],
    ] {
        let (reader, pipe) = rustix::pipe::pipe().unwrap();
        rustix::io::ioctl_fionbio(&pipe, true).unwrap();
        let mut files = Files::default();
        let taken = files.take(garbage, &pipe).unwrap();
        assert_eq!(taken, garbage.len());
        drop(pipe);
        let mut seen = vec![0; 100];
        let len = rustix::io::read(&reader, seen.as_mut_slice()).unwrap_or(0);
        assert!(garbage.starts_with(&seen[..len]));
    }
}

#[test]
fn boundaries_are_found_in_any_pieces() {
    let stream = [
        &[0, 0, 0, 3][..],
        b"abc",
        &[0, 0, 0, 0],
        &[0, 0, 0, 1],
        b"d",
    ]
    .concat();
    for piece in 1..=stream.len() {
        let mut boundaries = Boundaries::default();
        let ended: usize = stream
            .chunks(piece)
            .map(|bytes| boundaries.pass(bytes))
            .sum();
        assert_eq!(ended, 3, "by {piece}");
    }
}

#[test]
fn a_queue_of_answers_that_never_empties_does_not_grow() {
    let mut replies = Replies::default();
    while replies.len() < FILE_REPLIES_BYTES {
        replies.status_ok([0; 4]);
    }
    let mut expected = 0_u32;
    let mut seen = Vec::new();
    for id in 0..100_000_u32 {
        let mut slot = [0; 28];
        assert_eq!(replies.move_into(&mut slot), slot.len());
        seen.push(slot);
        replies.status_ok(id.to_be_bytes());
    }
    assert!(
        replies.buffer.len() <= 3 * FILE_REPLIES_BYTES,
        "{} bytes",
        replies.buffer.len()
    );
    for packet in seen.iter().filter(|packet| u32_at(&packet[..], 5) > 0) {
        expected += 1;
        assert_eq!(u32_at(&packet[..], 5), expected);
    }
    assert!(expected > 90_000);
}

#[test]
fn a_close_with_more_behind_it_closes_here_too() {
    let place = Place::new("padded");
    let path = place.0.join("file");
    let mut dialogue = Dialogue::new(&place.0);
    let handle = dialogue.open(&path, READ_WRITE_CREATE);
    dialogue.write(handle, 0, b"text");
    assert_eq!(decoded(&dialogue.answer()).1, Wanted::Status(0));
    dialogue.request(CLOSE, &[&handle_field(handle), b"x"]);
    assert_eq!(decoded(&dialogue.answer()).1, Wanted::Status(0));
    assert!(dialogue.files.open.is_empty());
    dialogue.read(handle, 0, 4);
    assert!(matches!(decoded(&dialogue.answer()).1, Wanted::Status(2..)));
    dialogue.finish();
}

/// A file of which three bytes were written here.
fn written(place: &Place) -> (Files, Tally) {
    let tally = Tally::new().unwrap();
    let mut files = Files::default();
    files.set_tally(Some(tally.as_fd().try_clone_to_owned().unwrap()));
    let file = fs::File::create(place.0.join("file")).unwrap();
    files.add(7, file.into());
    files.open[0].written_bytes = 3;
    files.open[0].is_noted = false;
    (files, tally)
}

#[test]
fn totals_are_there_before_a_close_with_more_behind_it() {
    let place = Place::new("padded-totals");
    let (reader, pipe) = rustix::pipe::pipe().unwrap();
    let (mut files, tally) = written(&place);
    let close = [0, 0, 0, 14, CLOSE, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7, 99];
    assert_eq!(files.take(&close, &pipe), Ok(close.len()));
    let mut seen = [0; 64];
    let len = rustix::io::read(&reader, &mut seen).unwrap();
    assert_eq!(seen[..len], close);
    assert_eq!(tally.take(7), (0, 3));
}

#[test]
fn totals_need_no_room_in_the_pipe() {
    let place = Place::new("full-pipe");
    let (_reader, pipe) = rustix::pipe::pipe().unwrap();
    rustix::io::ioctl_fionbio(&pipe, true).unwrap();
    while rustix::io::write(&pipe, &[0; 4096]).is_ok() {}
    let (mut files, tally) = written(&place);
    files.end_input(&pipe);
    assert_eq!(tally.take(7), (0, 3));
    // Nor somebody at its end; and who takes no more answers may have ended.
    let (mut files, tally) = written(&place);
    files.close();
    assert_eq!(tally.take(7), (0, 3));
}

#[test]
fn what_is_no_file_is_no_tally() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let mut files = Files::default();
    let directory = fs::File::open("/").unwrap().into();
    for descriptor in [Some(reader), Some(writer), Some(directory), None] {
        files.set_tally(descriptor);
        assert!(files.tally.is_none());
        // What would not be counted is not done here.
        files.add(
            7,
            fs::File::open(std::env::current_exe().unwrap())
                .unwrap()
                .into(),
        );
        assert!(files.open.is_empty());
    }
}

/// A client that has written to a file sends `bytes` and ends: whether that is all there is to do,
/// and what the helper gets.
fn ended_after(bytes: &[u8]) -> (bool, Vec<u8>) {
    let place = Place::new(&format!("ended-{}", bytes.len()));
    let (reader, pipe) = rustix::pipe::pipe().unwrap();
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    let (mut files, tally) = written(&place);
    assert_eq!(files.take(bytes, &pipe), Ok(bytes.len()));
    let at_rest = files.is_at_rest();
    files.end_input(&pipe);
    assert_eq!(tally.take(7).1, files_written(bytes));
    let mut seen = vec![0; 100];
    let len = rustix::io::read(&reader, seen.as_mut_slice()).unwrap_or(0);
    seen.truncate(len);
    (at_rest, seen)
}

/// Three bytes before, and what of a WRITE's data has arrived.
fn files_written(bytes: &[u8]) -> u64 {
    let data = match bytes.get(4) {
        Some(&WRITE) => bytes.len().saturating_sub(HEAD_BYTES),
        _ => 0,
    };
    3 + data as u64
}

#[test]
fn a_client_may_end_within_a_packet() {
    // Of the helper's: it has a part.
    let (at_rest, seen) = ended_after(&[0, 0, 0, 5, 1, 0, 0]);
    assert!(at_rest);
    assert_eq!(seen, [0, 0, 0, 5, 1, 0, 0]);
    // Of a WRITE that is done here, or of its head: the helper has nothing of it.
    let mut write = vec![0, 0, 0, 35, WRITE, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7];
    write.extend_from_slice(&[0; 8]);
    write.extend_from_slice(&[0, 0, 0, 10, b'x']);
    for part in [&write[..], &write[..20], &write[..3]] {
        let (at_rest, seen) = ended_after(part);
        assert!(at_rest, "after {} bytes", part.len());
        assert!(seen.is_empty(), "after {}", part.len());
    }
}
