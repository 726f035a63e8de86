//! Looking through what a key reader sends: bytes of the user or of a command, read as root.
//!
//! Owns the form of the reader's answer; which line counts is [`super::key_lines`]'s. No system
//! calls in here.

#![forbid(unsafe_code)]

use agent_helper::frame::KeyRecord;

use super::key_lines::{Findings, Judge};
use crate::authorized_keys::Lines;
use crate::limits::KEY_FILES_MAX_BYTES;
use crate::logging::escape;

/// How far the search is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    /// The reader is done.
    Done,
    /// The reader sent what no reader of ours sends, or too much.
    Broken(&'static str),
}

/// A search under way.
#[derive(Debug)]
pub(super) struct KeySearch {
    judge: Judge,
    state: State,
    total_bytes: usize,
}

#[derive(Debug)]
enum State {
    /// Collecting a header.
    Header {
        bytes: Vec<u8>,
        file: Option<OpenFile>,
    },
    /// Inside a record.
    Content {
        record: KeyRecord,
        left: usize,
        text: Vec<u8>,
        file: Option<OpenFile>,
    },
    Done,
}

#[derive(Debug)]
struct OpenFile {
    index: u32,
    lines: Lines,
}

/// A sentence about a file is ours, but it passed through the user's process.
const SENTENCE_MAX_BYTES: usize = 512;

impl KeySearch {
    pub(super) fn new(judge: Judge) -> Self {
        Self {
            judge,
            state: State::Header {
                bytes: Vec::new(),
                file: None,
            },
            total_bytes: 0,
        }
    }

    /// What was found, and what to log.
    pub(super) fn finish(self) -> Findings {
        self.judge.finish()
    }

    /// Takes the next bytes of the pipe.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Progress {
        self.total_bytes = self.total_bytes.saturating_add(bytes.len());
        if self.total_bytes > KEY_FILES_MAX_BYTES {
            return Progress::Broken("the key files are too large together");
        }
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Done if bytes.is_empty() => return Progress::Done,
                State::Done => return Progress::Broken("bytes behind the end"),
                State::Header {
                    bytes: mut header,
                    file,
                } => {
                    let missing = KeyRecord::HEADER_BYTES - header.len();
                    let (head, rest) = bytes.split_at(missing.min(bytes.len()));
                    header.extend_from_slice(head);
                    bytes = rest;
                    if header.len() < KeyRecord::HEADER_BYTES {
                        self.state = State::Header {
                            bytes: header,
                            file,
                        };
                        return Progress::More;
                    }
                    if let Err(why) = self.begin(decode(&header), file) {
                        return Progress::Broken(why);
                    }
                }
                State::Content {
                    record,
                    left,
                    mut text,
                    mut file,
                } => {
                    let (head, rest) = bytes.split_at(left.min(bytes.len()));
                    bytes = rest;
                    match &mut file {
                        Some(open) if record.status == KeyRecord::CHUNK => {
                            let OpenFile { index, lines } = open;
                            lines.push(head, |number, line| {
                                self.judge.line(*index, number, line);
                            });
                        }
                        _ => text.extend_from_slice(head),
                    }
                    let left = left - head.len();
                    if left > 0 {
                        self.state = State::Content {
                            record,
                            left,
                            text,
                            file,
                        };
                        return Progress::More;
                    }
                    self.end_of_record(record, &text, file);
                }
            }
        }
    }

    fn begin(&mut self, record: KeyRecord, file: Option<OpenFile>) -> Result<(), &'static str> {
        let left = usize::try_from(record.len).map_err(|_| "a record is too long")?;
        let continues = file.as_ref().is_none_or(|open| open.index == record.file);
        match record.status {
            KeyRecord::CHUNK if continues => {
                let file = file.unwrap_or_else(|| OpenFile {
                    index: record.file,
                    lines: Lines::new(),
                });
                self.state = State::Content {
                    record,
                    left,
                    text: Vec::new(),
                    file: Some(file),
                };
            }
            KeyRecord::COMPLETE | KeyRecord::TRUNCATED if continues && left == 0 => {
                self.end_of_record(record, &[], file);
            }
            KeyRecord::MISSING if file.is_none() && left == 0 => {
                self.end_of_record(record, &[], None);
            }
            KeyRecord::REFUSED | KeyRecord::FAILED if continues && left <= SENTENCE_MAX_BYTES => {
                // What came before the failure does not count: half a file is not the file.
                self.state = State::Content {
                    record,
                    left,
                    text: Vec::new(),
                    file: None,
                };
            }
            KeyRecord::END if file.is_none() && left == 0 => self.state = State::Done,
            _ => return Err("a record that cannot come here"),
        }
        Ok(())
    }

    /// A record is complete: a file may be.
    fn end_of_record(&mut self, record: KeyRecord, text: &[u8], file: Option<OpenFile>) {
        let file = match record.status {
            KeyRecord::CHUNK => file,
            KeyRecord::COMPLETE | KeyRecord::TRUNCATED => {
                if record.status == KeyRecord::TRUNCATED {
                    // What stands behind the last line feed may be half a line.
                    self.judge
                        .report(record.file, "only its beginning was read");
                } else if let Some(open) = file {
                    open.lines
                        .finish(|number, line| self.judge.line(open.index, number, line));
                }
                None
            }
            KeyRecord::REFUSED => {
                self.judge.refused(record.file, &escape(text));
                None
            }
            KeyRecord::FAILED => {
                let errno = text
                    .first_chunk()
                    .map_or(0, |bytes| i32::from_le_bytes(*bytes));
                let error = std::io::Error::from_raw_os_error(errno);
                self.judge.unreadable(record.file, &error.to_string());
                None
            }
            _ => None,
        };
        self.state = State::Header {
            bytes: Vec::new(),
            file,
        };
    }
}

