//! What a service manager is told (sd_notify(3)) and hands over (sd_listen_fds(3)).
//!
//! Own code instead of a library: a datagram and two environment variables.

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The way to the service manager; none where the server was started by hand.
#[derive(Debug, Default)]
pub struct Notifier {
    address: Option<SocketAddr>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`. Children are executed with environments of their own, so the variable
    /// reaches none of them.
    pub fn from_environment() -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET").and_then(|name| parse(name.as_bytes()));
        Self { address }
    }

    /// Whether there is a service manager.
    pub fn is_active(&self) -> bool {
        self.address.is_some()
    }

    /// Connections are accepted.
    pub fn ready(&self) {
        self.send(&format!("READY=1\nMAINPID={}\n", std::process::id()));
    }

    /// The configuration is being read again; [`Notifier::ready`] follows.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\n"));
    }

    /// No connections are accepted any more.
    pub fn stopping(&self) {
        self.send("STOPPING=1\n");
    }

    fn send(&self, text: &str) {
        let Some(address) = &self.address else { return };
        // A service manager that does not listen is no reason not to serve.
        let sent = UnixDatagram::unbound()
            .and_then(|socket| socket.send_to_addr(text.as_bytes(), address).map(drop));
        if let Err(error) = sent {
            log::debug!("the service manager did not take a notice: {error}");
        }
    }
}

fn parse(name: &[u8]) -> Option<SocketAddr> {
    match name {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest).ok(),
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)).ok(),
        _ => None,
    }
}

/// The first descriptor that a service manager hands over (SD_LISTEN_FDS_START).
const FIRST_DESCRIPTOR: i32 = 3;
/// More sockets than any unit file lists.
const DESCRIPTORS_MAX: i32 = 128;

/// How many descriptors `LISTEN_FDS` announces, where `LISTEN_PID` says that they are for `pid`.
fn announced(listen_pid: Option<&str>, listen_fds: Option<&str>, pid: u32) -> i32 {
    if listen_pid.and_then(|text| text.parse().ok()) != Some(pid) {
        return 0;
    }
    let count = listen_fds.and_then(|text| text.parse().ok()).unwrap_or(0);
    if (0..=DESCRIPTORS_MAX).contains(&count) {
        count
    } else {
        0
    }
}

/// Takes the sockets that a service manager opened, close-on-exec. To be called once, before
/// anything else owns descriptors.
#[allow(unsafe_code)] // Reason: taking ownership of inherited descriptors is unsafe by nature.
pub fn take_listen_descriptors() -> Vec<OwnedFd> {
    let variable = |name| std::env::var(name).ok();
    let count = announced(
        variable("LISTEN_PID").as_deref(),
        variable("LISTEN_FDS").as_deref(),
        std::process::id(),
    );
    (FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + count)
        .filter_map(|number| {
            // SAFETY: asked before anything of ours was opened; the protocol says that these
            // descriptors are ours alone. `fcntl` below fails cleanly where one is not open.
            let descriptor = unsafe { rustix::fd::BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC).ok()?;
            // SAFETY: open, as `fcntl` just said, and owned by nobody else.
            Some(unsafe { OwnedFd::from_raw_fd(number) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn descriptors_are_taken_only_when_they_are_ours() {
        assert_eq!(announced(Some("42"), Some("2"), 42), 2);
        assert_eq!(announced(Some("41"), Some("2"), 42), 0);
        assert_eq!(announced(None, Some("2"), 42), 0);
        assert_eq!(announced(Some("42"), None, 42), 0);
        assert_eq!(announced(Some("42"), Some("-1"), 42), 0);
        assert_eq!(announced(Some("42"), Some("100000"), 42), 0);
    }

    #[test]
    fn paths_and_abstract_names_are_addresses() {
        assert!(
            parse(b"/run/systemd/notify")
                .unwrap()
                .as_pathname()
                .is_some()
        );
        assert_eq!(
            parse(b"@name").unwrap().as_abstract_name(),
            Some(&b"name"[..])
        );
        assert!(parse(b"relative").is_none());
        assert!(parse(b"").is_none());
    }

    #[test]
    fn notices_arrive_as_datagrams() {
        let name = format!("agent-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let receiver = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier {
            address: Some(address),
        };
        let mut buffer = [0; 128];
        notifier.ready();
        let len = receiver.recv(&mut buffer).unwrap();
        assert!(buffer[..len].starts_with(b"READY=1\nMAINPID="));
        notifier.reloading();
        let len = receiver.recv(&mut buffer).unwrap();
        assert!(buffer[..len].starts_with(b"RELOADING=1\nMONOTONIC_USEC="));
        notifier.stopping();
        let len = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"STOPPING=1\n");
    }
}
