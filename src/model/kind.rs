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
