//! Examples that need no files: [`Synthetic`] can be learned, [`Noise`] cannot.
//!
//! All draws are of [`Purpose::Synthetic`]; the stream's layer tells what they are for:
//!
//! * layer 0, time = class: the class's waves. Wave w of channel c takes the draws from 4 (c `WAVES` + w) on.
//! * layers 1 (train), 2 (test) and 3 (noise), time = example: draw 0 the label, 1 to 3 the variation, 4 + p pixel p.

use super::source::{Source, Subset};
use crate::error::{Error, Result};
use crate::random::{Purpose, Stream, uniform};
use std::f64::consts::TAU;

/// Waves in each channel of a class's template.
const WAVES: usize = 3;
/// A wave has at most this many periods across the image.
const HIGHEST_FREQUENCY: usize = 3;
/// How far an example is shifted at most, as a part of the image's size.
const SHIFT: f64 = 0.08;
/// The template swings by this much around grey at most, and by half of it at least.
const CONTRAST: f64 = 0.3;
/// Uniform noise of this magnitude is added to each pixel. With the contrast it leaves pixels inside 0.05..=0.95, so
/// none is ever clamped, and no two neighbours are equal: no region is flat.
const NOISE: f64 = 0.15;

/// The draws of an example before those of its pixels.
const PIXELS: u64 = 4;

/// Examples that a small network learns quickly, though not in one step: with 10 classes of 28 x 28 pixels, two
/// convolutions and two linear layers were right in 98 of 100 cases after 50 steps of 100 examples, and in 10 after the
/// first. Each class is a template, a smooth pattern of a few low-frequency waves; an example is its class's template
/// with a random shift, contrast and noise.
#[derive(Clone, Debug)]
pub struct Synthetic {
    seed: u64,
    examples: Examples,
    layer: u32,
    /// [classes, channels, WAVES]
    templates: Vec<Wave>,
}

/// Independent, continuous, uniform pixels with random labels: nothing to learn, and no ties in pooling, which is what
/// comparing a split run with a whole one needs.
#[derive(Clone, Debug)]
pub struct Noise {
    seed: u64,
    examples: Examples,
}

/// What both kinds are made to.
#[derive(Clone, Copy, Debug)]
struct Examples {
    len: usize,
    shape: [usize; 3],
    classes: usize,
}

/// cos(2 pi (down y + across x + phase)) / `WAVES`, y and x in parts of the image's size.
#[derive(Clone, Copy, Debug)]
struct Wave {
    down: f64,
    across: f64,
    phase: f64,
}

impl Synthetic {
    /// `len` examples of `shape` (channels, height, width). The two subsets share the templates and no example.
    ///
    /// # Errors
    /// A usage error where `len`, `classes` or a part of `shape` is zero.
    pub fn new(seed: u64, len: usize, shape: [usize; 3], classes: usize, subset: Subset) -> Result<Self> {
        let layer = match subset {
            Subset::Train => 1,
            Subset::Test => 2,
        };
        let templates = (0..classes as u64).flat_map(|class| template(seed, class, shape[0])).collect();
        Ok(Self { seed, examples: Examples::new(len, shape, classes)?, layer, templates })
    }
}

impl Noise {
    /// `len` examples of `shape` (channels, height, width).
    ///
    /// # Errors
    /// A usage error where `len`, `classes` or a part of `shape` is zero.
    pub fn new(seed: u64, len: usize, shape: [usize; 3], classes: usize) -> Result<Self> {
        Ok(Self { seed, examples: Examples::new(len, shape, classes)? })
    }
}

impl Examples {
    fn new(len: usize, shape: [usize; 3], classes: usize) -> Result<Self> {
        if len == 0 || classes == 0 || shape.contains(&0) {
            return Err(Error::usage(format!(
                "synthetic data of {len} examples of shape {shape:?} in {classes} classes is empty; make each of these \
                 numbers at least 1"
            )));
        }
        Ok(Self { len, shape, classes })
    }

    /// The label in an example's stream.
    fn label(self, stream: &Stream) -> usize {
        (stream.uniform(0) * self.classes as f64) as usize
    }
}

impl Source for Synthetic {
    fn len(&self) -> usize {
        self.examples.len
    }

    fn shape(&self) -> [usize; 3] {
        self.examples.shape
    }

