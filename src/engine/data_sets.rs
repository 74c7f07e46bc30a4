//! The data sets that recipes name: how they are opened, and how their images are prepared for a model.

use crate::data::images::decode::Form;
use crate::data::prepare::statistics::Statistics;
use crate::data::prepare::{Preparation, Views};
use crate::data::{
    Augmentation, IdxDataset, ImageFolder, Limited, Noise, Pack, Shards, Source, Subset, Synthetic, images, shards,
};
use crate::error::{Error, Result};
use crate::model::{Model, Shape};
use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::recipe::settings::{DataSettings, Mean, SourceKind};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Examples of computed training and test sets, where the recipe does not say.
const COMPUTED: [usize; 2] = [60_000, 10_000];
/// The name of the statistics that are known without a file.
const OF_IMAGENET: &str = "imagenet";

/// The folder in which `scripts/mpt` keeps data sets: `mpt/data` in the user's cache.
pub fn data_cache() -> PathBuf {
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from).or_else(home);
    cache.unwrap_or_default().join("mpt").join("data")
}

/// Where the files of a data set are that has no place of its own.
///
/// # Errors
/// The recipe does not say.
pub fn files_of(data: &DataSettings) -> Result<&Path> {
    match data.dir.as_str() {
        "" => {
            let name = data.source.name();
            let what = if data.source == SourceKind::Pack {
                "which it is: --data-dir FILE"
            } else {
                "in which folder they are: --data-dir DIR"
            };
            Err(Error::usage(format!("data.source is {name}, so say {what}")))
        }
        dir => Ok(Path::new(dir)),
    }
}

/// A subset of the data set that a recipe names, for a model.
///
/// # Errors
/// It cannot be read.
pub fn open(recipe: &Recipe, model: &Model, subset: Subset) -> Result<Arc<dyn Source>> {
    let Recipe { data, seed, .. } = recipe;
    let (wanted, computed) = match subset {
        Subset::Train => (data.train_examples, COMPUTED[0]),
        Subset::Test => (data.test_examples, COMPUTED[1]),
    };
    let length = if wanted == 0 { computed } else { wanted };
    let files = |default: PathBuf| -> Result<Arc<dyn Source>> {
        let dir = if data.dir.is_empty() { default } else { PathBuf::from(&data.dir) };
        let found = IdxDataset::open(&dir, subset)?;
        Ok(if wanted == 0 { Arc::new(found) } else { Arc::new(Limited::new(found, wanted)) })
    };
    match data.source {
        SourceKind::FashionMnist => files(data_cache().join("fashion-mnist")),
        SourceKind::Idx if data.dir.is_empty() => {
            Err(Error::usage("data.source is idx, so say where the files are: --data-dir DIR"))
        }
        SourceKind::Idx => files(PathBuf::new()),
        SourceKind::Images => {
            let form = image_form(data, model.input)?;
            Ok(Arc::new(ImageFolder::open(files_of(data)?, subset, wanted, form)?))
        }
        SourceKind::Shards => {
            let form = image_form(data, model.input)?;
            Ok(Arc::new(Shards::open(files_of(data)?, subset, wanted, form)?))
        }
        SourceKind::Pack => {
            let path = files_of(data)?;
            let pack = Pack::open(path, subset, wanted)?;
            let [_, height, width] = pack.shape();
            if data.side != 0 && height.min(width) != data.side {
                return Err(Error::usage(format!(
                    "data.side is {}, and {} holds images of {height} x {width}: leave data.side out, or pack again",
                    data.side,
                    path.display()
                )));
            }
            Ok(Arc::new(pack))
        }
        SourceKind::Synthetic => Ok(Arc::new(Synthetic::new(*seed, length, data.image, data.classes, subset)?)),
        SourceKind::Noise => Ok(Arc::new(Noise::new(*seed, length, data.image, data.classes)?)),
    }
}

/// Bytes of the data set that lie in memory while a run uses it, as far as the recipe tells: Fashion-MNIST is read whole, and so
/// are files like it, whose size only they know; of images in files no more than a few batches are in memory.
pub fn kept_in_memory(data: &DataSettings) -> u64 {
    const FASHION_MNIST: u64 = 70_000 * (28 * 28 + 1);
    if data.source == SourceKind::FashionMnist { FASHION_MNIST } else { 0 }
}

/// What image files are made into for a network that reads images of this shape.
fn image_form(data: &DataSettings, input: Shape) -> Result<Form> {
    let channels = input.channels;
    if ![1, 3].contains(&channels) {
        return Err(Error::usage(format!(
            "data.source is {}, which have 1 channel or 3, but the model reads {channels}; see model.input",
            data.source.name()
        )));
    }
    let (height, width) = input.pixels.unwrap_or((1, 1));
    let side = if data.side == 0 { (height.min(width) * 8).div_ceil(7) } else { data.side };
    Ok(Form { channels, side })
}

