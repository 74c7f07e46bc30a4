//! How settings are read from a complete table of them, and what each may be.

use super::settings::{
    CheckpointSettings, DataSettings, ExchangePrecision, Mean, MetricsSettings, ModelSettings, NonFinite,
    OptimizerSettings, OwnHalf, ParallelSettings, Recipe, SourceKind, TrainSettings,
};
use super::{address, duration};
use crate::error::{Error, Result};
use crate::keys::{Keys, one_of, suggestion};
use crate::model::parse::{Edits, activation};
use crate::optim::{Event, Patience, Schedule, Timeline, Watched};
use crate::plan::Mesh;
use std::time::Duration;
use toml::Table;

/// The most examples of a data set: an epoch's order is kept in memory.
const MOST_EXAMPLES: usize = 100_000_000;
/// The most classes that computed images may have: each has a pattern that is kept in memory.
const MOST_CLASSES: usize = 10_000;
/// The most outputs of a network that a recipe may ask for.
const MOST_OUTPUTS: usize = 1 << 20;

impl Recipe {
    /// Reads a complete table of settings. `origin` names, in messages, the source that was laid on last.
    ///
    /// # Errors
    /// One sentence that names the key, and the nearest known one for a key that is unknown.
    pub fn read(table: &Table, origin: &str) -> Result<Self> {
        let mut keys = Keys::new(table, origin);
        let (schedule, timeline) = section(&mut keys, "schedule", origin, read_schedule)?;
        let recipe = Self {
            name: keys.required("name")?,
            about: keys.required("about")?,
            seed: keys.required("seed")?,
            model: section(&mut keys, "model", origin, read_model)?,
            data: section(&mut keys, "data", origin, read_data)?,
            train: section(&mut keys, "train", origin, read_train)?,
            optimizer: section(&mut keys, "optimizer", origin, read_optimizer)?,
            schedule,
            timeline,
            parallel: section(&mut keys, "parallel", origin, read_parallel)?,
            checkpoint: section(&mut keys, "checkpoint", origin, read_checkpoint)?,
            metrics: section(&mut keys, "metrics", origin, read_metrics)?,
        };
        keys.finish()?;
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if recipe.name.is_empty() || recipe.name.starts_with('.') || !recipe.name.chars().all(safe) {
            let rule = "may hold only letters, digits, `-`, `_` and `.`, for it names a folder";
            return Err(Error::usage(format!("{origin}: the name {:?} {rule}", recipe.name)));
        }
        Ok(recipe)
    }
}

fn section<T>(keys: &mut Keys, name: &'static str, origin: &str, read: fn(&mut Keys) -> Result<T>) -> Result<T> {
    let table: Table = keys.required(name)?;
    let mut keys = Keys::new(&table, format!("{origin}: [{name}]"));
    let value = read(&mut keys)?;
    keys.finish()?;
    Ok(value)
}

fn read_model(keys: &mut Keys) -> Result<ModelSettings> {
    let name = keys.required("name")?;
    let function: String = keys.required("activation")?;
    let activation = match function.as_str() {
        "as-written" => None,
        other => Some(activation(other).ok_or_else(|| {
            let known = ["as-written", "relu", "sigmoid", "tanh"];
            let hint = suggestion(other, known.into_iter());
            Error::usage(format!("{}: there is no activation `{other}`{hint}", keys.context()))
        })?),
    };
    let dropout: f64 = keys.required("dropout")?;
    if dropout >= 1.0 {
        return Err(Error::usage(format!(
            "{}: `dropout` must be below 1 (negative: as written), not {dropout}",
            keys.context()
        )));
    }
    let init_from: String = keys.required("init_from")?;
    let input: Vec<usize> = keys.required("input")?;
    let input = match input[..] {
        [] => None,
        [channels, height, width] => Some([channels, height, width]),
        _ => {
            let rule = "`input` must be [channels, height, width], or [] for as written";
            return Err(Error::usage(format!("{}: {rule}, not {input:?}", keys.context())));
        }
    };
    let classes: String = keys.required("classes")?;
    let (classes, classes_of_data) = match classes.as_str() {
        "as-written" => (None, false),
        "data" => (None, true),
        number => match number.parse() {
            Ok(number @ 1..=MOST_OUTPUTS) => (Some(number), false),
            _ => {
                let rule = format!("`classes` must be as-written, data, or a number from 1 to {MOST_OUTPUTS}");
                return Err(Error::usage(format!("{}: {rule}, not {number}", keys.context())));
            }
        },
    };
    Ok(ModelSettings {
        name,
        edits: Edits { activation, dropout: (dropout >= 0.0).then_some(dropout), input, classes },
        classes_of_data,
        init_from: (!init_from.is_empty()).then(|| init_from.into()),
    })
}

