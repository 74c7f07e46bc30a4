//! What loaders have made so far, for whoever asks meanwhile.

use super::names::MOST_NAMED;
use std::collections::BTreeSet;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
        // One more than are named is remembered: that there are more.
        if known.len() <= MOST_NAMED && known.insert(problem.to_owned()) {
            news.push(if known.len() <= MOST_NAMED {
                format!("{problem}; the next image that can be read stands in for it")
            } else {
                "more images cannot be read; they are counted, and not named".to_owned()
            });
        }
    }

    /// What has been noted since this was last asked, in sentences.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_image_is_named_once_and_beyond_a_hundred_it_is_said_that_there_are_more() {
        let counts = Counts::default();
        for time in 0..2 {
            (0..MOST_NAMED).for_each(|image| counts.failed_one(&format!("{image:03}: is truncated")));
            let news = counts.news();
            assert_eq!(news.len(), if time == 0 { MOST_NAMED } else { 0 });
            assert!(
                news.iter()
                    .all(|said| said.ends_with(": is truncated; the next image that can be read stands in for it"))
            );
        }
        (0..2).for_each(|image| counts.failed_one(&format!("one more: {image}")));
        assert_eq!(counts.news(), ["more images cannot be read; they are counted, and not named"]);
        assert_eq!(counts.failed(), 2 * MOST_NAMED as u64 + 2);
    }
}
