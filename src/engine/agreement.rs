//! What the ranks tell each other after every batch, in one small all-gather: so that each knows the outcome of all, that
//! all end after the same step, and that one rank can speak for the run.

use super::phases::{Phase, Phases};
use crate::comm::{Operation, Traffic, Volume};
use crate::error::{Error, Result};
use crate::events::{RankStep, StopReason};
use crate::layers::Outcome;
use std::time::Duration;

/// The numbers that a word travels as.
const LENGTH: usize = 7 + 2 * OPERATIONS + Phase::ALL.len();
const OPERATIONS: usize = Operation::ALL.len();
/// How a wish to end because the time is up travels; a signal travels as its number, no wish as 0.
const TIME_IS_UP: f64 = -1.0;

/// What a rank has to say after a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Word {
    /// The outcome of its share.
    pub outcome: Outcome,
    /// Why it wishes to end, if it does.
    pub wish: Option<StopReason>,
    /// How the step went.
    pub own: RankStep,
}

/// What the ranks agree on.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreed {
    /// The outcome over all ranks, each example once.
    pub outcome: Outcome,
    /// Why all end now, if any rank wishes so.
    pub stop: Option<StopReason>,
    /// How the step went on each rank.
    pub ranks: Vec<RankStep>,
}

impl Word {
    /// An outcome and nothing else.
    pub fn of(outcome: Outcome) -> Self {
        Self { outcome, ..Self::default() }
    }

    /// As it travels. Counts and bytes are exact up to 2^53.
    pub fn numbers(&self) -> Vec<f64> {
        let Self { outcome, wish, own } = self;
        let wish = match wish {
            Some(StopReason::Signal(signal)) => f64::from(*signal),
            Some(StopReason::Time | StopReason::Steps) => TIME_IS_UP,
            None => 0.0,
        };
        let mut numbers = vec![
            outcome.loss_sum,
            outcome.correct as f64,
            outcome.examples as f64,
            wish,
            own.examples as f64,
            own.loader_wait.as_secs_f64(),
            own.overlapped.as_secs_f64(),
        ];
        let volumes = || Operation::ALL.into_iter().map(|operation| own.traffic.of(operation));
        numbers.extend(volumes().map(|volume| volume.sent_bytes as f64));
        numbers.extend(volumes().map(|volume| volume.received_bytes as f64));
        numbers.extend(own.phases.seconds());
        numbers
    }

    fn from_numbers(numbers: &[f64]) -> Result<Self> {
        let numbers: &[f64; LENGTH] = numbers.try_into().map_err(|_| {
            Error::failed(format!("{} numbers arrived where a rank's word has {LENGTH}", numbers.len()))
        })?;
        let [loss_sum, correct, examples, wish, own_examples, loader_wait, overlapped, rest @ ..] = numbers;
        let (volumes, phases) = rest.split_at(2 * OPERATIONS);
        let (sent, received) = volumes.split_at(OPERATIONS);
        let mut traffic = Traffic::default();
        for (operation, (&sent, &received)) in Operation::ALL.into_iter().zip(sent.iter().zip(received)) {
            traffic.count(operation, Volume { sent_bytes: sent as u64, received_bytes: received as u64 });
        }
        let wish = match *wish {
            0.0 => None,
            TIME_IS_UP => Some(StopReason::Time),
            signal => Some(StopReason::Signal(signal as i32)),
        };
        Ok(Self {
            outcome: Outcome { loss_sum: *loss_sum, correct: *correct as u64, examples: *examples as u64 },
            wish,
            own: RankStep {
                examples: *own_examples as u64,
                phases: Phases::from_seconds(std::array::from_fn(|phase| phases[phase])),
                loader_wait: duration(*loader_wait),
                overlapped: duration(*overlapped),
                traffic,
            },
        })
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// What follows from the words of all ranks, in rank order. The ranks of a model group, of `replicas` ranks each, saw
/// the same examples: the first speaks for them.
///
/// # Errors
/// A word is not as long as it should be.
pub fn agree(words: &[Vec<f64>], replicas: usize) -> Result<Agreed> {
    let words = words.iter().map(|numbers| Word::from_numbers(numbers)).collect::<Result<Vec<_>>>()?;
    let mut outcome = Outcome::default();
    words.iter().step_by(replicas).for_each(|word| outcome.add(&word.outcome));
    let wishes = || words.iter().filter_map(|word| word.wish);
    let signal = wishes().find(|wish| matches!(wish, StopReason::Signal(_)));
    let stop = signal.or_else(|| wishes().next());
    Ok(Agreed { outcome, stop, ranks: words.iter().map(|word| word.own).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(loss_sum: f64, wish: Option<StopReason>) -> Word {
        let seconds = std::array::from_fn(|phase| 0.25 * phase as f64);
        let mut traffic = Traffic::default();
        for (number, operation) in (1..).zip(Operation::ALL) {
            traffic.count(operation, Volume { sent_bytes: number << 40, received_bytes: number });
        }
        Word {
            outcome: Outcome { loss_sum, correct: 3, examples: 8 },
            wish,
            own: RankStep {
                examples: 8,
                phases: Phases::from_seconds(seconds),
                loader_wait: Duration::from_millis(125),
                overlapped: Duration::from_millis(375),
                traffic,
            },
        }
    }

    #[test]
    fn a_word_arrives_as_it_was_said() {
        for wish in [None, Some(StopReason::Time), Some(StopReason::Signal(15))] {
            let said = word(1.5, wish);
            assert_eq!(Word::from_numbers(&said.numbers()).unwrap(), said);
        }
        assert!(Word::from_numbers(&[0.0]).is_err());
    }

    #[test]
    fn each_example_counts_once_and_a_signal_before_the_time() {
        let words = [
            word(1.0, None),
            word(1.0, Some(StopReason::Time)),
            word(2.0, None),
            word(2.0, Some(StopReason::Signal(2))),
        ];
        let agreed = agree(&words.map(|word| word.numbers()), 2).unwrap();
        assert_eq!(agreed.outcome, Outcome { loss_sum: 3.0, correct: 6, examples: 16 });
        assert_eq!(agreed.stop, Some(StopReason::Signal(2)));
        assert_eq!(agreed.ranks.len(), 4);
        let unanimous = [word(1.0, None), word(1.0, Some(StopReason::Time))];
        assert_eq!(agree(&unanimous.map(|word| word.numbers()), 1).unwrap().stop, Some(StopReason::Time));
    }
}
