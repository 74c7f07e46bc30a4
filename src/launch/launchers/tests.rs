//! One table of environments and what is to be found in them.

use super::*;

type Settings<'s> = Vec<(&'s str, &'s str)>;

fn found(settings: &[(&str, &str)]) -> Result<Option<Described>> {
    let value = |name: &str| settings.iter().rev().find(|(found, _)| *found == name).map(|(_, value)| (*value).into());
    described(&value)
}

const TORCHRUN: [(&str, &str); 9] = [
    ("RANK", "3"),
    ("WORLD_SIZE", "4"),
    ("LOCAL_RANK", "1"),
    ("LOCAL_WORLD_SIZE", "2"),
    ("MASTER_ADDR", "10.0.0.7"),
    ("MASTER_PORT", "29400"),
    ("TORCHELASTIC_RUN_ID", "job-12"),
    ("TORCHELASTIC_RESTART_COUNT", "2"),
    ("TORCHELASTIC_USE_AGENT_STORE", "True"),
];
const OPEN_MPI: [(&str, &str); 6] = [
    ("OMPI_COMM_WORLD_RANK", "1"),
    ("OMPI_COMM_WORLD_SIZE", "2"),
    ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
    ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
    ("PMIX_NAMESPACE", "656932865"),
    ("PMIX_RANK", "1"),
];
const HYDRA: [(&str, &str); 4] =
    [("PMI_RANK", "2"), ("PMI_SIZE", "4"), ("MPI_LOCALRANKID", "0"), ("MPI_LOCALNRANKS", "2")];
const SRUN: [(&str, &str); 9] = [
    ("SLURM_JOB_ID", "4711"),
    ("SLURM_STEP_ID", "0"),
    ("SLURM_PROCID", "4"),
    ("SLURM_NTASKS", "5"),
    ("SLURM_LOCALID", "0"),
    ("SLURM_NODEID", "2"),
    ("SLURM_TASKS_PER_NODE", "2(x2),1"),
    ("SLURM_JOB_NODELIST", "gpu[03-05]"),
    ("SLURM_RESTART_COUNT", "1"),
];
const PYTORCH_JOB: [(&str, &str); 7] = [
    ("RANK", "1"),
    ("WORLD_SIZE", "3"),
    ("MASTER_ADDR", "job-master-0"),
    ("MASTER_PORT", "23456"),
    ("PET_NODE_RANK", "1"),
    ("PET_NNODES", "3"),
    ("PET_NPROC_PER_NODE", "1"),
];
const TRAIN_JOB: [(&str, &str); 5] = [
    ("PET_NODE_RANK", "1"),
    ("PET_NNODES", "2"),
    // What the operator asks of torchrun where nothing is said.
    ("PET_NPROC_PER_NODE", "auto"),
    ("PET_MASTER_ADDR", "job-node-0-0.job"),
    ("PET_MASTER_PORT", "29400"),
];

fn with<'s>(settings: &[(&'s str, &'s str)], more: &[(&'s str, &'s str)]) -> Settings<'s> {
    [settings, more].concat()
}

/// Launcher, [rank, size, local rank, local size], address, who serves, run, restart.
fn short(found: &Described) -> String {
    let Described { launcher, rank, size, local_rank, local_size, host, port, served, run, restart } = found;
    let server = if *served { "launcher" } else { "rank 0" };
    format!("{launcher:?} {rank}/{size} {local_rank}/{local_size} {host}:{port} {server} {run} {restart}")
}

