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
