//! A fault ends the process at once, without a word from the process itself.
//!
//! std would print "stack overflow" where a thread runs into its guard page, and gives every thread
//! an alternate stack for it: a mapping, a page and five system calls for each connection. Here that
//! word would go to /dev/null (`net`), and the monitor reports the signal that ended a process anyway.
//!
//! std leaves a disposition alone that is not the default when `main` is reached: so it is another
//! one until then.
#![allow(unsafe_code)] // a function that runs before std, and signal(2)

use libc::{SIG_DFL, SIG_IGN, SIGBUS, SIGSEGV};

/// Run by the C library before std looks at the dispositions.
#[used]
// SAFETY: the section holds pointers to functions that take nothing they would have to read; this
// one only makes two system calls, which need nothing of std.
#[unsafe(link_section = ".init_array")]
static BEFORE_STD: extern "C" fn() = {
    extern "C" fn not_the_default() {
        set(SIG_IGN);
    }
    not_the_default
};

/// Puts the defaults back, for `main` to call first. In between a fault ended the process too: the
/// kernel does not let one be ignored.
pub fn ends_the_process() {
    set(SIG_DFL);
}

fn set(disposition: libc::sighandler_t) {
    for signal in [SIGSEGV, SIGBUS] {
        // SAFETY: sets one of the two fixed dispositions; no handler is involved.
        unsafe { libc::signal(signal, disposition) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn threads_have_no_alternate_stack() {
        let flags = std::thread::spawn(|| {
            // SAFETY: an all-zero stack_t is a valid value to be overwritten.
            let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
            // SAFETY: only asks, into a place that lives through the call.
            let asked = unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) };
            assert_eq!(asked, 0);
            stack.ss_flags
        });
        assert_eq!(flags.join().unwrap(), libc::SS_DISABLE);
    }
}
