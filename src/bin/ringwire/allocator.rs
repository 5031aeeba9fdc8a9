//! The program's allocator, and how it is told to give memory back.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gives the pages of this thread that hold nothing back to the system: mimalloc keeps some of each size at hand, of large
/// buffers megabytes.
#[allow(unsafe_code)]
pub(crate) fn release() {
    // SAFETY: `mi_collect` may be called at any time from any thread that is not inside the allocator (mimalloc.h), and no
    // code of this program runs inside it. It frees only what nothing refers to.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
