//! Sizes of memory (sysconf(3)).
#![expect(unsafe_code, reason = "system calls live here")]

/// The size of a page, bytes.
pub fn page_size() -> usize {
    // SAFETY: no pointer is involved.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // It does not fail on Linux; 4 KiB is the smallest page there is.
    usize::try_from(bytes).unwrap_or(4096)
}
