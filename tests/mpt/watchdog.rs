//! Ranks that do not go on, as threads and on simulated GPUs of one process: which rank and operation the watchdog names,
//! and what it keeps.

use crate::transport::run_inside;
use mpt::comm::nccl::communicator::UniqueId;
use mpt::comm::nccl::gpu::Gpu;
use mpt::comm::nccl::{Nccl, library};
use mpt::comm::recorder::record::State;
use mpt::comm::recorder::{Recorded, Recorder};
use mpt::comm::{Call, Collective, Groups, Operation, Stage};
use mpt::error::{Error, Result};
use mpt::launch::threads;
use mpt::launch::watchdog::finding::{Finding, find};
use mpt::launch::watchdog::report::{FILE, Report};
use mpt::launch::watchdog::{Watch, Watchdog};
use mpt::plan::Mesh;
use std::env;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tch::Tensor;

/// Runs a body on every rank of a mesh, watched; gives the error that the run ended with and what was kept of it.
fn watched(
    mesh: Mesh,
    limit: Duration,
    body: impl Fn(usize, &mut Groups) -> Result<()> + Clone + Send + 'static,
) -> (Result<()>, Option<Report>) {
    let folder = tempfile::tempdir().unwrap();
    let watch = Watch { limit, folder: Some(folder.path().to_owned()), exits: false };
    let groups = threads::groups(mesh).into_iter().enumerate().collect();
    let (groups, watchdog) = Watchdog::over(groups, mesh, watch, None).unwrap();
    let run = move |rank, mut groups: Groups, _: &threads::Reporter<()>| body(rank, &mut groups);
    let mut crew = threads::start_some(groups, run).unwrap().interrupted_by(watchdog.interrupts());
    let ended = loop {
        match crew.next_report() {
            Ok(Some(())) => {}
            Ok(None) => break Ok(()),
            Err(error) => break Err(watchdog.conclude(error)),
        }
    };
    (ended, kept(folder.path()))
}

fn kept(folder: &Path) -> Option<Report> {
    let text = std::fs::read(folder.join(FILE)).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

fn call(layer: &str) -> Call {
    Call::new(layer, Stage::Forward)
}

fn values() -> Tensor {
    Tensor::from_slice(&[1.0f32, 2.0])
}

/// Lasts longer than any test.
fn never_ends() {
    loop {
        std::thread::park();
    }
}

const PAIR: Mesh = Mesh { data: 1, model: 2 };
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn ranks_that_wait_in_different_groups_are_named_with_what_they_wait_for() {
    let (ended, report) = watched(Mesh { data: 2, model: 2 }, SHORT, |rank, groups| {
        groups.world.all_gather(&call("begin"), &values())?;
        match rank {
            // 0 waits for 1 of its model group, and 1 for 3 of its data group, where 3 waits for all.
            0 | 2 => groups.model.all_gather(&call("conv3"), &values()).map(|_| ()),
            1 => groups.data.all_reduce(&call("fc6"), &values()).map(|_| ()),
            _ => groups.world.all_gather(&call("step"), &values()).map(|_| ()),
        }
    });
    let said = ended.unwrap_err().to_string();
    assert!(said.starts_with("the ranks wait for each other: "), "{said}");
    assert!(said.contains("in all-reduce for fc6 (forward), call 1 of the data group of ranks [1, 3]"), "{said}");
    assert!(
        said.contains("in all-gather for step (forward), call 2 of the world group of ranks [0, 1, 2, 3]"),
        "{said}"
    );
    assert!(said.contains("every rank's last calls are in ") && said.contains(FILE), "{said}");
    let report = report.unwrap();
    let Finding::Circle { waits } = &report.finding else { panic!("{:?}", report.finding) };
    assert!(waits.len() >= 2 && waits.iter().any(|(rank, _)| *rank == 1), "{waits:?}");
    let flights: Vec<_> = report.ranks.iter().map(|flight| flight.as_ref().unwrap()).collect();
    assert!(flights.iter().enumerate().all(|(rank, flight)| flight.rank == rank && flight.records.len() == 2));
    assert!(flights.iter().all(|flight| flight.records[0].state == State::Done));
    assert!(flights.iter().all(|flight| flight.records[1].blocked_seconds.unwrap() > 0.2));
    assert!((report.limit_seconds - 0.3).abs() < 1e-9);
}

#[test]
fn a_rank_that_does_not_come_is_named_with_the_call_and_its_own_last_one() {
    let (ended, report) = watched(PAIR, SHORT, |rank, groups| {
        groups.model.all_gather(&call("conv3"), &values())?;
        if rank == 1 {
            never_ends();
        }
        groups.model.all_reduce(&call("fc8"), &values()).map(|_| ())
    });
    let said = ended.unwrap_err().to_string();
    assert!(
        said.starts_with("rank 1 has not come to all-reduce for fc8 (forward), call 2 of the model group"),
        "{said}"
    );
    assert!(said.contains("its last call was all-gather for conv3 (forward), call 1"), "{said}");
    assert!(said.contains("raise parallel.timeout"), "{said}");
    let finding = report.unwrap().finding;
    assert!(matches!(finding, Finding::Behind { rank: 1, waiting: 0, silence: None, .. }), "{finding:?}");
}

/// Tells this program that it is the process of the test below.
const BLOCKED: &str = "WATCHDOG_TEST_BLOCKED";

/// A process that does nothing about what its watchdog finds, as when its main thread is kept in a call of the driver.
#[test]
#[ignore = "is started by another test"]
fn blocked() {
    if env::var_os(BLOCKED).is_none() {
        return;
    }
    let watch = Watch { limit: SHORT, folder: None, exits: true };
    let groups = threads::groups(PAIR).into_iter().enumerate().collect();
    let (mut groups, _watchdog) = Watchdog::over(groups, PAIR, watch, None).unwrap();
    let (_, first) = &mut groups[0];
    let _ = first.model.all_gather(&call("conv3"), &values());
    never_ends();
}

#[test]
fn a_process_whose_main_thread_is_blocked_is_ended_with_the_finding() {
    let this = env::current_exe().unwrap();
    let mut process = Command::new("timeout");
    process.arg("240").arg(this).args(["--ignored", "--exact", "watchdog::blocked", "--nocapture"]).env(BLOCKED, "1");
    let ended = process.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("mpt: rank 1 has not come to all-gather for conv3 (forward)"), "{said}");
}

