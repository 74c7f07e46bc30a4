//! Random changes to training images, so that a network does not learn single pixels by heart.

use crate::random::{Purpose, Stream};

/// Which changes are made. The default makes none, as evaluation needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augmentation {
    /// Mirrors the image left to right with probability 1/2.
    pub flip: bool,
    /// Pads each side with this many zero pixels, then cuts an image of the old size out at a uniformly random place:
    /// a shift by up to `crop` pixels each way. 0 leaves images where they are.
    pub crop: usize,
}

impl Augmentation {
    /// Changes `pixels` ([C, H, W] of `shape`) of the example with index `example` in the data set, as `epoch` of
    /// `seed` has it: first the crop, then the flip.
    ///
    /// With s the stream of [`Purpose::Augment`], layer 0 and time `epoch`, and i = 4 `example`: the image is flipped
    /// where s.uniform(i) < 1/2; the crop begins floor(s.uniform(i + 1) (2 crop + 1)) pixels below the top of the
    /// padded image and floor(s.uniform(i + 2) (2 crop + 1)) pixels right of its left edge.
    pub fn apply(self, seed: u64, epoch: u64, example: u64, shape: [usize; 3], pixels: &mut [f32]) {
        let stream = Stream::new(seed, Purpose::Augment, 0, epoch);
        let offset = |lane| (stream.uniform(4 * example + lane) * (2 * self.crop + 1) as f64) as usize;
        if self.crop > 0 {
            crop(pixels, shape, self.crop, offset(1), offset(2));
        }
        if self.flip && stream.uniform(4 * example) < 0.5 {
            pixels.chunks_exact_mut(shape[2]).for_each(<[f32]>::reverse);
        }
    }
}

/// Replaces an image by the part of the same size that begins at row `top` and column `left` of the image with
/// `padding` zero pixels on each side.
fn crop(pixels: &mut [f32], [_, height, width]: [usize; 3], padding: usize, top: usize, left: usize) {
    let original = pixels.to_vec();
    for (row, line) in pixels.chunks_exact_mut(width).enumerate() {
        line.fill(0.0);
        // Where this row and the row's first column lie in the image before padding.
        let (channel, y) = (row / height, (row % height + top).checked_sub(padding));
        let Some(y) = y.filter(|&y| y < height) else { continue };
        let from = &original[(channel * height + y) * width..][..width];
        let (skipped, blank) = (left.saturating_sub(padding), padding.saturating_sub(left));
        for (to, from) in line.iter_mut().skip(blank).zip(from.iter().skip(skipped)) {
            *to = *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SHAPE: [usize; 3] = [2, 3, 5];

    fn image() -> Vec<f32> {
        (1..=30).map(|value| value as f32).collect()
    }

    fn augmented(augmentation: Augmentation, epoch: u64, example: u64) -> Vec<f32> {
        let mut pixels = image();
        augmentation.apply(7, epoch, example, SHAPE, &mut pixels);
        pixels
    }

    /// The pixel at (channel, y, x), zero outside of the image.
    fn pixel(image: &[f32], channel: usize, y: isize, x: isize) -> f32 {
        let inside = (0..SHAPE[1] as isize).contains(&y) && (0..SHAPE[2] as isize).contains(&x);
        if inside { image[(channel * SHAPE[1] + y as usize) * SHAPE[2] + x as usize] } else { 0.0 }
    }

    #[test]
    fn the_default_changes_nothing() {
        assert_eq!(augmented(Augmentation::default(), 3, 4), image());
    }

    #[test]
    fn a_flip_mirrors_every_row_of_about_half_of_the_examples() {
        let flip = Augmentation { flip: true, crop: 0 };
        let mirrored: Vec<f32> = image().chunks(5).flat_map(|row| row.iter().rev().copied()).collect();
        let flipped = (0..1000).filter(|&example| augmented(flip, 0, example) == mirrored).count();
        let kept = (0..1000).filter(|&example| augmented(flip, 0, example) == image()).count();
        assert_eq!(flipped + kept, 1000);
        assert!((430..=570).contains(&flipped), "{flipped} of 1000 flipped");
    }

    #[test]
    fn crops_reach_every_shift_and_only_those() {
        let crop = Augmentation { flip: false, crop: 1 };
        let mut seen = std::collections::BTreeSet::new();
        for example in 0..300 {
            let shifted = augmented(crop, 0, example);
            let stream = Stream::new(7, Purpose::Augment, 0, 0);
            let shift = |lane| (stream.uniform(4 * example + lane) * 3.0) as isize - 1;
            let (down, right) = (shift(1), shift(2));
            seen.insert((down, right));
            for (index, &value) in shifted.iter().enumerate() {
                let (channel, y, x) = (index / 15, (index / 5 % 3) as isize, (index % 5) as isize);
                assert_eq!(value, pixel(&image(), channel, y + down, x + right), "{index} of example {example}");
            }
        }
        assert_eq!(seen.len(), 9);
    }

    #[test]
    fn epochs_and_examples_differ() {
        let both = Augmentation { flip: true, crop: 2 };
        let variants = |vary: fn(u64) -> (u64, u64)| {
            (0..10)
                .map(vary)
                .filter(|&(epoch, example)| augmented(both, epoch, example) != augmented(both, 0, 0))
                .count()
        };
        assert!(variants(|k| (k, 0)) > 5, "epochs repeat");
        assert!(variants(|k| (0, k)) > 5, "examples repeat");
    }

    proptest! {
        #[test]
        fn any_crop_leaves_a_shifted_image(padding in 0usize..9, top in 0usize..18, left in 0usize..18) {
            let (top, left) = (top.min(2 * padding), left.min(2 * padding));
            let mut pixels = image();
            crop(&mut pixels, SHAPE, padding, top, left);
            for (index, &value) in pixels.iter().enumerate() {
                let (channel, y, x) = (index / 15, index / 5 % 3 + top, index % 5 + left);
                let (y, x) = (y as isize - padding as isize, x as isize - padding as isize);
                prop_assert_eq!(value, pixel(&image(), channel, y, x));
            }
        }
    }
}
