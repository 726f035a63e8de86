//! The memory functions that compiled code calls and a C library would bring.
//!
//! Volatile accesses keep the compiler from turning a loop into a call of the function it is in.
#![allow(unsafe_code)] // C interfaces

#[cfg(target_arch = "x86_64")]
mod forward {
    use core::arch::asm;

    /// # Safety
    ///
    /// As C's `memcpy`; `to` may also lie below an overlapping `from`.
    pub unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
        // SAFETY: the caller's ranges; the direction flag is clear by the ABI.
        unsafe {
            asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") len => _,
                options(nostack, preserves_flags));
        }
    }

    /// # Safety
    ///
    /// As C's `memset`.
    pub unsafe fn fill(to: *mut u8, byte: u8, len: usize) {
        // SAFETY: the caller's range; the direction flag is clear by the ABI.
        unsafe {
            asm!("rep stosb", inout("rdi") to => _, in("al") byte, inout("rcx") len => _,
                options(nostack, preserves_flags));
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod forward {
    const WORD: usize = size_of::<usize>();

    /// # Safety
    ///
    /// As C's `memcpy`; `to` may also lie below an overlapping `from`.
    pub unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
        let mut index = 0;
        // SAFETY: the caller's ranges; words only where both sides are aligned.
        unsafe {
            if (to as usize | from as usize) % WORD == 0 {
                while index + WORD <= len {
                    let word = from.add(index).cast::<usize>().read_volatile();
                    to.add(index).cast::<usize>().write_volatile(word);
                    index += WORD;
                }
            }
            while index < len {
                to.add(index)
                    .write_volatile(from.add(index).read_volatile());
                index += 1;
            }
        }
    }

    /// # Safety
    ///
    /// As C's `memset`.
    pub unsafe fn fill(to: *mut u8, byte: u8, len: usize) {
        for index in 0..len {
            // SAFETY: the caller's range.
            unsafe { to.add(index).write_volatile(byte) };
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: C's contract.
    unsafe { forward::copy(to, from, len) };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: C's contract; backwards where a forward copy would overwrite what is still to come.
    unsafe {
        if (to as usize).wrapping_sub(from as usize) >= len {
            forward::copy(to, from, len);
        } else {
            let mut index = len;
            while index > 0 {
                index -= 1;
                to.add(index)
                    .write_volatile(from.add(index).read_volatile());
            }
        }
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: C's contract; memset takes the low byte.
    unsafe { forward::fill(to, byte.to_le_bytes()[0], len) };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for index in 0..len {
        // SAFETY: C's contract.
        let (x, y) = unsafe { (a.add(index).read_volatile(), b.add(index).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: C's contract.
    unsafe { memcmp(a, b, len) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut len = 0;
    // SAFETY: C's contract: there is a NUL.
    while unsafe { text.add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}
