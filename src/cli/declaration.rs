//! What a rank declares before the first step, for the ranks to compare: all that must be the same everywhere.

use crate::checkpoint::tensors::FileSum;
use crate::comm::nccl::library;
use crate::engine::session::Job;
use crate::error::Result;
use crate::launch::agreement::Declaration;
use crate::recipe::Layered;
use crate::torch;
use std::fmt::Debug;

/// Keys of a recipe that may differ from rank to rank: names, and what a machine has or serves where. The files of the model and of
/// the weights that it begins with are compared by what they hold.
const MAY_DIFFER: [&str; 8] =
    ["name", "about", "model.name", "model.init_from", "data.dir", "data.readers", "parallel.threads", "metrics.addr"];
const COMMAND: &str = "start every rank with the same command and environment";
const PROGRAM: &str = "install the same mpt on every machine: scripts/setup does";
const MODEL: &str = "give every rank the same model file";
const WEIGHTS: &str = "give every rank the same file: model.init_from names it";
const CHECKPOINT: &str = "let every machine see the same run folder, or copy it anew: --resume names it";
const DATA: &str = "give every rank the same files: data.dir names their folder";

/// What this rank is about to do.
///
/// # Errors
/// NCCL does not tell its version.
pub fn declaration(layered: &Layered, job: &Job) -> Result<Declaration> {
    let mut declared = Declaration::default();
    // Versions first: other versions have other keys.
    declared.add("mpt's version", env!("CARGO_PKG_VERSION"), PROGRAM);
    declared.add("libtorch's version", torch::version(), PROGRAM);
    declared.add("NCCL's version", library::nccl_version()?, PROGRAM);
    for (key, value) in layered.values() {
        if !MAY_DIFFER.contains(&key.as_str()) {
            declared.add(key, value, COMMAND);
        }
    }
    let plan = &job.assignment.plan;
    declared.add("the model", &plan.model.name, MODEL);
    declared.add("the model's input", plan.model.input, MODEL);
    for layer in &plan.model.layers {
        let reads: Vec<&str> = layer.inputs.iter().map(|&input| plan.model.activation_name(input)).collect();
        let does = format!("{:?} of {}, giving {}", layer.kind, reads.join(" and "), layer.output);
        declared.add(format!("layer {}", layer.name), does, MODEL);
    }
    declared.add("the plan", checksum(&(&plan.placements, &plan.layers, &plan.exchanges)), PROGRAM);
    if let Some(weights) = &job.assignment.weights {
        let FileSum { bytes, crc32 } = weights.sum()?;
        declared.add("the weights to begin with", format!("{bytes} bytes with checksum {crc32}"), WEIGHTS);
    }
    if let Some(checkpoint) = &job.assignment.begin {
        let state = &checkpoint.state;
        let of_file = |(name, FileSum { bytes, crc32 }): (&String, &FileSum)| {
            format!("{name} of {bytes} bytes with checksum {crc32}")
        };
        let files: Vec<String> = state.files.iter().map(of_file).collect();
        let found = format!("step {}, {}", state.position.step, files.join(" and "));
        declared.add("the checkpoint to go on from", found, CHECKPOINT);
    }
    declared.add("the training set", job.train.identity(), DATA);
    declared.add("the test set", job.test.identity(), DATA);
    Ok(declared)
}

/// A plan follows from what was compared before it, unless the programs differ: that they do is enough to say.
fn checksum(plan: &impl Debug) -> String {
    format!("checksum {:08x}", crc32fast::hash(format!("{plan:?}").as_bytes()))
}
