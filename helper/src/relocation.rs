//! Packed relocations, for the first instructions of a program: of the helper, and of the agent's static
//! file, whose C library may not know them.
//!
//! Nothing here uses relocated data. Source: the ELF specification on DT_RELR.
#![allow(unsafe_code)] // words of the running program, by their addresses

/// Tags of the dynamic section: bytes of the table, and its place in the image.
pub const RELR_BYTES: usize = 35;
pub const RELR: usize = 36;

const WORD_BYTES: usize = size_of::<usize>();

/// Adds `image`, where the file's first byte is mapped, to every word that the table names.
///
/// # Safety
///
/// Called once, before anything that uses such a word. The table is the image's own, as the linker made
/// it, and its words are writable.
#[inline(always)]
pub unsafe fn apply_packed(image: usize, table: usize, table_bytes: usize) {
    let mut at = (image + table) as *const usize;
    let end = (image + table + table_bytes) as *const usize;
    let mut next = image;
    while at < end {
        // SAFETY: entries lie in the table, and name words of the image that the linker wants changed.
        unsafe {
            let mut entry = *at;
            if entry & 1 == 0 {
                // The offset of a word.
                next = image + entry;
                *(next as *mut usize) += image;
                next += WORD_BYTES;
            } else {
                // A bit for each of the words behind the last one.
                let mut word = next;
                while entry > 1 {
                    entry >>= 1;
                    if entry & 1 == 1 {
                        *(word as *mut usize) += image;
                    }
                    word += WORD_BYTES;
                }
                next += (usize::BITS as usize - 1) * WORD_BYTES;
            }
            at = at.add(1);
        }
    }
}
