//! The helper as a program of its own: everything is in the library, the bare start beside it.

#![no_std]
#![no_main]

extern crate alloc;

mod memory;
mod start;
