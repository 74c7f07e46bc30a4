//! How the learning rate changes over a run.

use super::plateau::{Patience, Plateau};
use crate::layers::Outcome;

/// What of an evaluation is to become less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The share of wrong answers.
    Error,
    /// The loss.
    Loss,
}

impl Watched {
    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Loss => "loss",
        }
    }

    fn of(self, test: &Outcome) -> f64 {
        match self {
            Self::Error => 1.0 - test.accuracy(),
            Self::Loss => test.loss(),
        }
    }
}

/// The factor on the base learning rate, as a function of the step and of how evaluations went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// The base rate throughout.
    Constant,
    /// The rate is multiplied by `factor` after every `every` epochs.
    Step {
        /// Epochs between two changes.
        every: f64,
        /// What the rate is multiplied with.
        factor: f64,
    },
    /// A linear rise over `warmup` epochs, then half a cosine down to `minimum` at the end of the run
    /// (Loshchilov and Hutter, 2017, without restarts).
    Cosine {
        /// Epochs of linear rise.
        warmup: f64,
        /// The share of the base rate that is left at the end.
        minimum: f64,
    },
    /// The rate is multiplied by `factor` whenever evaluations stop getting better.
    Plateau {
        /// What the rate is multiplied with.
        factor: f64,
        /// When they have stopped.
        patience: Patience,
        /// What is to become less.
        watched: Watched,
    },
}

impl Schedule {
    /// The factor at `step` (from 0) of a run of `total` steps with `per_epoch` steps an epoch, evaluations so far having gone
    /// as `plateau` says.
    pub fn factor(self, step: u64, total: u64, per_epoch: u64, plateau: Plateau) -> f64 {
        match self {
            Self::Constant => 1.0,
            Self::Step { every, factor } => {
                let changes = (step as f64 / (every * per_epoch as f64)).floor();
                factor.powf(changes)
            }
            Self::Cosine { warmup, minimum } => {
                let rise = (warmup * per_epoch as f64).round();
                let step = step as f64;
                if step < rise {
                    return (step + 1.0) / rise;
                }
                let progress = ((step - rise) / (total as f64 - rise).max(1.0)).min(1.0);
                minimum + (1.0 - minimum) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Self::Plateau { factor, .. } => factor.powf(f64::from(plateau.lowered)),
        }
    }

    /// How evaluations went, after one more.
    #[must_use]
    pub fn after(self, plateau: Plateau, test: &Outcome) -> Plateau {
        match self {
            Self::Plateau { patience, watched, .. } => plateau.after(watched.of(test), patience),
            _ => plateau,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_fall_at_epoch_borders() {
        let schedule = Schedule::Step { every: 2.0, factor: 0.1 };
        let factors: Vec<f64> =
            [0, 19, 20, 39, 40].map(|step| schedule.factor(step, 100, 10, Plateau::default())).to_vec();
        assert!(factors.iter().zip([1.0, 1.0, 0.1, 0.1, 0.01]).all(|(a, b)| (a - b).abs() < 1e-12), "{factors:?}");
    }

    #[test]
    fn cosine_rises_then_falls_to_its_minimum() {
        let schedule = Schedule::Cosine { warmup: 1.0, minimum: 0.1 };
        let at = |step| schedule.factor(step, 110, 10, Plateau::default());
        assert!((at(0) - 0.1).abs() < 1e-12 && (at(9) - 1.0).abs() < 1e-12 && (at(10) - 1.0).abs() < 1e-12);
        assert!((at(60) - 0.55).abs() < 1e-12 && (at(110) - 0.1).abs() < 1e-12);
        assert!((11..110).all(|step| at(step) < at(step - 1)));
    }
}
