//! An allocator that counts what each thread holds, so that a reader which takes memory out of proportion is found. What
//! libtorch takes by itself is not counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted.
pub struct Meter;

thread_local! {
    /// Bytes that this thread has taken and not given back; less than 0 where it gave back what others took.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most of them at a time.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The most that is given at once: whoever asks for more ends the process, before the machine's memory is gone.
const MOST: usize = 8 << 30;

fn count(bytes: isize) {
    // A thread that ends gives back after its counters have gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is handed on to the system's allocator as it is, or refused as an allocator may; counting neither
// allocates nor panics.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST {
            return std::ptr::null_mut();
        }
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST {
            return std::ptr::null_mut();
        }
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > MOST {
            return std::ptr::null_mut();
        }
        count(size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// What `run` gives, and the most bytes that this thread held for it at a time.
pub fn peak<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let value = run();
    (value, (PEAK.get() - before).max(0) as usize)
}
