//! sshd_config(5): reading it, what it means, and what of it a connection gets.

pub mod options;

pub use options::Options;
