//! Tunnel devices (`ssh -w`), opened as the user: the kernel lets root make one, and others use one
//! that was made for them (`ip tuntap add mode tun user alice`), as sshd_config(5) PermitTunnel says.
//!
//! Which may be had is the policy's; what is in them passes between `net` and the device.
//!
//! Sources: OpenSSH PROTOCOL 2.3, the kernel's Documentation/networking/tuntap.rst.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::forward_frame::{TunnelMode, TunnelRules};
use crate::path::open;
use crate::sys::set_tunnel_interface;
use crate::text::{decimal, split};

/// The client leaves the number open (SSH_TUNID_ANY).
pub const ANY_UNIT: u32 = 0x7fff_ffff;
/// The highest number (SSH_TUNID_MAX).
pub const UNIT_MAX: u32 = ANY_UNIT - 2;
/// IFNAMSIZ, the NUL included.
const NAME_BYTES: usize = 16;
/// IFF_TUN, IFF_TAP.
const POINT_TO_POINT: u16 = 1;
const ETHERNET: u16 = 2;
/// IFF_NO_PI: packets come as they are.
const BARE: u16 = 0x1000;

/// The number of the device for a request of `mode` and `unit`, [`ANY_UNIT`] for the next free one;
/// `None`: it may not be had.
pub fn permitted(rules: &TunnelRules, mode: TunnelMode, unit: u32) -> Option<u32> {
    let mode_is = match mode {
        TunnelMode::PointToPoint => rules.point_to_point,
        TunnelMode::Ethernet => rules.ethernet,
    };
    let unit = match rules.unit {
        Some(forced) if unit == ANY_UNIT || unit == forced => forced,
        Some(_) => return None,
        None => unit,
    };
    (mode_is && (unit <= UNIT_MAX || unit == ANY_UNIT)).then_some(unit)
}

/// Opens the device; gives the name of its interface too.
pub fn open_device(mode: TunnelMode, unit: u32) -> Result<(OwnedFd, Vec<u8>), Errno> {
    let device = open(b"/dev/net/tun", OFlags::RDWR)?;
    let mut request = [0; NAME_BYTES + 24];
    let (kind, stem) = match mode {
        TunnelMode::PointToPoint => (POINT_TO_POINT, b"tun"),
        TunnelMode::Ethernet => (ETHERNET, b"tap"),
    };
    if unit != ANY_UNIT {
        let name = [stem.as_slice(), &decimal(unit)].concat();
        for (to, from) in request.iter_mut().zip(&name) {
            *to = *from;
        }
    }
    let flags = (kind | BARE).to_ne_bytes();
    if let Some(place) = request.get_mut(NAME_BYTES..NAME_BYTES + flags.len()) {
        place.copy_from_slice(&flags);
    }
    set_tunnel_interface(&device, &mut request)?;
    // The kernel ends it with a NUL.
    let name = split(&request, 0).next();
    Ok((device, name.unwrap_or_default().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_numbers_are_each_a_right() {
        let rules = TunnelRules {
            point_to_point: true,
            ..TunnelRules::default()
        };
        let may = |rules: &TunnelRules, unit| permitted(rules, TunnelMode::PointToPoint, unit);
        assert_eq!(may(&rules, 3), Some(3));
        assert_eq!(may(&rules, ANY_UNIT), Some(ANY_UNIT));
        assert_eq!(may(&rules, UNIT_MAX), Some(UNIT_MAX));
        assert_eq!(may(&rules, UNIT_MAX + 1), None);
        assert_eq!(may(&rules, u32::MAX), None);
        assert_eq!(permitted(&rules, TunnelMode::Ethernet, 3), None);
        let forced = TunnelRules {
            unit: Some(7),
            ..rules
        };
        assert_eq!(may(&forced, 7), Some(7));
        assert_eq!(may(&forced, ANY_UNIT), Some(7));
        assert_eq!(may(&forced, 8), None);
        // tunnel="any" takes the choice away, as with sshd.
        let any = TunnelRules {
            unit: Some(ANY_UNIT),
            ..forced
        };
        assert_eq!(may(&any, ANY_UNIT), Some(ANY_UNIT));
        assert_eq!(may(&any, 0), None);
        assert_eq!(may(&TunnelRules::default(), ANY_UNIT), None);
    }
}
