//! Curves as a small SVG picture that takes its colours from the page, and so is light or dark with it.

use super::escaped;
use crate::error::{Error, Result};
use plotters::prelude::*;
use std::ops::Range;

/// Width and height in units that come to about a pixel each on a phone.
const SIZE: (u32, u32) = (340, 200);
/// How high text is, in a measure of plotters' that comes to a fifth less.
const TEXT: u32 = 14;
/// plotters knows no colours of CSS. These stand for them, and are replaced when the picture is drawn.
const INK: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
const CURVES: [RGBColor; 3] = [RGBColor(3, 3, 3), RGBColor(4, 4, 4), RGBColor(5, 5, 5)];

/// A curve.
pub struct Curve<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// The colour's name in the page's style sheet.
    pub colour: &'a str,
    /// Its points, from left to right. Where one is not finite the line is broken.
    pub points: Vec<(f64, f64)>,
    /// Whether its points are marked.
    pub marked: bool,
}

/// Draws up to three curves over an axis that is called `across`, from 0 up to `top` or as far as they go.
///
/// # Errors
/// What the drawing library reports.
pub fn draw(title: &str, across: &str, curves: &[Curve], top: Option<f64>) -> Result<String> {
    let mut text = String::new();
    plot(&mut text, across, curves, top)
        .map_err(|error| Error::failed(format!("the plot cannot be drawn: {error}")))?;
    let mut replace = |colour: RGBColor, name: &str| {
        let RGBColor(red, green, blue) = colour;
        text = text.replace(&format!("#{red:02X}{green:02X}{blue:02X}"), &format!("var(--{name})"));
    };
    replace(INK, "soft");
    replace(GRID, "line");
    CURVES.iter().zip(curves).for_each(|(colour, curve)| replace(*colour, curve.colour));
    let named = format!("<svg role=\"img\" aria-label=\"{}\" ", escaped(title));
    Ok(text.replacen("<svg ", &named, 1))
}

fn plot(
    text: &mut String,
    across: &str,
    curves: &[Curve],
    top: Option<f64>,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (horizontal, vertical) = ranges(curves, top);
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&area)
        .margin(6)
        .margin_right(12)
        .x_label_area_size(34)
        .y_label_area_size(40)
        .build_cartesian_2d(horizontal, vertical)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .x_labels(6)
        .y_labels(5)
        .x_desc(across)
        .label_style(("sans-serif", TEXT).into_font().color(&INK))
        .y_label_formatter(&|value| shown(*value))
        .x_label_formatter(&|value| shown(*value))
        .draw()?;
    for (curve, colour) in curves.iter().zip(CURVES) {
        for part in curve.points.split(|point| !point.1.is_finite()) {
            chart.draw_series(LineSeries::new(part.iter().copied(), colour.stroke_width(2)))?;
        }
        let finite = curve.points.iter().filter(|point| curve.marked && point.1.is_finite());
        chart.draw_series(finite.map(|&point| Circle::new(point, 3, colour.filled())))?;
    }
    drop(chart);
    area.present()?;
    Ok(())
}

/// What the axes have to span.
fn ranges(curves: &[Curve], top: Option<f64>) -> (Range<f64>, Range<f64>) {
    let points = || curves.iter().flat_map(|curve| &curve.points).filter(|point| point.1.is_finite());
    let least = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let most = points().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
    let highest = points().map(|point| point.1).fold(0.0, f64::max);
    // One point alone is given an axis too, and what is all zero a height.
    let horizontal = if most > least { least..most } else { most.max(0.0)..most.max(0.0) + 1.0 };
    let height = top.unwrap_or(1.08 * highest);
    (horizontal, 0.0..if height > 0.0 && height.is_finite() { height } else { 1.0 })
}

/// A number at an axis: short, whatever its size.
fn shown(value: f64) -> String {
    match value.abs() {
        large if large >= 1e4 => format!("{}k", value / 1e3),
        large if large >= 1e-3 || large == 0.0 => {
            let digits = format!("{value:.3}");
            digits.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => format!("{value:.0e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(points: &[(f64, f64)]) -> String {
        let curve = Curve { name: "loss", colour: "train", points: points.to_vec(), marked: true };
        draw("Loss <1>", "epoch", &[curve], None).unwrap()
    }

    #[test]
    fn a_picture_has_no_colours_of_its_own() {
        let svg = drawn(&[(0.0, 2.0), (1.0, 1.0)]);
        assert!(svg.contains("var(--train)") && svg.contains("var(--line)") && svg.contains("var(--soft)"), "{svg}");
        assert!(!svg.contains("\"#"), "{svg}");
        assert!(svg.contains("aria-label=\"Loss &lt;1&gt;\""), "{svg}");
    }

    #[test]
    fn what_is_not_finite_breaks_the_line_and_nothing_else() {
        let svg = drawn(&[(0.0, 2.0), (1.0, f64::NAN), (2.0, 1.0), (3.0, f64::INFINITY), (4.0, 0.5), (5.0, 0.4)]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 4);
        let parts = svg.lines().filter(|line| line.contains("<polyline") && line.contains("var(--train)"));
        assert_eq!(parts.count(), 3, "{svg}");
        for points in [&[][..], &[(3.0, 1.0)], &[(1.0, f64::NAN)], &[(0.0, 0.0), (1.0, 0.0)], &[(0.0, 1e300)]] {
            assert!(drawn(points).ends_with("</svg>\n"), "{points:?}");
        }
    }
}
