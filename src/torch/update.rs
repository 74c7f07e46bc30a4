//! The update of the weights (`update.cpp`).

use super::check;
use crate::error::Result;
use std::ffi::c_char;
use std::ptr;
use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn mpt_update(
        parameters: *const C_tensor,
        gradients: *const *const C_tensor,
        parts: i64,
        velocity: *const C_tensor,
        shadow: *const C_tensor,
        segments: *const Segment,
        squares: *const C_tensor,
        momentum: f64,
        rate_in_velocity: bool,
        anywhere: bool,
    ) -> *mut c_char;
}

/// What is the same for all values of an update.
#[derive(Clone, Copy, Debug)]
pub struct UpdateRule {
    /// The share of the velocity that is kept.
    pub momentum: f64,
    /// Whether the velocity is what weights are moved by, and so has the rates of earlier steps in it.
    pub rate_in_velocity: bool,
}

/// Values that are trained alike, such as a parameter's: they begin where those before them end.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Segment {
    /// Where they end.
    pub end: i64,
    /// The learning rate.
    pub rate: f64,
    /// The weight decay, added to the gradient.
    pub decay: f64,
    /// Whether they are updated at all, and their velocities.
    pub trained: bool,
}

/// What an update writes to: contiguous tensors of one size.
pub struct Updated<'t> {
    /// fp32 or fp64.
    pub weights: &'t Tensor,
    /// Of the type of the weights; `None` without momentum.
    pub velocity: Option<&'t Tensor>,
    /// The weights rounded to bf16, where the layers compute with those.
    pub shadow: Option<&'t Tensor>,
}

/// SGD in one pass over memory, in place, by default PyTorch's: `g = sum of the gradients in their order + decay * w;
/// v = momentum * v + g; w -= rate * v; shadow = w`. (With velocities of zero, the first step gives `v = g`.) With the rate in
/// the velocity, as in the paper of 2012: `v = momentum * v - rate * g; w += v`.
/// The gradients are of the shadow's type where there is one, else of the weights'.
///
/// Gives, in fp64, the sums of the squares of the gradient, before decay, of each segment. They do not depend on the number of
/// threads.
///
/// # Errors
/// Shapes or types that do not fit; the last segment does not end where the values do.
pub fn update(target: &Updated, gradients: &[Tensor], rule: UpdateRule, segments: &[Segment]) -> Result<Tensor> {
    update_by(target, gradients, rule, segments, target.weights.device() != Device::Cpu)
}