/// Sees that a model can read the images of a data set and tell their classes apart.
///
/// # Errors
/// It cannot.
pub fn check_fit(plan: &Plan, source: &dyn Source, data: &DataSettings) -> Result<()> {
    let model = &plan.model;
    let [channels, height, width] = source.shape();
    let name = data.source.name();
    if channels != model.input.channels {
        let (stored, wanted) = (Shape::image(channels, height, width), model.input);
        let remedy = match data.source {
            SourceKind::Synthetic | SourceKind::Noise => {
                let (height, width) = wanted.pixels.unwrap_or((height, width));
                format!("; use --set data.image=[{},{height},{width}]", wanted.channels)
            }
            _ => String::new(),
        };
        return Err(Error::usage(format!(
            "model {} reads images of {wanted}, but those of {name} are {stored}: the channels differ{remedy}",
            model.name
        )));
    }
    if source.classes() > model.classes() {
        let (found, known) = (source.classes(), model.classes());
        return Err(Error::usage(format!(
            "{name} has {found} classes, but model {} tells only {known} apart",
            model.name
        )));
    }
    Ok(())
}

/// How images are prepared in training.
///
/// # Errors
/// The statistics that the recipe names cannot be read, or are of other images.
pub fn for_training(recipe: &Recipe, model: &Model, source: &dyn Source, views: Views) -> Result<Preparation> {
    let data = &recipe.data;
    let preparation = for_evaluation(recipe, model, source, views)?;
    let augmentation = Augmentation { flip: data.flip, crop: data.crop };
    if data.colour_noise == 0.0 && !recipe.timeline.begins_colour_noise() {
        return Ok(Preparation { augmentation, ..preparation });
    }
    let colour = statistics(data, source)?.noise(data.colour_noise);
    let none = || {
        let channels = source.shape()[0];
        Error::usage(format!("data.colour_noise is for images of 3 channels, and these have {channels}; set it to 0"))
    };
    Ok(Preparation { augmentation, colour: Some(colour.ok_or_else(none)?), ..preparation })
}

/// How images are prepared in evaluations.
///
/// # Errors
/// As above; or ten windows are to be cut out of images that are no larger than the model reads.
pub fn for_evaluation(recipe: &Recipe, model: &Model, source: &dyn Source, views: Views) -> Result<Preparation> {
    let data = &recipe.data;
    let [channels, height, width] = source.shape();
    let (wanted_height, wanted_width) = model.input.pixels.unwrap_or((height, width));
    let window = [height.min(wanted_height), width.min(wanted_width)];
    let window = (data.source.is_cut() && window != [height, width]).then_some(window);
    if views == Views::Ten && window.is_none() {
        return Err(Error::usage(format!(
            "ten views are cut out of image files that are larger than the model reads ({wanted_height} x {wanted_width}), \
             and these are {height} x {width}; see data.side"
        )));
    }
    let mut preparation = Preparation { window, views, ..Preparation::default() };
    let mut factor = vec![data.scale as f32; channels];
    if data.subtract != Mean::Nothing || data.divide {
        let Statistics { mean, deviation, image, .. } = statistics(data, source)?;
        preparation.mean = match (data.subtract, image) {
            (Mean::Nothing, _) => None,
            (Mean::Channels, _) => Some(mean.into()),
            (Mean::Image, Some(image)) if image.shape == [channels, height, width] => Some(image.pixels.into()),
            (Mean::Image, image) => {
                let found = image.map_or_else(|| "none".to_owned(), |image| format!("one of {:?}", image.shape));
                return Err(Error::usage(format!(
                    "data.subtract is image, and {} has {found} in place of one of {:?}; `mpt data stats` makes it",
                    data.statistics,
                    source.shape()
                )));
            }
        };
        if data.divide {
            // A channel that is the same in all images has nothing to be divided by.
            let spread = factor.iter_mut().zip(deviation).filter(|(_, deviation)| *deviation > 0.0);
            spread.for_each(|(factor, deviation)| *factor /= deviation);
        }
    }
    preparation.factor = factor.iter().any(|factor| *factor != 1.0).then(|| factor.into());
    Ok(preparation)
}

/// The statistics that a recipe names.
fn statistics(data: &DataSettings, source: &dyn Source) -> Result<Statistics> {
    let found = match data.statistics.as_str() {
        OF_IMAGENET => Statistics::of_imagenet(),
        path => Statistics::read(Path::new(path))?,
    };
    let (of, channels) = (found.mean.len(), source.shape()[0]);
    if of != channels {
        return Err(Error::usage(format!(
            "data.statistics, {}, is of images of {of} channel(s), and these have {channels}; `mpt data stats` makes those of a \
             training set",
            data.statistics
        )));
    }
    Ok(found)
}

/// The names of the classes of the data set that a recipe names; none where they are not known.
///
/// # Errors
/// It cannot be read.
pub fn class_names(data: &DataSettings) -> Result<Vec<String>> {
    match data.source {
        SourceKind::Images => images::listing::class_names(files_of(data)?),
        SourceKind::Shards => Ok(shards::class_names(files_of(data)?)?.unwrap_or_default()),
        _ => Ok(Vec::new()),
    }
}
