//! Which GPUs of this machine a process uses. CUDA itself asks `CUDA_VISIBLE_DEVICES` when it is first called, and numbers
//! those that it names from 0 on: so a choice is made there, before that, and holds for the ranks that this process starts.

use crate::error::{Error, Result};
use std::env;
use std::ffi::OsString;
use std::sync::Once;

/// The variable.
pub const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Lets this process, and those that it starts, see these GPUs alone, of those that it sees; all, where none is named. It
/// must come before the first call of the driver, while there is one thread. The first call decides.
///
/// # Errors
/// One is not among those that are seen.
pub fn choose(numbers: &[usize]) -> Result<()> {
    static CHOSEN: Once = Once::new();
    if numbers.is_empty() || CHOSEN.is_completed() {
        return Ok(());
    }
    let chosen = chosen(env::var(VISIBLE).ok().as_deref(), numbers)?;
    // SAFETY: commands choose before they start a thread.
    CHOSEN.call_once(|| unsafe { env::set_var(VISIBLE, chosen) });
    Ok(())
}

/// The variable's value that shows these GPUs.
pub fn listed(gpus: &[usize]) -> String {
    gpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// The names of the GPUs with these numbers, of those that `visible` names.
fn chosen(visible: Option<&str>, numbers: &[usize]) -> Result<String> {
    let Some(visible) = visible else { return Ok(listed(numbers)) };
    let seen: Vec<&str> = visible.split(',').map(str::trim).collect();
    let names = numbers.iter().map(|&number| {
        seen.get(number).copied().ok_or_else(|| {
            let (count, last) = (seen.len(), seen.len() - 1);
            Error::usage(format!("--devices names GPU {number}, but {VISIBLE} shows {count}: 0 to {last}"))
        })
    });
    Ok(names.collect::<Result<Vec<_>>>()?.join(","))
}

/// Arguments for ranks that see only the GPUs that were named, all at once or one by one: for them these are just so many.
pub fn numbers_as_count(all: Vec<OsString>, count: usize) -> Vec<OsString> {
    let mut arguments = Vec::with_capacity(all.len());
    let (mut all, mut told) = (all.into_iter(), false);
    while let Some(argument) = all.next() {
        let text = argument.to_string_lossy();
        if text == "--devices" || text.starts_with("--devices=") {
            if text == "--devices" {
                all.next();
            }
            if !told {
                arguments.extend(["--gpus".into(), count.to_string().into()]);
            }
            told = true;
        } else {
            arguments.push(argument);
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_gpus_that_are_seen() {
        assert_eq!(chosen(None, &[0, 2]).unwrap(), "0,2");
        assert_eq!(chosen(Some("4, GPU-8f,6"), &[2, 1]).unwrap(), "6,GPU-8f");
        let sentence = "--devices names GPU 2, but CUDA_VISIBLE_DEVICES shows 2: 0 to 1";
        assert_eq!(chosen(Some("4,5"), &[0, 2]).unwrap_err().to_string(), sentence);
    }

    #[test]
    fn ranks_are_told_how_many_gpus_and_not_which() {
        for all in [
            &["train", "--devices", "0,2", "--steps", "3"][..],
            &["train", "--devices=0,2", "--steps", "3"],
            &["train", "--devices", "0", "--steps", "3", "--devices=2"],
            &["train", "--devices=0", "--devices", "2", "--steps", "3"],
        ] {
            let left = numbers_as_count(all.iter().map(OsString::from).collect(), 2);
            assert_eq!(left, ["train", "--gpus", "2", "--steps", "3"].map(OsString::from));
        }
    }
}
