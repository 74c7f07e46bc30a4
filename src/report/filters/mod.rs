//! The kernels of a first convolution, as the network's paper draws them: the weights themselves, as small images.
//!
//! * [`drawing`] the picture, as PNG and SVG
//! * [`selectivity`] how much of the kernels is colour

pub mod drawing;
pub mod selectivity;

use super::table::{table, text};
use crate::error::{Error, Result};
use crate::model::Channels;
use selectivity::{UNTRAINED, of_kernels};
use std::ops::Range;

/// The most kernels, and the largest side of one, that are drawn.
const MOST_KERNELS: usize = 4096;
const LARGEST_SIDE: usize = 64;

/// The kernels of a convolution that reads grey or colour images.
#[derive(Clone, Debug, PartialEq)]
pub struct Filters {
    /// Channels of a kernel: 1 or 3.
    channels: usize,
    height: usize,
    width: usize,
    /// `[kernels, channels, height, width]`, row-major.
    weights: Vec<f32>,
    /// Which kernels each tower has.
    towers: Vec<Channels>,
}

/// Sees that kernels of a shape `[kernels, channels, height, width]` can be drawn.
///
/// # Errors
/// They cannot: `name`, their shape, and what would do.
pub fn check(name: &str, shape: &[usize]) -> Result<()> {
    let &[kernels, channels, height, width] = shape else {
        return Err(Error::usage(format!("{name} has the shape {shape:?}, and kernels have four sides")));
    };
    if ![1, 3].contains(&channels) {
        return Err(Error::usage(format!(
            "{name} reads images of {channels} channels; a kernel is drawn in grey for one channel, or in colour for three"
        )));
    }
    let sides = 1..=LARGEST_SIDE;
    if !(1..=MOST_KERNELS).contains(&kernels) || !sides.contains(&height) || !sides.contains(&width) {
        return Err(Error::usage(format!(
            "{name} has {kernels} kernels of {height}x{width}; a picture has room for 1 to {MOST_KERNELS} of at most \
             {LARGEST_SIDE}x{LARGEST_SIDE}"
        )));
    }
    Ok(())
}

impl Filters {
    /// The kernels of the parameter `name`, whose weights have a shape that passed [`check`] and are in row-major order.
    ///
    /// # Errors
    /// A weight is not finite, as after a run that diverged.
    pub fn new(name: &str, shape: &[usize], weights: Vec<f32>, towers: Vec<Channels>) -> Result<Self> {
        check(name, shape)?;
        if let Some(place) = weights.iter().position(|weight| !weight.is_finite()) {
            let (kernel, value) = (place / (weights.len() / shape[0]), weights[place]);
            return Err(Error::failed(format!(
                "{name} cannot be drawn: kernel {kernel} has a weight that is {value}; the run diverged, or the file is damaged"
            )));
        }
        Ok(Self { channels: shape[1], height: shape[2], width: shape[3], weights, towers })
    }

    /// Whether the kernels have colours.
    pub fn is_coloured(&self) -> bool {
        self.channels == 3
    }

    /// The weights of one kernel: `[channels, height, width]`.
    fn kernel(&self, kernel: usize) -> &[f32] {
        let size = self.channels * self.height * self.width;
        &self.weights[kernel * size..(kernel + 1) * size]
    }

    fn kernels_of<'f>(&'f self, tower: &'f Channels) -> impl Iterator<Item = &'f [f32]> {
        tower.ranges().flat_map(Range::into_iter).map(|kernel| self.kernel(kernel))
    }

    /// Every kernel with mean 0 and variance 1, so that weak ones show as well as strong ones (cuda-convnet's
    /// `--norm-filters`).
    #[must_use]
    pub fn normalized(mut self) -> Self {
        for kernel in self.weights.chunks_mut(self.channels * self.height * self.width) {
            let count = kernel.len() as f32;
            let mean = kernel.iter().sum::<f32>() / count;
            let deviation = (kernel.iter().map(|weight| (weight - mean).powi(2)).sum::<f32>() / count).sqrt();
            let scale = if deviation > 0.0 { deviation } else { 1.0 };
            kernel.iter_mut().for_each(|weight| *weight = (*weight - mean) / scale);
        }
        self
    }

    /// What the kernels are: `96 kernels of 11x11, in colour, in 2 towers`.
    pub fn about(&self) -> String {
        let kernels: usize = self.towers.iter().map(Channels::len).sum();
        let colour = if self.is_coloured() { "in colour" } else { "in grey" };
        let towers = if self.towers.len() == 1 { "one tower".into() } else { format!("{} towers", self.towers.len()) };
        format!("{kernels} kernels of {}x{}, {colour}, in {towers}", self.height, self.width)
    }

    /// A row for each tower: its kernels, their least and greatest weight, and how much of them is colour; and what that
    /// means.
    pub fn table(&self) -> String {
        let coloured = self.is_coloured();
        let headings = ["tower", "kernels", "least weight", "greatest", "colour selectivity", "of the median kernel"];
        let mut rows = if coloured { table(&headings, &[2, 3, 4, 5]) } else { table(&headings[..4], &[2, 3]) };
        for (index, tower) in self.towers.iter().enumerate() {
            let weights = self.kernels_of(tower).flatten().copied();
            let mut row = vec![(index + 1).to_string(), tower.to_string()];
            row.extend(extremes(weights).map(|weight| format!("{weight:.3}")));
            if coloured {
                row.extend(self.selectivities(tower).map(|share| format!("{share:.3}")));
            }
            rows.add_row(row);
        }
        let meaning = if coloured {
            format!(
                "colour selectivity: the share of the squared weights that answers to colour alone; 0: kernels alike in red, \
                 green and blue, 1: kernels that nothing grey excites, {UNTRAINED:.3}: weights drawn at random"
            )
        } else {
            "the network reads grey images: there is no colour to be selective for".to_owned()
        };
        format!("{}\n{meaning}\n", text(&rows))
    }

    /// The colour selectivity of a tower, and of its median kernel.
    fn selectivities(&self, tower: &Channels) -> [f64; 2] {
        let mut each: Vec<f64> = self.kernels_of(tower).map(|kernel| of_kernels([kernel].into_iter())).collect();
        each.sort_by(f64::total_cmp);
        [of_kernels(self.kernels_of(tower)), each[each.len() / 2]]
    }
}

/// The least and the greatest.
fn extremes(weights: impl Iterator<Item = f32>) -> [f32; 2] {
    weights
        .fold([f32::INFINITY, f32::NEG_INFINITY], |[least, greatest], weight| [least.min(weight), greatest.max(weight)])
}
