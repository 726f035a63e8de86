//! The SSH protocol core: bytes in, events and bytes out.
//!
//! No file descriptor, clock, thread, random source or system call in here (rule 1 of the design);
//! randomness comes in as [`crypto::Random`], made by the driver. Sources: RFC 4250 to 4254, 4344,
//! 5647, 5656, 8268, 8308, 8332, 8709, 8731 and OpenSSH's PROTOCOL; deviations in docs/protocol.md.

#![forbid(unsafe_code)]

pub mod auth;
mod buffer;
mod channel;
mod compression;
mod connection;
pub mod core;
pub mod crypto;
pub mod error;
mod event;
mod exchange;
mod freeze;
pub mod ident;
mod incoming;
pub mod message;
pub mod negotiate;
mod outgoing;
mod packet;
pub mod permit;
mod send_window;
pub mod setup;
pub mod wire;

pub use self::core::Core;
pub use self::event::{ChannelId, Event, Stream};
pub use error::ProtocolError;
pub use freeze::Frozen;
pub use setup::Setup;
