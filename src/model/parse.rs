//! Reading a model from TOML.
//!
//! ```toml
//! name = "two-layers"
//! input = [1, 28, 28]                      # channels, height, width
//! weight_init = "xavier-uniform"           # for every layer that does not say otherwise
//! bias_init = "fan-in-uniform"
//! bias_lr_mult = 2                         # what the run's rate and weight decay are multiplied with: weight_lr_mult,
//! bias_decay_mult = 0                      # weight_decay_mult, bias_lr_mult, bias_decay_mult; here or in a layer
//! layers = [                               # in order; `inputs` defaults to the layer before
//!   { name = "conv1", kind = "conv", out = 8, kernel = 5, padding = 2, groups = 1 },
//!   { name = "relu1", kind = "relu" },
//!   { name = "flat", kind = "flatten" },
//!   { name = "fc2", kind = "linear", out = 10, weight_init = { normal = 0.01 }, bias_init = { constant = 0 } },
//!   { name = "loss", kind = "softmax-cross-entropy" },
//! ]
//! ```

use super::kind::{Conv, Linear, Multipliers, Norm, Window};
use super::{Draft, Initial, Kind, Model, Shape, base};
use crate::error::{Error, Result};
use crate::keys::{Keys, suggestion};
use std::collections::BTreeMap;
use toml::{Table, Value};

/// Changes made to a model as it is read, so that one file serves an experiment and its control.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edits {
    /// Every relu, sigmoid and tanh layer becomes this kind.
    pub activation: Option<Kind>,
    /// Every dropout layer drops with this probability.
    pub dropout: Option<f64>,
    /// Channels, height and width that the network reads.
    pub input: Option<[usize; 3]>,
    /// The outputs of the last linear layer.
    pub classes: Option<usize>,
}

/// The largest number of channels, pixels or layers that a model file may ask for.
const LARGEST: usize = 1 << 22;

const KINDS: [&str; 14] = [
    "conv",
    "linear",
    "relu",
    "sigmoid",
    "tanh",
    "max-pool",
    "average-pool",
    "local-response-norm",
    "same-map-norm",
    "dropout",
    "flatten",
    "add",
    "concat",
    "softmax-cross-entropy",
];

/// Reads a model. `origin` is the file's name, for messages.
///
/// # Errors
/// One sentence that names the file, the layer and the key.
pub fn parse(text: &str, origin: &str, edits: &Edits) -> Result<Model> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        Error::usage(format!("model {origin}: not valid TOML: {}", one_line(&error.to_string())))
    })?;
    let table = base::resolved(table, origin)?;
    let mut keys = Keys::new(&table, format!("model {origin}"));
    let name: String = keys.required("name")?;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) || name.starts_with('.')
    {
        let rule = "letters, digits, `-`, `_` and `.`, for it names a folder";
        return Err(Error::usage(format!("model {origin}: the name {name:?} may hold only {rule}")));
    }
    let input = keys.required::<Vec<usize>>("input")?;
    let [channels, height, width] = input[..] else {
        return Err(Error::usage(format!("model {origin}: `input` must be [channels, height, width], not {input:?}")));
    };
    let [channels, height, width] = edits.input.unwrap_or([channels, height, width]);
    if [channels, height, width].iter().any(|&size| size == 0 || size > 1 << 16) {
        return Err(Error::usage(format!(
            "model {origin}: the sizes of `input` must lie between 1 and 65536, not {:?}",
            [channels, height, width]
        )));
    }
    let defaults = Defaults {
        weight: initial(&mut keys, "weight_init", Initial::XavierUniform)?,
        bias: initial(&mut keys, "bias_init", Initial::FanInUniform)?,
        multipliers: multipliers(&mut keys, [Multipliers::default(); 2])?,
    };
    let layers: Vec<Table> = keys.required("layers")?;
    keys.finish()?;
    let mut counts = BTreeMap::new();
    let mut drafts = layers
        .iter()
        .enumerate()
        .map(|(position, layer)| draft(layer, position, &name, &defaults, edits, &mut counts))
        .collect::<Result<Vec<_>>>()?;
    if let Some(classes) = edits.classes {
        let last = drafts.iter_mut().rev().find_map(|draft| match &mut draft.kind {
            Kind::Linear(linear) => Some(linear),
            _ => None,
        });
        let none = || Error::usage(format!("model {origin} has no linear layer whose outputs could become {classes}"));
        last.ok_or_else(none)?.out_features = classes;
    }
    Model::new(&name, Shape::image(channels, height, width), drafts)
}

