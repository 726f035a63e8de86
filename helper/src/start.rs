//! From the kernel's first instruction to `run`: relocation, arguments, panic handler, the memory
//! functions that compiled code calls.
//!
//! Nothing here may use relocated data (statics with pointers, tables of functions) before
//! [`relocate`] has run. Sources: the ELF specification, the ABI supplements' initial stack.
#![allow(unsafe_code)] // the bare start of a process

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char};

use agent_helper::heap::Heap;
use agent_helper::relocation::{RELR, RELR_BYTES, apply_packed};
use agent_helper::sys;
use agent_helper::title::Title;

agent_helper::start_stub!(entry);

#[global_allocator]
static HEAP: Heap = Heap::new();

/// `stack`: argc, then argv; `image`: where the file's first byte is mapped.
unsafe extern "C" fn entry(stack: *const usize, image: usize, dynamic: *const [usize; 2]) -> ! {
    // SAFETY: the stub passes what the kernel and the linker made; this is the first code to run.
    unsafe { relocate(image, dynamic) };
    // SAFETY: the initial stack holds argc, argc pointers to NUL-ended strings and a NULL, all of
    // them valid as long as the process lives. Only `Title` writes there, and it is made last.
    let (arguments, title) = unsafe {
        let argv = stack.add(1).cast::<*mut c_char>();
        let mut arguments: Vec<CString> = Vec::new();
        let mut end = *argv;
        for index in 0..*stack {
            let argument = CStr::from_ptr(*argv.add(index));
            end = (*argv.add(index)).add(argument.count_bytes() + 1);
            arguments.push(argument.into());
        }
        // The kernel lays them out one behind the other.
        let len = end.addr().saturating_sub((*argv).addr());
        (arguments, Title::of_area((*argv).cast(), len))
    };
    sys::exit(agent_helper::run(&arguments, title))
}

/// Adds the load address to every pointer that the linker left relative.
///
/// # Safety
///
/// Called once, before anything that uses such a pointer.
#[inline(always)]
unsafe fn relocate(image: usize, mut dynamic: *const [usize; 2]) {
    const RELA: usize = 7;
    const RELA_BYTES: usize = 8;
    const REL: usize = 17;
    const REL_BYTES: usize = 18;
    let (mut rela, mut rela_bytes, mut rel, mut rel_bytes) = (0, 0, 0, 0);
    let (mut relr, mut relr_bytes) = (0, 0);
    // SAFETY: the dynamic section is a list of pairs that ends with tag 0; the tables it names lie
    // in our image, and their entries are words of it that the linker wants changed.
    unsafe {
        loop {
            let [tag, value] = *dynamic;
            match tag {
                0 => break,
                RELA => rela = value,
                RELA_BYTES => rela_bytes = value,
                REL => rel = value,
                REL_BYTES => rel_bytes = value,
                RELR => relr = value,
                RELR_BYTES => relr_bytes = value,
                _ => {}
            }
            dynamic = dynamic.add(1);
        }
        let mut at = (image + rela) as *const [usize; 3];
        let end = (image + rela + rela_bytes) as *const [usize; 3];
        while at < end {
            let [offset, kind, addend] = *at;
            if kind == sys::RELOCATION_RELATIVE {
                *((image + offset) as *mut usize) = image + addend;
            }
            at = at.add(1);
        }
        let mut at = (image + rel) as *const [usize; 2];
        let end = (image + rel + rel_bytes) as *const [usize; 2];
        while at < end {
            let [offset, kind] = *at;
            if kind == sys::RELOCATION_RELATIVE {
                let word = (image + offset) as *mut usize;
                *word += image;
            }
            at = at.add(1);
        }
        apply_packed(image, relr, relr_bytes);
    }
}

/// A bug of ours: the helper ends, and with it one connection.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::exit(101)
}

/// Named by unwind tables of `alloc`; never called, since panics end the process.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    sys::exit(102)
}

/// As [`rust_eh_personality`], for the tables of 32-bit arm.
#[cfg(target_arch = "arm")]
#[unsafe(no_mangle)]
extern "C" fn __aeabi_unwind_cpp_pr0() {}

/// As [`rust_eh_personality`], for the tables of 32-bit arm.
#[cfg(target_arch = "arm")]
#[unsafe(no_mangle)]
extern "C" fn __aeabi_unwind_cpp_pr1() {}
