//! What loaders have made so far, for whoever asks meanwhile.

use std::collections::BTreeSet;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most images that are named.
const MOST_NAMED: usize = 100;

/// Images that were made, and those that could not be. Cheap to count in and to ask.
#[derive(Debug, Default)]
pub struct Counts {
    made: AtomicU64,
    failed: AtomicU64,
    problems: Mutex<Problems>,
}

#[derive(Debug, Default)]
struct Problems {
    /// Each sentence that has been noted.
    known: BTreeSet<String>,
    /// Those that nobody has asked for.
    news: Vec<String>,
}

impl Counts {
    /// Counts an image that was made.
    pub fn made_one(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an image that could not be made, and notes why if that is new.
    pub fn failed_one(&self, problem: &str) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        let Problems { known, news } = &mut *self.problems();
        if known.len() < MOST_NAMED && known.insert(problem.to_owned()) {
            news.push(problem.to_owned());
            if known.len() == MOST_NAMED {
                news.push("further images that cannot be read are counted, and not named".to_owned());
            }
        }
    }

    /// What has been noted since this was last asked.
    pub fn news(&self) -> Vec<String> {
        mem::take(&mut self.problems().news)
    }

    /// Images that were made.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Images that could not be made, each counted whenever it was to be.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    fn problems(&self) -> MutexGuard<'_, Problems> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
