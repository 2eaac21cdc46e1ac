//! An allocator that counts what is asked of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts, and lets the system's allocator do the work.
pub(crate) struct Counter;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// What a small piece costs beside what was asked for, in glibc: eight bytes, and a multiple of sixteen.
fn real(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        LIVE.fetch_add(real(layout.size()), Ordering::Relaxed);
        // SAFETY: as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(real(layout.size()), Ordering::Relaxed);
        // SAFETY: as it came.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(size.saturating_sub(layout.size()), Ordering::Relaxed);
        LIVE.fetch_add(real(size), Ordering::Relaxed);
        LIVE.fetch_sub(real(layout.size()), Ordering::Relaxed);
        // SAFETY: as it came.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Calls of the allocator and bytes that they asked for.
pub(crate) fn during<T>(work: impl FnOnce() -> T) -> (T, [usize; 2]) {
    let before = [&CALLS, &BYTES].map(|counter| counter.load(Ordering::Relaxed));
    let result = work();
    let after = [&CALLS, &BYTES].map(|counter| counter.load(Ordering::Relaxed));
    (result, [after[0] - before[0], after[1] - before[1]])
}

/// Bytes that are in use now, with what the allocator adds.
pub(crate) fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}
