//! Softmax and cross-entropy with the label.

use super::kept;
use crate::error::Result;
use tch::{Kind, Tensor};

/// What a batch of logits comes to: sums over its examples, not means, so that ranks can be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The sum of `-log softmax(logits)[label]`.
    pub loss_sum: f64,
    /// How many labels were the class of the largest logit.
    pub correct: u64,
    /// The number of examples.
    pub examples: u64,
}

/// The loss at the end of a network.
#[derive(Default)]
pub struct Loss {
    saved: Option<Saved>,
}

/// What the backward pass needs.
struct Saved {
    /// `[N, K]`.
    log_probabilities: Tensor,
    /// The labels, `[N, 1]`.
    columns: Tensor,
    /// The type of the logits, which their gradient has too.
    kind: Kind,
}

impl Loss {
    /// The outcome for logits `[N, K]` and labels `[N]`.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn forward(&mut self, logits: &Tensor, labels: &Tensor, training: bool) -> Result<Outcome> {
        // bf16 has too few digits for probabilities and their sum.
        let wide = if logits.kind() == Kind::BFloat16 { Kind::Float } else { logits.kind() };
        let log_probabilities = logits.f_log_softmax(1, wide)?;
        let columns = labels.f_unsqueeze(1)?;
        let chosen = log_probabilities.f_gather(1, &columns, false)?;
        let outcome = Outcome {
            loss_sum: -chosen.f_sum(Kind::Double)?.f_double_value(&[])?,
            correct: logits.f_argmax(1, false)?.f_eq_tensor(labels)?.f_sum(Kind::Int64)?.f_int64_value(&[])? as u64,
            examples: logits.size()[0] as u64,
        };
        self.saved = training.then_some(Saved { log_probabilities, columns, kind: logits.kind() });
        Ok(outcome)
    }

    /// The gradient of the logits, `(softmax - one-hot) / global_examples`: the loss is the mean over the whole
    /// batch, of which this device may hold a part.
    ///
    /// # Errors
    /// What libtorch reports.
    pub fn backward(&mut self, global_examples: usize) -> Result<Tensor> {
        let Saved { log_probabilities, columns, kind } = kept(&mut self.saved)?;
        let mut gradient = log_probabilities.f_exp()?;
        let minus_one = columns.f_ones_like()?.f_neg()?.f_to_kind(gradient.kind())?;
        let _ = gradient.f_scatter_add_(1, &columns, &minus_one)?;
        Ok(gradient.f_div_scalar_(global_examples as f64)?.f_to_kind(kind)?)
    }
}
