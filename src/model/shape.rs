//! The shape that each layer gives, and the sentence where there is none.

use super::kind::{Kind, Window};
use std::fmt;

/// The shape of an activation per example: `[C, H, W]`, or `[F]` as `channels = F` where it is flat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Channels, or features of a flat activation.
    pub channels: usize,
    /// Height and width in pixels; `None` for a flat activation.
    pub pixels: Option<(usize, usize)>,
}

impl Shape {
    /// `[channels, height, width]`.
    pub fn image(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, pixels: Some((height, width)) }
    }

    /// `[features]`.
    pub fn flat(features: usize) -> Self {
        Self { channels: features, pixels: None }
    }

    /// Values per channel: `H * W`, or 1 for a flat activation.
    pub fn area(&self) -> usize {
        self.pixels.map_or(1, |(height, width)| height * width)
    }

    /// Values per example.
    pub fn len(&self) -> usize {
        self.channels * self.area()
    }

    /// Whether an example holds no value; never so for a shape of a model.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pixels {
            Some((height, width)) => write!(formatter, "{}x{height}x{width}", self.channels),
            None => write!(formatter, "{}", self.channels),
        }
    }
}

/// The largest number of values that one activation of one example may have: keeps sizes far from overflow.
const LARGEST: usize = 1 << 40;
/// The largest side of the windows of max-pooling, whose kernel keeps a place in them in two bytes (`torch/pool.cpp`).
const LARGEST_MAX: usize = 255;

/// The shape that a layer of `kind` gives for these inputs.
///
/// # Errors
/// One sentence with both sizes, for the caller to put the layer's name before.
pub fn output(kind: &Kind, inputs: &[Shape]) -> Result<Shape, String> {
    let shape = match (kind, inputs) {
        (Kind::Add, _) => sum(inputs),
        (Kind::Concat, _) => concatenation(inputs),
        (_, [input]) => of_one(kind, *input),
        _ => Err(format!("a layer of kind {} reads one input, not {}", kind.name(), inputs.len())),
    }?;
    let values = shape.pixels.map_or(Some(1), |(height, width)| height.checked_mul(width));
    match values.and_then(|area| area.checked_mul(shape.channels)) {
        Some(1..=LARGEST) => Ok(shape),
        _ => Err(format!("it would give {shape} values per example, which is no size that can be computed")),
    }
}

fn of_one(kind: &Kind, input: Shape) -> Result<Shape, String> {
    match kind {
        Kind::Conv(conv) => {
            let divides = |channels: usize| conv.groups > 0 && channels.is_multiple_of(conv.groups);
            if !divides(input.channels) || !divides(conv.out_channels) {
                return Err(format!(
                    "{} groups must divide both its {} input channels and its {} output channels",
                    conv.groups, input.channels, conv.out_channels
                ));
            }
            let (height, width) = windows(conv.window, input)?;
            Ok(Shape::image(conv.out_channels, height, width))
        }
        Kind::MaxPool(window) | Kind::AveragePool(window) => {
            if window.padding * 2 > window.kernel {
                let (padding, kernel) = (window.padding, window.kernel);
                return Err(format!(
                    "padding {padding} is more than half of its kernel {kernel}: a window could hold no pixel"
                ));
            }
            if matches!(kind, Kind::MaxPool(_)) && window.kernel > LARGEST_MAX {
                return Err(format!(
                    "its kernel {} is larger than the {LARGEST_MAX} that max-pooling knows",
                    window.kernel
                ));
            }
            let (height, width) = windows(*window, input)?;
            Ok(Shape::image(input.channels, height, width))
        }
        Kind::LocalResponseNorm { .. } | Kind::SameMapNorm(_) if input.pixels.is_none() => {
            Err(format!("it normalises an image, but its input is flat ({input} features)"))
        }
        Kind::LocalResponseNorm { groups, .. } if !input.channels.is_multiple_of(*groups) => {
            Err(format!("{groups} groups must divide its {} input channels", input.channels))
        }
        Kind::SameMapNorm(norm) if norm.size.is_multiple_of(2) => {
            Err(format!("its window of {0}x{0} pixels has none in its middle; `size` must be odd", norm.size))
        }
        Kind::Linear(linear) if input.pixels.is_none() => Ok(Shape::flat(linear.out_features)),
        Kind::SoftmaxCrossEntropy if input.pixels.is_none() => Ok(input),
        Kind::Linear(_) | Kind::SoftmaxCrossEntropy => {
            Err(format!("it reads flat features, but its input is {input}; put a layer of kind flatten before it"))
        }
        Kind::Flatten if input.pixels.is_some() => Ok(Shape::flat(input.len())),
        Kind::Flatten => Err(format!("its input, {input} features, is flat already")),
        _ => Ok(input),
    }
}

fn windows(window: Window, input: Shape) -> Result<(usize, usize), String> {
    let Some((height, width)) = input.pixels else {
        return Err(format!("it slides over an image, but its input is flat ({input} features)"));
    };
    match (window.outputs(height), window.outputs(width)) {
        (Some(high), Some(wide)) => Ok((high, wide)),
        _ => Err(format!(
            "its kernel {kernel}x{kernel} does not fit its input {height}x{width} with padding {padding}",
            kernel = window.kernel,
            padding = window.padding
        )),
    }
}

fn sum(inputs: &[Shape]) -> Result<Shape, String> {
    match inputs {
        [] | [_] => Err("it adds two inputs or more; name them with inputs = [\"a\", \"b\"]".into()),
        [first, others @ ..] => match others.iter().find(|other| *other != first) {
            Some(other) => Err(format!("it adds inputs of one shape, but they are {first} and {other}")),
            None => Ok(*first),
        },
    }
}

fn concatenation(inputs: &[Shape]) -> Result<Shape, String> {
    match inputs {
        [] | [_] => Err("it joins two inputs or more; name them with inputs = [\"a\", \"b\"]".into()),
        [first, others @ ..] => match others.iter().find(|other| other.pixels != first.pixels) {
            Some(other) => Err(format!("it joins inputs of one height and width, but they are {first} and {other}")),
            None => Ok(Shape { channels: inputs.iter().map(|input| input.channels).sum(), pixels: first.pixels }),
        },
    }
}
