//! Login records: utmp, wtmp and lastlog, in the layout of the host they are on.
//!
//! The layout depends on the host's C library, not on ours, and musl's own functions do nothing: so
//! the records are built and written here. Files that do not exist are never made. The monitor
//! writes them from its own facts only. Sources: utmp(5), glibc's bits/utmp.h and wordsize.h.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fcntl_lock};

const UTMP: &str = "var/run/utmp";
const WTMP: &str = "var/log/wtmp";
const LASTLOG: &str = "var/log/lastlog";

const USER_PROCESS: i16 = 7;
const DEAD_PROCESS: i16 = 8;
/// Types that own a slot of utmp: INIT_PROCESS to DEAD_PROCESS.
const SLOT_TYPES: std::ops::RangeInclusive<i16> = 5..=DEAD_PROCESS;

const LINE_BYTES: usize = 32;
const HOST_BYTES: usize = 256;
/// A utmp larger than any terminal count explains is not walked.
const UTMP_MAX_BYTES: u64 = 1024 * 1024;
/// A lock that anybody who may read the file can hold must not hold up logins: three short waits,
/// then the record is written without it (each write is one system call to one slot).
const LOCK_TRIES: u32 = 3;
const LOCK_WAIT: Duration = Duration::from_millis(1);
/// For so long nobody is waited for again: who may read the file could keep the lock for ever, and
/// each session's start and end would wait for him.
const LOCK_REST: Duration = Duration::from_secs(10);
/// lastlog is an array over user ids: a large id makes a file of apparent terabytes.
const LASTLOG_UID_MAX: u32 = 10_000_000;

/// How the host's C library lays records out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// 32-bit times: glibc on x86, x86_64, riscv64, 32-bit ARM. 384 bytes, lastlog 292.
    Narrow,
    /// 64-bit times: glibc on aarch64 and most other 64-bit architectures. 400 bytes, lastlog 296.
    Wide,
}

impl Layout {
    /// The layout that fits a wtmp of this size, else what the architecture's glibc uses.
    fn of(wtmp_bytes: u64) -> Self {
        match (
            wtmp_bytes.is_multiple_of(384),
            wtmp_bytes.is_multiple_of(400),
        ) {
            (true, false) => Self::Narrow,
            (false, true) => Self::Wide,
            _ if cfg!(any(target_arch = "aarch64", target_arch = "loongarch64")) => Self::Wide,
            _ => Self::Narrow,
        }
    }

    fn record_bytes(self) -> usize {
        match self {
            Self::Narrow => 384,
            Self::Wide => 400,
        }
    }

    fn lastlog_bytes(self) -> usize {
        match self {
            Self::Narrow => 292,
            Self::Wide => 296,
        }
    }
}

/// What a record says. Texts are cut to their fields.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Terminal without /dev/ (`pts/3`).
    pub line: &'a [u8],
    /// Login name out of the account database.
    pub user: &'a [u8],
    /// Where the client is, in text.
    pub host: &'a str,
    /// The same as an address.
    pub address: IpAddr,
    /// The session's first process.
    pub pid: u32,
    /// Since 1970.
    pub time: Duration,
}

impl Entry<'_> {
    /// The record of type `kind`; at logout user and host are empty.
    fn encode(&self, kind: i16, layout: Layout) -> Vec<u8> {
        let mut record = vec![0; layout.record_bytes()];
        let mut put = |at: usize, room: usize, bytes: &[u8]| {
            let len = bytes.len().min(room);
            if let (Some(to), Some(from)) = (record.get_mut(at..at + len), bytes.get(..len)) {
                to.copy_from_slice(from);
            }
        };
        put(0, 2, &kind.to_ne_bytes());
        put(4, 4, &self.pid.to_ne_bytes());
        put(8, LINE_BYTES, self.line);
        put(40, 4, terminal_id(self.line));
        if kind == USER_PROCESS {
            put(44, 32, self.user);
            put(76, HOST_BYTES, self.host.as_bytes());
        }
        let micros = self.time.subsec_micros();
        let mut address = [0; 16];
        if kind == USER_PROCESS {
            match self.address {
                IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
                IpAddr::V6(ip) => address = ip.octets(),
            }
        }
        match layout {
            Layout::Narrow => {
                // Read as unsigned by newer glibc: good until 2106, wraps afterwards.
                let seconds = self.time.as_secs().to_le_bytes();
                let low = u32::from_le_bytes([seconds[0], seconds[1], seconds[2], seconds[3]]);
                put(340, 4, &low.to_ne_bytes());
                put(344, 4, &micros.to_ne_bytes());
                put(348, 16, &address);
            }
            Layout::Wide => {
                put(344, 8, &self.time.as_secs().to_ne_bytes());
                put(352, 8, &u64::from(micros).to_ne_bytes());
                put(360, 16, &address);
            }
        }
        record
    }

    fn encode_lastlog(&self, layout: Layout) -> Vec<u8> {
        let mut record = Vec::with_capacity(layout.lastlog_bytes());
        let seconds = self.time.as_secs();
        match layout {
            Layout::Narrow => {
                let low = u32::try_from(seconds & u64::from(u32::MAX)).unwrap_or(u32::MAX);
                record.extend_from_slice(&low.to_ne_bytes());
            }
            Layout::Wide => record.extend_from_slice(&seconds.to_ne_bytes()),
        }
        for (text, room) in [(self.line, LINE_BYTES), (self.host.as_bytes(), HOST_BYTES)] {
            let len = text.len().min(room);
            record.extend_from_slice(text.get(..len).unwrap_or(&[]));
            record.resize(record.len() + room - len, 0);
        }
        record
    }
}

