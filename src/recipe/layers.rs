//! Laying one source of settings over another: the defaults, the recipe, the environment, flags.

use super::Recipe;
use crate::error::{Error, Result};
use crate::file;
use crate::keys::suggestion;
use crate::model::parse::one_line;
use std::num::IntErrorKind;
use std::path::Path;
use toml::{Table, Value};

const DEFAULTS: &str = include_str!("shipped/defaults.toml");

/// Name and text of every shipped recipe, in the order in which they are listed.
pub const SHIPPED: [(&str, &str); 17] = [
    ("fashion-mnist", ""),
    ("quick", include_str!("shipped/quick.toml")),
    ("alexnet-relu", include_str!("shipped/alexnet-relu.toml")),
    ("alexnet-sigmoid", include_str!("shipped/alexnet-sigmoid.toml")),
    ("dropout-on", include_str!("shipped/dropout-on.toml")),
    ("dropout-off", include_str!("shipped/dropout-off.toml")),
    ("chapter-lenet", include_str!("shipped/chapter-lenet.toml")),
    ("chapter-alexnet", include_str!("shipped/chapter-alexnet.toml")),
    ("imagenet-2012", include_str!("shipped/imagenet-2012.toml")),
    ("imagenet-2012-code", include_str!("shipped/imagenet-2012-code.toml")),
    ("imagenet-2012-plain-pools", include_str!("shipped/imagenet-2012-plain-pools.toml")),
    ("imagenet-2012-no-norm", include_str!("shipped/imagenet-2012-no-norm.toml")),
    ("imagenet-2012-apart", include_str!("shipped/imagenet-2012-apart.toml")),
    ("imagenet-2012-half", include_str!("shipped/imagenet-2012-half.toml")),
    ("imagenet-2012-fp16-exchange", include_str!("shipped/imagenet-2012-fp16-exchange.toml")),
    ("imagenet-2014", include_str!("shipped/imagenet-2014.toml")),
    ("images", include_str!("shipped/images.toml")),
];

/// What in a shipped recipe is no setting: what others measured who ran the like of it.
const REPORTED: &str = "reported";

/// What the author of a shipped recipe's network measured of it, with his own program.
pub fn reported(name: &str) -> Option<String> {
    let table: Table = SHIPPED.iter().find(|(shipped, _)| *shipped == name)?.1.parse().ok()?;
    table.get(REPORTED).and_then(Value::as_str).map(str::to_owned)
}

/// The longest chain of recipes that are based on one another.
const DEEPEST: usize = 8;

/// A recipe as it is put together: every source in turn, checked as it is laid on.
#[derive(Clone, Debug)]
pub struct Layered {
    table: Table,
}

impl Layered {
    /// The defaults with the recipe of a name, or of a file that ends in `.toml`, laid over them.
    ///
    /// # Errors
    /// Names the recipe, the key and what is wrong with it.
    pub fn from_recipe(argument: &str) -> Result<Self> {
        let mut chain = Vec::new();
        let mut next = Some(argument.to_owned());
        while let Some(name) = next {
            if chain.len() == DEEPEST {
                return Err(Error::usage(format!(
                    "recipe {argument} is based on a chain of more than {DEEPEST} recipes"
                )));
            }
            let mut table = read_recipe(&name)?;
            table.remove(REPORTED);
            next = match table.remove("base") {
                None => None,
                Some(Value::String(base)) => Some(base),
                Some(other) => {
                    return Err(Error::usage(format!("recipe {name}: `base` must be a recipe's name, not `{other}`")));
                }
            };
            chain.push((name, table));
        }
        let mut layered = Self { table: parse_table(DEFAULTS, "the defaults")? };
        for (name, table) in chain.into_iter().rev() {
            layered.lay(table, &format!("recipe {name}"))?;
        }
        Ok(layered)
    }

    /// The defaults with the settings laid over them that a run has saved, which are all there were then.
    ///
    /// # Errors
    /// The file cannot be read, or holds what this version does not know.
    pub fn saved(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = file::text(path).map_err(|error| Error::failed(format!("{shown} cannot be read: {error}")))?;
        let mut layered = Self { table: parse_table(DEFAULTS, "the defaults")? };
        layered.lay(parse_table(&text, &shown.to_string())?, &format!("recipe {shown}"))?;
        Ok(layered)
    }

    /// The keys that have another value in `other`, with the value here and the value there.
    pub fn differences(&self, other: &Self) -> Vec<(String, Value, Value)> {
        let value = |layered: &Self, key: &str| lookup(&layered.table, key).cloned();
        self.keys()
            .into_iter()
            .filter_map(|key| Some((value(self, &key)?, value(other, &key)?, key)))
            .filter(|(here, there, _)| !same(here, there))
            .map(|(here, there, key)| (key, here, there))
            .collect()
    }

