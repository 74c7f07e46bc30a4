//! Models that are another one but for a few layers: what is not said of them is as in the shipped model that they name.
//!
//! ```toml
//! base = "alexnet-2012"
//! name = "alexnet-2012-small-first"
//! remove = ["norm1", "norm2"]              # layers that are left out
//! [change]                                 # keys of layers that have other values
//! conv1 = { out = 48 }
//! ```

use super::shipped;
use crate::error::{Error, Result};
use crate::keys::{Keys, suggestion};
use toml::{Table, Value};

/// The longest chain of models that are based on one another.
const DEEPEST: usize = 8;

/// The model as if it were written out. `origin` names it in messages.
///
/// # Errors
/// There is no such base, or no such layer in it.
pub fn resolved(model: Table, origin: &str) -> Result<Table> {
    resolved_within(model, origin, DEEPEST)
}

fn resolved_within(mut model: Table, origin: &str, depth: usize) -> Result<Table> {
    let mut keys = Keys::new(&model, format!("model {origin}"));
    let base: Option<String> = keys.optional("base")?;
    let (remove, change) = (keys.or("remove", Vec::<String>::new())?, keys.or("change", Table::new())?);
    let Some(base) = base else { return Ok(model) };
    if depth == 0 {
        return Err(Error::usage(format!("model {origin} is based on a chain of more than {DEEPEST} models")));
    }
    let Some(text) = shipped::text(&base) else {
        let hint = suggestion(&base, shipped::names());
        return Err(Error::usage(format!("model {origin}: `base` must be a shipped model, not `{base}`{hint}")));
    };
    let table = text.parse().map_err(|_| Error::failed(format!("the shipped model {base} is not valid TOML")))?;
    if model.contains_key("layers") && !(remove.is_empty() && change.is_empty()) {
        let rule =
            "`layers` are all layers, so that `remove` and `change` have none to say anything of; leave either out";
        return Err(Error::usage(format!("model {origin}: {rule}")));
    }
    let mut whole = resolved_within(table, &base, depth - 1)?;
    if let Some(Value::Array(layers)) = whole.get_mut("layers") {
        for name in &remove {
            let place = place(layers, name, origin, "remove")?;
            layers.remove(place);
        }
        for (name, keys) in change {
            let place = place(layers, &name, origin, "change")?;
            let (Value::Table(layer), Value::Table(keys)) = (&mut layers[place], keys) else {
                let rule = "must be a table of keys, like { out = 48 }";
                return Err(Error::usage(format!("model {origin}: the change of layer `{name}` {rule}")));
            };
            layer.extend(keys);
        }
    }
    for key in ["base", "remove", "change"] {
        model.remove(key);
    }
    whole.extend(model);
    Ok(whole)
}

/// Where the layer of a name is.
fn place(layers: &[Value], name: &str, origin: &str, key: &str) -> Result<usize> {
    let names = || layers.iter().filter_map(|layer| layer.get("name").and_then(Value::as_str));
    layers.iter().position(|layer| layer.get("name").and_then(Value::as_str) == Some(name)).ok_or_else(|| {
        let hint = suggestion(name, names());
        Error::usage(format!("model {origin}: `{key}` names the layer `{name}`, which its base does not have{hint}"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse::{Edits, parse};
    use super::*;

    fn model(text: &str) -> Result<super::super::Model> {
        parse(&format!("name = \"mine\"\n{text}"), "mine.toml", &Edits::default())
    }

    #[test]
    fn a_model_is_its_base_but_for_what_it_says() {
        let text =
            "base = \"quick\"\ninput = [1, 32, 32]\nremove = [\"relu3\"]\n[change]\nconv2 = { out = 48, groups = 3 }";
        let found = model(text).unwrap_err().to_string();
        assert_eq!(
            found,
            "model mine: layer conv2: 3 groups must divide both its 32 input channels and its 48 output channels"
        );
        let found = model(&text.replace("groups = 3", "groups = 4")).unwrap();
        let base = shipped::load("quick", &Edits::default()).unwrap();
        assert_eq!((found.name.as_str(), found.layers.len()), ("mine", base.layers.len() - 1));
        assert_eq!(found.layers[3].output.to_string(), "48x16x16");
        assert_eq!(found.layers[0].kind, base.layers[0].kind);
    }

    #[test]
    fn a_base_or_a_layer_that_is_not_there_is_named() {
        for (text, sentence) in [
            ("base = \"quikc\"", "model mine.toml: `base` must be a shipped model, not `quikc`; did you mean `quick`?"),
            (
                "base = \"quick\"\nremove = [\"conv9\"]",
                "model mine.toml: `remove` names the layer `conv9`, which its base does not have; did you mean `conv3`?",
            ),
            (
                "base = \"quick\"\n[change]\nconv1 = 3",
                "model mine.toml: the change of layer `conv1` must be a table of keys, like { out = 48 }",
            ),
            (
                "base = \"quick\"\nlayers = []\n[change]\nconv1 = { out = 3 }",
                "model mine.toml: `layers` are all layers, so that `remove` and `change` have none to say anything of; leave \
                 either out",
            ),
            (
                "base = \"quick\"\nremove = \"conv1\"",
                "model mine.toml: `remove` must be a list of fitting values in brackets, not `\"conv1\"`",
            ),
        ] {
            assert_eq!(model(text).unwrap_err().to_string(), sentence);
        }
    }
}