fn read_data(keys: &mut Keys) -> Result<DataSettings> {
    let all = [
        SourceKind::FashionMnist,
        SourceKind::Idx,
        SourceKind::Images,
        SourceKind::Shards,
        SourceKind::Pack,
        SourceKind::Synthetic,
        SourceKind::Noise,
    ];
    let source = one_of("data source", &keys.required::<String>("source")?, all, SourceKind::name)
        .map_err(|error| error.within(keys.context()))?;
    let means = [Mean::Nothing, Mean::Channels, Mean::Image];
    let image: Vec<usize> = keys.required("image")?;
    let &[channels, height, width] = &image[..] else {
        return Err(Error::usage(format!(
            "{}: `image` must be [channels, height, width], not {image:?}",
            keys.context()
        )));
    };
    if image.iter().any(|&size| size == 0 || size > 4096) {
        return Err(Error::usage(format!(
            "{}: the sizes of `image` must lie between 1 and 4096, not {image:?}",
            keys.context()
        )));
    }
    Ok(DataSettings {
        source,
        dir: keys.required("dir")?,
        train_examples: at_most(keys, "train_examples", MOST_EXAMPLES)?,
        test_examples: at_most(keys, "test_examples", MOST_EXAMPLES)?,
        image: [channels, height, width],
        classes: between_one_and(keys, "classes", MOST_CLASSES)?,
        side: at_most(keys, "side", 4096)?,
        readers: at_most(keys, "readers", 1024)?,
        random_window: keys.required("random_window")?,
        ten_crop: keys.required("ten_crop")?,
        statistics: keys.required("statistics")?,
        subtract: one_of("mean", &keys.required::<String>("subtract")?, means, Mean::name)
            .map_err(|error| error.within(keys.context()))?,
        divide: keys.required("divide")?,
        scale: positive(keys, "scale")?,
        colour_noise: not_negative(keys, "colour_noise")?,
        flip: keys.required("flip")?,
        crop: at_most(keys, "crop", 4096)?,
    })
}

fn read_train(keys: &mut Keys) -> Result<TrainSettings> {
    let max_time: String = keys.required("max_time")?;
    let (precision, nonfinite): (String, String) = (keys.required("precision")?, keys.required("nonfinite")?);
    let exchange: String = keys.required("exchange")?;
    let in_context = |error: Error| error.within(keys.context());
    let precision = precision.parse().map_err(in_context)?;
    let exchanges = [ExchangePrecision::Full, ExchangePrecision::Half];
    let exchange = one_of("exchange", &exchange, exchanges, ExchangePrecision::name).map_err(in_context)?;
    let nonfinite = one_of("nonfinite", &nonfinite, [NonFinite::Stop, NonFinite::Skip], NonFinite::name);
    let nonfinite = nonfinite.map_err(in_context)?;
    let max_time = match max_time.as_str() {
        "" => None,
        span => Some(duration::parse(span).map_err(in_context)?),
    };
    Ok(TrainSettings {
        batch_size: between_one_and(keys, "batch_size", 1 << 20)?,
        epochs: between_one_and(keys, "epochs", 1_000_000)? as u64,
        steps: keys.required("steps")?,
        max_time,
        precision,
        exchange,
        nonfinite,
    })
}

fn read_optimizer(keys: &mut Keys) -> Result<OptimizerSettings> {
    let settings = OptimizerSettings {
        learning_rate: not_negative(keys, "learning_rate")?,
        momentum: not_negative(keys, "momentum")?,
        weight_decay: not_negative(keys, "weight_decay")?,
        rate_in_velocity: keys.required("rate_in_velocity")?,
    };
    if settings.momentum >= 1.0 {
        return Err(Error::usage(format!("{}: `momentum` must be below 1, not {}", keys.context(), settings.momentum)));
    }
    Ok(settings)
}

fn read_schedule(keys: &mut Keys) -> Result<(Schedule, Timeline)> {
    let kind: String = keys.required("kind")?;
    let every = not_negative(keys, "every")?;
    let factor = not_negative(keys, "factor")?;
    let warmup = not_negative(keys, "warmup")?;
    let minimum = not_negative(keys, "minimum")?;
    let patience = Patience { epochs: keys.required("patience")?, threshold: not_negative(keys, "threshold")? };
    let watched: String = keys.required("watch")?;
    let watched = one_of("value to watch", &watched, [Watched::Error, Watched::Loss], Watched::name)
        .map_err(|error| error.within(keys.context()))?;
    let schedule = match kind.as_str() {
        "constant" => Schedule::Constant,
        "step" if every > 0.0 => Schedule::Step { every, factor },
        "step" => return Err(Error::usage(format!("{}: `every` must be more than 0 epochs", keys.context()))),
        "cosine" => Schedule::Cosine { warmup, minimum },
        "plateau" => Schedule::Plateau { factor, patience, watched },
        other => {
            let hint = suggestion(other, ["constant", "step", "cosine", "plateau"].into_iter());
            return Err(Error::usage(format!("{}: there is no schedule `{other}`{hint}", keys.context())));
        }
    };
    Ok((schedule, read_timeline(keys)?))
}

