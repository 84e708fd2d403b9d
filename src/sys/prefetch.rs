//! Reading ahead from memory.

/// Brings the cache line where `value` begins into the processor's caches, without waiting for it.
///
/// A load does not do: the processor runs on past one that waits, but only for a few hundred
/// instructions. Nothing happens where no instruction for it is known.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "the intrinsic takes a pointer")]
        // SAFETY: the pointer is that of a reference; a prefetch changes nothing that can be seen, and
        // does not fault (Intel SDM, volume 2, PREFETCHh).
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast());
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        #[expect(unsafe_code, reason = "the intrinsic is not stable")]
        // SAFETY: as above (Arm ARM, PRFM); it touches neither memory, stack nor flags.
        unsafe {
            std::arch::asm!(
                "prfm pldl1keep, [{}]",
                in(reg) std::ptr::from_ref(value),
                options(nostack, preserves_flags, readonly)
            );
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = value;
}
