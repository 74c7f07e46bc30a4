//! What the ranks tell each other after every batch, in one small all-gather: so that each knows the outcome of all, that
//! all end after the same step, and that one rank can speak for the run.

use super::nonfinite::Origin;
use super::phases::{Phase, Phases};
use super::waiting::{Reading, Slots, Visit};
use crate::comm::{Operation, Traffic, Volume};
use crate::error::{Error, Result};
use crate::events::{RankStep, StopReason};
use crate::layers::Outcome;
use crate::model::{ActivationId, LayerId};
use crate::plan::Mesh;
use std::time::Duration;

const OPERATIONS: usize = Operation::ALL.len();
/// The numbers that a word travels as, without what depends on the network.
const LENGTH: usize = 13 + 2 * OPERATIONS + Phase::ALL.len();
/// How a wish to end because the time is up travels; a signal travels as its number, no wish as 0.
const TIME_IS_UP: f64 = -1.0;
/// How the bytes in use on a device travel where they are not known.
const UNKNOWN: f64 = -1.0;
/// What travels instead of the first activation that is not finite where the loss is.
const FINITE: f64 = -1.0;

/// What a rank has to say after a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Word {
    /// The outcome of its share.
    pub outcome: Outcome,
    /// Why it wishes to end, if it does.
    pub wish: Option<StopReason>,
    /// Whether a checkpoint is due by its clock.
    pub saves: bool,
    /// The examples that it worked on.
    pub examples: u64,
    /// The part of the phase `data` in which it waited for the loader.
    pub loader_wait: Duration,
    /// The bytes in use on its device, where they are known.
    pub memory: Option<u64>,
    /// How the step went.
    pub lap: Lap,
}

/// A step on one rank as far as the rank alone can tell: it does not know for whom it waited, and the time is a part of
/// exchange and reduction. Empty after an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct Lap {
    /// Where its time went, with nothing in the phase `wait`.
    pub phases: Phases,
    /// See [`RankStep::overlapped`].
    pub overlapped: Duration,
    /// What it sent and received.
    pub traffic: Traffic,
    /// The clock that it reads.
    pub clock: Reading,
    /// The sums of the squares of those gradients that it alone updates, by layer with weights.
    pub squares: Vec<f64>,
    /// The first activation of its share that is not finite, where the loss is not.
    pub nonfinite: Option<ActivationId>,
    /// Its calls, each in its slot.
    pub visits: Vec<Visit>,
}

/// What the ranks agree on.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreed {
    /// The outcome over all ranks, each example once.
    pub outcome: Outcome,
    /// Why all end now, if any rank wishes so.
    pub stop: Option<StopReason>,
    /// Whether a checkpoint is due by any rank's clock.
    pub save: bool,
    words: Vec<Word>,
    mesh: Mesh,
    slots: Slots,
}

impl Default for Lap {
    fn default() -> Self {
        Self {
            phases: Phases::default(),
            overlapped: Duration::ZERO,
            traffic: Traffic::default(),
            clock: Reading { machine: f64::NAN, agreed: f64::NAN },
            squares: Vec::new(),
            nonfinite: None,
            visits: Vec::new(),
        }
    }
}

impl Word {
    /// An outcome and nothing else.
    pub fn of(outcome: Outcome) -> Self {
        Self { outcome, ..Self::default() }
    }