/// The last four characters of the line, as others do it: `pts/12` is `s/12`.
fn terminal_id(line: &[u8]) -> &[u8] {
    line.get(line.len().saturating_sub(4)..).unwrap_or(line)
}

/// What lastlog says of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastLogin {
    /// Seconds since 1970.
    pub time_s: i64,
    /// Terminal.
    pub line: Vec<u8>,
    /// Where from.
    pub host: Vec<u8>,
}

/// The record files of this host.
#[derive(Debug, Clone)]
pub struct Records {
    root: PathBuf,
    layout: Layout,
    enabled: bool,
}

impl Records {
    /// The files below `/`; with `enabled` false nothing is written.
    pub fn new(enabled: bool) -> Self {
        Self::below(Path::new("/"), enabled)
    }

    fn below(root: &Path, enabled: bool) -> Self {
        let wtmp_bytes = std::fs::metadata(root.join(WTMP)).map_or(0, |wtmp| wtmp.len());
        Self {
            root: root.to_path_buf(),
            layout: Layout::of(wtmp_bytes),
            enabled,
        }
    }

    /// A session with a terminal began.
    pub fn login(&self, entry: &Entry<'_>) {
        self.write(entry, USER_PROCESS);
    }

    /// The same session ended.
    pub fn logout(&self, entry: &Entry<'_>) {
        self.write(entry, DEAD_PROCESS);
    }

    /// Notes the login of `uid`.
    pub fn set_last_login(&self, uid: u32, entry: &Entry<'_>) {
        if !self.enabled || uid > LASTLOG_UID_MAX {
            return;
        }
        let offset = self.lastlog_offset(uid);
        let record = entry.encode_lastlog(self.layout);
        report(
            LASTLOG,
            self.open(LASTLOG, false).and_then(|file| match file {
                Some(file) => file.write_all_at(&record, offset),
                None => Ok(()),
            }),
        );
    }

    /// When and from where `uid` logged in last; `None` where nobody knows.
    pub fn last_login(&self, uid: u32) -> Option<LastLogin> {
        if uid > LASTLOG_UID_MAX {
            return None;
        }
        let file = File::open(self.root.join(LASTLOG)).ok()?;
        let mut record = vec![0; self.layout.lastlog_bytes()];
        file.read_exact_at(&mut record, self.lastlog_offset(uid))
            .ok()?;
        let (time_s, texts) = match self.layout {
            Layout::Narrow => {
                let (time, texts) = record.split_first_chunk::<4>()?;
                (i64::from(u32::from_ne_bytes(*time)), texts)
            }
            Layout::Wide => {
                let (time, texts) = record.split_first_chunk::<8>()?;
                (i64::from_ne_bytes(*time), texts)
            }
        };
        let (line, host) = texts.split_at_checked(LINE_BYTES)?;
        (time_s != 0).then(|| LastLogin {
            time_s,
            line: text(line),
            host: text(host),
        })
    }

    fn lastlog_offset(&self, uid: u32) -> u64 {
        u64::from(uid) * u64::try_from(self.layout.lastlog_bytes()).unwrap_or(u64::MAX)
    }

    fn write(&self, entry: &Entry<'_>, kind: i16) {
        if !self.enabled {
            return;
        }
        let record = entry.encode(kind, self.layout);
        report(UTMP, self.write_slot(&record, entry));
        report(WTMP, self.append(&record));
    }