fn decode(header: &[u8]) -> KeyRecord {
    let mut words = header
        .chunks_exact(4)
        .map(|word| word.try_into().map_or(u32::MAX, u32::from_le_bytes));
    let mut next = || words.next().unwrap_or(u32::MAX);
    KeyRecord {
        file: next(),
        status: next(),
        len: next(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::limits::KEY_LINE_REPORTS_MAX;
    use crate::monitor::key_lines::{Client, Found, Source, Wanted};
    use crate::ssh::crypto::public_key::PublicKey;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    fn blob() -> Vec<u8> {
        let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
        blob.extend(0..32_u8);
        blob
    }

    fn judge() -> Judge {
        let key = PublicKey::from_blob(&blob()).unwrap();
        Judge::new(Wanted::Key(key), b"alice", client(), Source::KeyFiles)
    }

    fn client() -> Client {
        Client {
            address: "192.0.2.1".parse().unwrap(),
            host: None,
            now_s: 1_800_000_000,
        }
    }

    fn record(file: u32, status: u32, content: &[u8]) -> Vec<u8> {
        let len = u32::try_from(content.len()).unwrap();
        let mut bytes = [file, status, len].map(u32::to_le_bytes).concat();
        bytes.extend_from_slice(content);
        bytes
    }

    fn file(index: u32, text: &str) -> Vec<u8> {
        let mut bytes = record(index, KeyRecord::CHUNK, text.as_bytes());
        bytes.extend(record(index, KeyRecord::COMPLETE, b""));
        bytes
    }

    fn end() -> Vec<u8> {
        record(0, KeyRecord::END, b"")
    }

    fn search(bytes: &[u8], step: usize) -> (Progress, Option<Found>, Vec<String>) {
        let mut search = KeySearch::new(judge());
        let mut progress = Progress::More;
        for piece in bytes.chunks(step) {
            progress = search.push(piece);
            if !matches!(progress, Progress::More) {
                break;
            }
        }
        let Findings { found, reports, .. } = search.finish();
        (progress, found, reports)
    }

    #[test]
    fn a_key_is_found_however_the_bytes_arrive() {
        let text = format!("# comment\n\n{KEY} alice@example\n");
        let bytes = [record(0, KeyRecord::MISSING, b""), file(1, &text), end()].concat();
        for step in [1, 7, 13, 4096] {
            let (progress, found, reports) = search(&bytes, step);
            assert_eq!(progress, Progress::Done);
            let found = found.unwrap();
            assert_eq!((found.file, found.line), (1, 3));
            assert!(reports.is_empty());
        }
    }

    #[test]
    fn a_last_line_without_its_end_counts() {
        let (_, found, _) = search(&[file(0, KEY), end()].concat(), 4096);
        assert!(found.is_some());
    }

    #[test]
    fn the_last_line_of_a_file_that_was_cut_off_does_not_count() {
        let cut = |text: &str| {
            let bytes = [
                record(0, KeyRecord::CHUNK, text.as_bytes()),
                record(0, KeyRecord::TRUNCATED, b""),
                end(),
            ];
            search(&bytes.concat(), 4096)
        };
        let (progress, found, reports) = cut(&format!("# comment\n{KEY}"));
        assert_eq!((progress, found), (Progress::Done, None));
        assert_eq!(reports.len(), 1);
        assert!(cut(&format!("{KEY}\n# comm")).1.is_some());
    }

    #[test]
    fn a_line_cut_over_two_records_is_one_line() {
        let (head, tail) = KEY.split_at(40);
        let bytes = [
            record(0, KeyRecord::CHUNK, head.as_bytes()),
            record(0, KeyRecord::CHUNK, tail.as_bytes()),
            record(0, KeyRecord::COMPLETE, b""),
            end(),
        ]
        .concat();
        assert!(search(&bytes, 9).1.is_some());
    }

    #[test]
    fn a_line_that_refuses_this_client_is_passed_over_for_the_next() {
        let text = format!(
            "from=\"198.51.100.0/24\" {KEY}\nexpiry-time=\"20200101\" {KEY}\ncommand=\"id\" {KEY}\n"
        );
        let (_, found, reports) = search(&[file(0, &text), end()].concat(), 4096);
        let options = found.unwrap().options;
        assert_eq!(options[0].command.as_deref(), Some(&b"id"[..]));
        assert_eq!(reports.len(), 2);
    }

    #[test]
    fn a_key_in_an_option_or_a_comment_lets_nobody_in() {
        let text = KEY.split_whitespace().nth(1).unwrap();
        let other =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICAhIiMkJSYnKCkqKywtLi8wMTIzNDU2Nzg5Ojs8PT4/";
        for line in [
            format!("no-pty {other} replaces {KEY}"),
            format!("{other} replaces {KEY}"),
            format!("environment=\"NOTE=x {text} y\" {other}"),
            format!("command=\"{KEY}\" {other} {text}"),
        ] {
            let (progress, found, reports) = search(&[file(0, &line), end()].concat(), 4096);
            assert_eq!(progress, Progress::Done);
            assert_eq!(found, None, "{line}");
            assert!(reports.is_empty(), "{line}: {reports:?}");
        }
        let line = format!("no-pty {other}\n");
        let wanted = Wanted::Key(PublicKey::from_blob(&other_blob()).unwrap());
        let mut search = KeySearch::new(Judge::new(wanted, b"alice", client(), Source::KeyFiles));
        search.push(&[file(0, &line), end()].concat());
        assert!(search.finish().found.is_some(), "the line itself is good");
    }

    fn other_blob() -> Vec<u8> {
        let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
        blob.extend(32..64_u8);
        blob
    }

    #[test]
    fn an_authority_is_no_key_to_log_in_with() {
        let text = format!("cert-authority {KEY}\n");
        let (_, found, reports) = search(&[file(0, &text), end()].concat(), 4096);
        assert!(found.is_none() && reports.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_of_lines_about_the_key_only() {
        let other = KEY.replace("AABAg", "AABBg");
        let text = format!("nonsense {other}\nnonsense\nnonsense {KEY}\n");
        let (_, found, reports) = search(&[file(0, &text), end()].concat(), 4096);
        assert!(found.is_none());
        assert_eq!(reports.len(), 1);
        assert!(reports[0].contains("line 3: skipped: has an unknown option"));
    }

    #[test]
    fn reports_are_bounded() {
        let text = format!("from=\"198.51.100.1\" {KEY}\n").repeat(1000);
        let (_, _, reports) = search(&[file(0, &text), end()].concat(), 4096);
        assert_eq!(reports.len(), KEY_LINE_REPORTS_MAX);
    }

    #[test]
    fn a_reader_that_lies_is_found_out() {
        let broken = [
            record(0, 99, b""),
            [
                record(0, KeyRecord::CHUNK, b"x"),
                record(1, KeyRecord::CHUNK, b"y"),
            ]
            .concat(),
            [record(0, KeyRecord::CHUNK, b"x"), end()].concat(),
            [end(), vec![0]].concat(),
            record(0, KeyRecord::COMPLETE, b"x"),
            record(0, KeyRecord::REFUSED, &[b'x'; 600]),
        ];
        for bytes in broken {
            assert!(
                matches!(search(&bytes, 4096).0, Progress::Broken(_)),
                "{bytes:?}"
            );
        }
        let endless = record(0, KeyRecord::CHUNK, &vec![b'#'; KEY_FILES_MAX_BYTES]);
        assert!(matches!(search(&endless, 65536).0, Progress::Broken(_)));
    }

    #[test]
    fn what_was_found_before_a_failure_does_not_count() {
        for failure in [
            record(0, KeyRecord::REFUSED, b"/bin/keys failed, status 1"),
            record(0, KeyRecord::FAILED, &5_i32.to_le_bytes()),
        ] {
            let chunk = record(0, KeyRecord::CHUNK, format!("{KEY}\n").as_bytes());
            let bytes = [chunk, failure, end()].concat();
            let (progress, found, reports) = search(&bytes, 4096);
            assert_eq!((progress, found), (Progress::Done, None));
            assert_eq!(reports.len(), 1);
        }
    }

    #[test]
    fn a_refused_file_gives_nothing_of_what_came_before() {
        let bytes = [
            record(0, KeyRecord::REFUSED, b"bad owner or modes for /home/alice"),
            end(),
        ]
        .concat();
        let (progress, found, reports) = search(&bytes, 5);
        assert_eq!((progress, found), (Progress::Done, None));
        assert!(reports[0].contains("bad owner"), "{reports:?}");
    }
}
