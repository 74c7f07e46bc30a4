//! The transport between GPUs, on simulated ones: every operation in every type, on groups and their parts, and what is
//! said when something goes wrong. Ranks are threads here, with a simulated GPU each.

use mpt::comm::nccl::Nccl;
use mpt::comm::nccl::communicator::UniqueId;
use mpt::comm::nccl::gpu::Gpu;
use mpt::comm::nccl::library;
use mpt::comm::{Call, Collective, Form, Operation, Request, Stage, Traffic, Volume};
use mpt::error::Result;
use mpt::launch::simulator::Simulator;
use mpt::launch::threads;
use std::env;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

const LIMIT: Duration = Duration::from_secs(60);
/// Set in the process that has the simulator on its search path.
const INSIDE: &str = "MPT_TEST_INSIDE";

/// Runs a test of this program once more, where the driver is the simulator; says whether this is that run.
fn inside(test: &str, devices: usize, more: &[(&str, &str)]) -> bool {
    let broken = run_inside("transport", test, devices, more);
    let faulty = more.iter().any(|(name, _)| *name == "MPT_SIMULATOR_FAULT");
    assert!(faulty || broken.as_ref().is_none_or(Vec::is_empty), "{broken:?}");
    broken.is_none()
}

/// The same for a test of any file; gives the rules that it broke, or nothing where this is that run.
pub fn run_inside(file: &str, test: &str, devices: usize, more: &[(&str, &str)]) -> Option<Vec<String>> {
    if env::var_os(INSIDE).is_some() {
        assert!(library::is_simulated());
        return None;
    }
    let simulator = Simulator::beside(Path::new(env!("CARGO_BIN_EXE_mpt"))).unwrap();
    let run = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("{file}::{test}"), "--nocapture", "--test-threads=1"])
        .envs(simulator.environment(devices, 0, None))
        .envs(more.iter().copied())
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
    Some(simulator.broken_rules())
}

/// What `body` gives on each of some ranks, which are one group.
fn on_gpus<T: Send + 'static>(
    ranks: usize,
    limit: Duration,
    body: impl Fn(usize, &mut Nccl) -> Result<T> + Clone + Send + 'static,
) -> Vec<Result<T>> {
    library::load().unwrap();
    let id = UniqueId::new().unwrap();
    let members: Vec<usize> = (0..ranks).collect();
    let mut crew = threads::start(vec![(); ranks], move |rank, (), reporter| {
        let mut comm = Nccl::join(Gpu::new(rank)?, Some(&id), rank, &members, limit)?;
        reporter.report((rank, body(rank, &mut comm)))
    })
    .unwrap();
    let mut results: Vec<Option<Result<T>>> = (0..ranks).map(|_| None).collect();
    while let Some((rank, result)) = crew.next_report().unwrap() {
        results[rank] = Some(result);
    }
    results.into_iter().map(Option::unwrap).collect()
}

fn call(name: &str) -> Call {
    Call::new(name, Stage::Forward)
}

fn numbers(values: &[f64], kind: Kind) -> Tensor {
    Tensor::from_slice(values).to_kind(kind)
}