    /// Overwrites the slot of the same terminal, else appends one.
    fn write_slot(&self, record: &[u8], entry: &Entry<'_>) -> io::Result<()> {
        let Some(file) = self.open(UTMP, false)? else {
            return Ok(());
        };
        lock(&file);
        let size = file.metadata()?.len();
        if size > UTMP_MAX_BYTES {
            return Err(io::Error::other("the file is too large"));
        }
        let mut content = vec![0; usize::try_from(size).unwrap_or(0)];
        file.read_exact_at(&mut content, 0)?;
        let step = self.layout.record_bytes();
        let slots = content.chunks_exact(step);
        let slot = slots
            .clone()
            .position(|slot| is_slot_of(slot, entry.line))
            .unwrap_or_else(|| slots.len());
        let offset = u64::try_from(slot * step).map_err(io::Error::other)?;
        file.write_all_at(record, offset)
    }

    /// Appends one whole record, after cutting off what a crash left of another.
    fn append(&self, record: &[u8]) -> io::Result<()> {
        let Some(mut file) = self.open(WTMP, true)? else {
            return Ok(());
        };
        lock(&file);
        let size = file.metadata()?.len();
        let surplus = size % u64::try_from(record.len()).unwrap_or(1);
        if surplus != 0 {
            file.set_len(size - surplus)?;
        }
        file.write_all(record)
    }

