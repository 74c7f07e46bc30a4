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

/// The colours of the first, the middle and the last of curves that have an order; in between they are mixed. They get
/// lighter, so that the colour-blind see the order too.
const ORDERED: [RGBColor; 3] = [RGBColor(80, 20, 130), RGBColor(30, 145, 140), RGBColor(245, 165, 20)];

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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plot {
    /// Its title.
    pub title: String,
    /// What lies along the horizontal axis.
    pub across: String,
    /// What lies along the vertical axis, with its unit.
    pub up: String,
    /// The curves.
    pub curves: Vec<Curve>,
    /// Whether the vertical axis shows powers of ten; values that have no logarithm are left out.
    pub logarithmic: bool,
    /// Whether the curves have an order, which their colours show. There may be any number of them, then.
    pub ordered: bool,
    /// What the vertical axis has to span, whatever the values.
    pub span: Option<(f64, f64)>,
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
        let curves = self.scaled();
        let (across, up) = self.ranges(&curves);
        let place = legend(&curves, &across, &up);
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 20))
            .margin(16)
            .x_label_area_size(42)
            .y_label_area_size(58)
            .build_cartesian_2d(across, up)?;
        let power = |exponent: &f64| format!("{:.1e}", 10f64.powf(*exponent)).replace(".0e", "e");
        let plain = |value: &f64| format!("{value:.1}").trim_end_matches(".0").to_owned();
        let mut mesh = chart.configure_mesh();
        if self.logarithmic {
            mesh.y_label_formatter(&power);
        }
        mesh.light_line_style(TRANSPARENT)
            .x_desc(&self.across)
            .y_desc(&self.up)
            .x_label_formatter(&plain)
            .label_style(("sans-serif", 14))
            .draw()?;
        for (index, curve) in curves.iter().enumerate() {
            let colour = self.colour(index);
            let style = ShapeStyle::from(colour).stroke_width(if curve.marked || self.ordered { 2 } else { 1 });
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

    /// The curves as they are drawn.
    fn scaled(&self) -> Vec<Curve> {
        let scaled = |curve: &Curve| {
            let values = curve.points.iter().filter(|point| point.1 > 0.0);
            Curve { points: values.map(|&(x, y)| (x, y.log10())).collect(), ..curve.clone() }
        };
        if self.logarithmic { self.curves.iter().map(scaled).collect() } else { self.curves.clone() }
    }

    fn colour(&self, index: usize) -> RGBColor {
        if !self.ordered {
            return COLOURS[index % COLOURS.len()];
        }
        let place = 2.0 * index as f64 / (self.curves.len().max(2) - 1) as f64;
        let (first, last) = if place < 1.0 { (ORDERED[0], ORDERED[1]) } else { (ORDERED[1], ORDERED[2]) };
        let part = place - place.floor().min(1.0);
        let mixed = |first: u8, last: u8| (f64::from(first) + part * (f64::from(last) - f64::from(first))) as u8;
        RGBColor(mixed(first.0, last.0), mixed(first.1, last.1), mixed(first.2, last.2))
    }

    /// What both axes have to span: all points, and a little room above them.
    fn ranges(&self, curves: &[Curve]) -> (Range<f64>, Range<f64>) {
        let points = || curves.iter().flat_map(|curve| &curve.points).filter(|point| point.1.is_finite());
        let least = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
        let most = points().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
        let highest = points().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
        let lowest = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
        if least > most {
            return (0.0..1.0, 0.0..1.0);
        }
        let width = if most > least { most } else { least + 1.0 };
        let up = match self.span {
            Some((low, high)) if self.logarithmic => low.log10()..high.log10(),
            Some((low, high)) => low..high,
            None if self.logarithmic => lowest - 0.2..highest + 0.2,
            // Room above the highest of all numbers is none.
            None => 0.0..(1.08 * highest).clamp(f64::MIN_POSITIVE, f64::MAX),
        };
        (least..width, up)
    }
}

/// Where along the edges the legend hides least of the curves.
fn legend(curves: &[Curve], across: &Range<f64>, up: &Range<f64>) -> SeriesLabelPosition {
    let share = |value: f64, range: &Range<f64>| (value - range.start) / (range.end - range.start);
    let points = curves.iter().flat_map(|curve| along(&curve.points));
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

    /// Whoever wrote a record may have put any number there.
    #[test]
    fn the_largest_and_the_smallest_numbers_have_an_axis() {
        for height in [f64::MAX, 1.7e308, f64::MIN_POSITIVE] {
            let curve = Curve { name: "loss".into(), points: vec![(1.0, height), (2.0, 1.0)], marked: true };
            for logarithmic in [false, true] {
                let plot = Plot { curves: vec![curve.clone()], logarithmic, ..Plot::default() };
                assert!(plot.svg().unwrap().contains("loss"), "{height}");
            }
        }
    }

    #[test]
    fn every_curve_and_label_is_in_the_picture() {
        let curve = |name: &str, height: f64| Curve {
            name: name.into(),
            points: vec![(1.0, height), (2.0, 2.0 * height)],
            marked: name != "ideal",
        };
        let curves = vec![curve("ideal", 60.0), curve("model-parallel", 58.0)];
        let plot = Plot {
            title: "Scaling".into(),
            across: "devices".into(),
            up: "examples/sec".into(),
            curves,
            ..Plot::default()
        };
        let svg = plot.svg().unwrap();
        for part in ["Scaling", "devices", "examples/sec", "ideal", "model-parallel"] {
            assert!(svg.contains(part), "{part} is not in {svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 2);
    }

    #[test]
    fn plots_are_stacked() {
        let plot = |title: &str| Plot { title: title.into(), ..Plot::default() };
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
            let curves: Vec<Curve> = curves.iter().map(curve).collect();
            let plot = Plot { curves, ..Plot::default() };
            let (across, up) = plot.ranges(&plot.curves);
            match legend(&plot.curves, &across, &up) {
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
        assert!(Plot::default().svg().unwrap().starts_with("<svg"));
        assert!(Plot { logarithmic: true, ..Plot::default() }.svg().unwrap().starts_with("<svg"));
    }
    #[test]
    fn powers_of_ten_lie_evenly_and_what_has_no_logarithm_is_left_out() {
        let points = vec![(1.0, 0.001), (2.0, 0.0), (3.0, f64::NAN), (4.0, 10.0)];
        let curve = Curve { name: "conv1".into(), points, marked: true };
        let plot = Plot { curves: vec![curve], logarithmic: true, ..Plot::default() };
        let scaled = plot.scaled();
        assert_eq!(scaled[0].points, [(1.0, -3.0), (4.0, 1.0)]);
        assert_eq!(plot.ranges(&scaled), (1.0..4.0, -3.2..1.2));
        let svg = plot.svg().unwrap();
        assert!(svg.contains("\n1e-3\n") && svg.contains("\n1e1\n"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2);
        let fixed = Plot { span: Some((1e-6, 1e2)), ..plot };
        assert_eq!(fixed.ranges(&scaled).1, -6.0..2.0);
    }

    #[test]
    fn curves_that_have_an_order_have_colours_of_their_own_however_many() {
        let curve = |_| Curve { name: "layer".into(), points: Vec::new(), marked: true };
        let plot = Plot { curves: (0..20).map(curve).collect(), ordered: true, ..Plot::default() };
        let mut colours: Vec<_> = (0..20).map(|index| plot.colour(index)).map(|RGBColor(r, g, b)| (r, g, b)).collect();
        assert_eq!((colours[0], colours[19]), ((80, 20, 130), (245, 165, 20)));
        colours.dedup();
        assert_eq!(colours.len(), 20);
    }
}
