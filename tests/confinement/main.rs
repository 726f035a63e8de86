//! What a `net` process can still do, seen from outside: /proc, and what its filter lets through.
//!
//! The tests play the monitor: they start the agent's own file in the role, on a link of their own.
//! As root they ask for ids as the monitor does; otherwise for what an ordinary user gets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod ending;
mod launched;
mod login;
mod proc;
mod serving;