    fn open(&self, name: &str, append: bool) -> io::Result<Option<File>> {
        let opened = OpenOptions::new()
            .read(true)
            .write(!append)
            .append(append)
            .custom_flags(libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_NOFOLLOW)
            .open(self.root.join(name));
        match opened {
            Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
            Ok(_) => Err(io::Error::other("not a regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether `slot` belongs to the terminal `line`: same id in a slot that a process owns or owned.
fn is_slot_of(slot: &[u8], line: &[u8]) -> bool {
    let kind = slot
        .first_chunk::<2>()
        .map(|bytes| i16::from_ne_bytes(*bytes));
    let mut id = [0; 4];
    let wanted = terminal_id(line);
    if let Some(to) = id.get_mut(..wanted.len()) {
        to.copy_from_slice(wanted);
    }
    kind.is_some_and(|kind| SLOT_TYPES.contains(&kind)) && slot.get(40..44) == Some(&id)
}

/// When somebody last kept a lock for longer than we wait.
static LOCKED_OUT: Mutex<Option<Instant>> = Mutex::new(None);

fn lock(file: &File) {
    let try_once = || fcntl_lock(file, FlockOperation::NonBlockingLockExclusive).is_ok();
    let mut locked_out = LOCKED_OUT.lock().unwrap_or_else(PoisonError::into_inner);
    let resting = locked_out.is_some_and(|since| since.elapsed() < LOCK_REST);
    let tries = if resting { 1 } else { LOCK_TRIES };
    for attempt in 1..=tries {
        if try_once() {
            return;
        }
        if attempt < tries {
            std::thread::sleep(LOCK_WAIT);
        }
    }
    if !resting {
        *locked_out = Some(Instant::now());
    }
}

fn report(name: &str, result: io::Result<()>) {
    if let Err(error) = result {
        log::warn!("/{name} could not be written: {error}");
    }
}

fn text(field: &[u8]) -> Vec<u8> {
    field
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or(&[])
        .to_vec()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_keeps_a_lock_is_waited_for_once() {
        let root = Root::new("lock", &["var/log/wtmp"]);
        let path = root.0.join("var/log/wtmp");
        // Locks of one process do not meet each other: another one keeps it.
        let mut keeper = std::process::Command::new("python3")
            .args([
                "-c",
                "import fcntl,sys; f=open(sys.argv[1]); fcntl.lockf(f, fcntl.LOCK_SH); print('held', flush=True); sys.stdin.read()",
            ])
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = keeper.stdout.take().unwrap();
        io::BufRead::read_line(&mut io::BufReader::new(output), &mut line).unwrap();
        assert_eq!(line, "held\n");
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        lock(&file);
        let since = *LOCKED_OUT.lock().unwrap();
        assert!(since.is_some());
        lock(&file);
        assert_eq!(*LOCKED_OUT.lock().unwrap(), since, "not waited for again");
        drop(keeper.stdin.take());
        keeper.wait().unwrap();
    }

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[&str]) -> Self {
            let root =
                std::env::temp_dir().join(format!("agent-records-{name}-{}", std::process::id()));
            for file in files {
                let path = root.join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                File::create(path).unwrap();
            }
            Self(root)
        }
        fn read(&self, file: &str) -> Vec<u8> {
            std::fs::read(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn entry(line: &'static [u8]) -> Entry<'static> {
        Entry {
            line,
            user: b"alice",
            host: "192.0.2.7",
            address: "192.0.2.7".parse().unwrap(),
            pid: 4711,
            time: Duration::new(1_700_000_000, 123_456_000),
        }
    }

    #[test]
    fn fields_are_where_each_layout_has_them() {
        let narrow = entry(b"pts/12").encode(USER_PROCESS, Layout::Narrow);
        assert_eq!(narrow.len(), 384);
        assert_eq!(narrow[0..2], 7_i16.to_ne_bytes());
        assert_eq!(narrow[4..8], 4711_u32.to_ne_bytes());
        assert_eq!(&narrow[8..15], b"pts/12\0");
        assert_eq!(&narrow[40..44], b"s/12");
        assert_eq!(&narrow[44..50], b"alice\0");
        assert_eq!(&narrow[76..86], b"192.0.2.7\0");
        assert_eq!(narrow[340..344], 1_700_000_000_u32.to_ne_bytes());
        assert_eq!(narrow[344..348], 123_456_u32.to_ne_bytes());
        assert_eq!(narrow[348..352], [192, 0, 2, 7]);
        let wide = entry(b"pts/12").encode(USER_PROCESS, Layout::Wide);
        assert_eq!(wide.len(), 400);
        assert_eq!(wide[344..352], 1_700_000_000_u64.to_ne_bytes());
        assert_eq!(wide[352..360], 123_456_u64.to_ne_bytes());
        assert_eq!(wide[360..364], [192, 0, 2, 7]);
    }

    #[test]
    fn the_size_of_wtmp_tells_the_layout() {
        assert_eq!(Layout::of(384 * 7), Layout::Narrow);
        assert_eq!(Layout::of(400 * 7), Layout::Wide);
        let by_architecture = Layout::of(0);
        assert_eq!(Layout::of(9600), by_architecture);
        assert_eq!(Layout::of(17), by_architecture);
    }

    #[test]
    fn a_login_and_its_logout_share_one_slot() {
        let root = Root::new("slot", &[UTMP, WTMP]);
        let records = Records::below(&root.0, true);
        records.login(&entry(b"pts/1"));
        records.login(&entry(b"pts/2"));
        records.logout(&entry(b"pts/1"));
        let step = records.layout.record_bytes();
        let utmp = root.read(UTMP);
        assert_eq!(utmp.len(), 2 * step);
        assert_eq!(utmp[0..2], DEAD_PROCESS.to_ne_bytes());
        assert_eq!(&utmp[8..13], b"pts/1");
        assert_eq!(&utmp[44..49], &[0; 5]);
        assert_eq!(utmp[step..step + 2], USER_PROCESS.to_ne_bytes());
        assert_eq!(root.read(WTMP).len(), 3 * step);
    }

    #[test]
    fn a_short_wtmp_is_cut_back_to_whole_records() {
        let root = Root::new("short", &[WTMP]);
        let records = Records::below(&root.0, true);
        records.login(&entry(b"pts/1"));
        let mut broken = root.read(WTMP);
        let step = broken.len();
        broken.extend_from_slice(b"half a record");
        std::fs::write(root.0.join(WTMP), &broken).unwrap();
        records.login(&entry(b"pts/2"));
        let wtmp = root.read(WTMP);
        assert_eq!(wtmp.len(), 2 * step);
        assert_eq!(&wtmp[step + 8..step + 13], b"pts/2");
    }

    #[test]
    fn files_that_are_not_there_are_not_made() {
        let root = Root::new("none", &["var/run/x", "var/log/x"]);
        let records = Records::below(&root.0, true);
        records.login(&entry(b"pts/1"));
        records.set_last_login(0, &entry(b"pts/1"));
        for file in [UTMP, WTMP, LASTLOG] {
            assert!(!root.0.join(file).exists());
        }
    }

    #[test]
    fn without_accounting_nothing_is_written() {
        let root = Root::new("off", &[UTMP, WTMP, LASTLOG]);
        let records = Records::below(&root.0, false);
        records.login(&entry(b"pts/1"));
        records.set_last_login(0, &entry(b"pts/1"));
        for file in [UTMP, WTMP, LASTLOG] {
            assert!(root.read(file).is_empty());
        }
    }

    #[test]
    fn the_last_login_is_found_again_by_user_id() {
        let root = Root::new("lastlog", &[LASTLOG]);
        let records = Records::below(&root.0, true);
        assert_eq!(records.last_login(1000), None);
        records.set_last_login(1000, &entry(b"pts/1"));
        let last = records.last_login(1000).unwrap();
        assert_eq!(
            (last.time_s, &last.line[..], &last.host[..]),
            (1_700_000_000, &b"pts/1"[..], &b"192.0.2.7"[..])
        );
        assert_eq!(records.last_login(999), None);
        records.set_last_login(u32::MAX, &entry(b"pts/1"));
        assert_eq!(
            root.read(LASTLOG).len(),
            1001 * records.layout.lastlog_bytes()
        );
    }
}
