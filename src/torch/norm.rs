//! Local response normalisation across channels (`norm.cpp`).

use super::{check, owned};
use crate::error::{Error, Result};
use std::ffi::c_char;
use std::ops::Range;
use std::ptr;
use tch::{Device, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mpt_local_response_norm(
        input: *const C_tensor,
        outputs: i64,
        calls: *const i64,
        count: i64,
        size: i64,
        weight: f64,
        beta: f64,
        k: f64,
        anywhere: bool,
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
    fn mpt_local_response_norm_backward(
        gradient: *const C_tensor,
        input: *const C_tensor,
        calls: *const i64,
        count: i64,
        size: i64,
        weight: f64,
        beta: f64,
        k: f64,
        anywhere: bool,
        result: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// `y = x / (k + weight * sum of squares)^beta`, the sum over a window of channels.
#[derive(Clone, Copy, Debug)]
pub struct NormRule {
    /// Channels in the window. Of an even number one more lies before than after.
    pub size: i64,
    /// The weight of each square.
    pub weight: f64,
    /// The exponent.
    pub beta: f64,
    /// What is there without any square.
    pub k: f64,
}

/// Channels that one group has in an input and in an output. What of a window lies outside of the input's is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormCall {
    /// The channels that are read, as positions in the input.
    pub input: Range<usize>,
    /// The channels that are given, as positions in the output.
    pub output: Range<usize>,
    /// How many of those that are read lie before the first that is given.
    pub before: usize,
}

fn numbers(calls: &[NormCall]) -> Vec<i64> {
    let of_call = |NormCall { input, output, before }: &NormCall| {
        [input.start, input.len(), output.start, output.len(), *before].map(|number| number as i64)
    };
    calls.iter().flat_map(of_call).collect()
}

/// The normalised channels `[N, C', H, W]` of `[N, C, H, W]`, channels last. bf16 is computed in fp32.
///
/// # Errors
/// The calls do not fit the input, or it is no image.
pub fn local_response_norm(input: &Tensor, calls: &[NormCall], rule: NormRule) -> Result<Tensor> {
    forward_by(input, calls, rule, input.device() != Device::Cpu)
}

/// `anywhere`: by libtorch's own operations, which know every device.
fn forward_by(input: &Tensor, calls: &[NormCall], rule: NormRule, anywhere: bool) -> Result<Tensor> {
    let outputs: usize = calls.iter().map(|call| call.output.len()).sum();
    let (numbers, mut result) = (numbers(calls), ptr::null_mut());
    let NormRule { size, weight, beta, k } = rule;
    // SAFETY: the tensor outlives the call, which only reads it; `numbers` holds five for each call, which are checked
    // against the sizes of the tensors, and `result` has room for one pointer.
    check(unsafe {
        mpt_local_response_norm(
            input.as_ptr(),
            outputs as i64,
            numbers.as_ptr(),
            calls.len() as i64,
            size,
            weight,
            beta,
            k,
            anywhere,
            &mut result,
        )
    })?;
    owned(result).ok_or_else(|| Error::failed("the normalisation gave no tensor"))
}

/// The gradient of the input `[N, C, H, W]`, from that of what [`local_response_norm`] gave for it: the part that comes from
/// these outputs.
///
/// # Errors
/// The tensors and calls do not fit together.
pub fn local_response_norm_backward(
    gradient: &Tensor,
    input: &Tensor,
    calls: &[NormCall],
    rule: NormRule,
) -> Result<Tensor> {
    backward_by(gradient, input, calls, rule, input.device() != Device::Cpu)
}

fn backward_by(
    gradient: &Tensor,
    input: &Tensor,
    calls: &[NormCall],
    rule: NormRule,
    anywhere: bool,
) -> Result<Tensor> {
    let (numbers, mut result) = (numbers(calls), ptr::null_mut());
    let NormRule { size, weight, beta, k } = rule;
    // SAFETY: as in `forward_by`, of two tensors.
    check(unsafe {
        mpt_local_response_norm_backward(
            gradient.as_ptr(),
            input.as_ptr(),
            numbers.as_ptr(),
            calls.len() as i64,
            size,
            weight,
            beta,
            k,
            anywhere,
            &mut result,
        )
    })?;
    owned(result).ok_or_else(|| Error::failed("the normalisation gave no gradient"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn call(input: Range<usize>, output: Range<usize>, before: usize) -> NormCall {
        NormCall { input, output, before }
    }

    fn numbers(shape: [i64; 4], seed: f64) -> Tensor {
        let count: i64 = shape.iter().product();
        ((Tensor::arange(count, (Kind::Double, Device::Cpu)) + seed) * 12.9898).sin().view(shape)
    }

    /// What GPUs run is what the CPU runs, and both are the formula.
    #[test]
    fn every_way_gives_what_the_formula_says() {
        // A group and a part of the next one, which read a channel that the first reads too; an odd window and an even one.
        for (size, calls) in [
            (5, vec![call(0..5, 0..5, 0), call(5..9, 5..7, 2)]),
            (4, vec![call(0..6, 0..4, 1), call(4..9, 4..7, 1)]),
            (1, vec![call(0..9, 0..9, 0)]),
        ] {
            for (beta, kind, bound) in [
                (0.75, Kind::Double, 1e-14),
                (0.6, Kind::Double, 1e-14),
                (0.75, Kind::Float, 1e-6),
                (0.75, Kind::BFloat16, 1e-2),
            ] {
                let rule = NormRule { size, weight: 0.3, beta, k: 1.5 };
                let input = numbers([2, 9, 3, 17], 0.0).to_kind(kind);
                let expected = formula(&input.to_kind(Kind::Double), &calls, rule);
                let gradient = numbers([2, expected.size()[1], 3, 17], 7.0).to_kind(kind);
                let [here, anywhere] = [false, true].map(|anywhere| {
                    let output = forward_by(&input, &calls, rule, anywhere).unwrap();
                    assert!(apart(&output, &expected) < bound, "{size} {beta} {kind:?} {anywhere}");
                    let of_input = backward_by(&gradient, &input, &calls, rule, anywhere).unwrap();
                    assert_eq!((output.kind(), of_input.kind(), of_input.size()), (kind, kind, input.size()));
                    of_input
                });
                assert!(apart(&here, &anywhere) < bound, "{size} {beta} {kind:?}");
            }
        }
    }

    fn apart(found: &Tensor, expected: &Tensor) -> f64 {
        (found.to_kind(Kind::Double) - expected.to_kind(Kind::Double)).abs().max().double_value(&[])
    }

    /// One channel after the other, as it is written.
    fn formula(input: &Tensor, calls: &[NormCall], rule: NormRule) -> Tensor {
        let mut channels = Vec::new();
        for NormCall { input: read, output, before } in calls {
            for given in 0..output.len() as i64 {
                let middle = read.start as i64 + *before as i64 + given;
                let window = (middle - rule.size / 2).max(read.start as i64)
                    ..(middle + (rule.size - 1) / 2 + 1).min(read.end as i64);
                let squares = input.narrow(1, window.start, window.end - window.start).square();
                let sum = squares.sum_dim_intlist(1, true, Kind::Double);
                channels.push(input.narrow(1, middle, 1) / (sum * rule.weight + rule.k).pow_tensor_scalar(rule.beta));
            }
        }
        Tensor::cat(&channels, 1)
    }

    #[test]
    fn calls_that_do_not_fit_are_refused() {
        let rule = NormRule { size: 3, weight: 0.3, beta: 0.75, k: 1.5 };
        let input = numbers([1, 4, 2, 2], 0.0);
        for calls in [[call(0..5, 0..5, 0)], [call(2..4, 0..1, 2)], [call(0..4, 0..1, 0)]] {
            let error = local_response_norm(&input, &calls, rule).unwrap_err().to_string();
            assert!(error.contains("does not fit"), "{error}");
        }
    }
}
