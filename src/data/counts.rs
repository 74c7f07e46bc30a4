//! What loaders have made so far, for whoever asks meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

/// Images that were made, and those that could not be. Cheap to count in and to ask.
#[derive(Debug, Default)]
pub struct Counts {
    made: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    /// Counts an image.
    pub fn count(&self, made: bool) {
        let counter = if made { &self.made } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Images that were made.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Images that could not be made.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}
