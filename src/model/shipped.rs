//! The models that come with mpt, and where a `--model` argument is looked up.

use super::Model;
use super::parse::{Edits, parse};
use crate::error::{Error, Result};
use crate::keys::suggestion;
use std::path::Path;

/// Name and text of every shipped model, in the order in which they are listed.
pub const SHIPPED: [(&str, &str); 8] = [
    ("alexnet", include_str!("shipped/alexnet.toml")),
    ("alexnet-dense", include_str!("shipped/alexnet-dense.toml")),
    ("lenet", include_str!("shipped/lenet.toml")),
    ("quick", include_str!("shipped/quick.toml")),
    ("tiny", include_str!("shipped/tiny.toml")),
    ("tiny-residual", include_str!("shipped/tiny-residual.toml")),
    ("tiny-concat", include_str!("shipped/tiny-concat.toml")),
    ("tiny-2012", include_str!("shipped/tiny-2012.toml")),
];

/// The names of the shipped models.
pub fn names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// The model of a shipped name, or of a file whose name ends in `.toml`.
///
/// # Errors
/// Names the nearest shipped model, or the file and why it cannot be read.
pub fn load(argument: &str, edits: &Edits) -> Result<Model> {
    if let Some((name, text)) = SHIPPED.iter().find(|(name, _)| *name == argument) {
        return parse(text, name, edits);
    }
    if Path::new(argument).extension().is_some_and(|extension| extension == "toml") {
        let text = std::fs::read_to_string(argument)
            .map_err(|error| Error::usage(format!("model file {argument} cannot be read: {error}")))?;
        return parse(&text, argument, edits);
    }
    let hint = suggestion(argument, names());
    Err(Error::usage(format!("there is no model `{argument}` (one of your own is a file ending in .toml){hint}")))
}
