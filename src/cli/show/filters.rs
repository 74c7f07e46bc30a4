//! `mpt show filters`.

use super::write;
use crate::checkpoint::weights::shown;
use crate::checkpoint::{Checkpoint, Described, TensorFile, WeightFile};
use crate::cli::trained::Trained;
use crate::engine::saving::described;
use crate::error::{Error, Result};
use crate::model::cost::{Role, parameter_name, parameters};
use crate::model::parse::Edits;
use crate::model::ranges::shares;
use crate::model::towers::towers;
use crate::model::{Channels, Kind as Layers, LayerId, Model, shipped};
use crate::report::console;
use crate::report::filters::{self, Filters, drawing};
use crate::report::table::commas;
use clap::Args;
use std::path::PathBuf;
use tch::{Kind, Tensor};

/// The picture where no other is asked for.
const PICTURE: &str = "filters.png";

/// Arguments of `mpt show filters`.
#[derive(Debug, Args)]
pub struct ShowFilters {
    /// The folder of a run, for its newest checkpoint that is whole; or that of one of its checkpoints; or a file of weights,
    /// also one that PyTorch saved
    #[arg(value_name = "RUN|CHECKPOINT|FILE.safetensors")]
    weights: PathBuf,
    /// The model of a file of weights [default: its first kernels, and towers as the next kernels have groups]
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
    /// Draw them into this file [default: filters.png, unless --svg is given]
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Draw them into this file, with a caption for each tower
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Give each kernel mean 0 and variance 1 first, so that weak ones show as well as strong ones
    #[arg(long)]
    normalize: bool,
}

impl ShowFilters {
    /// Draws the kernels, and prints what they are.
    ///
    /// # Errors
    /// There are no kernels that can be drawn, or a picture cannot be written.
    pub fn run(self) -> Result<()> {
        let (about, filters) = self.find()?;
        let drawn = if self.normalize { filters.clone().normalized() } else { filters.clone() };
        let png = self.png.or_else(|| self.svg.is_none().then(|| PathBuf::from(PICTURE)));
        if let Some(file) = &png {
            write("--png", file, &drawing::png(&drawn)?)?;
        }
        if let Some(file) = &self.svg {
            write("--svg", file, drawing::svg(&drawn).as_bytes())?;
        }
        let pictures: Vec<String> = png.iter().chain(&self.svg).map(|file| file.display().to_string()).collect();
        let (tables, pictures) = (filters.table(), pictures.join(", "));
        console::results(&format!("{about}: {}\n\n{tables}\ndrawn: {pictures}\n", filters.about()))
    }

    /// What was named, in words, and its kernels.
    fn find(&self) -> Result<(String, Filters)> {
        let path = &self.weights;
        if !path.is_dir() {
            let file = TensorFile::of_others(path)?;
            let model = self.model.as_ref().map(|name| shipped::load(name, &Edits::default())).transpose()?;
            return match model {
                Some(model) => of_model(file, &model, &path.display().to_string()),
                None => unknown(&file),
            };
        }
        if self.model.is_some() {
            return Err(Error::usage("--model is for a file of weights: what a run trained, its recipe says"));
        }
        let trained = Trained::named(path)?;
        let recipe = trained.saved.recipe()?;
        let model = shipped::load(&recipe.model.name, &recipe.model.edits)?;
        let Checkpoint { state, model: weights, .. } = trained.checkpoint()?;
        of_model(weights, &model, &format!("{} after step {}", model.name, commas(state.position.step)))
    }
}

/// The kernels of a model's first convolution, in a file that fits it.
fn of_model(file: TensorFile, model: &Model, of: &str) -> Result<(String, Filters)> {
    let layer = first_convolution(model)?;
    let name = parameter_name(model, layer, Role::Weight);
    let shape = &parameters(model, layer)[0].shape;
    filters::check(&name, shape)?;
    let weights = WeightFile::fitting(file, model, &described(model))?;
    let values = values(weights.reader()?(&name, 0..shape.iter().product())?)?;
    Ok((format!("{name} of {of}"), Filters::new(&name, shape, values, towers(model, layer))?))
}

/// The first layer with weights, which reads the image.
fn first_convolution(model: &Model) -> Result<LayerId> {
    match model.layers.iter().position(|layer| layer.kind.has_weights()) {
        Some(first) if matches!(model.layers[first].kind, Layers::Conv(_)) => Ok(first),
        found => {
            let found = found.map_or_else(String::new, |first| {
                let layer = &model.layers[first];
                format!(": {}, of kind {}, comes first", layer.name, layer.kind.name())
            });
            Err(Error::usage(format!("model {} has no convolution that reads the image{found}", model.name)))
        }
    }
}

/// The kernels of the first convolution in a file of which no model is known.
fn unknown(file: &TensorFile) -> Result<(String, Filters)> {
    let path = file.path().display();
    let mut kernels: Vec<Described> = file.tensors().into_iter().filter(|tensor| tensor.shape.len() == 4).collect();
    kernels.sort_by_cached_key(|tensor| natural(&tensor.name));
    let [first, later @ ..] = &kernels[..] else {
        return Err(Error::usage(format!("{path} has no kernels: no tensor in it has four sides")));
    };
    filters::check(&shown(&first.name), &first.shape).map_err(|error| error.within(&path))?;
    let values = values(file.reader()?.values(&first.name, 0..first.len())?)?;
    let towers = by_groups(first.shape[0], later.first().map(|next| next.shape[1]));
    let name = shown(&first.name);
    Ok((format!("{name} of {path}"), Filters::new(&name, &first.shape, values, towers)?))
}

/// The towers of so many kernels where each kernel of the next layer reads `read` channels of them: a half, if it has two groups.
fn by_groups(kernels: usize, read: Option<usize>) -> Vec<Channels> {
    match read {
        Some(read) if read > 1 && kernels.is_multiple_of(read) => shares(kernels, kernels / read),
        _ => vec![Channels::all(kernels)],
    }
}

/// A name as its numbers and what lies between them, in whose order `features.3` comes before `features.10`.
fn natural(name: &str) -> Vec<(u64, String)> {
    let alike = |a: &u8, b: &u8| a.is_ascii_digit() == b.is_ascii_digit();
    let parts = name.as_bytes().chunk_by(alike).map(String::from_utf8_lossy);
    parts
        .map(|part| part.parse().map_or_else(|_| (u64::MAX, part.to_string()), |number| (number, String::new())))
        .collect()
}

fn values(weights: Tensor) -> Result<Vec<f32>> {
    Ok(Vec::try_from(&weights.f_to_kind(Kind::Float)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        let mut names = ["features.10.weight", "layer1.conv1", "features.3.weight", "conv1", "features.0.weight", "7"];
        names.sort_by_cached_key(|name| natural(name));
        assert_eq!(
            names,
            ["7", "conv1", "features.0.weight", "features.3.weight", "features.10.weight", "layer1.conv1"]
        );
    }

    #[test]
    fn the_next_kernels_tell_the_towers() {
        let halves = vec![Channels::from(0..48), Channels::from(48..96)];
        assert_eq!(by_groups(96, Some(48)), halves);
        // Read whole, depthwise, or by something else than the next layer.
        for read in [None, Some(96), Some(1), Some(64)] {
            assert_eq!(by_groups(96, read), [Channels::all(96)], "{read:?}");
        }
    }
}