#[test]
fn every_launcher_is_known_by_its_variables() {
    let by_hand: Settings = TORCHRUN[..6].to_vec();
    let table: Vec<(Settings, &str)> = vec![
        (vec![], "nobody"),
        (vec![("RANK", "0")], "nobody"),
        (TORCHRUN.to_vec(), "Torchrun 3/4 1/2 10.0.0.7:29400 launcher job-12 2"),
        (
            with(&TORCHRUN, &[("TORCHELASTIC_USE_AGENT_STORE", "False")]),
            "Torchrun 3/4 1/2 10.0.0.7:29400 rank 0 job-12 2",
        ),
        (with(&by_hand, &[("LOCAL_WORLD_SIZE", "")]), "ByHand 3/4 1/4 10.0.0.7:29400 rank 0 none 0"),
        (with(&by_hand, &[(SUPERVISED, "77")]), "Supervisor 3/4 1/2 10.0.0.7:29400 launcher 77 0"),
        (OPEN_MPI.to_vec(), "OpenMpi 1/2 1/2 127.0.0.1:22440 rank 0 656932865 0"),
        (
            with(&OPEN_MPI, &[("OMPI_COMM_WORLD_LOCAL_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "5")]),
            "OpenMpi 1/2 1/2 a:5 rank 0 656932865 0",
        ),
        (with(&HYDRA, &[("MASTER_ADDR", "a")]), "Hydra 2/4 0/2 a:29500 rank 0 none 0"),
        (SRUN.to_vec(), "Slurm 4/5 0/1 gpu03:17573 rank 0 4711.0 1"),
        (with(&SRUN, &[("MASTER_ADDR", "b"), ("MASTER_PORT", "6")]), "Slurm 4/5 0/1 b:6 rank 0 4711.0 1"),
        (
            with(
                &SRUN,
                &[
                    ("SLURM_NTASKS", "8"),
                    ("SLURM_STEP_NUM_TASKS", "5"),
                    ("SLURM_STEP_NODELIST", "c9,c8"),
                    ("MASTER_PORT", "6"),
                ],
            ),
            "Slurm 4/5 0/1 c9:6 rank 0 4711.0 1",
        ),
        (
            with(&SRUN, &[("SLURM_TASKS_PER_NODE", ""), ("SLURM_NTASKS_PER_NODE", "2"), ("MASTER_PORT", "6")]),
            "Slurm 4/5 0/2 gpu03:6 rank 0 4711.0 1",
        ),
        (PYTORCH_JOB.to_vec(), "PyTorchJob 1/3 0/1 job-master-0:23456 rank 0 none 0"),
        (
            with(&PYTORCH_JOB[..4], &[("KUBERNETES_SERVICE_HOST", "10.96.0.1")]),
            "PyTorchJob 1/3 0/1 job-master-0:23456 rank 0 none 0",
        ),
        (TRAIN_JOB.to_vec(), "TrainJob 1/2 0/1 job-node-0-0.job:29400 rank 0 none 0"),
    ];
    for (settings, expected) in table {
        let found = found(&settings).unwrap();
        assert_eq!(found.as_ref().map_or("nobody".into(), short), expected, "{settings:?}");
    }
}

#[test]
fn of_launchers_that_start_each_other_the_nearest_wins() {
    let all = |parts: &[&[(&'static str, &'static str)]]| parts.concat();
    for (settings, expected) in [
        (all(&[&SRUN, &TORCHRUN]), Launcher::Torchrun),
        (all(&[&PYTORCH_JOB, &TORCHRUN]), Launcher::Torchrun),
        (all(&[&TRAIN_JOB, &TORCHRUN]), Launcher::Torchrun),
        (all(&[&SRUN, &OPEN_MPI]), Launcher::OpenMpi),
        (all(&[&SRUN, &HYDRA, &[("MASTER_ADDR", "a")]]), Launcher::Hydra),
        // srun that speaks PMI itself.
        (all(&[&SRUN, &HYDRA[..2]]), Launcher::Slurm),
        // mpirun as the command of a pod.
        (all(&[&PYTORCH_JOB, &OPEN_MPI]), Launcher::OpenMpi),
        (all(&[&SRUN, &TORCHRUN, &[(SUPERVISED, "77")]]), Launcher::Supervisor),
    ] {
        assert_eq!(found(&settings).unwrap().unwrap().launcher, expected, "{settings:?}");
    }
}

/// A batch script, a shell in an allocation and a shell in a task: `mpt train --gpus N` there starts ranks itself.
#[test]
fn shells_in_an_allocation_are_no_ranks() {
    for more in [
        [("SLURM_STEP_ID", ""), ("SLURM_PROCID", "0")],
        [("SLURM_STEP_ID", "4294967290"), ("SLURM_PROCID", "0")],
        [("SLURM_STEP_ID", ""), ("SLURM_PROCID", "")],
        [("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "1")],
    ] {
        assert_eq!(found(&with(&SRUN, &more)).unwrap(), None, "{more:?}");
    }
}

#[test]
fn what_is_missing_or_contradicts_itself_is_named_with_the_launcher_and_what_to_do() {
    let table: Vec<(Settings, &str)> = vec![
        (
            with(&TORCHRUN, &[("MASTER_PORT", "")]),
            "started by torchrun, but MASTER_PORT is not set: start the ranks with `torchrun --no-python",
        ),
        (with(&TORCHRUN, &[("RANK", "4")]), "torchrun, but RANK is \"4\", not a number from 0 to 3: start"),
        (with(&TORCHRUN, &[("WORLD_SIZE", "0")]), "torchrun, but WORLD_SIZE is 0: start"),
        (with(&TORCHRUN, &[("WORLD_SIZE", "")]), "torchrun, but WORLD_SIZE is not set: start"),
        (with(&TORCHRUN, &[("LOCAL_RANK", "2")]), "torchrun, but LOCAL_RANK is \"2\", not a number from 0 to 1: start"),
        (with(&TORCHRUN, &[("LOCAL_WORLD_SIZE", "5")]), "but LOCAL_WORLD_SIZE is \"5\", not a number from 0 to 4"),
        (
            vec![("RANK", "0"), ("WORLD_SIZE", "2")],
            "a launcher that sets RANK and WORLD_SIZE, but LOCAL_RANK is not set: set RANK, WORLD_SIZE, LOCAL_RANK,",
        ),
        (
            with(&OPEN_MPI, &[("OMPI_COMM_WORLD_SIZE", "4")]),
            "mpirun (Open MPI), but MASTER_ADDR is not set: start the ranks with `mpirun -np N -x MASTER_ADDR=",
        ),
        (
            with(&HYDRA, &[("MPI_LOCALNRANKS", "")]),
            "mpiexec (MPICH), but MPI_LOCALNRANKS is not set: start the ranks with `mpiexec",
        ),
        (
            with(&SRUN, &[("SLURM_NODEID", "3")]),
            "srun, but SLURM_TASKS_PER_NODE is \"2(x2),1\", which tells no number of tasks for node 3: start the ranks \
             with `srun",
        ),
        (with(&SRUN, &[("SLURM_JOB_NODELIST", "")]), "srun, but SLURM_NODELIST is not set: start"),
        (with(&SRUN, &[("SLURM_NTASKS", "")]), "srun, but SLURM_NTASKS is not set: start"),
        (with(&SRUN, &[("SLURM_LOCALID", "1")]), "srun, but SLURM_LOCALID is \"1\", not a number from 0 to 0: start"),
        (
            with(&PYTORCH_JOB, &[("PET_NPROC_PER_NODE", "2")]),
            "PyTorchJob, but PET_NPROC_PER_NODE is \"2\", and mpt alone is one rank a pod: let torchrun start \
             the ranks of a pod: `torchrun --no-python",
        ),
        (
            with(&TRAIN_JOB, &[("PET_MASTER_ADDR", "")]),
            "TrainJob, but PET_MASTER_ADDR is not set: let torchrun start the ranks of a pod",
        ),
    ];
    for (settings, expected) in table {
        let error = found(&settings).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let message = error.to_string();
        assert!(message.starts_with("this process was started by ") && message.contains(expected), "{message}");
    }
}
