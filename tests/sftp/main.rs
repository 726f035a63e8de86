//! The SFTP server by itself: against a real directory, and its parser against any bytes.

#![allow(clippy::unwrap_used)]

mod bodies;
mod client;
mod corpora;
mod faults;
mod hard_times;
mod twins;
mod ways;
