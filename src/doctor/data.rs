//! Fashion-MNIST, which the default recipe trains on.

use super::{Machine, Problem};
use serde::Serialize;
use std::path::PathBuf;

const TOPIC: &str = "data";
/// The files of the data set, each with or without `.gz`.
const FILES: [&str; 4] =
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

/// What data there is.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// Its folder.
    pub folder: PathBuf,
    /// Whether all files are there.
    pub found: bool,
    /// Those that are not.
    pub missing: Vec<&'static str>,
}

/// Finds it.
pub fn find(machine: &Machine) -> Facts {
    // That variable names the folder of whatever data set is asked for.
    let is_meant = machine.variable("MPT_DATA_SOURCE").is_none_or(|source| source == "fashion-mnist");
    let named = machine.variable("MPT_DATA_DIR").filter(|_| is_meant);
    let folder = named.map_or_else(|| machine.folders.data.clone(), PathBuf::from);
    let is_there = |name: &str| folder.join(name).exists() || folder.join(format!("{name}.gz")).exists();
    let missing: Vec<&'static str> = FILES.into_iter().filter(|name| !is_there(name)).collect();
    Facts { found: missing.is_empty(), missing, folder }
}

/// What is wrong with it.
pub fn problems(facts: &super::Facts) -> Vec<Problem> {
    let Facts { folder, found, missing } = &facts.data;
    if *found {
        return Vec::new();
    }
    let folder = folder.display();
    let what = match missing.len() {
        4 => format!("Fashion-MNIST is not in {folder}"),
        _ => format!("{folder} lacks {} of Fashion-MNIST", missing.join(", ")),
    };
    let advice =
        "run scripts/setup, which fetches it, or name a folder with --data-dir, or use --set data.source=synthetic";
    vec![Problem::new(TOPIC, what, advice)]
}
