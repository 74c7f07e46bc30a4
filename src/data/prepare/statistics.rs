//! The mean, the spread and the principal colours of a training set: computed from its images, or known of ImageNet.

use super::ColourNoise;
use crate::data::cores::on_all_cores;
use crate::data::source::Source;
use crate::error::{Error, Result};
use std::ops::Range;
use std::thread;
use tch::Tensor;

/// What is known of the images of a training set, in the units of pixels (0 to 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// The mean of each channel.
    pub mean: Vec<f32>,
    /// The standard deviation of each channel, over all pixels of all images.
    pub deviation: Vec<f32>,
    /// The mean image, [C, H, W], if it is known.
    pub image: Option<MeanImage>,
    /// The principal axes of the colours, each a unit vector times the standard deviation along it, the largest first; where there
    /// are three channels.
    pub colours: Option<[[f64; 3]; 3]>,
}

/// The mean image of a training set.
#[derive(Clone, Debug, PartialEq)]
pub struct MeanImage {
    /// [C, H, W].
    pub shape: [usize; 3],
    /// Its pixels.
    pub pixels: Vec<f32>,
}

/// Sums over some images.
struct Sums {
    images: usize,
    /// Of each value, [C, H, W].
    values: Vec<f64>,
    /// Of the products of channels, [C, C].
    products: Vec<f64>,
    unread: Vec<String>,
}

impl Statistics {
    /// Those of ImageNet's training set, as they are commonly used: the means and deviations of torchvision, and the standard
    /// deviations along the principal colours that the released code of 2012 has (19.72, 37.09 and 121.78 of 255), with the axes
    /// that go around with torch's ResNet.
    pub fn of_imagenet() -> Self {
        let axes = [[-0.5675, -0.5808, -0.5836], [0.7192, -0.0045, -0.6948], [0.4009, -0.8140, 0.4203]];
        let deviations = [121.78, 37.09, 19.72];
        let colours = std::array::from_fn(|axis| {
            let axis: (&[f64; 3], f64) = (&axes[axis], deviations[axis]);
            axis.0.map(|part| part * axis.1 / 255.0)
        });
        Self {
            mean: vec![0.485, 0.456, 0.406],
            deviation: vec![0.229, 0.224, 0.225],
            image: None,
            colours: Some(colours),
        }
    }

    /// Those of the images of a source, each read once, by all cores; with a sentence for each that cannot be read.
    ///
    /// # Errors
    /// None of them can be read; or libtorch's.
    pub fn of(source: &dyn Source) -> Result<(Self, Vec<String>)> {
        let shape @ [channels, height, width] = source.shape();
        let Sums { images, values, products, unread } = sums(source);
        if images == 0 {
            let first = unread.into_iter().next().unwrap_or_else(|| "there are none".to_owned());
            return Err(Error::failed(format!("no image can be read: {first}")));
        }
        let pixels = (images * height * width) as f64;
        let mean: Vec<f64> =
            values.chunks_exact(height * width).map(|channel| channel.iter().sum::<f64>() / pixels).collect();
        let covariance = |a: usize, b: usize| products[a * channels + b] / pixels - mean[a] * mean[b];
        let deviation = (0..channels).map(|channel| covariance(channel, channel).max(0.0).sqrt() as f32).collect();
        let of_colours = || principal(std::array::from_fn(|a| std::array::from_fn(|b| covariance(a, b))));
        let colours = (channels == 3).then(of_colours).transpose()?;
        let image = values.iter().map(|sum| (sum / images as f64) as f32).collect();
        let mean = mean.into_iter().map(|mean| mean as f32).collect();
        Ok((Self { mean, deviation, image: Some(MeanImage { shape, pixels: image }), colours }, unread))
    }

    /// Random colours of this training set, `scale` times as wide as they spread.
    pub fn noise(&self, scale: f64) -> Option<ColourNoise> {
        self.colours.map(|axes| ColourNoise { scale, axes })
    }
}

/// The sums over all images of a source, by all cores. Ranges of images are added up in order, so that the result does not depend
/// on which was done first, and only as many at a time as there are cores, for each has a mean image.
fn sums(source: &dyn Source) -> Sums {
    const RANGE: usize = 256;
    let ranges = source.len().div_ceil(RANGE);
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    let mut total = Sums::none(source.shape());
    for first in (0..ranges).step_by(at_once) {
        let of = |range: usize| Sums::of(source, range * RANGE..source.len().min((range + 1) * RANGE));
        let found = on_all_cores(at_once.min(ranges - first), |at| of(first + at));
        found.into_iter().for_each(|found| total.add(found));
    }
    total
}

impl Sums {
    fn none([channels, height, width]: [usize; 3]) -> Self {
        let (values, products) = (vec![0.0; channels * height * width], vec![0.0; channels * channels]);
        Self { images: 0, values, products, unread: Vec::new() }
    }