/// toml's messages span lines with a picture; the parts that are sentences, on one line.
pub(crate) fn one_line(message: &str) -> String {
    let parts: Vec<&str> = message.lines().filter(|line| !line.contains('|')).map(str::trim).collect();
    parts.join("; ").trim_matches(|c: char| c == ';' || c.is_whitespace()).to_owned()
}

struct Defaults {
    weight: Initial,
    bias: Initial,
    /// Of weights, and of biases.
    multipliers: [Multipliers; 2],
}

fn draft(
    layer: &Table,
    position: usize,
    model: &str,
    defaults: &Defaults,
    edits: &Edits,
    counts: &mut BTreeMap<String, usize>,
) -> Result<Draft> {
    let mut keys = Keys::new(layer, format!("model {model}: layer number {}", position + 1));
    let kind_name: String = keys.required("kind")?;
    let count = counts.entry(kind_name.clone()).or_default();
    *count += 1;
    let name = keys.or("name", format!("{kind_name}{count}"))?;
    let mut keys = Keys::new(layer, format!("model {model}: layer {name}"));
    keys.required::<String>("kind")?;
    keys.or("name", name.clone())?;
    let inputs = keys.or("inputs", Vec::new())?;
    let kind = kind(&kind_name, &mut keys, defaults)?;
    keys.finish()?;
    Ok(Draft { name, kind: edited(kind, edits), inputs })
}

fn edited(kind: Kind, edits: &Edits) -> Kind {
    match (kind, edits) {
        (Kind::Relu | Kind::Sigmoid | Kind::Tanh, Edits { activation: Some(activation), .. }) => activation.clone(),
        (Kind::Dropout { .. }, &Edits { dropout: Some(probability), .. }) => Kind::Dropout { probability },
        (kind, _) => kind,
    }
}

fn kind(name: &str, keys: &mut Keys, defaults: &Defaults) -> Result<Kind> {
    Ok(match name {
        "conv" => {
            let [weight_multipliers, bias_multipliers] = multipliers(keys, defaults.multipliers)?;
            Kind::Conv(Conv {
                out_channels: size(keys, "out", None)?,
                window: window(keys, Some(1))?,
                groups: size(keys, "groups", Some(1))?,
                bias: keys.or("bias", true)?,
                weight_initial: initial(keys, "weight_init", defaults.weight)?,
                bias_initial: initial(keys, "bias_init", defaults.bias)?,
                weight_multipliers,
                bias_multipliers,
            })
        }
        "linear" => {
            let [weight_multipliers, bias_multipliers] = multipliers(keys, defaults.multipliers)?;
            Kind::Linear(Linear {
                out_features: size(keys, "out", None)?,
                bias: keys.or("bias", true)?,
                weight_initial: initial(keys, "weight_init", defaults.weight)?,
                bias_initial: initial(keys, "bias_init", defaults.bias)?,
                weight_multipliers,
                bias_multipliers,
            })
        }
        "max-pool" => Kind::MaxPool(window(keys, None)?),
        "average-pool" => Kind::AveragePool(window(keys, None)?),
        "local-response-norm" => Kind::LocalResponseNorm { norm: norm(keys)?, groups: size(keys, "groups", Some(1))? },
        "same-map-norm" => Kind::SameMapNorm(norm(keys)?),
        "dropout" => Kind::Dropout { probability: probability(keys)? },
        "flatten" => Kind::Flatten,
        "add" => Kind::Add,
        "concat" => Kind::Concat,
        "softmax-cross-entropy" => Kind::SoftmaxCrossEntropy,
        _ => match activation(name) {
            Some(kind) => kind,
            None => {
                let hint = suggestion(name, KINDS.into_iter());
                return Err(Error::usage(format!("{}: unknown kind `{name}`{hint}", keys.context())));
            }
        },
    })
}