/// `anywhere`: by libtorch's own operations, which know every device.
fn update_by(
    target: &Updated,
    gradients: &[Tensor],
    rule: UpdateRule,
    segments: &[Segment],
    anywhere: bool,
) -> Result<Tensor> {
    let squares = Tensor::f_empty([segments.len() as i64], (Kind::Double, target.weights.device()))?;
    let pointer = |tensor: Option<&Tensor>| tensor.map_or(ptr::null(), Tensor::as_ptr);
    let parts: Vec<*const C_tensor> = gradients.iter().map(|part| part.as_ptr()).collect();
    // SAFETY: the tensors outlive the call; it writes to the storage of the target's, which no other thread reads at
    // that time: the caller owns them. `parts` holds as many pointers as the call is told, there are as many segments as
    // `squares` has values, and theirs is the layout of the struct in C++.
    check(unsafe {
        mpt_update(
            target.weights.as_ptr(),
            parts.as_ptr(),
            parts.len() as i64,
            pointer(target.velocity),
            pointer(target.shadow),
            segments.as_ptr(),
            squares.as_ptr(),
            rule.momentum,
            rule.rate_in_velocity,
            anywhere,
        )
    })?;
    Ok(squares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::set_threads;

    const PLAIN: UpdateRule = UpdateRule { momentum: 0.0, rate_in_velocity: false };

    /// All trained alike.
    fn segments(ends: &[i64], rate: f64, decay: f64) -> Vec<Segment> {
        ends.iter().map(|&end| Segment { end, rate, decay, trained: true }).collect()
    }

    #[test]
    fn an_update_is_pytorchs_formula() {
        let weights = Tensor::from_slice(&[1.0f64, -2.0]);
        let velocity = Tensor::zeros([2], (Kind::Double, Device::Cpu));
        let target = Updated { weights: &weights, velocity: Some(&velocity), shadow: None };
        let rule = UpdateRule { momentum: 0.9, ..PLAIN };
        let (mut p, mut v) = ([1.0f64, -2.0], [0.0f64, 0.0]);
        for step in 0..3 {
            let parts = [[0.5 + f64::from(step), -0.5], [1.0, 0.25]];
            let squares =
                update(&target, &parts.map(|part| Tensor::from_slice(&part)), rule, &segments(&[1, 2], 0.1, 0.01))
                    .unwrap();
            let squares = Vec::<f64>::try_from(&squares).unwrap();
            assert!((0..2).all(|i| (squares[i] - (parts[0][i] + parts[1][i]).powi(2)).abs() < 1e-14), "{squares:?}");
            for i in 0..2 {
                let g = parts[0][i] + parts[1][i];
                v[i] = if step == 0 { g + 0.01 * p[i] } else { 0.9 * v[i] + g + 0.01 * p[i] };
                p[i] -= 0.1 * v[i];
            }
        }
        let found = Vec::<f64>::try_from(&weights).unwrap();
        assert!(found.iter().zip(p).all(|(a, b)| (a - b).abs() < 1e-14), "{found:?} {p:?}");
    }

    #[test]
    fn each_segment_has_a_rate_and_a_decay_of_its_own_and_the_rate_may_be_in_the_velocity() {
        let told = [(0.1, 0.01, true), (0.3, 0.0, true), (0.2, 0.5, false)];
        for rate_in_velocity in [false, true] {
            let weights = Tensor::from_slice(&[1.0f64, -2.0, 3.0]);
            let velocity = Tensor::from_slice(&[0.5f64, 0.25, 0.125]);
            let (mut p, mut v) = ([1.0f64, -2.0, 3.0], [0.5f64, 0.25, 0.125]);
            let target = Updated { weights: &weights, velocity: Some(&velocity), shadow: None };
            let rule = UpdateRule { momentum: 0.9, rate_in_velocity };
            for step in 0..3 {
                // Rates that change from step to step, for which the two forms differ.
                let slower = 1.0 / f64::from(1 + step);
                let segment = |(end, (rate, decay, trained))| Segment { end, rate: rate * slower, decay, trained };
                let segments: Vec<_> = (1i64..).zip(told).map(segment).collect();
                let _ = update(&target, &[Tensor::from_slice(&[0.5f64, -0.5, 1.5])], rule, &segments).unwrap();
                for (i, (rate, decay, _)) in told.into_iter().enumerate().filter(|(_, (.., trained))| *trained) {
                    let (g, rate) = ([0.5, -0.5][i] + decay * p[i], rate * slower);
                    v[i] = 0.9 * v[i] + if rate_in_velocity { -rate * g } else { g };
                    p[i] += if rate_in_velocity { v[i] } else { -rate * v[i] };
                }
            }
            for (found, expected) in [(&weights, p), (&velocity, v)] {
                let found = Vec::<f64>::try_from(found).unwrap();
                assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14), "{found:?} {expected:?}");
            }
        }
    }

    #[test]
    fn the_shadow_is_the_rounded_weights() {
        // More than one block of the kernel, and a rest; without a gradient and with a rate of 0 nothing else changes.
        let size = 5000;
        let weights = (Tensor::arange(size, (Kind::Float, Device::Cpu)) - 2500.0) * 1.000_123;
        let shadow = Tensor::zeros([size], (Kind::BFloat16, Device::Cpu));
        let gradient = Tensor::zeros([size], (Kind::BFloat16, Device::Cpu));
        let target = Updated { weights: &weights, velocity: None, shadow: Some(&shadow) };
        let squares = update(&target, &[gradient], PLAIN, &segments(&[size], 0.0, 0.0)).unwrap();
        assert_eq!(squares.double_value(&[0]), 0.0);
        assert_eq!(shadow, weights.to_kind(Kind::BFloat16));
    }

    /// What GPUs run is what the CPU runs, but for the last bit of a fused multiplication and addition.
    #[test]
    fn an_update_anywhere_is_the_same() {
        let numbers = |seed: i64| (Tensor::arange(5000, (Kind::Float, Device::Cpu)) + seed).sin();
        for (momentum, kind) in [(0.9, Kind::BFloat16), (0.0, Kind::BFloat16), (0.9, Kind::Float), (0.0, Kind::Float)] {
            for rate_in_velocity in [false, true] {
                let rule = UpdateRule { momentum, rate_in_velocity };
                let parts = [numbers(10).to_kind(kind), numbers(20).to_kind(kind), numbers(30).to_kind(kind)];
                let run = |anywhere| {
                    let (weights, velocity, shadow) = (numbers(1), numbers(2), numbers(1).to_kind(kind));
                    let target = Updated {
                        weights: &weights,
                        velocity: (momentum > 0.0).then_some(&velocity),
                        shadow: (kind == Kind::BFloat16).then_some(&shadow),
                    };
                    // Segments that begin and end inside of blocks, and one that is longer than a block.
                    let mut segments = segments(&[16, 1000, 1024, 4000, 5000], 0.1, 0.01);
                    // The second is trained otherwise than the first, the fourth not at all.
                    segments[1] = Segment { rate: 0.2, decay: 0.0, ..segments[1] };
                    segments[3].trained = false;
                    let squares = update_by(&target, &parts, rule, &segments, anywhere).unwrap();
                    (weights, velocity, shadow, squares)
                };
                let (here, anywhere) = (run(false), run(true));
                let left = |found: &Tensor, seed| found.narrow(0, 1024, 2976) == numbers(seed).narrow(0, 1024, 2976);
                assert!(left(&here.0, 1) && left(&here.1, 2), "what is not trained changed");
                let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
                assert!(apart(&here.0, &anywhere.0) < 1e-6 && apart(&here.1, &anywhere.1) < 1e-6);
                assert!(apart(&(&here.3 / &anywhere.3), &Tensor::from(1.0)) < 1e-6, "{} {}", here.3, anywhere.3);
                assert!(
                    apart(&here.2, &anywhere.2) < 1e-2 && anywhere.2 == anywhere.0.to_kind(kind) || kind == Kind::Float
                );
            }
        }
    }

    #[test]
    fn an_update_refuses_gradients_of_another_type() {
        let weights = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        let target = Updated { weights: &weights, velocity: None, shadow: None };
        let gradient = Tensor::zeros([4], (Kind::BFloat16, Device::Cpu));
        assert!(
            update(&target, &[gradient], PLAIN, &segments(&[4], 0.1, 0.0))
                .unwrap_err()
                .to_string()
                .contains("BFloat16")
        );
        let gradient = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        assert!(
            update(&target, &[gradient], PLAIN, &segments(&[2, 3], 0.1, 0.0))
                .unwrap_err()
                .to_string()
                .contains("segments")
        );
    }

    #[test]
    fn sums_of_squares_do_not_depend_on_threads_and_tell_what_is_not_finite() {
        let size = 300_000;
        let weights = Tensor::zeros([size], (Kind::Float, Device::Cpu));
        let target = Updated { weights: &weights, velocity: None, shadow: None };
        let gradient = (Tensor::arange(size, (Kind::Float, Device::Cpu)) * 0.37).sin();
        let sums = |threads| {
            set_threads(threads);
            let squares =
                update(&target, &[gradient.shallow_clone()], PLAIN, &segments(&[48, 70_000, size], 0.1, 0.0)).unwrap();
            set_threads(1);
            Vec::<f64>::try_from(&squares).unwrap()
        };
        let expected = gradient.to_kind(Kind::Double).square();
        let alone = sums(1);
        for (found, (from, to)) in alone.iter().zip([(0, 48), (48, 70_000), (70_000, size)]) {
            let expected = expected.narrow(0, from, to - from).sum(Kind::Double).double_value(&[]);
            assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(sums(2), alone);
        assert_eq!(sums(3), alone);
        let _ = gradient.get(60).fill_(f64::NAN);
        let _ = gradient.get(size - 1).fill_(f64::INFINITY);
        let spoilt = sums(2);
        assert!(spoilt[0] == alone[0] && spoilt[1].is_nan() && spoilt[2] == f64::INFINITY, "{spoilt:?}");
    }
}
