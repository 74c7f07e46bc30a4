//! Faults that are asked for: `ACTION@call:N` or `ACTION@step:N`.
//!
//! The action is `kill`, `hang`, `fail`, `cut`, `delay:MILLISECONDS` or `slow:MILLISECONDS`. It happens at the `N`-th NCCL
//! operation of the process (each collective, send and receive counts, from 1), or at the first one after
//! `mpt_simulator_step(N)`. `fail` shows at the call, `cut` only while the operation is carried
//! out: a link that breaks. `delay` is a link that takes long, `slow` a program that does.

use crate::environment::settings;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    action: Action,
    moment: Moment,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process is killed.
    Kill,
    /// The operation never ends on this rank.
    Hang,
    /// The operation fails with `ncclSystemError`.
    Fail,
    /// The operation fails with `ncclRemoteError` while its stream carries it out, and the stream goes on.
    Cut,
    /// The operation begins this much later.
    Delay(Duration),
    /// The program calls the operation this much later.
    Slow(Duration),
}

/// When it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Call(u64),
    Step(u64),
}

static OPERATIONS: AtomicU64 = AtomicU64::new(0);
static STEP_HAS_COME: AtomicBool = AtomicBool::new(false);

/// Counts an NCCL operation; gives what goes wrong with it.
pub fn next_operation() -> Option<Action> {
    let number = OPERATIONS.fetch_add(1, Ordering::Relaxed) + 1;
    let fault = settings().fault?;
    let now = match fault.moment {
        Moment::Call(wanted) => number == wanted,
        Moment::Step(_) => STEP_HAS_COME.swap(false, Ordering::Relaxed),
    };
    now.then_some(fault.action)
}

/// Tells the simulator that the program begins a step, for faults that are to happen there.
#[unsafe(no_mangle)]
pub extern "C" fn mpt_simulator_step(step: u64) {
    if settings().fault.is_some_and(|fault| fault.moment == Moment::Step(step)) {
        STEP_HAS_COME.store(true, Ordering::Relaxed);
    }
}

impl FromStr for Fault {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str =
            "give kill, hang, fail, cut, delay:MILLISECONDS or slow:MILLISECONDS, then @call:N or @step:N";
        let (action, moment) = text.split_once('@').ok_or(FORM)?;
        let action = match action {
            "kill" => Action::Kill,
            "hang" => Action::Hang,
            "fail" => Action::Fail,
            "cut" => Action::Cut,
            other => {
                let (kind, milliseconds) = other.split_once(':').ok_or(FORM)?;
                let time = Duration::from_millis(milliseconds.parse().map_err(|_| FORM)?);
                match kind {
                    "delay" => Action::Delay(time),
                    "slow" => Action::Slow(time),
                    _ => return Err(FORM),
                }
            }
        };
        let (kind, number) = moment.split_once(':').ok_or(FORM)?;
        let number = number.parse().map_err(|_| FORM)?;
        let moment = match kind {
            "call" if number > 0 => Moment::Call(number),
            "step" => Moment::Step(number),
            _ => return Err(FORM),
        };
        Ok(Self { action, moment })
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Fault, Moment};
    use std::time::Duration;

    #[test]
    fn faults_are_read_as_they_are_written() {
        let expected = Fault { action: Action::Delay(Duration::from_millis(50)), moment: Moment::Step(2) };
        assert_eq!("delay:50@step:2".parse(), Ok(expected));
        assert_eq!("kill@call:3".parse(), Ok(Fault { action: Action::Kill, moment: Moment::Call(3) }));
        let expected = Fault { action: Action::Slow(Duration::from_millis(7)), moment: Moment::Step(2) };
        assert_eq!("slow:7@step:2".parse(), Ok(expected));
        for wrong in
            ["late:5@call:1", "kill", "kill@call:0", "kill@step:", "delay@call:1", "delay:x@call:1", "hang@round:1"]
        {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }
}
