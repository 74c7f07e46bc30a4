//! What ends a run early: a signal, or the time being up. Ranks ask after each step and agree, so that all of them end
//! after the same one.

use crate::error::{Error, Result};
use crate::events::StopReason;
use libc::SIGXFSZ;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// The exit code of a process that a signal ended, as shells tell it.
pub fn exit_code(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(1)
}

/// A wish to end, shared by the ranks of a run. Cheap to ask.
#[derive(Clone, Debug, Default)]
pub struct Control {
    signal: Arc<AtomicUsize>,
    deadline: Option<Instant>,
}

impl Control {
    /// A control that ends the run at a time, if one is given.
    pub fn until(deadline: Option<Instant>) -> Self {
        Self { signal: Arc::default(), deadline }
    }

    /// Lets SIGINT and SIGTERM end the run after the step at hand. A second signal ends the process at once, as
    /// signals do that nobody handles. SIGUSR1, by which a cluster says that the time will soon be up, ends the run in the
    /// same way, but is no first signal: what follows it is not meant to be more urgent. SIGXFSZ, of a file that outgrows
    /// its limit, ends nothing: the write fails.
    ///
    /// # Errors
    /// The signals cannot be handled.
    pub fn catch_signals(&self) -> Result<()> {
        let cannot = |error| Error::failed(format!("signals cannot be handled: {error}"));
        let seen = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register_usize(SIGUSR1, Arc::clone(&self.signal), SIGUSR1 as usize).map_err(cannot)?;
        for signal in [SIGINT, SIGTERM] {
            let number = signal as usize;
            // The order matters: the first handler ends the process if a signal was seen before; the second and
            // third take note of this one.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&seen))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&seen)))
                .and_then(|_| signal_hook::flag::register_usize(signal, Arc::clone(&self.signal), number))
                .map_err(cannot)?;
        }
        signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(cannot).map(drop)
    }

    /// Why the run should end now, if it should.
    pub fn wish(&self) -> Option<StopReason> {
        match self.signal.load(Ordering::Relaxed) {
            0 => self.deadline.filter(|&deadline| Instant::now() >= deadline).map(|_| StopReason::Time),
            signal => Some(StopReason::Signal(signal as i32)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_deadline_that_has_passed_is_a_wish() {
        assert_eq!(Control::default().wish(), None);
        assert_eq!(Control::until(Some(Instant::now() + Duration::from_secs(3600))).wish(), None);
        assert_eq!(Control::until(Some(Instant::now())).wish(), Some(StopReason::Time));
    }
}