    /// As it travels. Counts and bytes are exact up to 2^53.
    pub fn numbers(&self) -> Vec<f64> {
        let Self { outcome, wish, saves, examples, loader_wait, memory, lap } = self;
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
            f64::from(u8::from(*saves)),
            *examples as f64,
            loader_wait.as_secs_f64(),
            memory.map_or(UNKNOWN, |bytes| bytes as f64),
            lap.overlapped.as_secs_f64(),
            lap.clock.machine,
            lap.clock.agreed,
            lap.nonfinite.map_or(FINITE, |activation| activation as f64),
            lap.squares.len() as f64,
        ];
        let volumes = || Operation::ALL.into_iter().map(|operation| lap.traffic.of(operation));
        numbers.extend(volumes().map(|volume| volume.sent_bytes as f64));
        numbers.extend(volumes().map(|volume| volume.received_bytes as f64));
        numbers.extend(lap.phases.seconds());
        numbers.extend(&lap.squares);
        numbers.extend(lap.visits.iter().flat_map(|visit| [visit.arrived, visit.asked, visit.done]));
        numbers
    }

    fn from_numbers(numbers: &[f64]) -> Result<Self> {
        let Some((fixed, rest)) = numbers.split_first_chunk::<LENGTH>() else {
            return Err(Error::failed(format!(
                "{} numbers arrived where a rank's word has {LENGTH} and more",
                numbers.len()
            )));
        };
        let [
            loss_sum,
            correct,
            examples,
            wish,
            saves,
            own_examples,
            loader_wait,
            memory,
            overlapped,
            machine,
            agreed,
            nonfinite,
            layers,
            fixed @ ..,
        ] = fixed;
        let (volumes, phases) = fixed.split_at(2 * OPERATIONS);
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
        let (squares, visits) = rest.split_at((*layers as usize).min(rest.len()));
        let visits = visits.as_chunks().0.iter().map(|&[arrived, asked, done]| Visit { arrived, asked, done });
        Ok(Self {
            outcome: Outcome { loss_sum: *loss_sum, correct: *correct as u64, examples: *examples as u64 },
            wish,
            saves: *saves != 0.0,
            examples: *own_examples as u64,
            loader_wait: duration(*loader_wait),
            memory: (*memory != UNKNOWN).then_some(*memory as u64),
            lap: Lap {
                phases: Phases::from_seconds(std::array::from_fn(|phase| phases[phase])),
                overlapped: duration(*overlapped),
                traffic,
                clock: Reading { machine: *machine, agreed: *agreed },
                squares: squares.to_vec(),
                nonfinite: (*nonfinite != FINITE).then_some(*nonfinite as usize),
                visits: visits.collect(),
            },
        })
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

/// What follows from the words of all ranks of a mesh, in rank order. The ranks of a model group saw the same examples:
/// the first speaks for them.
///
/// # Errors
/// A word is not as long as it should be.
pub fn agree(words: &[Vec<f64>], mesh: Mesh, slots: Slots) -> Result<Agreed> {
    let words = words.iter().map(|numbers| Word::from_numbers(numbers)).collect::<Result<Vec<_>>>()?;
    let mut outcome = Outcome::default();
    words.iter().step_by(mesh.model).for_each(|word| outcome.add(&word.outcome));
    let wishes = || words.iter().filter_map(|word| word.wish);
    let signal = wishes().find(|wish| matches!(wish, StopReason::Signal(_)));
    let stop = signal.or_else(|| wishes().next());
    let save = words.iter().any(|word| word.saves);
    Ok(Agreed { outcome, stop, save, words, mesh, slots })
}

impl Agreed {
    /// How the step went on each rank, waiting told apart from travelling.
    pub fn ranks(&self) -> Vec<RankStep> {
        let visits: Vec<&[Visit]> = self.words.iter().map(|word| &word.lap.visits[..]).collect();
        let clocks: Vec<Reading> = self.words.iter().map(|word| word.lap.clock).collect();
        let waited = self.slots.settle(self.mesh, &visits, &clocks);
        let step = |(word, waited): (&Word, super::waiting::Waited)| {
            let mut phases = word.lap.phases;
            phases.reassign(Phase::Exchange, Phase::Wait, waited.in_exchange);
            phases.reassign(Phase::Reduce, Phase::Wait, waited.in_reduction);
            RankStep {
                examples: word.examples,
                phases,
                loader_wait: word.loader_wait,
                memory: word.memory,
                overlapped: word.lap.overlapped,
                awaited: waited.awaited,
                traffic: word.lap.traffic,
            }
        };
        self.words.iter().zip(waited).map(step).collect()
    }

    /// The 2-norm of the gradient of each layer with weights, in the model's order.
    pub fn gradient_norms(&self) -> Vec<f64> {
        let layers = self.words.first().map_or(0, |word| word.lap.squares.len());
        let sum = |layer: usize| self.words.iter().filter_map(|word| word.lap.squares.get(layer)).sum::<f64>();
        (0..layers).map(|layer| sum(layer).sqrt()).collect()
    }

    /// Where the numbers of the step first were not finite, if they were not; `layers` are those with weights.
    pub fn nonfinite(&self, layers: &[LayerId]) -> Option<Origin> {
        let forward = self.words.iter().filter_map(|word| word.lap.nonfinite).min();
        let backward = || {
            let last = self.gradient_norms().iter().rposition(|norm| !norm.is_finite())?;
            layers.get(last).map(|&layer| Origin::Gradient(layer))
        };
        forward.map(Origin::Activation).or_else(backward)
    }
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
            saves: wish.is_some(),
            examples: 8,
            loader_wait: Duration::from_millis(125),
            memory: wish.map(|_| 1 << 33),
            lap: Lap {
                phases: Phases::from_seconds(seconds),
                overlapped: Duration::from_millis(375),
                traffic,
                clock: Reading { machine: 5.0, agreed: 1.25 },
                squares: vec![9.0, 2.0],
                nonfinite: wish.map(|_| 3),
                visits: vec![Visit { arrived: 1.5, asked: 1.75, done: 4.5 }],
            },
        }
    }

    fn agreed(words: &[Word], mesh: Mesh) -> Agreed {
        let numbers: Vec<Vec<f64>> = words.iter().map(Word::numbers).collect();
        agree(&numbers, mesh, Slots::default()).unwrap()
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
    fn what_is_not_finite_comes_up_forward_or_in_the_last_such_gradient() {
        let of = |words: &[(Option<ActivationId>, [f64; 3])]| {
            let word = |&(nonfinite, squares): &(_, [f64; 3])| Word {
                lap: Lap { nonfinite, squares: squares.to_vec(), ..Lap::default() },
                ..Word::default()
            };
            let words: Vec<Word> = words.iter().map(word).collect();
            agreed(&words, Mesh { data: 1, model: words.len() }).nonfinite(&[0, 3, 6])
        };
        let fine = [1.0, 0.0, 4.0];
        assert_eq!(of(&[(None, fine), (None, fine)]), None);
        // The weights of every layer have seen it by the end of the backward pass; which came first is told forward.
        assert_eq!(of(&[(Some(5), [f64::NAN; 3]), (Some(2), fine)]), Some(Origin::Activation(2)));
        assert_eq!(of(&[(Some(0), fine)]), Some(Origin::Activation(0)));
        assert_eq!(of(&[(None, [f64::NAN, f64::INFINITY, 1.0]), (None, fine)]), Some(Origin::Gradient(3)));
        assert_eq!(of(&[(None, fine), (None, [0.0, 0.0, f64::NAN])]), Some(Origin::Gradient(6)));
    }

    #[test]
    fn each_example_counts_once_and_a_signal_before_the_time() {
        let words = [
            word(1.0, None),
            word(1.0, Some(StopReason::Time)),
            word(2.0, None),
            word(2.0, Some(StopReason::Signal(2))),
        ];
        let found = agreed(&words, Mesh { data: 2, model: 2 });
        assert_eq!(found.outcome, Outcome { loss_sum: 3.0, correct: 6, examples: 16 });
        assert_eq!((found.stop, found.save), (Some(StopReason::Signal(2)), true));
        assert_eq!(found.ranks().len(), 4);
        assert_eq!(found.gradient_norms(), [6.0, 8.0_f64.sqrt()]);
        assert_eq!(found.nonfinite(&[4, 7]), Some(Origin::Activation(3)));
        let unanimous = [word(1.0, None), word(1.0, Some(StopReason::Time))];
        assert!(!agreed(&unanimous[..1], Mesh { data: 1, model: 1 }).save);
        assert_eq!(agreed(&unanimous, Mesh { data: 2, model: 1 }).stop, Some(StopReason::Time));
    }
}
