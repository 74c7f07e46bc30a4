//! Curves, as SVG.

use crate::error::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::ops::Range;

/// Width and height of a plot.
const SIZE: (u32, u32) = (760, 460);
/// One colour a curve, told apart by the colour-blind too (Okabe and Ito, 2008).
const COLOURS: [RGBColor; MOST_CURVES] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(90, 90, 90),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
/// The most curves that have a colour of their own.
pub const MOST_CURVES: usize = 7;

/// Points of a line between two measurements that the legend should not hide.
const POINTS_A_LINE: u32 = 16;

/// A curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
    /// Whether its points are marked: measurements are, what is only drawn for comparison is not.
    pub marked: bool,
}

/// A picture of curves over one axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// Its title.
    pub title: String,
    /// What lies along the horizontal axis.
    pub across: String,
    /// What lies along the vertical axis, with its unit.
    pub up: String,
    /// The curves.
    pub curves: Vec<Curve>,
}

impl Plot {
    /// The picture as the text of an SVG file.
    ///
    /// # Errors
    /// What the drawing library reports.
    pub fn svg(&self) -> Result<String> {
        stacked(std::slice::from_ref(self))
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        let (across, up) = self.ranges();
        let place = self.legend(&across, &up);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(42)
            .y_label_area_size(58)
            .build_cartesian_2d(across, up)?;
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(TRANSPARENT)
            .x_desc(&self.across)
            .y_desc(&self.up)
            .label_style(("sans-serif", 14))
            .draw()?;
        for (index, curve) in self.curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let style = ShapeStyle::from(colour).stroke_width(if curve.marked { 2 } else { 1 });
            chart
                .draw_series(LineSeries::new(curve.points.iter().copied(), style))?
                .label(&curve.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            if curve.marked {
                chart.draw_series(curve.points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
            }
        }
        chart
            .configure_series_labels()
            .position(place)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        Ok(())
    }

    /// Where along the edges the legend hides least of the curves.
    fn legend(&self, across: &Range<f64>, up: &Range<f64>) -> SeriesLabelPosition {
        let share = |value: f64, range: &Range<f64>| (value - range.start) / (range.end - range.start);
        let points = self.curves.iter().flat_map(|curve| along(&curve.points));
        let points: Vec<(f64, f64)> = points.map(|(x, y)| (share(x, across), share(y, up))).collect();
        // Each with its middle; a legend of a few short names is a third as wide as the plot and a fifth as high.
        let places = [
            (SeriesLabelPosition::UpperLeft, 0.17, 0.9),
            (SeriesLabelPosition::UpperRight, 0.83, 0.9),
            (SeriesLabelPosition::MiddleRight, 0.83, 0.5),
            (SeriesLabelPosition::LowerRight, 0.83, 0.1),
            (SeriesLabelPosition::MiddleLeft, 0.17, 0.5),
            (SeriesLabelPosition::LowerLeft, 0.17, 0.1),
        ];
        let hidden = |(_, x, y): &(SeriesLabelPosition, f64, f64)| {
            points.iter().filter(|point| (point.0 - x).abs() < 0.17 && (point.1 - y).abs() < 0.1).count()
        };
        let least = places.into_iter().min_by_key(hidden);
        least.map_or(SeriesLabelPosition::UpperLeft, |(place, ..)| place)
    }

    /// What both axes have to span: all points, and a little room above them.
    fn ranges(&self) -> (Range<f64>, Range<f64>) {
        let points = || self.curves.iter().flat_map(|curve| &curve.points).filter(|point| point.1.is_finite());
        let least = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
        let most = points().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
        let highest = points().map(|point| point.1).fold(0.0, f64::max);
        if least > most {
            return (0.0..1.0, 0.0..1.0);
        }
        let width = if most > least { most } else { least + 1.0 };
        (least..width, 0.0..(1.08 * highest).max(f64::MIN_POSITIVE))
    }
}

/// Points along the line through some points.
fn along(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> + '_ {
    let between = |pair: &[(f64, f64)], part: f64| {
        let [(x, y), (next_x, next_y)] = [pair[0], pair[1]];
        (x + part * (next_x - x), y + part * (next_y - y))
    };
    let parts = (1..=POINTS_A_LINE).map(|part| f64::from(part) / f64::from(POINTS_A_LINE));
    let lines = points.windows(2).flat_map(move |pair| parts.clone().map(move |part| between(pair, part)));
    points.first().copied().into_iter().chain(lines)
}

type Area<'t> = DrawingArea<SVGBackend<'t>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Plots one below the other, as the text of an SVG file.
///
/// # Errors
/// What the drawing library reports.
pub fn stacked(plots: &[Plot]) -> Result<String> {
    let mut text = String::new();
    let height = SIZE.1 * plots.len() as u32;
    let draw = |text: &mut String| -> Drawn {
        let area = SVGBackend::with_string(text, (SIZE.0, height)).into_drawing_area();
        area.fill(&WHITE)?;
        plots.iter().zip(area.split_evenly((plots.len(), 1))).try_for_each(|(plot, part)| plot.draw(&part))?;
        area.present()?;
        Ok(())
    };
    draw(&mut text).map_err(|error| Error::failed(format!("the plot cannot be drawn: {error}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_and_label_is_in_the_picture() {
        let curve = |name: &str, height: f64| Curve {
            name: name.into(),
            points: vec![(1.0, height), (2.0, 2.0 * height)],
            marked: name != "ideal",
        };
        let curves = vec![curve("ideal", 60.0), curve("model-parallel", 58.0)];
        let plot = Plot { title: "Scaling".into(), across: "devices".into(), up: "examples/sec".into(), curves };
        let svg = plot.svg().unwrap();
        for part in ["Scaling", "devices", "examples/sec", "ideal", "model-parallel"] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 2);
    }

    #[test]
    fn plots_are_stacked() {
        let plot =
            |title: &str| Plot { title: title.into(), across: String::new(), up: String::new(), curves: Vec::new() };
        let svg = stacked(&[plot("above"), plot("below")]).unwrap();
        let height = |title: &str| -> f64 {
            // A title's text follows the element that says where it stands.
            let element = svg[..svg.find(title).unwrap()].rsplit("<text").next().unwrap();
            element.split(" y=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
        };
        assert_eq!(height("below") - height("above"), f64::from(SIZE.1));
    }

    #[test]
    fn the_legend_is_where_no_curve_is() {
        let place = |curves: &[&[(f64, f64)]]| {
            let curve = |points: &&[(f64, f64)]| Curve { name: "curve".into(), points: points.to_vec(), marked: true };
            let curves = curves.iter().map(curve).collect();
            let plot = Plot { title: String::new(), across: String::new(), up: String::new(), curves };
            let (across, up) = plot.ranges();
            match plot.legend(&across, &up) {
                SeriesLabelPosition::UpperLeft => "upper left",
                SeriesLabelPosition::UpperRight => "upper right",
                SeriesLabelPosition::MiddleRight => "middle right",
                _ => "elsewhere",
            }
        };
        assert_eq!(place(&[&[(0.0, 0.0), (10.0, 1.0)]]), "upper left");
        assert_eq!(place(&[&[(0.0, 1.0), (10.0, 0.1)]]), "upper right");
        assert_eq!(place(&[&[(0.0, 1.0), (10.0, 1.0)], &[(0.0, 0.1), (10.0, 0.1)]]), "middle right");
    }

    #[test]
    fn no_points_are_an_empty_picture() {
        let plot = Plot { title: String::new(), across: String::new(), up: String::new(), curves: Vec::new() };
        assert!(plot.svg().unwrap().starts_with("<svg"));
    }
}
