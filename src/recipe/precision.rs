//! The type of the numbers: which there are, and what each means on this machine.

use crate::error::{Error, Result};
use crate::keys::one_of;
use std::str::FromStr;

/// The type of the numbers that layers compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// bf16 where the device computes with it natively, else fp32.
    Auto,
    /// bf16, with the weights kept in fp32 beside it and the loss in fp32.
    Bf16,
    /// 32-bit floating point.
    Fp32,
    /// 64-bit floating point.
    Fp64,
}

impl Precision {
    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Bf16 => "bf16",
            Self::Fp32 => "fp32",
            Self::Fp64 => "fp64",
        }
    }

    /// What is computed with on this machine's CPU.
    #[must_use]
    pub fn resolved(self) -> Self {
        match self {
            Self::Auto if native_bf16() => Self::Bf16,
            Self::Auto => Self::Fp32,
            other => other,
        }
    }

    /// libtorch's name of what is computed with.
    pub fn kind(self) -> tch::Kind {
        match self.resolved() {
            Self::Fp64 => tch::Kind::Double,
            Self::Bf16 => tch::Kind::BFloat16,
            Self::Auto | Self::Fp32 => tch::Kind::Float,
        }
    }

    /// That in which layers compute with numbers of this type.
    pub fn of(kind: tch::Kind) -> Self {
        match kind {
            tch::Kind::Double => Self::Fp64,
            tch::Kind::BFloat16 => Self::Bf16,
            _ => Self::Fp32,
        }
    }

    /// libtorch's name of what weights are kept in between steps.
    pub fn master_kind(self) -> tch::Kind {
        match self.kind() {
            tch::Kind::BFloat16 => tch::Kind::Float,
            kind => kind,
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        one_of("precision", text, [Self::Auto, Self::Bf16, Self::Fp32, Self::Fp64], Self::name)
    }
}

/// Whether the processor multiplies bf16 in hardware. Those with AMX have AVX512_BF16 too.
pub fn native_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}