fn vector(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

#[test]
fn each_operation_gives_what_its_name_says_in_each_type() {
    if !inside("each_operation_gives_what_its_name_says_in_each_type", 3, &[]) {
        return;
    }
    for kind in [Kind::Half, Kind::BFloat16, Kind::Float, Kind::Double] {
        let results = on_gpus(3, LIMIT, move |rank, comm| {
            let own = numbers(&[rank as f64, 10.0 * rank as f64], kind);
            let gathered = comm.all_gather(&call("a"), &own)?.iter().flat_map(vector).collect::<Vec<_>>();
            let reduced = vector(&comm.all_reduce(&call("b"), &own)?);
            let parts: Vec<Tensor> = (0..3).map(|to| numbers(&[(16 * rank + to) as f64], kind)).collect();
            let scattered = vector(&comm.reduce_scatter(&call("c"), &parts)?);
            let exchanged = comm.all_to_all(&call("d"), &parts)?.iter().flat_map(vector).collect::<Vec<_>>();
            let spread = vector(&comm.broadcast(&call("e"), &own, 2)?);
            // Rank r sends r + 1 values to the next one.
            let (next, before) = ((rank + 1) % 3, (rank + 2) % 3);
            let mut sends = vec![None, None, None];
            sends[next] = Some(numbers(&vec![rank as f64; rank + 1], kind));
            let mut receives = vec![None, None, None];
            receives[before] = Some(Form { shape: vec![before as i64 + 1], kind, device: Device::Cpu });
            let mut came = comm.send_receive(&call("f"), sends, receives)?;
            let came = vector(&came[before].take().unwrap());
            Ok((gathered, reduced, scattered, exchanged, spread, came, comm.take_traffic()))
        });
        for (rank, result) in results.into_iter().enumerate() {
            let (gathered, reduced, scattered, exchanged, spread, came, traffic) = result.unwrap();
            let (own, before) = (rank as f64, (rank + 2) % 3);
            assert_eq!(gathered, [0.0, 0.0, 1.0, 10.0, 2.0, 20.0]);
            assert_eq!(reduced, [3.0, 30.0]);
            assert_eq!(scattered, [48.0 + 3.0 * own]);
            assert_eq!(exchanged, [own, 16.0 + own, 32.0 + own]);
            assert_eq!(spread, [2.0, 20.0]);
            assert_eq!(came, vec![before as f64; before + 1]);
            let width = kind.elt_size_in_bytes() as u64;
            let (to_all, from_root) = if rank == 2 { (2 * 2, 0) } else { (0, 2) };
            let mut expected = Traffic::default();
            for (operation, sent, received) in [
                (Operation::AllGather, 2 * 2, 2 * 2),
                (Operation::AllReduce, 2 * 2, 2 * 2),
                (Operation::ReduceScatter, 2, 2),
                (Operation::AllToAll, 2, 2),
                (Operation::Broadcast, to_all, from_root),
                (Operation::SendReceive, rank as u64 + 1, before as u64 + 1),
            ] {
                expected.count(operation, Volume { sent_bytes: width * sent, received_bytes: width * received });
            }
            assert_eq!(traffic, expected, "rank {rank}");
        }
    }
}

/// Calls are finished in another order than they were started, with other work between, over a group and its part.
#[test]
fn calls_may_be_under_way_together_on_a_group_and_its_parts() {
    if !inside("calls_may_be_under_way_together_on_a_group_and_its_parts", 4, &[]) {
        return;
    }
    library::load().unwrap();
    let ids = [(); 3].map(|()| UniqueId::new().unwrap());
    let mut crew = threads::start(vec![(); 4], move |rank, (), reporter| {
        let gpu = Gpu::new(rank)?;
        let mut world = Nccl::join(gpu.clone(), Some(&ids[0]), rank, &[0, 1, 2, 3], LIMIT)?;
        let pair = if rank < 2 { [0, 1] } else { [2, 3] };
        let mut part = Nccl::join(gpu, Some(&ids[1 + rank / 2]), rank % 2, &pair, LIMIT)?;
        for round in 0..20 {
            // [N, C, H, W] with the channels of a pixel side by side, as the layers leave it.
            let image = |rank: usize| {
                let values = Tensor::arange(2 * 3 * 4 * 5, (Kind::Float, Device::Cpu)) + (100 * rank + round) as i64;
                values.view([2, 4, 5, 3]).permute([0, 3, 1, 2])
            };
            let first = world.start_all_gather(&call("first"), &image(rank))?;
            let second = part.start_all_gather(&call("second"), &image(rank))?;
            let third = world.start_all_to_all(&call("third"), &[0, 1, 2, 3].map(image))?;
            let third = world.finish(third)?.from_all()?;
            let second = part.finish(second)?.from_all()?;
            let first = world.finish(first)?.from_all()?;
            assert!((0..4).all(|from| first[from] == image(from) && third[from] == image(rank)));
            assert!(pair.iter().zip(&second).all(|(&from, found)| *found == image(from)));
        }
        reporter.report(())
    })
    .unwrap();
    let mut done = 0;
    while crew.next_report().unwrap().is_some() {
        done += 1;
    }
    assert_eq!(done, 4);
}

#[test]
fn nothing_travels_in_a_group_of_one_or_without_values() {
    if !inside("nothing_travels_in_a_group_of_one_or_without_values", 2, &[]) {
        return;
    }
    let empty = || Tensor::zeros([0, 4], (Kind::Float, Device::Cpu));
    for result in on_gpus(2, LIMIT, move |_, comm| comm.all_gather(&call("nothing"), &empty())) {
        assert!(result.unwrap().iter().all(|found| *found == empty()));
    }
    let mut alone = Nccl::join(Gpu::new(0).unwrap(), None, 0, &[7], LIMIT).unwrap();
    let own = numbers(&[1.0, 2.0], Kind::Float);
    assert_eq!(alone.all_reduce(&call("alone"), &own).unwrap().data_ptr(), own.data_ptr());
    assert_eq!(alone.take_traffic(), Traffic::default());
    // Even so, a group of one can be made to travel: what a machine with one GPU can prove.
    for result in on_gpus(1, LIMIT, |_, comm| comm.all_reduce(&call("one"), &numbers(&[3.0], Kind::Float))) {
        assert_eq!(vector(&result.unwrap()), [3.0]);
    }
}

#[test]
fn what_cannot_travel_is_refused_before_nccl_sees_it() {
    if !inside("what_cannot_travel_is_refused_before_nccl_sees_it", 1, &[]) {
        return;
    }
    let results = on_gpus(1, LIMIT, |_, comm| {
        let integers = Tensor::from_slice(&[1i64]);
        let integers = comm.all_reduce(&call("conv3"), &integers).unwrap_err().to_string();
        let undefined = comm.all_gather(&call("conv3"), &Tensor::new()).unwrap_err().to_string();
        let parts = [numbers(&[1.0], Kind::Float), numbers(&[1.0], Kind::Float)];
        let parts = comm.reduce_scatter(&call("conv3"), &parts).unwrap_err().to_string();
        let root = comm.broadcast(&call("conv3"), &numbers(&[1.0], Kind::Float), 1).unwrap_err().to_string();
        Ok([integers, undefined, parts, root])
    });
    let [integers, undefined, parts, root] = results.into_iter().next().unwrap().unwrap();
    assert!(integers.contains("values of Int64 do not travel by NCCL"), "{integers}");
    assert!(undefined.starts_with("all-gather for conv3 (forward), its call 2: a tensor is undefined"), "{undefined}");
    assert!(parts.contains("2 parts for a group of 1 ranks"), "{parts}");
    assert!(root.contains("there is no rank 1 in a group of 1 ranks"), "{root}");
}

#[test]
fn an_error_tells_operation_layer_number_bytes_ranks_and_nccls_words() {
    // The second operation of this process, whichever rank makes it, fails.
    let fault = [("MPT_SIMULATOR_FAULT", "fail@call:2")];
    if !inside("an_error_tells_operation_layer_number_bytes_ranks_and_nccls_words", 2, &fault) {
        return;
    }
    let results = on_gpus(2, Duration::from_secs(3), |_, comm| {
        comm.all_gather(&call("conv3"), &numbers(&[1.0, 2.0], Kind::Float)).map(|_| ())
    });
    let told: Vec<String> = results.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    let failed = told.iter().find(|message| message.contains("NCCL: ")).unwrap_or_else(|| panic!("{told:?}"));
    for part in ["rank ", "with ranks [", "all-gather for conv3 (forward), its call 1", "[[2]] of Float", "8 bytes"] {
        assert!(failed.contains(part), "{failed}");
    }
}

/// The stream goes on behind an operation that failed, and its events come as if nothing had happened.
#[test]
fn a_failure_is_told_also_when_the_stream_has_gone_on() {
    // The second operation of this process, whichever rank makes it.
    let fault = [("MPT_SIMULATOR_FAULT", "cut@call:2")];
    if !inside("a_failure_is_told_also_when_the_stream_has_gone_on", 2, &fault) {
        return;
    }
    let limit = Duration::from_secs(3);
    let results = on_gpus(2, limit, move |_, comm| {
        let ticket = comm.start(&call("conv3"), Request::AllGather(numbers(&[1.0, 2.0], Kind::Float)))?;
        let has_passed = comm.probe(&ticket).unwrap();
        let begin = Instant::now();
        while !has_passed() && begin.elapsed() < limit {
            std::thread::yield_now();
        }
        comm.finish(ticket).map(|_| ())
    });
    let told: Vec<_> = results.into_iter().map(|result| result.map_err(|error| error.to_string())).collect();
    let is_told = |result: &Result<(), String>| result.as_ref().is_err_and(|message| message.contains("a link is cut"));
    assert!(told.iter().any(is_told) && told.iter().all(|result| result.is_err()), "{told:?}");
}
