//! Kernels as a picture: a block of rows for each tower, each kernel enlarged without smoothing. As in cuda-convnet's
//! `shownet.py`, whose pictures the paper has, one scale serves all kernels, from the least weight (dark) to the greatest.

use super::{Filters, extremes, selectivity};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

/// The most kernels in a row.
const ROW: usize = 16;
/// About how wide a kernel is drawn, in pixels: those of any size come out alike.
const WIDE: usize = 56;
/// Pixels between kernels, and around all of them; and between towers.
const GAP: usize = 4;
const TOWER_GAP: usize = 20;
/// Pixels for a line of text above a tower.
const CAPTION: usize = 22;
/// The least width of a picture with text.
const TEXT_WIDTH: usize = 320;
/// What the picture shows where there is no kernel.
const BACKGROUND: u8 = 255;

/// Where everything lies, in pixels.
struct Layout {
    width: usize,
    height: usize,
    /// How many pixels a weight takes, along each side.
    scale: usize,
    /// Where each tower begins, from the top.
    tops: Vec<usize>,
    /// Where each kernel lies: its number, left and top.
    places: Vec<(usize, usize, usize)>,
}

impl Layout {
    /// With so many pixels for a caption above each tower.
    fn of(filters: &Filters, caption: usize) -> Self {
        let scale = (WIDE / filters.width.max(filters.height)).max(1);
        let (across, down) = (scale * filters.width + GAP, scale * filters.height + GAP);
        let (mut tops, mut places, mut top) = (Vec::new(), Vec::new(), GAP);
        for tower in &filters.towers {
            if !tops.is_empty() {
                top += TOWER_GAP - GAP;
            }
            tops.push(top);
            top += caption;
            let kernels = tower.ranges().flat_map(Range::into_iter);
            places.extend(
                kernels.enumerate().map(|(at, kernel)| (kernel, GAP + at % ROW * across, top + at / ROW * down)),
            );
            top += tower.len().div_ceil(ROW) * down;
        }
        let columns = filters.towers.iter().map(|tower| tower.len().min(ROW)).max().unwrap_or(0);
        Self { width: GAP + columns * across, height: top, scale, tops, places }
    }
}

/// The weights as shades: one number a weight, 0 for the least of all and 255 for the greatest.
struct Shades<'f> {
    filters: &'f Filters,
    least: f32,
    greatest: f32,
}

impl<'f> Shades<'f> {
    fn of(filters: &'f Filters) -> Self {
        let [least, greatest] = extremes(filters.weights.iter().copied());
        Self { filters, least, greatest }
    }

    /// The colour of a weight's pixel: one shade in grey, three in colour.
    fn colour(&self, kernel: usize, y: usize, x: usize) -> impl Iterator<Item = u8> + '_ {
        let Filters { channels, height, width, .. } = *self.filters;
        let weights = self.filters.kernel(kernel);
        (0..channels).map(move |channel| self.shade(weights[(channel * height + y) * width + x]))
    }

    fn shade(&self, weight: f32) -> u8 {
        let (least, range) = (f64::from(self.least), f64::from(self.greatest) - f64::from(self.least));
        // Where all weights are equal, none is dark or light.
        let share = if range > 0.0 { (f64::from(weight) - least) / range } else { 0.5 };
        (255.0 * share).round() as u8
    }
}

/// The picture as a PNG file: grey or RGB, 8 bits.
///
/// # Errors
/// What the encoder reports.
pub fn png(filters: &Filters) -> Result<Vec<u8>> {
    let (layout, shades, channels) = (Layout::of(filters, 0), Shades::of(filters), filters.channels);
    let mut pixels = vec![BACKGROUND; layout.width * layout.height * channels];
    for &(kernel, left, top) in &layout.places {
        for (down, across) in places(layout.scale * filters.height, layout.scale * filters.width) {
            let at = ((top + down) * layout.width + left + across) * channels;
            let colour = shades.colour(kernel, down / layout.scale, across / layout.scale);
            pixels[at..at + channels].iter_mut().zip(colour).for_each(|(pixel, shade)| *pixel = shade);
        }
    }
    let encode = || {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, layout.width as u32, layout.height as u32);
        encoder.set_color(if filters.is_coloured() { png::ColorType::Rgb } else { png::ColorType::Grayscale });
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::High);
        encoder.write_header()?.write_image_data(&pixels)?;
        Ok(file)
    };
    encode().map_err(|error: png::EncodingError| Error::failed(format!("the picture cannot be encoded: {error}")))
}

/// All places of a rectangle, row by row.
fn places(height: usize, width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..height).flat_map(move |y| (0..width).map(move |x| (y, x)))
}

/// The picture as the text of an SVG file, with a caption above each tower: which kernels it has, and how much of them is
/// colour.
pub fn svg(filters: &Filters) -> String {
    let (layout, shades) = (Layout::of(filters, CAPTION), Shades::of(filters));
    // All weights of one colour are one path.
    let mut paths: BTreeMap<String, String> = BTreeMap::new();
    for &(kernel, left, top) in &layout.places {
        for (y, x) in places(filters.height, filters.width) {
            let mut colour = String::from("#");
            let shades: Vec<u8> = shades.colour(kernel, y, x).collect();
            // Writing to a String cannot fail.
            shades.iter().cycle().take(3).for_each(|shade| _ = write!(colour, "{shade:02x}"));
            let (scale, left, top) = (layout.scale, left + x * layout.scale, top + y * layout.scale);
            let _ = write!(paths.entry(colour).or_default(), "M{left} {top}h{scale}v{scale}h-{scale}z");
        }
    }
    let width = layout.width.max(TEXT_WIDTH);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<g font-family=\"sans-serif\" font-size=\"14\" fill=\"#333\">\n",
        height = layout.height
    );
    for (index, (tower, top)) in filters.towers.iter().zip(&layout.tops).enumerate() {
        let share = selectivity::of_kernels(filters.kernels_of(tower));
        let colour = if filters.is_coloured() { format!(", colour selectivity {share:.3}") } else { String::new() };
        let (number, baseline) = (index + 1, top + CAPTION - 8);
        let _ = writeln!(text, "<text x=\"{GAP}\" y=\"{baseline}\">tower {number}: kernels {tower}{colour}</text>");
    }
    text += "</g>\n<g shape-rendering=\"crispEdges\">\n";
    for (colour, path) in paths {
        let _ = writeln!(text, "<path fill=\"{colour}\" d=\"{path}\"/>");
    }
    text + "</g>\n</svg>\n"
}