fn read_timeline(keys: &mut Keys) -> Result<Timeline> {
    let (tables, context) = (keys.required::<Vec<Table>>("events")?, keys.context());
    let read = |(number, table): (usize, &Table)| {
        let mut keys = Keys::new(table, format!("{context}: event {number}"));
        let event = Event {
            epoch: not_negative(&mut keys, "epoch")?,
            parameters: keys.optional("parameters")?,
            lr_mult: optional_not_negative(&mut keys, "lr_mult")?,
            decay_mult: optional_not_negative(&mut keys, "decay_mult")?,
            frozen: keys.optional("frozen")?,
            colour_noise: optional_not_negative(&mut keys, "colour_noise")?,
        };
        if event.colour_noise.is_some() && (event.parameters.is_some() || event.epoch.fract() != 0.0) {
            return Err(Error::usage(format!(
                "{}: `colour_noise` is of no `parameters` and changes at the start of an epoch: at a whole `epoch`",
                keys.context()
            )));
        }
        keys.finish()?;
        Ok(event)
    };
    (1..).zip(&tables).map(read).collect::<Result<_>>().map(Timeline::new)
}

fn read_parallel(keys: &mut Keys) -> Result<ParallelSettings> {
    let devices = at_most(keys, "devices", Mesh::LARGEST)?;
    let mode: String = keys.required("mode")?;
    let mesh: String = keys.required("mesh")?;
    let bucket: String = keys.required("bucket")?;
    let in_context = |error: Error| error.within(keys.context());
    let bucket = if bucket == "all" { 0 } else { duration::parse_bytes(&bucket).map_err(in_context)? };
    let mode = if mode == "auto" { None } else { Some(mode.parse().map_err(in_context)?) };
    let mesh = if mesh == "auto" { None } else { Some(mesh.parse().map_err(in_context)?) };
    let own_half = [OwnHalf::Auto, OwnHalf::On, OwnHalf::Off];
    let own_half = one_of("own_half", &keys.required::<String>("own_half")?, own_half, OwnHalf::name)
        .map_err(|error| error.within(keys.context()))?;
    Ok(ParallelSettings {
        devices,
        mode,
        mesh,
        threads: at_most(keys, "threads", 1024)?,
        meeting: required_time(keys, "meeting")?,
        timeout: required_time(keys, "timeout")?,
        bucket,
        early_exchange: keys.required("early_exchange")?,
        own_half,
    })
}

fn read_checkpoint(keys: &mut Keys) -> Result<CheckpointSettings> {
    let every_time: String = keys.required("every_time")?;
    let every_time = match every_time.as_str() {
        "" => None,
        span => Some(some_time(keys, "every_time", span)?),
    };
    Ok(CheckpointSettings {
        every_time,
        every_epochs: keys.required("every_epochs")?,
        every_steps: keys.required("every_steps")?,
        keep: keys.required("keep")?,
    })
}

fn read_metrics(keys: &mut Keys) -> Result<MetricsSettings> {
    let text: String = keys.required("addr")?;
    let addr = match text.as_str() {
        "" => None,
        text => Some(address::parse(text).map_err(|error| error.within(keys.context()))?),
    };
    Ok(MetricsSettings { addr })
}

fn required_time(keys: &mut Keys, key: &'static str) -> Result<Duration> {
    let span: String = keys.required(key)?;
    some_time(keys, key, &span)
}

fn some_time(keys: &Keys, key: &str, span: &str) -> Result<Duration> {
    match duration::parse(span).map_err(|error| error.within(keys.context()))? {
        span if span.is_zero() => Err(Error::usage(format!("{}: `{key}` must be more than no time", keys.context()))),
        span => Ok(span),
    }
}

fn between_one_and(keys: &mut Keys, key: &'static str, most: usize) -> Result<usize> {
    match keys.required(key)? {
        value if (1..=most).contains(&value) => Ok(value),
        value => Err(Error::usage(format!("{}: `{key}` must lie between 1 and {most}, not {value}", keys.context()))),
    }
}

fn at_most(keys: &mut Keys, key: &'static str, most: usize) -> Result<usize> {
    match keys.required(key)? {
        value if value <= most => Ok(value),
        value => Err(Error::usage(format!("{}: `{key}` may be {most} at most, not {value}", keys.context()))),
    }
}

fn not_negative(keys: &mut Keys, key: &'static str) -> Result<f64> {
    match keys.required(key)? {
        value if value >= 0.0 => Ok(value),
        value => Err(Error::usage(format!("{}: `{key}` must not be negative, but is {value}", keys.context()))),
    }
}

fn positive(keys: &mut Keys, key: &'static str) -> Result<f64> {
    match keys.required(key)? {
        value if value > 0.0 => Ok(value),
        value => Err(Error::usage(format!("{}: `{key}` must be more than 0, but is {value}", keys.context()))),
    }
}

fn optional_not_negative(keys: &mut Keys, key: &'static str) -> Result<Option<f64>> {
    match keys.optional(key)? {
        Some(value) if value < 0.0 => {
            Err(Error::usage(format!("{}: `{key}` must not be negative, but is {value}", keys.context())))
        }
        value => Ok(value),
    }
}
