//! A file of weights that fits a model, whoever wrote it: mpt, or PyTorch by `safetensors.torch.save_file`. Its header is
//! not to be trusted; of its values each rank reads only those that it holds.

use super::tensors::{self, Described, FileSum, TensorFile, kind_of};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::names::{Naming, first_branch};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use tch::Tensor;

/// The most characters of a tensor's name, and the most sides of its shape, that a message shows.
const MOST_SHOWN: usize = 80;
const MOST_SIDES: usize = 8;
/// The most names that a message shows.
const MOST_NAMES: usize = 3;

/// A file that has each parameter of a model in its shape, and nothing else.
#[derive(Debug)]
pub struct WeightFile {
    file: TensorFile,
    naming: Naming,
    /// The name in the file of each parameter, by its own.
    names: BTreeMap<String, String>,
}

impl WeightFile {
    /// Finds the parameters `wanted` of a model in a file: under the layers' names, or, where the model is a sequence, under
    /// the numbers of PyTorch's nn.Sequential.
    ///
    /// # Errors
    /// Names the tensor that is missing, too many or does not fit, with both shapes.
    pub fn fitting(file: TensorFile, model: &Model, wanted: &[Described]) -> Result<Self> {
        let path = file.path().display();
        let header = file.header().0;
        let held: BTreeSet<String> = header.offset_keys().into_iter().collect();
        let (naming, names) = naming(model, &held);
        for (Described { name: own, shape }, name) in wanted.iter().zip(&names) {
            let called = if own == name { name.clone() } else { format!("{name} ({own})") };
            let Some(found) = header.info(name) else {
                let model = &model.name;
                return Err(Error::usage(format!(
                    "{path} has no tensor {called}, which model {model} has as {shape:?}{}",
                    other_names(&held)
                )));
            };
            if found.shape != *shape {
                let (held, model) = (sides(&found.shape), &model.name);
                return Err(Error::usage(format!(
                    "{path} has {called} as {held}, but model {model} has it as {shape:?}"
                )));
            }
            if kind_of(found.dtype).is_none() {
                let held = found.dtype;
                return Err(Error::usage(format!(
                    "{path} has {called} in {held}; weights can be read from F64, F32, BF16 and F16"
                )));
            }
        }
        if let Some(extra) = held.iter().find(|name| !names.contains(*name)) {
            let (extra, model) = (shown(extra), &model.name);
            return Err(Error::usage(format!("{path} has a tensor {extra}, which model {model} has not")));
        }
        let names = wanted.iter().map(|described| described.name.clone()).zip(names).collect();
        Ok(Self { file, naming, names })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The tensors, under their names in the file.
    pub fn file(&self) -> &TensorFile {
        &self.file
    }

    /// How it names its tensors.
    pub fn naming(&self) -> Naming {
        self.naming
    }

    /// Its length and checksum.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn sum(&self) -> Result<FileSum> {
        let read = || tensors::sum(&mut File::open(self.path())?);
        read().map_err(|error| Error::failed(format!("{} cannot be read: {error}", self.path().display())))
    }

    /// What reads some values of a parameter, by its name in the model and their indices in row-major order.
    ///
    /// # Errors
    /// The file has gone.
    pub fn reader(&self) -> Result<impl Fn(&str, Range<usize>) -> Result<Tensor> + '_> {
        let reader = self.file.reader()?;
        Ok(move |name: &str, indices: Range<usize>| {
            let name = self.names.get(name).map_or(name, String::as_str);
            reader.values(name, indices)
        })
    }
}

/// How a file that holds tensors of these names means them, and the names that a model's parameters have there. The layers' own
/// names come first: a layer may be called as a number is.
fn naming(model: &Model, held: &BTreeSet<String>) -> (Naming, Vec<String>) {
    let layers = Naming::Layers.of(model);
    let has = |names: &[String]| names.iter().filter(|name| held.contains(*name)).count();
    if first_branch(model).is_none() {
        let numbers = Naming::Sequential.of(model);
        if has(&numbers) > has(&layers) {
            return (Naming::Sequential, numbers);
        }
    }
    (Naming::Layers, layers)
}

/// What the tensors of a file are called, for one in which some are missed.
fn other_names(held: &BTreeSet<String>) -> String {
    if held.is_empty() {
        return "; it holds no tensor at all".to_owned();
    }
    let first: Vec<String> = held.iter().take(MOST_NAMES).map(|name| shown(name)).collect();
    let more = if held.len() > MOST_NAMES { ", ..." } else { "" };
    format!("; it holds {}{more}", first.join(", "))
}

/// A name that came from elsewhere, as a message takes it: it may hold anything, and much of it.
pub fn shown(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.is_empty() && name.len() <= MOST_SHOWN && name.chars().all(plain) {
        return name.to_owned();
    }
    let begin: String = name.chars().take(MOST_SHOWN).collect();
    let more = if begin.len() < name.len() { "..." } else { "" };
    format!("{begin:?}{more}")
}

/// A shape that came from elsewhere.
fn sides(shape: &[usize]) -> String {
    if shape.len() > MOST_SIDES { format!("a tensor of {} sides", shape.len()) } else { format!("{shape:?}") }
}
