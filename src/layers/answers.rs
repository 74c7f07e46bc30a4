//! What a network answers: which class it holds the likeliest, and how near the right one came.

use crate::error::Result;
use tch::{Kind, Tensor};

/// The answers for the examples of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The class of the largest logit, of equal ones the first: what [`super::Outcome`] counts.
    pub likeliest: Vec<i64>,
    /// How many classes come before the right one, in the order of logits. Of equal ones the first comes first; what is
    /// not a number comes before all, as in `likeliest`, and a right class that is none after all.
    pub before: Vec<i64>,
}

impl Answers {
    /// The answers that logits `[N, K]` give, where the right ones are `labels`, `[N]`.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn of(logits: &Tensor, labels: &Tensor) -> Result<Self> {
        if labels.numel() == 0 {
            return Ok(Self::default());
        }
        let classes = logits.size()[1];
        let right = labels.f_unsqueeze(1)?;
        let its_logit = logits.f_gather(1, &right, false)?;
        let smaller = logits.f_lt_tensor(&its_logit)?;
        let every_class = Tensor::f_arange(classes, (Kind::Int64, logits.device()))?;
        let later = logits.f_eq_tensor(&its_logit)?.f_logical_and(&every_class.f_unsqueeze(0)?.f_gt_tensor(&right)?)?;
        // The right class is neither.
        let after = smaller.f_logical_or(&later)?.f_sum_dim_intlist(1i64, false, Kind::Int64)?;
        Ok(Self {
            likeliest: Vec::try_from(&logits.f_argmax(1, false)?)?,
            before: Vec::try_from(&(after.f_neg()?.f_add_scalar(classes - 1)?))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_class_has_its_place_among_all() {
        let rows = [
            [0.0, 3.0, 1.0, 2.0],
            [0.0, 3.0, 1.0, 2.0],
            // Equal ones are taken in order.
            [1.0, 1.0, 1.0, 1.0],
            [1.0, 1.0, 1.0, 0.0],
            // What is not a number is no answer.
            [f64::NAN, 1.0, 0.0, 0.0],
            [f64::NAN, 1.0, 0.0, 0.0],
        ];
        let logits = Tensor::from_slice(&rows.concat()).view([6, 4]);
        let labels = Tensor::from_slice(&[1i64, 0, 2, 3, 0, 1]);
        let answers = Answers::of(&logits, &labels).unwrap();
        assert_eq!(answers.likeliest[..4], [1, 1, 0, 0]);
        assert_eq!(answers.before, [0, 3, 2, 3, 3, 1]);
    }

    #[test]
    fn of_no_examples_there_are_no_answers() {
        let (logits, labels) = (Tensor::zeros([0, 4], (Kind::Float, tch::Device::Cpu)), Tensor::from_slice::<i64>(&[]));
        assert_eq!(Answers::of(&logits, &labels).unwrap(), Answers::default());
    }
}
