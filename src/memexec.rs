//! Puts the embedded helper where the kernel can execute it, without a path on disk.
//!
//! The helper must be the one that this agent was built with: a file found by path could be from
//! another version, or gone after an upgrade. So it is inflated once, at start, into the first of
//! these that can be executed: a sealed memfd, an `O_TMPFILE`, an unlinked temporary file. If none
//! can (memfds may be barred, every directory `noexec`, a security module in the way), the agent
//! runs its own executable as the helper: same code, larger process.
//!
//! "Can be executed" is tried, not guessed: each candidate runs the helper's `true` role under a
//! time limit, and what it was refused for is kept. A launch that fails later moves on down the
//! same ladder.
//!
//! Sources: memfd_create(2), fcntl(2) on seals, open(2) on `O_TMPFILE`, execveat(2).

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode as Permissions, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions, WaitStatus};

use crate::BUILD_ID;
use crate::config::options::HelperMode;
use crate::launch::{Launch, Launched, launch};
use crate::limits::HELPER_SELF_TEST_MS;

/// Retries while another thread's child still holds the writing descriptor of a file (ETXTBSY).
const TEXT_BUSY_RETRIES: u32 = 20;
/// Room for `agent-helper: USER@ADDRESS` in the memory behind the command line, beyond what the
/// other arguments take: names have at most 32 characters, addresses with a zone about 60.
const TITLE_ROOM_BYTES: usize = 96;
/// Who can read and execute the file: root or the user that the agent runs as. A helper that became
/// another user is executed from the descriptor, which asks the mode once, as root.
const IMAGE_MODE: Permissions = Permissions::from_raw_mode(0o555);

/// `F_SEAL_EXEC` of linux/fcntl.h, which rustix does not name: nobody takes the execute bits away.
const SEAL_EXEC: SealFlags = SealFlags::from_bits_retain(0x20);

#[cfg(feature = "embed-helper")]
mod embedded {
    /// The helper, deflated (zlib); on x86_64 with its bytes sorted by [`crate::image_filter`].
    pub static DEFLATED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/helper.z"));
    /// The length of what was deflated: nothing longer is accepted.
    pub const LEN_BYTES: usize = include!(concat!(env!("OUT_DIR"), "/helper.rs"));
}

/// The agent's own executable, opened once: all roles run from this descriptor, so that a replaced
/// file on disk never meets an old monitor.
#[derive(Debug)]
pub struct OwnImage {
    descriptor: OwnedFd,
}

impl AsFd for OwnImage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl OwnImage {
    /// Opens the file that this process was executed from.
    ///
    /// # Errors
    ///
    /// Without `/proc` the path that the kernel was given is used, and must name a file that holds
    /// this build: not so if it was renamed, or executed from a descriptor.
    pub fn open() -> io::Result<Self> {
        if let Ok(descriptor) = open_readable(Path::new("/proc/self/exe")) {
            return Ok(Self { descriptor });
        }
        let path = Path::new(OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()));
        let descriptor = open_readable(path)?;
        if !holds_build_id(&descriptor)? {
            return Err(io::Error::other(format!(
                "{} is not the running agent; mount /proc or start it by its path",
                path.display()
            )));
        }
        Ok(Self { descriptor })
    }

    /// Takes a descriptor of the running executable that was handed down.
    pub fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self { descriptor }
    }
}

fn open_readable(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Permissions::empty(),
    )?)
}

/// Whether the file contains this build's id.
fn holds_build_id(descriptor: &OwnedFd) -> io::Result<bool> {
    let mut file = File::from(descriptor.try_clone()?);
    let mut buffer = vec![0; 256 * 1024];
    let mut kept = 0;
    loop {
        let filled = kept + file.read(buffer.get_mut(kept..).unwrap_or_default())?;
        let piece = buffer.get(..filled).unwrap_or_default();
        if piece
            .windows(BUILD_ID.len())
            .any(|window| window == BUILD_ID)
        {
            return Ok(true);
        }
        if filled == kept {
            return Ok(false);
        }
        // The id may lie across two pieces.
        let keep = filled.min(BUILD_ID.len() - 1);
        buffer.copy_within(filled - keep..filled, 0);
        kept = keep;
    }
}

