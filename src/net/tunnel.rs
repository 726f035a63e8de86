//! One tunnel device and one channel: each packet is one message of data (OpenSSH PROTOCOL 2.3).
//!
//! Packets may be lost on any network, so none waits here: what the device does not take at once,
//! and what does not fit into the client's window, is dropped.

use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use crate::limits::{PACKETS_PER_TURN, TUNNEL_PACKET_BYTES};
use crate::ssh::{ChannelId, Core, Stream};

/// In front of a packet of layer 3: its address family, whatever the systems on both ends call it.
const FAMILY_BYTES: usize = 4;
const FAMILY_V4: [u8; FAMILY_BYTES] = 2_u32.to_be_bytes();
const FAMILY_V6: [u8; FAMILY_BYTES] = 24_u32.to_be_bytes();

/// A device on its channel.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// Gone when the channel ends.
    device: Option<OwnedFd>,
    /// Packets of layer 3; otherwise frames of Ethernet.
    point_to_point: bool,
    ready: bool,
    close_sent: bool,
    close_received: bool,
}

impl Tunnel {
    pub(super) fn new(device: OwnedFd, point_to_point: bool) -> Self {
        Self {
            device: Some(device),
            point_to_point,
            ready: false,
            close_sent: false,
            close_received: false,
        }
    }

    /// As ChannelTimeout names it.
    pub(super) const KIND: &'static [u8] = b"tun-connection";

    /// A packet of the client: all of it is done with.
    pub(super) fn client_data(&self, data: &[u8]) -> usize {
        let skip = if self.point_to_point { FAMILY_BYTES } else { 0 };
        if let (Some(device), Some(packet)) = (&self.device, data.get(skip..)) {
            // What the kernel finds no sense in is as lost as what it has no room for.
            let _ = rustix::io::retry_on_intr(|| rustix::io::write(device, packet));
        }
        data.len()
    }

    /// SSH_MSG_CHANNEL_EOF and SSH_MSG_CHANNEL_CLOSE: there is no half of a tunnel.
    pub(super) fn client_ends(&mut self, closes: bool) {
        self.device = None;
        self.close_received |= closes;
    }

    /// The poll set said that there is something to read, or the end.
    pub(super) fn set_ready(&mut self) {
        self.ready = true;
    }

    /// Reads packets as far as there is room, and ends what is over.
    pub(super) fn pump(&mut self, core: &mut Core, channel: ChannelId) {
        if self.ready
            && let Some(device) = &self.device
        {
            let (still_ready, ended) = read_packets(device, self.point_to_point, core, channel);
            self.ready = still_ready;
            if ended {
                self.device = None;
            }
        }
        if self.device.is_none() && !self.close_sent {
            self.close_sent = true;
            core.send_close(channel);
        }
    }

    /// Ends it.
    pub(super) fn abandon(&mut self, core: &mut Core, channel: ChannelId) {
        self.device = None;
        self.pump(core, channel);
    }

    /// The channel is closed on both sides.
    pub(super) fn is_gone(&self) -> bool {
        self.close_sent && self.close_received
    }

    /// The device to wait for, where the client takes more.
    pub(super) fn poll(&self, room: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let device = self.device.as_ref().filter(|_| room)?;
        Some((device.as_fd(), PollFlags::IN))
    }
}

/// Whether more may be there, and whether the device is gone.
fn read_packets(
    device: &OwnedFd,
    point_to_point: bool,
    core: &mut Core,
    channel: ChannelId,
) -> (bool, bool) {
    let mut buffer = vec![0; TUNNEL_PACKET_BYTES];
    for _ in 0..PACKETS_PER_TURN {
        if core.send_room(channel) == 0 {
            return (true, false);
        }
        match rustix::io::retry_on_intr(|| rustix::io::read(device, &mut buffer[..])) {
            Ok(0) => return (false, true),
            Ok(len) => {
                let packet = buffer.get(..len).unwrap_or_default();
                send(core, channel, family(point_to_point, packet), packet);
            }
            Err(Errno::AGAIN) => return (false, false),
            // EBADFD: the interface was deleted.
            Err(_) => return (false, true),
        }
    }
    (true, false)
}

/// What goes in front of a packet.
fn family(point_to_point: bool, packet: &[u8]) -> &'static [u8] {
    const VERSION_6: u8 = 6;
    if !point_to_point {
        return &[];
    }
    match packet.first() {
        Some(first) if first >> 4 == VERSION_6 => &FAMILY_V6,
        _ => &FAMILY_V4,
    }
}

fn send(core: &mut Core, channel: ChannelId, family: &[u8], packet: &[u8]) {
    let len = family.len() + packet.len();
    if core.send_room(channel) < len {
        return;
    }
    if let Some(slot) = core.send_slot(channel, Stream::Data)
        && let Some(message) = slot.get_mut(..len)
    {
        let (head, body) = message.split_at_mut(family.len());
        head.copy_from_slice(family);
        body.copy_from_slice(packet);
        core.send_commit(len);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_packet_says_its_family_in_numbers_that_are_the_same_everywhere() {
        assert_eq!(family(true, &[0x45, 0]), [0, 0, 0, 2]);
        assert_eq!(family(true, &[0x60, 0]), [0, 0, 0, 24]);
        assert_eq!(family(true, &[]), [0, 0, 0, 2]);
        assert!(family(false, &[0x60, 0]).is_empty());
    }

    #[test]
    fn a_packet_of_the_client_goes_out_without_its_family() {
        let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let mut buffer = [0; 64];
        let mut tunnel = Tunnel::new(ours.into(), true);
        assert_eq!(tunnel.client_data(b"\0\0\0\x02packet"), 10);
        assert_eq!(theirs.recv(&mut buffer).unwrap(), 6);
        assert_eq!(&buffer[..6], b"packet");
        // Too short to be one.
        assert_eq!(tunnel.client_data(b"\0\0"), 2);
        assert!(theirs.recv(&mut buffer).is_err());
        tunnel.point_to_point = false;
        assert_eq!(tunnel.client_data(b"frame"), 5);
        assert_eq!(theirs.recv(&mut buffer).unwrap(), 5);
        tunnel.client_ends(true);
        assert_eq!(tunnel.client_data(b"late"), 4);
        assert!(tunnel.poll(true).is_none());
    }
}
