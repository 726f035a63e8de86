//! The real helper, executed each way it can be, against a monitor and a `net` played by the test.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap
)]

mod forward;
mod harness;
mod hostile;
mod identity;
mod keys;
mod modes;
mod scarce;
mod session;
mod terminal;
