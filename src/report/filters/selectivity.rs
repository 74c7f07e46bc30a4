//! How much of a kernel is colour.
//!
//! The weights of a kernel at a pixel are a vector `(r, g, b)`. A grey image gives all three channels one value `x`, to
//! which the kernel answers with `(r + g + b) x`: only the part of the vector along `(1, 1, 1)` counts, whose square is
//! `(r + g + b)^2 / 3`. What is left of `r^2 + g^2 + b^2` lies in the plane of colours and answers to nothing grey. The
//! colour selectivity of kernels is the share of that rest in their squared weights:
//!
//! `1 - sum (r + g + b)^2 / 3 / sum (r^2 + g^2 + b^2)`, both sums over pixels and kernels.
//!
//! It is 0 where the kernels are alike in all channels and 1 where no grey image excites them: the colour selectivity index
//! of Rafegas and Vanrell ("Color encoding in biologically-inspired convolutional neural networks", Vision Research 151,
//! 2018), which compares a neuron's answers to images and to their grey versions, for the weights themselves, which needs no
//! images. It was by such kernels that the paper told its two GPUs apart: "largely color-agnostic" and "largely
//! color-specific" (Krizhevsky, Sutskever and Hinton, 2012, section 6.1).

/// What weights have that were drawn independently, with mean 0: two of three directions are colours.
pub const UNTRAINED: f64 = 2.0 / 3.0;

/// The colour selectivity of kernels, each `[3, height, width]` in row-major order; 0 where all weights are 0.
pub fn of_kernels<'k>(kernels: impl Iterator<Item = &'k [f32]>) -> f64 {
    let (mut all, mut grey) = (0.0, 0.0);
    for kernel in kernels {
        let area = kernel.len() / 3;
        for pixel in 0..area {
            let colour = [0, 1, 2].map(|channel| f64::from(kernel[channel * area + pixel]));
            all += colour.iter().map(|weight| weight * weight).sum::<f64>();
            grey += colour.iter().sum::<f64>().powi(2) / 3.0;
        }
    }
    if all > 0.0 { (1.0 - grey / all).max(0.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kernels: &[&[f32]]) -> f64 {
        of_kernels(kernels.iter().copied())
    }

    #[test]
    fn grey_is_none_and_opponents_are_all() {
        let (grey, opponent) = ([0.5, -1.0, 0.5, -1.0, 0.5, -1.0], [1.0, 0.5, -1.0, 0.5, 0.0, -1.0]);
        assert_eq!(of(&[&grey]), 0.0);
        assert_eq!(of(&[&opponent]), 1.0);
        // 3.75 of grey and 3.5 of colour.
        assert!((of(&[&grey, &opponent]) - 3.5 / 7.25).abs() < 1e-12);
        assert_eq!(of(&[&[0.0; 6]]), 0.0);
        // One channel alone: a third of it lies along grey.
        assert!((of(&[&[2.0, 0.0, 0.0]]) - UNTRAINED).abs() < 1e-12);
    }
}
