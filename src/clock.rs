//! Moments on a clock that all processes of a machine read alike, so that ranks can find out which of them came last; and the
//! time of day.

use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment, as the time since the machine was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// The present one.
    pub fn now() -> Self {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes one time to the place given. Every machine has this clock, so that it cannot fail.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
        Self(Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0)))
    }

    /// The time since an earlier moment; zero since a later one.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment so many seconds later, or earlier if they are negative.
    #[must_use]
    pub fn shifted(self, seconds: f64) -> Self {
        let time = Duration::try_from_secs_f64(seconds.abs()).unwrap_or_default();
        Self(if seconds < 0.0 { self.0.saturating_sub(time) } else { self.0 + time })
    }

    /// In seconds, as it travels between ranks: exact to nanoseconds on a machine that was started within a month.
    pub fn seconds(self) -> f64 {
        self.0.as_secs_f64()
    }
}

/// Seconds since 1970; 0 on a machine that is set before it.
pub fn time_of_day() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A number that processes have in common if they read the same clock: that of this start of this machine. NaN, which
/// equals nothing, where the system does not tell.
pub fn machine() -> f64 {
    static MACHINE: LazyLock<f64> = LazyLock::new(|| {
        let start = fs::read("/proc/sys/kernel/random/boot_id");
        start.map_or(f64::NAN, |bytes| f64::from(crc32fast::hash(&bytes)))
    });
    *MACHINE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_and_moments_can_be_shifted() {
        let first = Moment::now();
        let later = Moment::now();
        assert!(later >= first && first.since(later) == Duration::ZERO.min(first.since(later)));
        let shifted = first.shifted(1.5);
        assert_eq!(shifted.since(first), Duration::from_millis(1500));
        assert_eq!(shifted.shifted(-1.5), first);
        assert_eq!(machine(), machine());
    }
}
