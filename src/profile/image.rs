//! Where the program is in this process's memory, and its build id: what addresses mean.
//!
//! Asked of the program headers that are mapped along with it, so no file is needed.
#![allow(unsafe_code)] // the walk over our own program headers

use std::ffi::{c_int, c_void};

/// A mapping of the program that holds code.
#[derive(Debug, Default, Clone)]
pub(super) struct Image {
    pub start: u64,
    pub end: u64,
    pub file_offset: u64,
    /// In hexadecimal; empty where the linker made none.
    pub build_id: String,
}

pub(super) fn own() -> Image {
    let mut image = Image::default();
    // SAFETY: `note` is given the image that it expects, for as long as the call.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut image).cast()) };
    image
}

/// Notes the first object, which is the program itself, and ends the walk.
unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
    // SAFETY: `own` passes its image, which nobody else refers to meanwhile.
    let image = unsafe { &mut *data.cast::<Image>() };
    // SAFETY: the loader hands out a valid description whose headers live as long as the program.
    let (base, headers) = unsafe {
        let info = &*info;
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum));
        (info.dlpi_addr, headers)
    };
    #[allow(clippy::useless_conversion, reason = "32 bits on armv7")]
    for header in headers {
        let start = u64::from(base) + u64::from(header.p_vaddr);
        match header.p_type {
            libc::PT_LOAD if header.p_flags & libc::PF_X != 0 => {
                image.start = start;
                image.end = start + u64::from(header.p_memsz);
                image.file_offset = u64::from(header.p_offset);
            }
            libc::PT_NOTE => {
                let len = usize::try_from(header.p_memsz).unwrap_or(0);
                let address = usize::try_from(start).unwrap_or(0);
                // SAFETY: note segments lie in a loaded, readable segment of the program, for as
                // long as it runs.
                let notes = unsafe {
                    std::slice::from_raw_parts(std::ptr::with_exposed_provenance(address), len)
                };
                if let Some(id) = build_id(notes) {
                    image.build_id = id.iter().map(|byte| format!("{byte:02x}")).collect();
                }
            }
            _ => {}
        }
    }
    1
}

/// The GNU build id among notes (elf(5): name, description and type, each padded to four bytes).
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: usize = 3;
    loop {
        let word = |at: usize| {
            let bytes = notes.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_ne_bytes(bytes)).ok()
        };
        let (name_len, len, kind) = (word(0)?, word(4)?, word(8)?);
        let at = 12 + name_len.next_multiple_of(4);
        let description = notes.get(at..at.checked_add(len)?)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16) == Some(b"GNU\0") {
            return Some(description);
        }
        notes = notes.get(at + len.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_code_is_in_our_image() {
        let image = own();
        let here = our_own_code_is_in_our_image as *const () as u64;
        assert!(
            (image.start..image.end).contains(&here),
            "{image:?} {here:x}"
        );
    }

    #[test]
    fn a_build_id_is_found_behind_other_notes() {
        let note = |kind: u32, description: &[u8]| {
            let len = u32::try_from(description.len()).unwrap_or(0);
            [
                &4_u32.to_ne_bytes()[..],
                &len.to_ne_bytes(),
                &kind.to_ne_bytes(),
                b"GNU\0",
                description,
            ]
            .concat()
        };
        let notes = [note(1, &[0; 16]), note(3, b"abcd")].concat();
        assert_eq!(build_id(&notes), Some(b"abcd".as_slice()));
        assert_eq!(build_id(&notes[..20]), None);
    }
}
