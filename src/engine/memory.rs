//! How much memory the device of a rank holds, asked now and then: to answer may take longer than a short step.

use std::time::{Duration, Instant};

/// How long an answer is good for.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// What tells the bytes in use on a device; `None` where it does not know.
pub type Ask = fn() -> Option<u64>;

/// Asks for the bytes in use on one device.
pub struct Memory {
    /// `None`: nothing can tell the device's memory apart from that of others.
    ask: Option<Ask>,
    told: Option<(Instant, Option<u64>)>,
}

impl Memory {
    /// Asks this.
    pub fn new(ask: Option<Ask>) -> Self {
        Self { ask, told: None }
    }

    /// The bytes in use, as they were within the last second.
    pub fn in_use(&mut self) -> Option<u64> {
        let ask = self.ask?;
        match self.told {
            Some((when, told)) if when.elapsed() < GOOD_FOR => told,
            _ => {
                let told = ask();
                self.told = Some((Instant::now(), told));
                told
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn an_answer_is_good_for_a_while() {
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let mut memory = Memory::new(Some(|| Some(ASKED.fetch_add(1, Ordering::Relaxed))));
        assert_eq!(memory.in_use(), Some(0));
        memory.told = Some((Instant::now() + GOOD_FOR, Some(7)));
        assert_eq!(memory.in_use(), Some(7));
        memory.told = Instant::now().checked_sub(GOOD_FOR).map(|long_ago| (long_ago, Some(7)));
        assert_eq!(memory.in_use(), Some(1));
        assert_eq!(Memory::new(None).in_use(), None);
    }
}
