//! The models that come with mpt, and where a `--model` argument is looked up.

use super::Model;
use super::parse::{Edits, parse};
use crate::error::{Error, Result};
use crate::file;
use crate::keys::suggestion;
use std::path::Path;

/// Name and text of every shipped model, in the order in which they are listed.
pub const SHIPPED: [(&str, &str); 15] = [
    ("alexnet", include_str!("shipped/alexnet.toml")),
    ("alexnet-dense", include_str!("shipped/alexnet-dense.toml")),
    ("alexnet-2012", include_str!("shipped/alexnet-2012.toml")),
    ("alexnet-2012-code", include_str!("shipped/alexnet-2012-code.toml")),
    ("alexnet-2014", include_str!("shipped/alexnet-2014.toml")),
    ("alexnet-2012-plain-pools", include_str!("shipped/alexnet-2012-plain-pools.toml")),
    ("alexnet-2012-no-norm", include_str!("shipped/alexnet-2012-no-norm.toml")),
    ("alexnet-2012-apart", include_str!("shipped/alexnet-2012-apart.toml")),
    ("alexnet-2012-half", include_str!("shipped/alexnet-2012-half.toml")),
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

/// The file of a shipped model.
pub fn text(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(shipped, _)| *shipped == name).map(|(_, text)| *text)
}

/// The model of a shipped name, or of a file whose name ends in `.toml`.
///
/// # Errors
/// Names the nearest shipped model, or the file and why it cannot be read.
pub fn load(argument: &str, edits: &Edits) -> Result<Model> {
    if let Some(text) = text(argument) {
        return parse(text, argument, edits);
    }
    if Path::new(argument).extension().is_some_and(|extension| extension == "toml") {
        let text = file::text(Path::new(argument))
            .map_err(|error| Error::usage(format!("model file {argument} cannot be read: {error}")))?;
        return parse(&text, argument, edits);
    }
    let hint = suggestion(argument, names());
    Err(Error::usage(format!("there is no model `{argument}` (one of your own is a file ending in .toml){hint}")))
}
