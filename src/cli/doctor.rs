//! `mpt doctor`.

use crate::doctor::cuda::Cuda;
use crate::doctor::{Machine, examine};
use crate::error::{Error, Result};
use crate::report::{console, doctor_table};
use clap::Args;
use serde::Serialize;

/// Arguments of `mpt doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON: {"facts": {...}, "problems": [{"topic", "what", "advice"}]}
    #[arg(long)]
    json: bool,
    /// Be the process that asks the driver and NCCL, and print what they say (see `doctor::cuda`)
    #[arg(long, hide = true)]
    ask_the_driver: bool,
}

impl Doctor {
    /// Prints what the machine has and lacks. What it lacks is no error.
    ///
    /// # Errors
    /// The results cannot be written.
    pub fn run(self) -> Result<u8> {
        if self.ask_the_driver {
            return json(&Cuda::ask_here()).map(|()| 0);
        }
        let report = examine(&Machine::this(Cuda::ask()));
        if self.json {
            json(&report)?;
        } else {
            console::results(&doctor_table::render(&report))?;
        }
        Ok(0)
    }
}

fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Error::failed(format!("the results cannot be put into JSON: {error}")))?;
    console::results(&format!("{text}\n"))
}
