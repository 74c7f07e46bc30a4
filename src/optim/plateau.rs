//! The rate is lowered when evaluations no longer get better: as in 2012 by hand, by PyTorch's rule of ReduceLROnPlateau.

use serde::{Deserialize, Serialize};

/// When a rate is lowered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Patience {
    /// How many epochs in a row may be no better than the best before.
    pub epochs: u64,
    /// By what part of the best an epoch has to be below it to be better.
    pub threshold: f64,
}

/// How evaluations went so far: what a run has to remember between epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plateau {
    /// The lowest value; `None`: there was none yet.
    pub best: Option<f64>,
    /// Epochs since then, or since the rate was lowered.
    pub stale: u64,
    /// How many times the rate was lowered.
    pub lowered: u32,
}

impl Plateau {
    /// After an epoch that evaluated to `value`, of which less is better.
    #[must_use]
    pub fn after(self, value: f64, patience: Patience) -> Self {
        let better = !value.is_nan() && self.best.is_none_or(|best| value < best * (1.0 - patience.threshold));
        match (better, self.stale + 1) {
            (true, _) => Self { best: Some(value), stale: 0, ..self },
            (false, stale) if stale > patience.epochs => Self { stale: 0, lowered: self.lowered + 1, ..self },
            (false, stale) => Self { stale, ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_lowered_after_so_many_epochs_that_are_no_better() {
        let patience = Patience { epochs: 1, threshold: 0.01 };
        let mut plateau = Plateau::default();
        let lowered = [0.5, 0.4, 0.397, 0.4, 0.3, 0.31, f64::NAN, 0.2].map(|error| {
            plateau = plateau.after(error, patience);
            plateau.lowered
        });
        assert_eq!(lowered, [0, 0, 0, 1, 1, 1, 2, 2]);
        assert_eq!((plateau.best, plateau.stale), (Some(0.2), 0));
    }
}
