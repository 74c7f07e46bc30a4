//! A rank's share of a global batch.

use crate::random::{Purpose, Stream, uniform};
use std::ops::Range;

/// The part of a global batch that one rank of the data axis works on. It is empty where there are fewer examples
/// than ranks.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The training step that it is for.
    pub step: u64,
    /// How many examples the global batch has, over all data ranks: what the loss is divided by.
    pub global_examples: usize,
    /// The shape of an image: C, H, W.
    pub shape: [usize; 3],
    /// The images, [N, C, H, W].
    pub pixels: Vec<f32>,
    /// The classes, `[N]`.
    pub labels: Vec<i64>,
    /// The dropout masks, in the order of the loader's [`MaskSpec`]s.
    pub masks: Vec<Mask>,
}

/// Which features dropout keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// The dropout layer.
    pub layer: u32,
    /// The features of one example, over all model ranks.
    pub features: usize,
    /// 1 where the feature is kept and 0 where it is dropped, [N, features].
    pub keep: Vec<u8>,
}

/// A dropout layer that needs a mask in each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaskSpec {
    /// The layer's number: it keys the draws.
    pub layer: u32,
    /// The features of one example, over all model ranks.
    pub features: usize,
    /// The probability that a feature is dropped, in `0.0..=1.0`.
    pub probability: f64,
}

impl MaskSpec {
    /// The mask of the examples at `positions` of the global batch of `step`.
    ///
    /// Feature f of the example at position p is kept where uniform(p `features` + f) >= `probability` in the stream
    /// of `seed`, [`Purpose::Dropout`], this layer and time `step`: so a mask does not depend on who works on what.
    pub fn mask(&self, seed: u64, step: u64, positions: Range<usize>) -> Mask {
        let stream = Stream::new(seed, Purpose::Dropout, self.layer, step);
        let mut keep = vec![0; positions.len() * self.features];
        let first = (positions.start * self.features) as u64;
        stream.fill(first, &mut keep, |word| u8::from(uniform(word) >= self.probability));
        Mask { layer: self.layer, features: self.features, keep }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: MaskSpec = MaskSpec { layer: 9, features: 7, probability: 0.4 };

    #[test]
    fn a_mask_is_drawn_as_documented() {
        let stream = Stream::new(5, Purpose::Dropout, 9, 11);
        let expected: Vec<u8> = (3 * 7..6 * 7).map(|index| u8::from(stream.uniform(index) >= 0.4)).collect();
        assert_eq!(SPEC.mask(5, 11, 3..6), Mask { layer: 9, features: 7, keep: expected });
    }

    #[test]
    fn the_probability_is_that_of_being_dropped() {
        let dropped = |probability| {
            let keep = MaskSpec { features: 1000, probability, ..SPEC }.mask(1, 0, 0..10).keep;
            keep.iter().filter(|&&bit| bit == 0).count()
        };
        assert_eq!([dropped(0.0), dropped(1.0)], [0, 10_000]);
        assert!((1800..2200).contains(&dropped(0.2)), "{} of 10000 dropped", dropped(0.2));
    }
}
