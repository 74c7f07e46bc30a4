//! The type of the numbers: which there are, and what each means on this machine.

use crate::error::{Error, Result};
use crate::keys::one_of;
use std::fs;
use std::str::FromStr;
use std::sync::OnceLock;

/// The type of the numbers that layers compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// bf16 where the device computes faster with it, else fp32.
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
            Self::Auto if fast_bf16() => Self::Bf16,
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

/// Whether this machine's processor computes faster in bf16 than in fp32.
pub fn fast_bf16() -> bool {
    static FAST: OnceLock<bool> = OnceLock::new();
    *FAST.get_or_init(|| fs::read_to_string("/proc/cpuinfo").is_ok_and(|told| has_fast_bf16(&told)))
}

/// Whether a processor computes faster in bf16 than in fp32, from what the kernel tells of it in `/proc/cpuinfo`.
///
/// AVX512_BF16 alone does not say so. Intel's processors have multiplied matrices of bf16 in AMX since Sapphire Rapids, and
/// their AVX512_BF16 then does half as many products in a cycle as fp32's instructions do: where a virtual machine hides AMX,
/// AlexNet ran at 51 examples a second in bf16 and at 89 in fp32. AVX512_FP16 tells these from Cooper Lake, which came before.
pub fn has_fast_bf16(told: &str) -> bool {
    let value = |name: &str| {
        let mut lines = told.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.trim() == name).map_or("", |(_, value)| value.trim())
    };
    let flags = value("flags");
    let has = |wanted: &str| flags.split(' ').any(|flag| flag == wanted);
    let made_for_amx = value("vendor_id") == "GenuineIntel" && has("avx512_fp16");
    has("amx_bf16") || has("avx512_bf16") && !made_for_amx
}

#[cfg(test)]
mod tests {
    use super::has_fast_bf16;

    fn told(vendor: &str, flags: &str) -> String {
        format!("processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: a: b\nflags\t\t: fpu {flags} sse\nbugs\t\t:\n")
    }

    #[test]
    fn bf16_is_fast_but_where_amx_is_hidden() {
        let (amd, intel) = ("AuthenticAMD", "GenuineIntel");
        for (vendor, flags, fast) in [
            (amd, "avx512f", false),
            (amd, "avx512f avx512_bf16", true),
            (amd, "avx512f avx512_bf16 avx512_fp16", true),
            (intel, "avx512f", false),
            (intel, "avx512f avx512_bf16", true),
            (intel, "avx512f avx512_bf16 avx512_fp16 amx_bf16", true),
            (intel, "avx512f avx512_bf16 avx512_fp16", false),
        ] {
            assert_eq!(has_fast_bf16(&told(vendor, flags)), fast, "{vendor} with {flags}");
        }
        assert!(!has_fast_bf16(""));
    }
}
