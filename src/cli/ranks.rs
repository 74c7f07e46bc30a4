//! Where the ranks of a command are that starts them itself and works on one machine.

use super::options::Which;
use super::place::Place;
use crate::error::{Error, Result};
use crate::launch::launchers::Described;
use crate::launch::{launchers, supervisor, visible};
use std::env;
use std::time::Duration;

/// Works where the ranks are: here, or in processes of which this is one, or which this one starts with its own arguments.
///
/// # Errors
/// There are not as many devices as are asked for, a launcher started this process, or the work failed.
pub fn on_ranks(
    command: &str,
    which: &Which,
    meeting: Duration,
    count: usize,
    work: impl FnOnce(&Place) -> Result<()>,
) -> Result<u8> {
    let place = Place::find(launchers::detect()?, which, || Ok(meeting), || Ok(count))?;
    if let Place::Nowhere(count) = place {
        let arguments = visible::numbers_as_count(env::args_os().skip(1).collect(), count);
        return supervisor::supervise(&supervisor::Ranks { count, arguments, environment: &|_| Vec::new() });
    }
    let done = match place.launched() {
        Some(Described { launcher, .. }) => Err(Error::usage(format!(
            "`mpt {command}` works on one machine and starts the ranks itself: start it without {launcher}"
        ))),
        None => place.check_ranks(count).and_then(|()| work(&place)),
    };
    done.inspect_err(|error| place.fail(error)).map(|()| 0)
}