/// The pointwise kind of that name: relu, sigmoid or tanh.
pub fn activation(name: &str) -> Option<Kind> {
    [Kind::Relu, Kind::Sigmoid, Kind::Tanh].into_iter().find(|kind| kind.name() == name)
}

/// A window; where `stride` is not given it is `stride_default`, or the kernel for pools.
fn window(keys: &mut Keys, stride_default: Option<usize>) -> Result<Window> {
    let kernel = size(keys, "kernel", None)?;
    let stride = size(keys, "stride", Some(stride_default.unwrap_or(kernel)))?;
    let padding = keys.or("padding", 0usize)?;
    if [kernel, stride, padding].iter().any(|&pixels| pixels > 1 << 12) {
        return Err(Error::usage(format!("{}: kernel, stride and padding may be 4096 at most", keys.context())));
    }
    Ok(Window { kernel, stride, padding, ceil_mode: keys.or("ceil_mode", false)? })
}

/// How fast weights and biases are trained.
fn multipliers(keys: &mut Keys, [weight, bias]: [Multipliers; 2]) -> Result<[Multipliers; 2]> {
    let mut read = |key, default| match keys.or(key, default)? {
        value if value >= 0.0 => Ok(value),
        value => Err(Error::usage(format!("{}: `{key}` must not be negative, but is {value}", keys.context()))),
    };
    Ok([
        Multipliers { rate: read("weight_lr_mult", weight.rate)?, decay: read("weight_decay_mult", weight.decay)? },
        Multipliers { rate: read("bias_lr_mult", bias.rate)?, decay: read("bias_decay_mult", bias.decay)? },
    ])
}

/// A normalisation; what is not given is as in PyTorch.
fn norm(keys: &mut Keys) -> Result<Norm> {
    let size = size(keys, "size", None)?;
    let (alpha, beta, k) = (keys.or("alpha", 1e-4)?, keys.or("beta", 0.75)?, keys.or("k", 1.0)?);
    let sound = size <= 1 << 12 && alpha >= 0.0 && beta >= 0.0 && k > 0.0;
    match sound {
        true => Ok(Norm { size, alpha, beta, k }),
        false => Err(Error::usage(format!(
            "{}: `size` may be 4096 at most, `alpha` and `beta` not negative, and `k` must be above 0",
            keys.context()
        ))),
    }
}

/// A size that must be positive.
fn size(keys: &mut Keys, key: &'static str, default: Option<usize>) -> Result<usize> {
    let value = match default {
        Some(default) => keys.or(key, default)?,
        None => keys.required(key)?,
    };
    match value {
        1..=LARGEST => Ok(value),
        _ => Err(Error::usage(format!("{}: `{key}` must lie between 1 and {LARGEST}, not {value}", keys.context()))),
    }
}

fn probability(keys: &mut Keys) -> Result<f64> {
    let probability = keys.required("probability")?;
    if (0.0..1.0).contains(&probability) {
        return Ok(probability);
    }
    Err(Error::usage(format!("{}: `probability` must be at least 0 and below 1, not {probability}", keys.context())))
}

fn initial(keys: &mut Keys, key: &'static str, default: Initial) -> Result<Initial> {
    let Some(value) = keys.optional::<Value>(key)? else { return Ok(default) };
    let number = |table: &Table, name: &str| {
        let value = table.get(name).filter(|_| table.len() == 1)?;
        value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64)).filter(|number| number.is_finite())
    };
    let found = match &value {
        Value::String(name) => Initial::named(name),
        Value::Table(table) => number(table, "normal")
            .filter(|&std| std >= 0.0)
            .map(|std| Initial::Normal { std })
            .or_else(|| number(table, "constant").map(|value| Initial::Constant { value })),
        _ => None,
    };
    found.ok_or_else(|| {
        let names = Initial::NAMES.map(|name| format!("\"{name}\"")).join(", ");
        let known = format!("{names}, {{ normal = STD }} or {{ constant = VALUE }}");
        Error::usage(format!("{}: `{key}` must be one of {known}, not `{value}`", keys.context()))
    })
}
