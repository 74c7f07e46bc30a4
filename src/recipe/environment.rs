//! Settings from the environment: `MPT_` and the key in capitals, with `_` for dots.

use super::Layered;
use crate::error::{Error, Result};
use crate::keys::suggestion;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// What the names of all of mpt's variables begin with.
const PREFIX: &str = "MPT_";
/// Variables that the scripts read, that say how a run is told of, and by which ranks of a supervisor know that they are.
const OF_OTHERS: [&str; 5] =
    ["MPT_FASHION_MNIST_MIRROR", "MPT_FLAVOUR", "MPT_LOG_FORMAT", "MPT_PEERS_PYTHON", "MPT_SUPERVISED"];
/// What the names of variables begin with that simulated devices read.
const OF_SIMULATOR: &str = "MPT_SIMULATOR_";

impl Layered {
    /// Lays the `MPT_*` variables of an environment over the settings below: `MPT_TRAIN_BATCH_SIZE` for
    /// `train.batch_size`.
    ///
    /// # Errors
    /// No key has the name of a variable, or its value is of the wrong kind: names it, and the nearest one that there is.
    pub fn set_environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<()> {
        let keys: BTreeMap<String, String> = self.keys().into_iter().map(|key| (name_of(&key), key)).collect();
        let mut found = BTreeMap::new();
        for (name, value) in variables {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
            if OF_OTHERS.contains(&name) || name.starts_with(OF_SIMULATOR) {
                continue;
            }
            let Some(key) = keys.get(name) else {
                let hint = suggestion(name, keys.keys().map(String::as_str));
                return Err(Error::usage(format!("environment variable {name}: it sets no key of the recipe{hint}")));
            };
            found.insert(key, (name.to_owned(), value));
        }
        for (key, (name, value)) in found {
            let origin = format!("environment variable {name}");
            let value = value.to_str().ok_or_else(|| Error::usage(format!("{origin}: its value is no UTF-8 text")))?;
            self.set(&format!("{key}={value}"), &origin)?;
        }
        Ok(())
    }
}

fn name_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn set(variables: &[(&str, &[u8])]) -> Result<Layered> {
        let mut layered = Layered::from_recipe("quick")?;
        let variables = variables.iter().map(|&(name, value)| (name.into(), OsString::from_vec(value.to_vec())));
        layered.set_environment(variables).map(|()| layered)
    }

    #[test]
    fn a_variable_that_sets_nothing_names_the_nearest_one_that_does() {
        for (name, value, sentence) in [
            (
                "MPT_TRAIN_BATCHSIZE",
                &b"3"[..],
                "MPT_TRAIN_BATCHSIZE: it sets no key of the recipe; did you mean `MPT_TRAIN_BATCH_SIZE`?",
            ),
            (
                "MPT_OPTIMIZER_MOMENTUM",
                b"1.5",
                "MPT_OPTIMIZER_MOMENTUM: [optimizer]: `momentum` must be below 1, not 1.5",
            ),
            ("MPT_DATA_DIR", b"/\xff", "MPT_DATA_DIR: its value is no UTF-8 text"),
        ] {
            let told = set(&[(name, value)]).unwrap_err().to_string();
            assert_eq!(told, format!("environment variable {sentence}"));
        }
    }

    #[test]
    fn the_variables_of_others_are_left_alone() {
        let others: [(&str, &[u8]); 5] = [
            ("MPT_FASHION_MNIST_MIRROR", b"\xff"),
            ("MPT_PEERS_PYTHON", b"python3"),
            ("MPT_SIMULATOR_DEVICES", b"8"),
            ("XMPT_SEED", b"8"),
            ("mpt_seed", b"8"),
        ];
        assert_eq!(set(&others).unwrap().to_toml(), set(&[]).unwrap().to_toml());
    }
}
