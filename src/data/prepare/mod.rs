//! How an image as it is stored becomes what the network sees: its mean taken away, changed at random in training, cut to the
//! size that is read, and its colours scaled.
//!
//! * [`statistics`] the mean, the spread and the colours of a training set, computed or known, and the file in which they are kept

pub mod statistics;
mod statistics_file;

use super::augment::Augmentation;
use crate::random::{Purpose, Stream};
use std::sync::Arc;

/// What is done to each image, in this order: the mean is subtracted, the image is shifted and mirrored, windows are cut out
/// of it, a colour is added, and channels are multiplied. The default leaves images as they are.
#[derive(Clone, Debug, Default)]
pub struct Preparation {
    /// What is subtracted, in the units of pixels (0 to 1): nothing, one value a channel, or one a pixel, [C, H, W].
    pub mean: Option<Arc<[f32]>>,
    /// Shifts and mirroring at random.
    pub augmentation: Augmentation,
    /// Height and width of the windows; `None`: the whole image.
    pub window: Option<[usize; 2]>,
    /// Which windows.
    pub views: Views,
    /// Colours at random.
    pub colour: Option<ColourNoise>,
    /// What each channel is multiplied with.
    pub factor: Option<Arc<[f32]>>,
}

/// Which windows of an image the network sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Views {
    /// The one in the centre.
    #[default]
    Centre,
    /// One at a uniformly random place.
    Random,
    /// Ten: those in the four corners and in the centre, and then the same mirrored (A. Krizhevsky, I. Sutskever and
    /// G. Hinton, 2012).
    Ten,
}

impl Views {
    /// How many there are of each image.
    pub fn count(self) -> usize {
        if self == Self::Ten { 10 } else { 1 }
    }
}

/// The random colours of Krizhevsky, Sutskever and Hinton, 2012: along each principal axis of the colours of the training set a
/// normal draw, as wide as the colours spread along that axis, times `scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColourNoise {
    /// The share of the spread; 0.1 in 2012.
    pub scale: f64,
    /// For each axis, a unit vector times the standard deviation of the colours along it, in the units of pixels.
    pub axes: [[f64; 3]; 3],
}

impl ColourNoise {
    /// What is added to each channel of an example: the sum over axes i of `scale` s.normal(4 `example` + i) `axes[i]`, where s
    /// is the stream of [`Purpose::Augment`], layer 2 and time `epoch`.
    pub fn draw(&self, seed: u64, epoch: u64, example: u64) -> [f32; 3] {
        let stream = Stream::new(seed, Purpose::Augment, 2, epoch);
        let draws: [f64; 3] = std::array::from_fn(|axis| self.scale * stream.normal(4 * example + axis as u64));
        std::array::from_fn(|channel| {
            let along = self.axes.iter().zip(draws).map(|(axis, draw)| draw * axis[channel]);
            along.sum::<f64>() as f32
        })
    }
}

impl Preparation {
    /// The same with random colours so wide.
    #[must_use]
    pub fn with_colour_noise(mut self, scale: f64) -> Self {
        self.colour = self.colour.map(|noise| ColourNoise { scale, ..noise });
        self
    }

    /// The shape of what the network sees of images of this shape.
    pub fn shape(&self, [channels, height, width]: [usize; 3]) -> [usize; 3] {
        let [height, width] = self.window.unwrap_or([height, width]);
        [channels, height, width]
    }

    /// Makes the views of an image, one after the other, [V, C, h, w]. `image` is [C, H, W] of `shape`, and is changed; it is
    /// the example with index `example` of the data set, as `epoch` of `seed` has it.
    ///
    /// With s the stream of [`Purpose::Augment`], layer 1 and time `epoch`, a random window begins
    /// floor(s.uniform(4 `example`) (H - h + 1)) rows below the top and floor(s.uniform(4 `example` + 1) (W - w + 1)) columns
    /// right of the left edge.
    pub fn apply(&self, seed: u64, epoch: u64, example: u64, shape: [usize; 3], image: &mut [f32], views: &mut [f32]) {
        let [_, height, width] = shape;
        let [channels, window_height, window_width] = self.shape(shape);
        self.subtract_mean(image, height * width);
        self.augmentation.apply(seed, epoch, example, shape, image);
        let (down, across) = (height - window_height, width - window_width);
        let (middle, stream) = ((down / 2, across / 2), Stream::new(seed, Purpose::Augment, 1, epoch));
        let at = |lane, most: usize| (stream.uniform(4 * example + lane) * (most + 1) as f64) as usize;
        let places = match self.views {
            Views::Centre => vec![middle],
            Views::Random => vec![(at(0, down), at(1, across))],
            Views::Ten => vec![(0, 0), (0, across), (down, 0), (down, across), middle],
        };
        let colour = self.colour.map_or([0.0; 3], |noise| noise.draw(seed, epoch, example));
        let size = channels * window_height * window_width;
        for (number, view) in views.chunks_exact_mut(size).enumerate() {
            let (top, left) = places[number % places.len()];
            for (line, to) in view.chunks_exact_mut(window_width).enumerate() {
                let (channel, row) = (line / window_height, top + line % window_height);
                to.copy_from_slice(&image[(channel * height + row) * width + left..][..window_width]);
                if number >= places.len() {
                    to.reverse();
                }
            }
            self.scale_colours(view, window_height * window_width, colour);
        }
    }

    fn subtract_mean(&self, image: &mut [f32], pixels: usize) {
        match &self.mean {
            Some(mean) if mean.len() == image.len() => {
                image.iter_mut().zip(&**mean).for_each(|(pixel, mean)| *pixel -= mean)
            }
            Some(mean) => {
                let channels = image.chunks_exact_mut(pixels).zip(&**mean);
                channels.for_each(|(channel, mean)| channel.iter_mut().for_each(|pixel| *pixel -= mean));
            }
            None => {}
        }
    }

    fn scale_colours(&self, view: &mut [f32], pixels: usize, colour: [f32; 3]) {
        if self.colour.is_none() && self.factor.is_none() {
            return;
        }
        for (channel, values) in view.chunks_exact_mut(pixels).enumerate() {
            let added = colour.get(channel).copied().unwrap_or_default();
            let factor = self.factor.as_ref().map_or(1.0, |factor| factor[channel]);
            values.iter_mut().for_each(|value| *value = (*value + added) * factor);
        }
    }
}

#[cfg(test)]
mod tests;