/// From where the helper is executed, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// A memfd that nothing can write to any more.
    SealedMemfd,
    /// A file that never had a name.
    UnnamedFile,
    /// A file whose name was removed at once.
    UnlinkedFile,
    /// The agent's own executable.
    OwnExecutable,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SealedMemfd => "sealed memfd",
            Self::UnnamedFile => "unnamed file",
            Self::UnlinkedFile => "unlinked file",
            Self::OwnExecutable => "own executable",
        })
    }
}

/// Why a way was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which way.
    pub mode: Mode,
    /// What failed, in our own words, with the system's error.
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.mode, self.reason)
    }
}

/// No way to execute the helper was found among those that the configuration allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// All that was tried.
    pub refusals: Vec<Refusal>,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the helper cannot be executed")?;
        for refusal in &self.refusals {
            write!(f, "; {refusal}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Unavailable {}

/// The helper, ready to be executed.
#[derive(Debug)]
pub struct HelperImage {
    current: Candidate,
    /// Ways that are left if the current one fails at run time.
    rest: Vec<Mode>,
    own: OwnedFd,
    directories: Vec<PathBuf>,
    refusals: Vec<Refusal>,
    oom_score_adj: Option<i32>,
}

#[derive(Debug)]
struct Candidate {
    mode: Mode,
    image: OwnedFd,
}

/// Finds the best way to execute the helper that `setting` allows.
///
/// To be called before the first thread: a child of another thread could hold a writing descriptor.
///
/// # Errors
///
/// With every way's reason, when none works.
pub fn prepare(setting: HelperMode, own: &OwnImage) -> Result<HelperImage, Unavailable> {
    prepare_in(setting, own, file_directories())
}

/// [`prepare`] with the directories to try for files.
pub fn prepare_in(
    setting: HelperMode,
    own: &OwnImage,
    directories: Vec<PathBuf>,
) -> Result<HelperImage, Unavailable> {
    let mut rest = ladder(setting);
    let mut refusals = Vec::new();
    let unavailable = |refusals: &mut Vec<Refusal>, reason: String| {
        refusals.push(Refusal {
            mode: Mode::OwnExecutable,
            reason,
        });
        Unavailable {
            refusals: std::mem::take(refusals),
        }
    };
    let own = match own.descriptor.try_clone() {
        Ok(own) => own,
        Err(error) => return Err(unavailable(&mut refusals, error.to_string())),
    };
    match next_candidate(&mut rest, &own, &directories, &mut refusals) {
        Some(current) => Ok(HelperImage {
            current,
            rest,
            own,
            directories,
            refusals,
            oom_score_adj: None,
        }),
        None => Err(Unavailable { refusals }),
    }
}

impl HelperImage {
    /// The way that is in use.
    pub fn mode(&self) -> Mode {
        self.current.mode
    }

    /// Every way that was tried and did not work, with its reason.
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// oom_score_adj for helpers: the server's own value before it protected itself.
    pub fn set_oom_score_adj(&mut self, score: Option<i32>) {
        self.oom_score_adj = score;
    }

    /// Starts the helper's `serve` role with `title` (`agent-helper: …`) and `socket` as its
    /// descriptor 3.
    ///
    /// # Errors
    ///
    /// When neither the current way nor any below it works.
    pub fn launch(&mut self, title: &CStr, socket: BorrowedFd<'_>) -> io::Result<Launched> {
        loop {
            match self.launch_once(title, socket) {
                Ok(launched) => return Ok(launched),
                // Out of processes or memory: another image would not help.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE)
                    ) =>
                {
                    return Err(error);
                }
                Err(error) => {
                    let refused = self.current.mode;
                    self.refusals.push(Refusal {
                        mode: refused,
                        reason: format!("launch failed at run time: {error}"),
                    });
                    self.current = next_candidate(
                        &mut self.rest,
                        &self.own,
                        &self.directories,
                        &mut self.refusals,
                    )
                    .ok_or(error)?;
                }
            }
        }
    }

    fn launch_once(&self, title: &CStr, socket: BorrowedFd<'_>) -> io::Result<Launched> {
        let build_id = CString::new(hex(&BUILD_ID))?;
        let room = CString::new(vec![b' '; TITLE_ROOM_BYTES])?;
        launch(&Launch {
            descriptors: &[socket],
            new_session: true,
            oom_score_adj: self.oom_score_adj,
            ..Launch::new(
                self.current.image.as_fd(),
                &[title, c"serve", &build_id, &room],
            )
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Which ways a setting allows, best last: they are popped.
fn ladder(setting: HelperMode) -> Vec<Mode> {
    let mut modes = match setting {
        HelperMode::Auto => {
            vec![
                Mode::OwnExecutable,
                Mode::UnlinkedFile,
                Mode::UnnamedFile,
                Mode::SealedMemfd,
            ]
        }
        HelperMode::Memfd => vec![Mode::SealedMemfd],
        HelperMode::File => vec![Mode::UnlinkedFile, Mode::UnnamedFile],
        HelperMode::OwnExecutable => vec![Mode::OwnExecutable],
    };
    if cfg!(not(feature = "embed-helper")) {
        modes = vec![Mode::OwnExecutable];
    }
    modes
}

/// Where a file may be made: memory first. The data directory is not among them, since a user's
/// may lie on a network.
fn file_directories() -> Vec<PathBuf> {
    let runtime =
        std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !rustix::process::geteuid().is_root());
    let fixed = ["/run", "/dev/shm", "/tmp", "/var/tmp"].map(OsString::from);
    runtime
        .into_iter()
        .chain(fixed)
        .map(PathBuf::from)
        .collect()
}

/// The next way down that passes its test.
fn next_candidate(
    rest: &mut Vec<Mode>,
    own: &OwnedFd,
    directories: &[PathBuf],
    refusals: &mut Vec<Refusal>,
) -> Option<Candidate> {
    while let Some(mode) = rest.pop() {
        match try_mode(mode, own, directories) {
            Ok(image) => return Some(Candidate { mode, image }),
            Err(reason) => refusals.push(Refusal { mode, reason }),
        }
    }
    None
}

fn try_mode(mode: Mode, own: &OwnedFd, directories: &[PathBuf]) -> Result<OwnedFd, String> {
    match mode {
        Mode::SealedMemfd => {
            let image = sealed_memfd(&inflate()?).map_err(|error| error.to_string())?;
            self_test(&image)?;
            Ok(image)
        }
        Mode::UnnamedFile => try_directories(directories, unnamed_file),
        Mode::UnlinkedFile => try_directories(directories, unlinked_file),
        Mode::OwnExecutable => {
            let image = own.try_clone().map_err(|error| error.to_string())?;
            self_test(&image)?;
            Ok(image)
        }
    }
}

/// One directory may be `noexec` or full, the next one not.
fn try_directories(
    directories: &[PathBuf],
    make: impl Fn(&Path, &[u8]) -> io::Result<OwnedFd>,
) -> Result<OwnedFd, String> {
    let content = inflate()?;
    let mut reasons = Vec::new();
    for directory in directories {
        let tried = make(directory, &content)
            .map_err(|error| error.to_string())
            .and_then(|image| self_test(&image).map(|()| image));
        match tried {
            Ok(image) => return Ok(image),
            Err(reason) => reasons.push(format!("{}: {reason}", directory.display())),
        }
    }
    Err(if reasons.is_empty() {
        "no directory to try".to_owned()
    } else {
        reasons.join(", ")
    })
}

#[cfg(feature = "embed-helper")]
fn inflate() -> Result<Vec<u8>, String> {
    let inflated = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(
        embedded::DEFLATED,
        embedded::LEN_BYTES,
    );
    let inflated = inflated.map_err(|error| format!("the embedded image is damaged: {error}"))?;
    if cfg!(target_arch = "x86_64") {
        return crate::image_filter::join(&inflated)
            .ok_or_else(|| "the embedded image is damaged".to_owned());
    }
    Ok(inflated)
}

#[cfg(not(feature = "embed-helper"))]
fn inflate() -> Result<Vec<u8>, String> {
    Err("this agent was built without the embedded helper".to_owned())
}

fn sealed_memfd(content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match rustix::fs::memfd_create(c"agent-helper", flags | MemfdFlags::EXEC) {
        // Before 6.3 there is no such flag, and every memfd is executable.
        Err(Errno::INVAL) => rustix::fs::memfd_create(c"agent-helper", flags),
        other => other,
    }?;
    let mut file = File::from(memfd);
    file.write_all(content)?;
    rustix::fs::fchmod(&file, IMAGE_MODE)?;
    // Before 6.3 there is no seal against changing the mode; the write seals are what matters.
    let _ = rustix::fs::fcntl_add_seals(&file, SEAL_EXEC);
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SEAL)?;
    if !rustix::fs::fcntl_get_seals(&file)?.contains(seals | SealFlags::SEAL) {
        return Err(io::Error::other(
            "the kernel took the seals but does not show them",
        ));
    }
    Ok(file.into())
}

fn unnamed_file(directory: &Path, content: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let mut writer = File::from(rustix::fs::open(
        directory,
        flags,
        Permissions::RUSR | Permissions::WUSR,
    )?);
    writer.write_all(content)?;
    rustix::fs::fchmod(&writer, IMAGE_MODE)?;
    // An executable that somebody may write to is ETXTBSY: reopened for reading, the writer closed.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
    open_readable(Path::new(&path))
}

fn unlinked_file(directory: &Path, content: &[u8]) -> io::Result<OwnedFd> {
    let mut random = [0; 12];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let path = directory.join(format!(".agent-helper-{}", hex(&random)));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut writer = File::from(rustix::fs::open(
        &path,
        flags,
        Permissions::RUSR | Permissions::WUSR,
    )?);
    let reader = open_readable(&path);
    rustix::fs::unlink(&path)?;
    let reader = reader?;
    // In a directory that others may write to the name could have been given to another file.
    let (written, read) = (rustix::fs::fstat(&writer)?, rustix::fs::fstat(&reader)?);
    if (written.st_dev, written.st_ino) != (read.st_dev, read.st_ino) {
        return Err(io::Error::other("the temporary file was exchanged"));
    }
    writer.write_all(content)?;
    rustix::fs::fchmod(&writer, IMAGE_MODE)?;
    Ok(reader)
}

/// Runs the helper's `true` role out of `image`.
fn self_test(image: &OwnedFd) -> Result<(), String> {
    let arguments = [c"agent-helper: test", c"true"];
    let mut attempt = 0;
    let launched = loop {
        match launch(&Launch::new(image.as_fd(), &arguments)) {
            Err(error)
                if error.raw_os_error() == Some(libc::ETXTBSY) && attempt < TEXT_BUSY_RETRIES =>
            {
                attempt += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            other => break other.map_err(|error| format!("exec failed: {error}"))?,
        }
    };
    let status = wait_within(&launched, Duration::from_millis(HELPER_SELF_TEST_MS))?;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("the test run ended with status {code}")),
        (None, Some(signal)) => Err(format!("the test run was killed by signal {signal}")),
        (None, None) => Err("the test run ended in no known way".to_owned()),
    }
}

/// Reaps `launched`; kills it when the time is up.
fn wait_within(launched: &Launched, limit: Duration) -> Result<WaitStatus, String> {
    let deadline = Instant::now() + limit;
    loop {
        match rustix::process::waitpid(Some(launched.pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => return Ok(status),
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(format!("waiting for the test run failed: {error}")),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let _ = rustix::process::kill_process(launched.pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(launched.pid), WaitOptions::empty());
            return Err(format!(
                "the test run did not end within {} ms",
                limit.as_millis()
            ));
        }
        match &launched.pidfd {
            Some(pidfd) => {
                let timeout = Timespec::try_from(left).ok();
                let _ = poll(&mut [PollFd::new(pidfd, PollFlags::IN)], timeout.as_ref());
            }
            None => std::thread::sleep(Duration::from_micros(100)),
        }
    }
}

/// Plays the helper when this process was launched as one from the agent's own executable; `None`
/// for every other argv\[0\]. For `main`, before anything else.
pub fn run_as_helper(
    arguments: impl IntoIterator<Item = OsString>,
) -> Option<std::process::ExitCode> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if !arguments.first()?.as_bytes().starts_with(b"agent-helper") {
        return None;
    }
    let arguments: Vec<CString> = arguments
        .into_iter()
        .filter_map(|text| CString::new(text.into_vec()).ok())
        .collect();
    let status = agent_helper::run(&arguments, own_title());
    Some(u8::try_from(status).map_or(std::process::ExitCode::FAILURE, Into::into))
}

#[allow(unsafe_code)] // the one claim that only this caller can make
fn own_title() -> agent_helper::title::Title {
    // SAFETY: `run_as_helper` copied the arguments, and a helper never asks for them again.
    unsafe { agent_helper::title::Title::of_this_process() }
}

#[cfg(all(test, feature = "embed-helper"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn image(setting: HelperMode, directories: &[&str]) -> Result<HelperImage, Unavailable> {
        let directories = directories.iter().map(PathBuf::from).collect();
        prepare_in(setting, &OwnImage::open().unwrap(), directories)
    }

    #[test]
    #[cfg(feature = "embed-helper")]
    fn the_image_is_the_one_that_was_embedded() {
        let built = include_bytes!(concat!(env!("OUT_DIR"), "/helper.image"));
        assert!(inflate().unwrap() == built);
    }

    #[test]
    fn the_memfd_is_sealed_and_nothing_can_write_to_it() {
        let image = image(HelperMode::Memfd, &[]).unwrap();
        assert_eq!(image.mode(), Mode::SealedMemfd);
        assert!(image.refusals().is_empty(), "{:?}", image.refusals());
        let seals = rustix::fs::fcntl_get_seals(&image.current.image).unwrap();
        assert!(seals.contains(
            SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL | SEAL_EXEC
        ));
        assert_eq!(
            rustix::io::write(&image.current.image, b"x"),
            Err(Errno::PERM)
        );
        assert_eq!(
            rustix::fs::ftruncate(&image.current.image, 0),
            Err(Errno::PERM)
        );
    }

    #[test]
    fn a_file_has_no_name_and_its_descriptor_does_not_write() {
        for (ladder, mode) in [
            (vec![Mode::UnnamedFile], Mode::UnnamedFile),
            (vec![Mode::UnlinkedFile], Mode::UnlinkedFile),
        ] {
            let own = OwnImage::open().unwrap().descriptor;
            let mut refusals = Vec::new();
            let directories = [PathBuf::from("/dev/shm"), PathBuf::from("/tmp")];
            let found =
                next_candidate(&mut ladder.clone(), &own, &directories, &mut refusals).unwrap();
            assert_eq!((found.mode, refusals), (mode, vec![]));
            assert_eq!(rustix::fs::fstat(&found.image).unwrap().st_nlink, 0);
            assert_eq!(rustix::io::write(&found.image, b"x"), Err(Errno::BADF));
        }
    }

    #[test]
    fn every_refusal_keeps_its_reason() {
        let refused = image(HelperMode::File, &["/proc", "/nonexistent"]).unwrap_err();
        let modes: Vec<Mode> = refused
            .refusals
            .iter()
            .map(|refusal| refusal.mode)
            .collect();
        assert_eq!(modes, [Mode::UnnamedFile, Mode::UnlinkedFile]);
        let text = refused.to_string();
        assert!(text.contains("/nonexistent: No such file"), "{text}");
    }

    #[test]
    fn an_image_that_does_not_run_is_refused_with_its_status() {
        let image = OwnedFd::from(File::open("/bin/false").unwrap());
        assert_eq!(
            self_test(&image),
            Err("the test run ended with status 1".to_owned())
        );
    }

    #[test]
    fn a_test_run_that_hangs_is_killed_in_time() {
        let image = File::open("/bin/sleep").unwrap();
        let launched = launch(&Launch::new(image.as_fd(), &[c"sleep", c"60"])).unwrap();
        let started = Instant::now();
        let error = wait_within(&launched, Duration::from_millis(30)).unwrap_err();
        assert_eq!(error, "the test run did not end within 30 ms");
        assert!(started.elapsed() < Duration::from_secs(5));
        assert!(
            rustix::process::test_kill_process(launched.pid).is_err(),
            "still there"
        );
    }

    #[test]
    fn a_file_without_this_build_id_is_not_the_agent() {
        assert!(!holds_build_id(&File::open("/bin/sh").unwrap().into()).unwrap());
        assert!(holds_build_id(&OwnImage::open().unwrap().descriptor).unwrap());
    }

    #[test]
    fn only_a_helper_title_makes_a_helper() {
        assert!(run_as_helper(["agent", "serve"].map(OsString::from)).is_none());
        assert!(run_as_helper([]).is_none());
    }
}