    fn of(source: &dyn Source, examples: Range<usize>) -> Self {
        let shape @ [channels, height, width] = source.shape();
        let (mut sums, mut pixels) = (Self::none(shape), vec![0.0f32; shape.iter().product()]);
        for example in examples {
            if let Err(error) = source.read(example, &mut pixels) {
                sums.unread.push(error.to_string());
                continue;
            }
            sums.images += 1;
            sums.values.iter_mut().zip(&pixels).for_each(|(sum, &value)| *sum += f64::from(value));
            let channel = |number: usize| &pixels[number * height * width..][..height * width];
            for a in 0..channels {
                for b in 0..=a {
                    let product: f64 =
                        channel(a).iter().zip(channel(b)).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                    sums.products[a * channels + b] += product;
                    if a != b {
                        sums.products[b * channels + a] += product;
                    }
                }
            }
        }
        sums
    }

    fn add(&mut self, other: Self) {
        self.images += other.images;
        self.values.iter_mut().zip(other.values).for_each(|(sum, value)| *sum += value);
        self.products.iter_mut().zip(other.products).for_each(|(sum, product)| *sum += product);
        self.unread.extend(other.unread);
    }
}

/// The principal axes of a covariance matrix, each a unit vector times its standard deviation, the largest first.
///
/// # Errors
/// libtorch's.
fn principal(covariance: [[f64; 3]; 3]) -> Result<[[f64; 3]; 3]> {
    let matrix = Tensor::from_slice(covariance.as_flattened()).f_view([3, 3])?;
    // The smallest first, and an axis in each column.
    let (variances, axes) = matrix.f_linalg_eigh("L")?;
    let scaled = axes.f_mul(&variances.f_clamp_min(0.0)?.f_sqrt()?)?;
    let largest_first = scaled.f_flip([1])?.f_transpose(0, 1)?;
    let values = Vec::<f64>::try_from(largest_first.f_contiguous()?.f_view([9])?)?;
    Ok(std::array::from_fn(|axis| std::array::from_fn(|channel| values[3 * axis + channel])))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Colours that spread by 3 along (1, 1, 0), 1 along (1, -1, 0) and 0.5 along (0, 0, 1), the first two as unit vectors.
    pub(in super::super) struct Spread;

    impl Source for Spread {
        fn len(&self) -> usize {
            1000
        }

        fn shape(&self) -> [usize; 3] {
            [3, 2, 1]
        }

        fn classes(&self) -> usize {
            1
        }

        fn read(&self, index: usize, pixels: &mut [f32]) -> Result<i64> {
            if index == 999 {
                return Err(Error::failed("example 999 is gone"));
            }
            let sign = |bit: usize| if index & bit == 0 { 1.0 } else { -1.0 };
            let (a, b, c) = (3.0 * sign(1) / 2f32.sqrt(), sign(2) / 2f32.sqrt(), 0.5 * sign(4));
            // The second pixel is brighter by one in all images.
            for (channel, value) in [10.0 + a + b, 20.0 + a - b, 30.0 + c].into_iter().enumerate() {
                pixels[2 * channel] = value;
                pixels[2 * channel + 1] = value + 1.0;
            }
            Ok(0)
        }
    }

    #[test]
    fn means_deviations_and_axes_are_those_of_the_images() {
        let (found, unread) = Statistics::of(&Spread).unwrap();
        assert_eq!(unread, ["example 999 is gone"]);
        let near =
            |found: f32, expected: f32| assert!((found - expected).abs() < 0.02, "{found} in place of {expected}");
        for (found, expected) in found.mean.iter().zip([10.5, 20.5, 30.5]) {
            near(*found, expected);
        }
        // Variances: 4.5 + 0.5 and, of the third, 0.25; and 0.25 for the two pixels.
        for (found, expected) in found.deviation.iter().zip([5.25f32.sqrt(), 5.25f32.sqrt(), 0.5f32.sqrt()]) {
            near(*found, expected);
        }
        let image = found.image.clone().unwrap();
        for (found, expected) in image.pixels.iter().zip([10.0, 11.0, 20.0, 21.0, 30.0, 31.0]) {
            near(*found, expected);
        }
        let axes = found.colours.unwrap();
        let length = |axis: [f64; 3]| axis.iter().map(|part| part * part).sum::<f64>().sqrt();
        // The brightness of the second pixel lies along (1, 1, 1), near the first axis.
        assert!((9.0..9.7).contains(&length(axes[0]).powi(2)), "{axes:?}");
        assert!((axes[0][0] - axes[0][1]).abs() < 0.02 && axes[0][0].abs() > 2.0, "{axes:?}");
        let dot = |a: usize, b: usize| axes[a].iter().zip(axes[b]).map(|(a, b)| a * b).sum::<f64>();
        assert!(dot(0, 1).abs() < 1e-9 && dot(0, 2).abs() < 1e-9 && dot(1, 2).abs() < 1e-9, "{axes:?}");
        // What is left of the variances is found along the other axes.
        let total: f64 = axes.iter().map(|&axis| length(axis).powi(2)).sum();
        assert!((total - (5.25 + 5.25 + 0.5)).abs() < 0.05, "{total}");
    }
}
