//! What the allocator of a program keeps of what the program freed.
//!
//! glibc gives threads heaps of their own, up to eight for each processor, and keeps in each what is freed there: of a
//! program with a hundred threads that come and go it keeps many times what is in use. It also learns from each large
//! piece that is freed to take the next one from a heap, where it tears holes, and not from the kernel, to whom it would
//! go back.

/// Two heaps: the first, and one for whoever finds it locked. What takes memory here waits for the kernel a hundred
/// times longer than for a lock.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;
/// Pieces of this size, glibc's own first choice, come from the kernel and go back there; said aloud, it stays so. The
/// same for what is free at the end of a heap.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 128 << 10;

/// From now on little is kept of what is freed. For a program to call that is a server and nothing else, before it has
/// other threads: a heap that is there stays.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (what, value) in
        [(libc::M_ARENA_MAX, HEAPS), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, LARGE)]
    {
        // SAFETY: it takes two numbers, changes nothing that was handed out, and takes the allocator's own lock.
        let set = unsafe { libc::mallopt(what, value) };
        if set == 0 {
            tracing::warn!(what, value, "the allocator does not take this setting");
        }
    }
}

/// Gives back to the kernel what is kept.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes one number, touches only what is free, and takes the locks of the allocator's own heaps.
    unsafe {
        libc::malloc_trim(0);
    }
}
