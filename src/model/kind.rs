//! The layer kinds and their settings.

use super::initial::Initial;

/// What a layer computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Two-dimensional convolution (cross-correlation), square kernel.
    Conv(Conv),
    /// Fully connected layer over the features of a flat activation.
    Linear(Linear),
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `tanh(x)`.
    Tanh,
    /// The largest value of each window.
    MaxPool(Window),
    /// The mean of each window, padding counted as zeros.
    AveragePool(Window),
    /// Local response normalisation: each value by the squares of the channels around its own, at its pixel.
    LocalResponseNorm {
        /// The window of channels, and the function.
        norm: Norm,
        /// The channels are divided among so many groups, across whose borders no window reaches.
        groups: usize,
    },
    /// The same by the squares of the pixels around its own, in its channel.
    SameMapNorm(Norm),
    /// Drops each feature with this probability in training and scales the rest by `1 / (1 - probability)`.
    Dropout {
        /// The probability of dropping a feature, `0 <= probability < 1`.
        probability: f64,
    },
    /// `[C, H, W]` to `[C * H * W]`.
    Flatten,
    /// The sum of its inputs, which have one shape.
    Add,
    /// Its inputs' channels one after the other.
    Concat,
    /// The loss: softmax, then cross-entropy with the label.
    SoftmaxCrossEntropy,
}

/// Settings of a convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Output channels (kernels).
    pub out_channels: usize,
    /// Side of the square window.
    pub window: Window,
    /// Output channels of group `g` read only the input channels of group `g`.
    pub groups: usize,
    /// Whether each output channel has a bias.
    pub bias: bool,
    /// How weights begin.
    pub weight_initial: Initial,
    /// How biases begin.
    pub bias_initial: Initial,
    /// How fast weights are trained.
    pub weight_multipliers: Multipliers,
    /// How fast biases are trained.
    pub bias_multipliers: Multipliers,
}

/// Settings of a fully connected layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Output features.
    pub out_features: usize,
    /// Whether each output feature has a bias.
    pub bias: bool,
    /// How weights begin.
    pub weight_initial: Initial,
    /// How biases begin.
    pub bias_initial: Initial,
    /// How fast weights are trained.
    pub weight_multipliers: Multipliers,
    /// How fast biases are trained.
    pub bias_multipliers: Multipliers,
}

/// What the run's learning rate and weight decay are multiplied with for a parameter (Caffe's `lr_mult` and `decay_mult`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Multipliers {
    /// Of the learning rate.
    pub rate: f64,
    /// Of the weight decay.
    pub decay: f64,
}

impl Default for Multipliers {
    /// The run's own.
    fn default() -> Self {
        Self { rate: 1.0, decay: 1.0 }
    }
}

/// A sliding square window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side of the window, in pixels.
    pub kernel: usize,
    /// Pixels from one window to the next.
    pub stride: usize,
    /// Pixels of zeros (of minus infinity for max-pooling) around the image.
    pub padding: usize,
    /// Whether a last window may reach beyond the image and its padding, so that no pixel is left out: sizes are rounded up.
    pub ceil_mode: bool,
}

impl Window {
    /// The windows along an axis of `size` pixels; `None` where not one fits. Rounded up or down, each begins on the image or
    /// on the padding before it, as in PyTorch.
    pub fn outputs(self, size: usize) -> Option<usize> {
        let rest = (size + 2 * self.padding).checked_sub(self.kernel)?;
        let down = rest / self.stride + 1;
        let one_more = self.ceil_mode && !rest.is_multiple_of(self.stride) && down * self.stride < size + self.padding;
        Some(down + usize::from(one_more))
    }

    /// The pixels by which the last window along an axis of `size` pixels reaches beyond the padding.
    pub fn overhang(self, size: usize) -> usize {
        let reach = self.outputs(size).map_or(0, |outputs| (outputs - 1) * self.stride + self.kernel);
        reach.saturating_sub(size + 2 * self.padding)
    }
}

/// How a value is normalised by those around it: `y = x / (k + alpha / count * sum of squares)^beta`, where the sum goes over a
/// window of `count` values and what lies outside counts as zeros (Krizhevsky, Sutskever and Hinton, 2012, section 3.3).
///
/// `alpha` is PyTorch's, for the mean of the squares, as in the code of 2012. The paper gives it for each square: its 1e-4 with
/// five channels is 5e-4 here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norm {
    /// Channels in the window, or pixels of its side. Of an even number of channels one more lies before than after.
    pub size: usize,
    /// The weight of the mean of the squares.
    pub alpha: f64,
    /// The exponent.
    pub beta: f64,
    /// What is there without any square, more than 0.
    pub k: f64,
}

impl Kind {
    /// The name of the kind in model files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv(_) => "conv",
            Self::Linear(_) => "linear",
            Self::Relu => "relu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::MaxPool(_) => "max-pool",
            Self::AveragePool(_) => "average-pool",
            Self::LocalResponseNorm { .. } => "local-response-norm",
            Self::SameMapNorm(_) => "same-map-norm",
            Self::Dropout { .. } => "dropout",
            Self::Flatten => "flatten",
            Self::Add => "add",
            Self::Concat => "concat",
            Self::SoftmaxCrossEntropy => "softmax-cross-entropy",
        }
    }

    /// Whether the layer has parameters to train.
    pub fn has_weights(&self) -> bool {
        matches!(self, Self::Conv(_) | Self::Linear(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_rounded_up_where_a_window_begins_on_the_image() {
        let window = |kernel, stride, padding, ceil_mode| Window { kernel, stride, padding, ceil_mode };
        let of = |window: Window, size| (window.outputs(size), window.overhang(size));
        // The first layer of 2012.
        assert_eq!(of(window(11, 4, 0, false), 224), (Some(54), 0));
        assert_eq!(of(window(11, 4, 0, true), 224), (Some(55), 3));
        assert_eq!(of(window(11, 4, 0, true), 227), (Some(55), 0));
        assert_eq!(of(window(3, 2, 1, true), 6), (Some(4), 1));
        // A window that would begin behind the image is none.
        assert_eq!(of(window(2, 3, 1, true), 6), (Some(3), 0));
        assert_eq!(of(window(1, 3, 0, true), 3), (Some(1), 0));
        assert_eq!(of(window(5, 1, 0, true), 4), (None, 0));
    }
}
