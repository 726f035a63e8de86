//! What is said about forwarding: between the user's `net`, the helper, and the resolver.
//!
//! Places stay as the client named them: the helper's policy is about the name that was asked for,
//! not about what it resolves to.

#![forbid(unsafe_code)]

use crate::frame::Identity;
use crate::wire::{Bytes, Vec};
use crate::{wire_enum, wire_struct};

/// A host and a port that a rule names; port 0 stands for any.
pub type HostPort = (Bytes, u16);

wire_struct! {
    /// What one login may forward. A rule that several sources make holds for each of them: the
    /// configuration and every key that was needed.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct Forwarding {
        /// Connections from here to elsewhere over TCP (`ssh -L`, `-D`, `-W`).
        pub tcp_local: bool,
        /// Listening here over TCP (`ssh -R`).
        pub tcp_remote: bool,
        /// Connections to sockets in the file system.
        pub unix_local: bool,
        /// Listening on sockets in the file system.
        pub unix_remote: bool,
        /// The client's agent may be used here.
        pub agent: bool,
        /// AgentSocketPath after token expansion.
        pub agent_link: Option<Bytes>,
        /// The client's display may be used here.
        pub x11: Option<X11Rules>,
        /// PermitOpen and permitopen=: each list must name the target.
        pub permit_open: Vec<Vec<HostPort>>,
        /// PermitListen and permitlisten=: each list must name the place; hosts are patterns.
        pub permit_listen: Vec<Vec<HostPort>>,
        /// GatewayPorts.
        pub gateway: Gateway,
        /// AddressFamily.
        pub family: Family,
        /// StreamLocalBindMask.
        pub bind_mask: u32,
        /// StreamLocalBindUnlink.
        pub bind_unlink: bool,
        /// Tunnel devices.
        pub tunnel: TunnelRules,
    }
}

wire_struct! {
    /// Which tunnel devices may be used; by default none.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct TunnelRules {
        /// Those of layer 3.
        pub point_to_point: bool,
        /// Those of layer 2.
        pub ethernet: bool,
        /// tunnel= of the key's line: this one only.
        pub unit: Option<u32>,
    }
}

wire_enum! {
    /// Layers of a tunnel, by OpenSSH's numbers.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum TunnelMode {
        /// Packets of IP.
        1 => PointToPoint,
        /// Frames.
        2 => Ethernet,
    }
}

wire_struct! {
    /// How displays are made here.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct X11Rules {
        /// X11DisplayOffset.
        pub offset: u32,
        /// X11UseLocalhost.
        pub localhost: bool,
        /// XAuthLocation.
        pub xauth: Bytes,
    }
}

wire_struct! {
    /// x11-req (RFC 4254 section 6.3).
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct X11Request {
        /// The session that asked.
        pub session: u32,
        /// Authentication protocol.
        pub protocol: Bytes,
        /// Cookie, in hexadecimal digits.
        pub cookie: Bytes,
        /// Screen number.
        pub screen: u32,
    }
}

wire_enum! {
    /// GatewayPorts: who may say where a forwarded port listens.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum Gateway {
        /// Loopback, whatever the client asks for.
        #[default]
        0 => No,
        /// All addresses, whatever the client asks for.
        1 => Yes,
        /// Where the client says.
        2 => ClientSpecified,
    }
}

wire_enum! {
    /// Kinds of addresses that may be used.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum Family {
        /// Both.
        #[default]
        0 => Any,
        /// IPv4 only.
        4 => V4,
        /// IPv6 only.
        6 => V6,
    }
}

wire_enum! {
    /// Where to connect to or to listen, as the client asked.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Place {
        /// A host (name or address) and a port.
        1 => Tcp { host: Bytes, port: u16, },
        /// A path.
        2 => Unix { path: Bytes, },
    }
}

wire_enum! {
    /// `net` to the helper. Numbers are `net`'s choice; each is answered once.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum ForwardRequest {
        /// Connect to `to`.
        1 => Connect { number: u32, to: Place, },
        /// Listen at `at`.
        2 => Listen { number: u32, at: Place, },
        /// `net` closed the listener: its socket in the file system goes too.
        3 => StopListening { number: u32, },
        /// Listen for users of the client's agent.
        4 => ListenAgent { number: u32, },
        /// Listen for clients of the session's display.
        5 => ListenX11 { number: u32, request: X11Request, },
        /// Open a tunnel device. Answered as [`ForwardRequest::Connect`], with the device.
        6 => OpenTunnel { number: u32, mode: TunnelMode, unit: u32, },
    }
}

wire_enum! {
    /// The helper to `net`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum ForwardAnswer {
        /// Descriptor: the connected stream socket, or the tunnel device.
        1 => Connected { number: u32, },
        /// There will be no connection.
        2 => NotConnected { number: u32, failure: Failure, },
        /// Descriptors: one to three listening sockets. The port is the one that was asked for, or
        /// the one that the kernel chose.
        3 => Listening { number: u32, port: u16, },
        /// There will be no listener.
        4 => NotListening { number: u32, },
    }
}

wire_enum! {
    /// Why there is no connection, for the client.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Failure {
        /// The policy forbids it.
        1 => Prohibited,
        /// The name has no address, or nobody could say.
        2 => Unresolved,
        /// The system's errno.
        3 => System { errno: i32, },
        /// Too many connections are being made already.
        4 => Busy,
    }
}

wire_struct! {
    /// The monitor's first frame to a resolver: who to be.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ResolverSetup {
        /// Whose rights to look names up with.
        pub identity: Identity,
        /// Become `identity` first (false without root).
        pub change_identity: bool,
    }
}

wire_struct! {
    /// The helper to the resolver: a name, please.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Lookup {
        /// The helper's number for it.
        pub number: u32,
        /// The name.
        pub name: Bytes,
        /// Which addresses are of use.
        pub family: Family,
    }
}

wire_struct! {
    /// The resolver to the helper; no address where the name has none.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Addresses {
        /// From [`Lookup`].
        pub number: u32,
        /// In the resolver's order of preference (RFC 6724).
        pub addresses: Vec<Address>,
    }
}

wire_enum! {
    /// An address with what it takes to connect to it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Address {
        /// IPv4.
        4 => V4 { octets: [u8; 4], },
        /// IPv6, with the zone of a link-local one.
        6 => V6 { octets: [u8; 16], zone: u32, },
    }
}
