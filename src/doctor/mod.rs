//! What a machine has and what it lacks, for `mpt doctor`: one file a topic, each of which gives facts and problems.
//!
//! Nothing here changes anything, and nothing fails because something is absent. A [`Machine`] is all that is looked at:
//! the files of the kernel under a root folder, and what was asked beforehand of the system calls, the driver and NCCL.
//! So any machine can be put together from files and values, and that is how the topics are tested that no machine of
//! ours has: everything in [`gpus`], [`links`] and [`nccl`] about real GPUs, their bridges and their driver has been seen
//! in such fixtures (`tests/mpt/doctor/`) and on simulated GPUs only.
//!
//! * [`machine`] what is looked at
//! * [`cuda`] what the driver and NCCL tell, asked in a process of its own
//! * [`mapped`] the libraries in this process
//! * [`program`] mpt itself
//! * [`libtorch`] which one, and whether it has what GPUs need
//! * [`driver`] NVIDIA's driver
//! * [`gpus`] GPUs
//! * [`nccl`] NCCL, and whether there are two
//! * [`links`] how GPUs reach each other; [`pci`] reads the bus for it
//! * [`network`] interfaces, and which NCCL would pick
//! * [`processor`] and [`memory`], with the limits of [`cgroup`]s
//! * [`disk`] free room where mpt writes, and shared memory
//! * [`data`] the data set
//! * [`limits`] of the process
//! * [`environment`] variables that change how GPUs behave

pub mod cgroup;
pub mod cuda;
pub mod data;
pub mod disk;
pub mod driver;
pub mod environment;
pub mod gpus;
pub mod libtorch;
pub mod limits;
pub mod links;
pub mod machine;
pub mod mapped;
pub mod memory;
pub mod nccl;
pub mod network;
pub mod pci;
pub mod processor;
pub mod program;

pub use machine::Machine;

use serde::Serialize;

/// Something that is wrong or missing, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The name of the facts that show it.
    pub topic: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

/// Everything that was found. The names of all fields are those of `mpt doctor --json`, and stay.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What the machine has.
    pub facts: Facts,
    /// What is wrong or missing, in the order of the topics.
    pub problems: Vec<Problem>,
}

/// What a machine has, topic by topic.
#[derive(Debug, Serialize)]
pub struct Facts {
    /// This program.
    pub mpt: program::Facts,
    /// The libtorch that it runs on.
    pub libtorch: libtorch::Facts,
    /// NVIDIA's driver.
    pub driver: driver::Facts,
    /// The GPUs that the driver knows, in its order.
    pub gpus: Vec<gpus::Facts>,
    /// NCCL.
    pub nccl: nccl::Facts,
    /// How the GPUs reach each other.
    pub links: links::Facts,
    /// Network interfaces.
    pub network: network::Facts,
    /// The processor.
    pub processor: processor::Facts,
    /// Memory, in bytes.
    pub memory: memory::Facts,
    /// Room where mpt writes.
    pub disk: disk::Facts,
    /// The data set of the default recipe.
    pub data: data::Facts,
    /// Limits of the process.
    pub limits: limits::Facts,
    /// Variables that change how GPUs behave.
    pub environment: environment::Facts,
}

impl Problem {
    /// A problem of a topic.
    pub fn new(topic: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { topic, what: what.into(), advice: advice.into() }
    }
}

/// Looks at a machine.
pub fn examine(machine: &Machine) -> Report {
    let facts = Facts {
        mpt: program::find(machine),
        libtorch: libtorch::find(machine),
        driver: driver::find(machine),
        gpus: gpus::find(machine),
        nccl: nccl::find(machine),
        links: links::find(machine),
        network: network::find(machine),
        processor: processor::find(machine),
        memory: memory::find(machine),
        disk: disk::find(machine),
        data: data::find(machine),
        limits: limits::find(machine),
        environment: environment::find(machine),
    };
    let problems = [
        libtorch::problems(&facts),
        driver::problems(&facts),
        gpus::problems(&facts),
        nccl::problems(&facts),
        links::problems(&facts),
        network::problems(&facts),
        processor::problems(&facts),
        memory::problems(&facts),
        disk::problems(&facts),
        data::problems(&facts),
        limits::problems(&facts),
        environment::problems(&facts),
    ];
    Report { problems: problems.concat(), facts }
}

/// Numbers as people list them: `0, 1 and 3`.
pub fn listed<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let mut items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.pop() {
        None => String::new(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} and {last}", items.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_read_as_people_write_them() {
        assert_eq!(super::listed([0; 0]), "");
        assert_eq!(super::listed([1]), "1");
        assert_eq!(super::listed([0, 1, 3]), "0, 1 and 3");
    }
}
