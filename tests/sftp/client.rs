//! A client of `agent sftp-server` that says exactly what it is told to.

use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub const OPEN: u8 = 3;
pub const CLOSE: u8 = 4;
pub const READ: u8 = 5;
pub const WRITE: u8 = 6;
pub const LSTAT: u8 = 7;
pub const SETSTAT: u8 = 9;
pub const OPENDIR: u8 = 11;
pub const READDIR: u8 = 12;
pub const REMOVE: u8 = 13;
pub const MKDIR: u8 = 14;
pub const RMDIR: u8 = 15;
pub const REALPATH: u8 = 16;
pub const STAT: u8 = 17;
pub const RENAME: u8 = 18;
pub const READLINK: u8 = 19;
pub const SYMLINK: u8 = 20;
pub const STATUS: u8 = 101;
pub const HANDLE: u8 = 102;
pub const DATA: u8 = 103;
pub const NAME: u8 = 104;
pub const ATTRS: u8 = 105;
pub const EXTENDED: u8 = 200;

pub const OK: u32 = 0;
pub const END_OF_FILE: u32 = 1;

/// A server in a process of its own, and the connection to it.
pub struct Client {
    pub server: Child,
    next_id: u32,
}

/// An answer without its number.
pub struct Answer {
    pub kind: u8,
    pub fields: Vec<u8>,
}

impl Answer {
    pub fn u32(&mut self) -> u32 {
        let rest = self.fields.split_off(4);
        let head = std::mem::replace(&mut self.fields, rest);
        u32::from_be_bytes(head.try_into().unwrap())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) << 32 | u64::from(self.u32())
    }

    pub fn string(&mut self) -> Vec<u8> {
        let len = self.u32() as usize;
        let rest = self.fields.split_off(len);
        std::mem::replace(&mut self.fields, rest)
    }

    /// The code of a STATUS.
    pub fn status(mut self) -> u32 {
        assert_eq!(self.kind, STATUS);
        self.u32()
    }
}

/// A counted string.
pub fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let len = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&len[..], bytes].concat()
}

pub fn path(path: &Path) -> Vec<u8> {
    string(path.as_os_str().as_bytes())
}

impl Client {
    /// In `directory`, with `options`, started by `prepare`d command.
    pub fn start(directory: &Path, options: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agent"));
        command.arg("sftp-server").args(options);
        Self::start_by(command, directory)
    }

    pub fn start_by(mut command: Command, directory: &Path) -> Self {
        let server = command
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut client = Self { server, next_id: 0 };
        client.send(&[1, 0, 0, 0, 3]);
        assert_eq!(client.packet()[..5], [2, 0, 0, 0, 3]);
        client
    }

    pub fn send(&mut self, packet: &[u8]) {
        let input = self.server.stdin.as_mut().unwrap();
        input.write_all(&string(packet)).unwrap();
        input.flush().unwrap();
    }

    fn packet(&mut self) -> Vec<u8> {
        let output = self.server.stdout.as_mut().unwrap();
        let mut len = [0; 4];
        output.read_exact(&mut len).unwrap();
        let mut packet = vec![0; u32::from_be_bytes(len) as usize];
        output.read_exact(&mut packet).unwrap();
        packet
    }

    /// Sends a request without waiting; gives its number.
    pub fn ask(&mut self, kind: u8, fields: &[u8]) -> u32 {
        self.next_id += 1;
        let id = self.next_id.to_be_bytes();
        self.send(&[&[kind], &id[..], fields].concat());
        self.next_id
    }

    /// The next answer, which must be to `id`.
    pub fn answer(&mut self, id: u32) -> Answer {
        let packet = self.packet();
        let mut answer = Answer {
            kind: packet[0],
            fields: packet[1..].to_vec(),
        };
        assert_eq!(answer.u32(), id);
        answer
    }

    pub fn request(&mut self, kind: u8, fields: &[u8]) -> Answer {
        let id = self.ask(kind, fields);
        self.answer(id)
    }

    pub fn extended(&mut self, name: &str, fields: &[u8]) -> Answer {
        self.request(EXTENDED, &[&string(name), fields].concat())
    }

    /// Opens; gives the handle as it is sent, or the status.
    pub fn open(&mut self, file: &Path, flags: u32) -> Result<Vec<u8>, u32> {
        let fields = [path(file), flags.to_be_bytes().to_vec(), vec![0; 4]].concat();
        handle(self.request(OPEN, &fields))
    }

    pub fn open_directory(&mut self, directory: &Path) -> Result<Vec<u8>, u32> {
        handle(self.request(OPENDIR, &path(directory)))
    }

    pub fn write(&mut self, handle: &[u8], offset: u64, data: &[u8]) -> u32 {
        let fields = [handle, &offset.to_be_bytes(), &string(data)].concat();
        self.request(WRITE, &fields).status()
    }

    pub fn read(&mut self, handle: &[u8], offset: u64, len: u32) -> Result<Vec<u8>, u32> {
        let fields = [handle, &offset.to_be_bytes(), &len.to_be_bytes()].concat();
        let mut answer = self.request(READ, &fields);
        if answer.kind == DATA {
            Ok(answer.string())
        } else {
            Err(answer.status())
        }
    }

    pub fn close(&mut self, handle: &[u8]) -> u32 {
        self.request(CLOSE, handle).status()
    }

    /// All names of a directory.
    pub fn list(&mut self, directory: &Path) -> Result<Vec<Vec<u8>>, u32> {
        let handle = self.open_directory(directory)?;
        let mut names = Vec::new();
        loop {
            let mut answer = self.request(READDIR, &handle);
            if answer.kind != NAME {
                assert_eq!(answer.status(), END_OF_FILE);
                break;
            }
            let count = answer.u32();
            assert!((1..=100).contains(&count), "{count}");
            for _ in 0..count {
                let name = answer.string();
                let line = answer.string();
                assert!(line.ends_with(&name));
                assert_eq!(answer.u32(), 15, "all attributes");
                answer.fields.drain(..28);
                names.push(name);
            }
            assert!(answer.fields.is_empty());
        }
        assert_eq!(self.close(&handle), OK);
        Ok(names)
    }

    /// Ends the input; gives the exit status.
    pub fn finish(mut self) -> Option<i32> {
        drop(self.server.stdin.take());
        self.server.wait().unwrap().code()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn handle(mut answer: Answer) -> Result<Vec<u8>, u32> {
    if answer.kind == HANDLE {
        Ok(string(answer.string()))
    } else {
        Err(answer.status())
    }
}