#[test]
fn other_operations_on_one_rank_end_the_run_at_once_and_are_kept() {
    let (ended, report) = watched(PAIR, LONG, |rank, groups| {
        groups.model.all_gather(&call("conv3"), &values())?;
        match rank {
            0 => groups.model.all_gather(&call("fc6"), &values()).map(|_| ()),
            _ => groups.model.all_reduce(&call("fc6"), &values()).map(|_| ()),
        }
    });
    let error = ended.unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, Error::Failed(_)), "{error:?}");
    assert!(
        said.starts_with("the ranks do not make the same calls: rank 1 made all-reduce for fc6 (forward)"),
        "{said}"
    );
    assert!(said.contains("where rank 0 made all-gather for fc6"), "{said}");
    let report = report.unwrap();
    let Finding::Differs { rank: 1, record, other: 0, .. } = &report.finding else { panic!("{:?}", report.finding) };
    assert_eq!((record.operation, record.sequence), (Operation::AllReduce, 2));
    assert!(report.error.unwrap().contains("the ranks do not make the same calls"));
}

#[test]
fn a_rank_that_is_merely_slow_ends_nothing() {
    let (ended, report) = watched(PAIR, LONG, |rank, groups| {
        if rank == 1 {
            std::thread::sleep(Duration::from_millis(400));
        }
        groups.model.all_gather(&call("conv3"), &values()).map(|_| ())
    });
    assert_eq!((ended, report), (Ok(()), None));
}

#[test]
fn an_error_of_a_rank_that_is_not_about_a_call_stays_as_it_is() {
    let (ended, _) = watched(PAIR, LONG, |rank, groups| match rank {
        1 => Err(Error::failed("the disk of rank 1 is on fire")),
        _ => groups.model.all_gather(&call("conv3"), &values()).map(|_| ()),
    });
    let said = ended.unwrap_err().to_string();
    assert!(said.starts_with("the disk of rank 1 is on fire"), "{said}");
}

/// The same records, whatever the transport; on GPUs a call has travelled when its stream says so.
#[test]
fn other_operations_on_one_simulated_gpu_are_named_from_the_records() {
    let name = "other_operations_on_one_simulated_gpu_are_named_from_the_records";
    if let Some(broken) = run_inside("watchdog", name, 2, &[]) {
        assert!(!broken.is_empty(), "the simulator sees it too");
        return;
    }
    library::load().unwrap();
    let id = UniqueId::new().unwrap();
    let mut crew = threads::start(vec![(); 2], move |rank, (), reporter| {
        let recorder = Recorder::new(rank);
        let transport = Nccl::join(Gpu::new(rank)?, Some(&id), rank, &[0, 1], LONG)?;
        let mut comm = Recorded::new(Box::new(transport), &recorder, "model", &[0, 1]);
        comm.all_gather(&call("conv3"), &values())?;
        recorder.look();
        let other = match rank {
            0 => comm.all_gather(&call("fc6"), &values()).map(|_| ()),
            _ => comm.all_reduce(&call("fc6"), &values()).map(|_| ()),
        };
        other.unwrap_err();
        reporter.report(recorder.flight())
    })
    .unwrap();
    let mut flights = vec![None; 2];
    while let Some(flight) = crew.next_report().unwrap() {
        let rank = flight.rank;
        flights[rank] = Some(flight);
    }
    assert!(flights.iter().flatten().all(|flight| flight.records[0].state == State::Done), "{flights:?}");
    assert!(flights.iter().flatten().all(|flight| flight.records[1].state == State::Failed), "{flights:?}");
    let found = find(&flights);
    let Finding::Differs { rank: 1, record, others, .. } = &found else { panic!("{found:?}") };
    assert_eq!((record.operation, others.operation), (Operation::AllReduce, Operation::AllGather));
    assert_eq!((record.layer.as_str(), record.sequence), ("fc6", 2));
}