    /// Lays settings over those below.
    ///
    /// # Errors
    /// Names the key that is unknown, or whose value is of the wrong kind.
    pub fn lay(&mut self, over: Table, origin: &str) -> Result<()> {
        merge(&mut self.table, over);
        Recipe::read(&self.table, origin).map(|_| ())
    }

    /// Lays one `KEY=VALUE` over the settings below; the value is TOML, or a text without quotes.
    ///
    /// # Errors
    /// The form is wrong, or the key unknown, or the value of the wrong kind.
    pub fn set(&mut self, assignment: &str, origin: &str) -> Result<()> {
        let Some((key, value)) = assignment.split_once('=') else {
            return Err(Error::usage(format!(
                "{origin}: `{assignment}` must have the form KEY=VALUE, like train.epochs=3"
            )));
        };
        let (key, value) = (key.trim(), value.trim());
        if value.contains('\n') {
            return Err(Error::usage(format!("{origin}: the value of `{key}` must be one line")));
        }
        let known = self.keys();
        if !known.iter().any(|known| known == key) {
            let hint = suggestion(key, known.iter().map(String::as_str));
            return Err(Error::usage(format!("{origin}: unknown key `{key}`{hint}")));
        }
        let before = lookup(&self.table, key);
        let too_large = || value.parse::<i64>().is_err_and(|error| *error.kind() == IntErrorKind::PosOverflow);
        if before.is_some_and(Value::is_integer) && too_large() {
            return Err(Error::usage(format!("{origin}: `{key}` may be {} at most, not {value}", i64::MAX)));
        }
        let is_text = before.is_some_and(Value::is_str);
        let parsed = format!("value = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
        let value = match parsed {
            Some(parsed) if !is_text || parsed.is_str() => parsed,
            _ => Value::String(value.to_owned()),
        };
        let over =
            key.rsplit('.').fold(value, |inner, part| Value::Table(Table::from_iter([(part.to_owned(), inner)])));
        match over {
            Value::Table(over) => self.lay(over, origin),
            _ => Ok(()),
        }
    }

    /// Every key, with dots, in order.
    pub fn keys(&self) -> Vec<String> {
        known_keys(&self.table)
    }

    /// Every key, with dots, and its value, in order.
    pub fn values(&self) -> Vec<(String, &Value)> {
        self.keys().into_iter().filter_map(|key| lookup(&self.table, &key).map(|value| (key.clone(), value))).collect()
    }

    /// The settings, checked.
    ///
    /// # Errors
    /// See [`Recipe::read`].
    pub fn recipe(&self) -> Result<Recipe> {
        Recipe::read(&self.table, "recipe")
    }

    /// The settings as TOML: every key with its effective value.
    pub fn to_toml(&self) -> String {
        self.table.to_string()
    }

    /// Every effective value, by section.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self.table)
    }
}

/// Whether two values mean the same: 0 is 0.0.
fn same(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
    a == b || number(a).zip(number(b)).is_some_and(|(a, b)| a == b)
}

fn read_recipe(argument: &str) -> Result<Table> {
    if let Some((name, text)) = SHIPPED.iter().find(|(name, _)| *name == argument) {
        return parse_table(text, name);
    }
    if Path::new(argument).extension().is_some_and(|extension| extension == "toml") {
        let text = file::text(Path::new(argument))
            .map_err(|error| Error::usage(format!("recipe file {argument} cannot be read: {error}")))?;
        return parse_table(&text, argument).map(|table| from_file(table, Path::new(argument)));
    }
    let hint = suggestion(argument, SHIPPED.iter().map(|(name, _)| *name));
    Err(Error::usage(format!("there is no recipe `{argument}` (one of your own is a file ending in .toml){hint}")))
}

/// A recipe as its file means it: it is called as the file is, and names other files from its own folder on.
fn from_file(mut table: Table, path: &Path) -> Table {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    table.entry("name").or_insert(Value::String(stem));
    table.entry("about").or_insert(Value::String(String::new()));
    let folder = path.parent().unwrap_or(Path::new(""));
    let beside = |value: Option<&mut Value>| {
        if let Some(Value::String(name)) = value
            && name.ends_with(".toml")
        {
            *name = folder.join(&*name).to_string_lossy().into_owned();
        }
    };
    beside(table.get_mut("base"));
    beside(table.get_mut("model").and_then(Value::as_table_mut).and_then(|model| model.get_mut("name")));
    table
}

fn parse_table(text: &str, origin: &str) -> Result<Table> {
    text.parse().map_err(|error: toml::de::Error| {
        Error::usage(format!("recipe {origin}: not valid TOML: {}", one_line(&error.to_string())))
    })
}

fn merge(below: &mut Table, over: Table) {
    for (key, value) in over {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(over)) => merge(below, over),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

/// Every key, with dots, in order.
fn known_keys(table: &Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => keys.extend(known_keys(inner).into_iter().map(|inner| format!("{key}.{inner}"))),
            _ => keys.push(key.clone()),
        }
    }
    keys
}