    fn classes(&self) -> usize {
        self.examples.classes
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<i64> {
        let stream = Stream::new(self.seed, Purpose::Synthetic, self.layer, index as u64);
        let [channels, height, width] = self.examples.shape;
        let label = self.examples.label(&stream);
        let shift = [1, 2].map(|draw| SHIFT * (2.0 * stream.uniform(draw) - 1.0));
        let contrast = CONTRAST * (0.5 + 0.5 * stream.uniform(3));
        stream.fill(PIXELS, pixels, |word| (0.5 + NOISE * (2.0 * uniform(word) - 1.0)) as f32);
        let waves = self.templates[label * channels * WAVES..].chunks_exact(WAVES);
        for (channel, waves) in pixels.chunks_exact_mut(height * width).zip(waves) {
            for wave in waves {
                wave.add(contrast, shift, [height, width], channel);
            }
        }
        Ok(label as i64)
    }
}

impl Source for Noise {
    fn len(&self) -> usize {
        self.examples.len
    }

    fn shape(&self) -> [usize; 3] {
        self.examples.shape
    }

    fn classes(&self) -> usize {
        self.examples.classes
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<i64> {
        let stream = Stream::new(self.seed, Purpose::Synthetic, 3, index as u64);
        stream.fill(PIXELS, pixels, |word| uniform(word) as f32);
        Ok(self.examples.label(&stream) as i64)
    }
}

/// The waves of a class: [channels, WAVES].
fn template(seed: u64, class: u64, channels: usize) -> Vec<Wave> {
    let stream = Stream::new(seed, Purpose::Synthetic, 0, class);
    (0..(channels * WAVES) as u64)
        .map(|wave| {
            let draw = |n| stream.uniform(4 * wave + n);
            let frequency = |n| (draw(n) * (HIGHEST_FREQUENCY + 1) as f64).floor();
            // At least one period down: a wave without any would be flat. Half of the waves lean left, half right.
            let (down, across) = (frequency(0).max(1.0), frequency(1));
            let across = if draw(2) < 0.5 { across } else { -across };
            Wave { down, across, phase: draw(3) }
        })
        .collect()
}

impl Wave {
    /// Adds the wave times `contrast`, moved by `shift` (down, right, in parts of the size), to the pixels [H, W].
    fn add(self, contrast: f64, shift: [f64; 2], [height, width]: [usize; 2], pixels: &mut [f32]) {
        // cos(a + b) = cos a cos b - sin a sin b: a sine and a cosine for each row and column, none for each pixel.
        let waves = |periods: f64, shift: f64, phase: f64, size: usize| {
            (0..size).map(move |place| (TAU * (periods * (place as f64 / size as f64 - shift) + phase)).sin_cos())
        };
        let amplitude = contrast / WAVES as f64;
        let columns: Vec<(f32, f32)> =
            waves(self.across, shift[1], 0.0, width).map(|(sine, cosine)| (sine as f32, cosine as f32)).collect();
        let rows = waves(self.down, shift[0], self.phase, height);
        for (row, (sine, cosine)) in pixels.chunks_exact_mut(width).zip(rows) {
            let (row_sine, row_cosine) = ((amplitude * sine) as f32, (amplitude * cosine) as f32);
            for (pixel, &(sine, cosine)) in row.iter_mut().zip(&columns) {
                *pixel += row_cosine * cosine - row_sine * sine;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: [usize; 3] = [1, 14, 14];
    const SIZE: usize = 14 * 14;
    const CLASSES: usize = 10;

    fn examples(source: &dyn Source) -> Vec<(Vec<f32>, usize)> {
        let size = source.shape().iter().product();
        let read = |index| {
            let mut pixels = vec![f32::NAN; size];
            let label = source.read(index, &mut pixels).unwrap();
            (pixels, usize::try_from(label).unwrap())
        };
        (0..source.len()).map(read).collect()
    }

    fn synthetic(seed: u64, len: usize, subset: Subset) -> Vec<(Vec<f32>, usize)> {
        examples(&Synthetic::new(seed, len, SHAPE, CLASSES, subset).unwrap())
    }

    /// Scores of the classes: weights [classes, size + 1] (the last is the bias) times an image.
    fn scores(weights: &[Vec<f32>], image: &[f32]) -> Vec<f32> {
        let score = |row: &Vec<f32>| row.iter().zip(image).map(|(w, x)| w * (x - 0.5)).sum::<f32>() + row[SIZE];
        weights.iter().map(score).collect()
    }

    /// Which part of the test subset softmax regression has right after `steps` steps of 100 training examples.
    fn accuracy_after(steps: usize) -> f64 {
        let mut weights = vec![vec![0f32; SIZE + 1]; CLASSES];
        for batch in synthetic(1, 100 * steps, Subset::Train).chunks(100) {
            let before = weights.clone();
            for (image, label) in batch {
                let exponentials: Vec<f32> = scores(&before, image).iter().map(|score| score.exp()).collect();
                let sum: f32 = exponentials.iter().sum();
                for (class, row) in weights.iter_mut().enumerate() {
                    let slope = exponentials[class] / sum - f32::from(u8::from(class == *label));
                    row.iter_mut().zip(image).for_each(|(w, x)| *w -= 0.01 * slope * (x - 0.5));
                    row[SIZE] -= 0.01 * slope;
                }
            }
        }
        let test = synthetic(1, 500, Subset::Test);
        let right = |(image, label): &&(Vec<f32>, usize)| {
            let scores = scores(&weights, image);
            (0..CLASSES).max_by(|&a, &b| scores[a].total_cmp(&scores[b])) == Some(*label)
        };
        test.iter().filter(right).count() as f64 / 500.0
    }

    #[test]
    fn even_a_linear_classifier_learns_it_though_not_in_one_step() {
        let (first, last) = (accuracy_after(1), accuracy_after(100));
        assert!(first < 0.7 && last > 0.9, "{first} after one step, {last} after 100");
    }

    #[test]
    fn pixels_keep_clear_of_black_and_white_and_differ_from_their_neighbours() {
        // At this size a template alone changes by less than 0.03 from one pixel to the next.
        for (pixels, _) in examples(&Synthetic::new(3, 100, [1, 64, 64], CLASSES, Subset::Train).unwrap()) {
            assert!(pixels.iter().all(|pixel| (0.05..=0.95).contains(pixel)));
            let steps: Vec<f32> = pixels.windows(2).map(|pair| (pair[0] - pair[1]).abs()).collect();
            assert!(steps.iter().filter(|&&step| step == 0.0).count() < 3);
            let mean = steps.iter().sum::<f32>() / steps.len() as f32;
            assert!(mean > 0.08, "pixels change by {mean}");
        }
    }

    #[test]
    fn noise_is_uniform_and_of_every_class() {
        let noise = examples(&Noise::new(3, 100, [3, 8, 8], CLASSES).unwrap());
        let pixels: Vec<f32> = noise.iter().flat_map(|(pixels, _)| pixels.clone()).collect();
        for tenth in 0..10 {
            let bounds = tenth as f32 / 10.0..(tenth + 1) as f32 / 10.0;
            let part = pixels.iter().filter(|pixel| bounds.contains(pixel)).count() as f64 / pixels.len() as f64;
            assert!((part - 0.1).abs() < 0.01, "{part} of the pixels in {bounds:?}");
        }
        assert!((0..CLASSES).all(|class| noise.iter().any(|(_, label)| *label == class)));
    }

    #[test]
    fn an_example_depends_on_seed_subset_and_index_alone() {
        let train = synthetic(1, 20, Subset::Train);
        assert_eq!(synthetic(1, 40, Subset::Train)[..20], train);
        for (name, other) in [("test", synthetic(1, 20, Subset::Test)), ("seed", synthetic(2, 20, Subset::Train))] {
            assert!(train.iter().zip(&other).all(|(a, b)| a.0 != b.0), "{name}");
        }
        assert!(train.windows(2).all(|pair| pair[0].0 != pair[1].0));
        let noise = |seed| examples(&Noise::new(seed, 20, SHAPE, CLASSES).unwrap());
        assert_eq!(noise(1), noise(1));
        assert!(noise(1).iter().zip(&noise(2)).all(|(a, b)| a.0 != b.0));
    }

    #[test]
    fn an_empty_data_set_is_refused() {
        let expected = "synthetic data of 0 examples of shape [1, 14, 14] in 10 classes is empty; make each of these \
                        numbers at least 1";
        assert_eq!(Noise::new(1, 0, SHAPE, CLASSES).unwrap_err().to_string(), expected);
        for (shape, classes) in [([0, 14, 14], 10), ([1, 14, 0], 10), (SHAPE, 0)] {
            assert_eq!(Synthetic::new(1, 5, shape, classes, Subset::Train).unwrap_err().exit_code(), 2);
        }
    }
}
