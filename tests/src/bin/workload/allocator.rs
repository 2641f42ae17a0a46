//! An allocator that counts.
#![expect(unsafe_code, reason = "an allocator is unsafe to implement; this one passes every call on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// The system's allocator, with counts of all threads.
pub(crate) struct CountingAllocator {
    allocations: AtomicU64,
    bytes: AtomicU64,
}

/// Memory that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allocated {
    /// Number of requests for memory, also for more of it.
    pub(crate) allocations: u64,
    /// Bytes that were asked for.
    pub(crate) bytes: u64,
}

impl CountingAllocator {
    pub(crate) const fn new() -> Self {
        Self { allocations: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Returns the counts since the start of the process.
    pub(crate) fn allocated(&self) -> Allocated {
        Allocated { allocations: self.allocations.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    fn count(&self, bytes: usize) {
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.count(size);
        unsafe { System.realloc(memory, layout, size) }
    }
}
