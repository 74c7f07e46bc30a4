//! How parameters begin: distributions by name, their spread computed from the *whole* layer's fans, so that a split
//! layer begins exactly as the whole one.

/// The distribution that a parameter is drawn from at the start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// Uniform in ±sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010).
    XavierUniform,
    /// The same with the outputs of one group only, which are all that an input feeds: a grouped convolution begins like the
    /// convolutions that it consists of, as two towers that are two modules do in PyTorch.
    XavierUniformPerGroup,
    /// Uniform in ±sqrt(6 / fan_in) (He et al., 2015, for ReLU).
    KaimingUniform,
    /// Normal with standard deviation sqrt(2 / fan_in) (He et al., 2015, for ReLU).
    KaimingNormal,
    /// Uniform in ±1 / sqrt(fan_in): what PyTorch gives biases (and weights) of its conv and linear layers.
    FanInUniform,
    /// Normal with mean 0.
    Normal {
        /// The standard deviation.
        std: f64,
    },
    /// The same value everywhere.
    Constant {
        /// The value.
        value: f64,
    },
}

/// A distribution with its spread worked out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Uniform in ±bound.
    Uniform {
        /// The largest magnitude.
        bound: f64,
    },
    /// Normal with mean 0.
    Normal {
        /// The standard deviation.
        std: f64,
    },
    /// One value.
    Constant {
        /// The value.
        value: f64,
    },
}

/// How many inputs an output element sums (`fan_in`), and how many outputs an input element feeds, as PyTorch counts them:
/// `weight.size(0) * kernel area`, groups not divided (`fan_out`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fans {
    /// Inputs summed by one output element.
    pub fan_in: usize,
    /// Output channels times the kernel's area.
    pub fan_out: usize,
    /// Among how many groups of inputs the outputs are divided.
    pub groups: usize,
}

impl Initial {
    /// The names in model files that take no number.
    pub const NAMES: [&'static str; 5] =
        ["xavier-uniform", "xavier-uniform-per-group", "kaiming-uniform", "kaiming-normal", "fan-in-uniform"];

    /// The distribution of a given name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "xavier-uniform" => Some(Self::XavierUniform),
            "xavier-uniform-per-group" => Some(Self::XavierUniformPerGroup),
            "kaiming-uniform" => Some(Self::KaimingUniform),
            "kaiming-normal" => Some(Self::KaimingNormal),
            "fan-in-uniform" => Some(Self::FanInUniform),
            _ => None,
        }
    }

    /// The distribution with its spread for a layer of these fans.
    pub fn distribution(self, fans: Fans) -> Distribution {
        let (fan_in, fan_out) = (fans.fan_in as f64, fans.fan_out as f64);
        let of_group = fan_out / fans.groups as f64;
        match self {
            Self::XavierUniform => Distribution::Uniform { bound: (6.0 / (fan_in + fan_out)).sqrt() },
            Self::XavierUniformPerGroup => Distribution::Uniform { bound: (6.0 / (fan_in + of_group)).sqrt() },
            Self::KaimingUniform => Distribution::Uniform { bound: (6.0 / fan_in).sqrt() },
            Self::KaimingNormal => Distribution::Normal { std: (2.0 / fan_in).sqrt() },
            Self::FanInUniform => Distribution::Uniform { bound: 1.0 / fan_in.sqrt() },
            Self::Normal { std } => Distribution::Normal { std },
            Self::Constant { value } => Distribution::Constant { value },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_follow_their_papers() {
        let fans = Fans { fan_in: 300, fan_out: 100, groups: 2 };
        assert_eq!(Initial::XavierUniform.distribution(fans), Distribution::Uniform { bound: (6.0f64 / 400.0).sqrt() });
        let per_group = Initial::XavierUniformPerGroup.distribution(fans);
        assert_eq!(per_group, Distribution::Uniform { bound: (6.0f64 / 350.0).sqrt() });
        assert_eq!(Initial::KaimingUniform.distribution(fans), Distribution::Uniform { bound: 0.02f64.sqrt() });
        assert_eq!(Initial::KaimingNormal.distribution(fans), Distribution::Normal { std: (2.0f64 / 300.0).sqrt() });
        assert_eq!(Initial::FanInUniform.distribution(fans), Distribution::Uniform { bound: 1.0 / 300f64.sqrt() });
    }

    #[test]
    fn every_listed_name_is_known() {
        assert!(Initial::NAMES.iter().all(|name| Initial::named(name).is_some()));
    }
}