fn lookup<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((section, rest)) => lookup(table.get(section)?.as_table()?, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_recipe_is_complete_and_carries_its_name() {
        for (name, _) in SHIPPED {
            let recipe = Layered::from_recipe(name).unwrap().recipe().unwrap();
            assert_eq!(recipe.name, name);
            crate::model::shipped::load(&recipe.model.name, &recipe.model.edits).unwrap();
            recipe.layout().unwrap();
        }
    }

    #[test]
    fn what_others_measured_is_no_setting_and_belongs_to_one_recipe() {
        assert_eq!(reported("imagenet-2012").unwrap(), "40.66 % top-1, 18.21 % top-5");
        assert_eq!((reported("imagenet-2012-code"), reported("quick")), (None, None));
        let recipe = Layered::from_recipe("imagenet-2012-no-norm").unwrap();
        assert!(!recipe.keys().iter().any(|key| key == REPORTED));
    }

    #[test]
    fn later_sources_win() {
        let mut layered = Layered::from_recipe("quick").unwrap();
        let environment = [("MPT_TRAIN_BATCH_SIZE", "32"), ("MPT_SEED", "5")];
        layered.set_environment(environment.map(|(name, value)| (name.into(), value.into()))).unwrap();
        layered.set("seed=9", "--set").unwrap();
        layered.set("data.dir=/some where", "--set").unwrap();
        let recipe = layered.recipe().unwrap();
        assert_eq!((recipe.name.as_str(), recipe.train.batch_size, recipe.seed), ("quick", 32, 9));
        assert_eq!(recipe.data.dir, "/some where");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_source() {
        let mut layered = Layered::from_recipe("quick").unwrap();
        let message = |error: Error| error.to_string();
        assert_eq!(
            message(layered.clone().set("train.batchsize=3", "--set").unwrap_err()),
            "--set: unknown key `train.batchsize`; did you mean `train.batch_size`?"
        );
        assert_eq!(
            message(layered.clone().set("train.batch_size=many", "--set").unwrap_err()),
            "--set: [train]: `batch_size` must be a whole number, not negative, not `\"many\"`"
        );
        assert_eq!(
            message(layered.clone().set("train.precision=fp23", "--set").unwrap_err()),
            "--set: [train]: there is no precision `fp23`; did you mean `fp32`?"
        );
        for (events, sentence) in [
            ("[{epoch = 1, lr_mutl = 0.1}]", "event 1: unknown key `lr_mutl`; did you mean `lr_mult`?"),
            ("[{epoch = 1, lr_mult = 0.1}, {lr_mult = 0.1}]", "event 2: the key `epoch` is missing"),
            ("[{epoch = 1, decay_mult = -1}]", "event 1: `decay_mult` must not be negative, but is -1"),
            (
                "[{epoch = 1.5, colour_noise = 0}]",
                "event 1: `colour_noise` is of no `parameters` and changes at the start of an epoch: at a whole `epoch`",
            ),
        ] {
            let told = message(layered.clone().set(&format!("schedule.events={events}"), "--set").unwrap_err());
            assert_eq!(told, format!("--set: [schedule]: {sentence}"));
        }
        for (section, key) in [("parallel", "timeout"), ("parallel", "meeting"), ("checkpoint", "every_time")] {
            let told = message(layered.clone().set(&format!("{section}.{key}=0s"), "--set").unwrap_err());
            assert_eq!(told, format!("--set: [{section}]: `{key}` must be more than no time"));
        }
        assert_eq!(
            message(layered.set("seed=9223372036854775808", "--seed").unwrap_err()),
            "--seed: `seed` may be 9223372036854775807 at most, not 9223372036854775808"
        );
        assert_eq!(
            message(Layered::from_recipe("quikc").unwrap_err()),
            "there is no recipe `quikc` (one of your own is a file ending in .toml); did you mean `quick`?"
        );
    }

    #[test]
    fn a_printed_recipe_reads_back_as_itself() {
        let layered = Layered::from_recipe("dropout-off").unwrap();
        let mut again = Layered::from_recipe("fashion-mnist").unwrap();
        again.lay(layered.to_toml().parse().unwrap(), "printed").unwrap();
        assert_eq!(again.recipe().unwrap(), layered.recipe().unwrap());
    }

    #[test]
    fn a_recipe_in_a_file_is_called_like_it_and_finds_what_lies_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("first.toml"), "base = \"quick\"\n[model]\nname = \"net.toml\"\n").unwrap();
        std::fs::write(path("second.toml"), "base = \"first.toml\"\nseed = 3\n").unwrap();
        let recipe = Layered::from_recipe(&path("second.toml")).unwrap().recipe().unwrap();
        assert_eq!((recipe.name.as_str(), recipe.seed, recipe.model.name), ("second", 3, path("net.toml")));
        assert_eq!(recipe.optimizer.momentum, 0.9);
    }
}
