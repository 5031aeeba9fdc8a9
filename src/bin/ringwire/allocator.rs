//! The program's allocator, and how it is told to give memory back.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Refuses huge pages where the system gives them to everybody, as Debian's kernels do. Otherwise every 2 MiB of the heap in
/// which anything is in use is resident whole: of a server without connections three quarters were nothing else.
pub(crate) fn refuse_huge_pages() {
    // Linux 3.15. Without it there is more memory in use, and nothing else is wrong.
    let _ = nix::sys::prctl::set_thp_disable(true);
}

/// Gives the pages of this thread that hold nothing back to the system: mimalloc keeps some of each size at hand, of large
/// buffers megabytes.
#[allow(unsafe_code)]
pub(crate) fn release() {
    // SAFETY: `mi_collect` may be called at any time from any thread that is not inside the allocator (mimalloc.h), and no
    // code of this program runs inside it. It frees only what nothing refers to.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
