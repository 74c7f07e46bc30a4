//! Collectives over shared memory: their results, that an exchange and its adjoint are adjoint, and that ranks which do
//! not make the same calls fail and do not hang.

use mpt::comm::local::{Local, group};
use mpt::comm::{Call, Collective, Form, Operation, Stage, Traffic, Volume};
use mpt::engine::exchange;
use mpt::error::{Error, Result};
use mpt::launch::threads;
use mpt::model::Channels;
use mpt::plan::{Adjoint, Exchange};
use tch::{Kind, Tensor};

/// What `body` gives on each rank of a group of threads.
fn on_ranks<T: Send + 'static>(
    ranks: usize,
    body: impl Fn(usize, &mut Local) -> Result<T> + Clone + Send + 'static,
) -> Result<Vec<T>> {
    let seats = group(&(0..ranks).collect::<Vec<_>>());
    let mut crew = threads::start(seats, move |rank, mut comm, reporter| {
        let result = body(rank, &mut comm)?;
        reporter.report((rank, result))
    })?;
    let mut results = Vec::new();
    while let Some(result) = crew.next_report()? {
        results.push(result);
    }
    results.sort_by_key(|(rank, _)| *rank);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

fn call(name: &str) -> Call {
    Call::new(name, Stage::Forward)
}

/// The form of fp64 values in the machine's memory.
fn double(shape: &[i64]) -> Form {
    Form { shape: shape.to_vec(), kind: Kind::Double, device: tch::Device::Cpu }
}

fn numbers(values: &[f64]) -> Tensor {
    Tensor::from_slice(values)
}

fn vector(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.flatten(0, -1)).unwrap()
}

#[test]
fn each_operation_gives_what_its_name_says() {
    let results = on_ranks(3, |rank, comm| {
        let own = numbers(&[rank as f64, 10.0 * rank as f64]);
        let gathered = comm.all_gather(&call("a"), &own)?.iter().flat_map(vector).collect::<Vec<_>>();
        let reduced = vector(&comm.all_reduce(&call("b"), &own)?);
        let parts: Vec<Tensor> = (0..3).map(|to| numbers(&[(100 * rank + to) as f64])).collect();
        let scattered = vector(&comm.reduce_scatter(&call("c"), &parts)?);
        let next = (rank + 1) % 3;
        let mut sends = vec![None, None, None];
        sends[next] = Some(numbers(&[rank as f64]));
        let mut receives = vec![None, None, None];
        receives[(rank + 2) % 3] = Some(double(&[1]));
        let mut came = comm.send_receive(&call("d"), sends, receives)?;
        let came = vector(&came[(rank + 2) % 3].take().unwrap());
        Ok((gathered, reduced, scattered, came, comm.take_traffic()))
    });
    for (rank, (gathered, reduced, scattered, came, traffic)) in results.unwrap().into_iter().enumerate() {
        assert_eq!(gathered, [0.0, 0.0, 1.0, 10.0, 2.0, 20.0]);
        assert_eq!(reduced, [3.0, 30.0]);
        assert_eq!(scattered, [300.0 + 3.0 * rank as f64]);
        assert_eq!(came, [((rank + 2) % 3) as f64]);
        let mut expected = Traffic::default();
        let values = [
            (Operation::AllGather, 2 * 2),
            (Operation::AllReduce, 2 * 2),
            (Operation::ReduceScatter, 2),
            (Operation::SendReceive, 1),
        ];
        for (operation, values) in values {
            expected.count(operation, Volume { sent_bytes: 8 * values, received_bytes: 8 * values });
        }
        assert_eq!(traffic, expected);
    }
}

#[test]
fn sums_are_the_same_bits_on_every_rank() {
    let results = on_ranks(4, |rank, comm| {
        let own = (Tensor::arange(1000, (Kind::Float, tch::Device::Cpu)) + 0.1) * (0.37 + rank as f64);
        Ok(Vec::<f32>::try_from(&comm.all_reduce(&call("sum"), &own)?)?)
    });
    let results = results.unwrap();
    assert!(results.iter().all(|result| *result == results[0]));
}

/// Rounded to fp16 on the way is what is exchanged, for its owner too; and gradients keep digits that they would not have in
/// fp16 as parts of a mean.
#[test]
fn exchanges_in_half_precision_round_activations_and_keep_small_gradients() {
    const EXAMPLES: i64 = 500;
    let owned = |border: usize| vec![Channels::from(0..border), Channels::from(border..4)];
    for (border, in_parts) in [(2, false), (2, true), (1, false)] {
        let gathered = Exchange::gather(1, 1, owned(border), vec![Channels::all(4); 2], Adjoint::Sum);
        let exchange = Exchange { in_parts, in_half: true, ..gathered };
        let results = on_ranks(2, move |rank, comm| {
            let steps = |channels: usize| Tensor::arange(EXAMPLES * channels as i64, (Kind::Float, tch::Device::Cpu));
            let thirds = |channels: usize| (steps(channels).remainder(7) + 1.0) / 3.0;
            let x = thirds(exchange.owned[rank].len()).view([EXAMPLES, -1]);
            let ticket = exchange::start(&exchange, comm, &call("x"), &x)?;
            let brought = exchange::finish(&exchange, comm, ticket, &x)?;
            // The least difference that fp16 has is 6e-8.
            let gradient = |part: &Tensor| part * 3e-7 * (1.0 + rank as f64);
            let gradients: Vec<Tensor> = brought.iter().map(gradient).collect();
            let ticket = exchange::start_back(&exchange, comm, &call("y"), &gradients)?;
            let returned = exchange::finish_back(&exchange, comm, ticket, &gradients)?;
            let apart = (returned / (&x * 9e-7) - 1.0).abs().max().double_value(&[]);
            let whole = Tensor::cat(&brought, 1);
            let rounded = whole.to_kind(Kind::Half).to_kind(Kind::Float).equal(&whole);
            let own = brought.iter().find(|part| part.size() == x.size()).map(|part| part.equal(&x));
            Ok((whole.kind(), rounded, own, Vec::<f32>::try_from(whole.flatten(0, 1))?, apart))
        });
        let results = results.unwrap();
        assert_eq!(results[0].3, results[1].3, "both read the same");
        for (kind, rounded, own, values, apart) in results {
            assert_eq!((kind, rounded, own.unwrap_or_default()), (Kind::Float, true, false));
            assert!(values.iter().all(|value| (0.33..2.34).contains(value)), "{values:?}");
            assert!(apart < 2e-3, "{apart}");
        }
    }
}

/// `<exchange(x), y> = <x, adjoint(y)>` for random x and y: the definition of the adjoint.
#[test]
fn the_adjoint_of_an_exchange_is_its_adjoint() {
    let sets = |borders: [&[(usize, usize)]; 3]| {
        borders.map(|own| own.iter().map(|&(start, end)| start..end).collect::<Channels>()).to_vec()
    };
    let even = sets([&[(0, 4)], &[(4, 8)], &[(8, 12)]]);
    let uneven = sets([&[(0, 5)], &[(5, 6)], &[(6, 12)]]);
    let strided = sets([&[(0, 2), (6, 8)], &[(2, 4), (8, 10)], &[(4, 6), (10, 12)]]);
    let everything = vec![Channels::all(12); 3];
    let elsewhere = sets([&[(4, 8)], &[(8, 12)], &[]]);
    let halves = sets([&[(0, 6)], &[(0, 12)], &[(6, 12)]]);
    for (owned, needed, in_parts) in [
        (&even, &everything, false),
        (&even, &everything, true),
        (&uneven, &everything, false),
        (&uneven, &everything, true),
        (&uneven, &halves, false),
        (&strided, &halves, false),
        (&even, &uneven, false),
        (&even, &elsewhere, false),
    ] {
        let exchange = Exchange { in_parts, ..Exchange::gather(1, 1, owned.clone(), needed.clone(), Adjoint::Sum) };
        let products = on_ranks(3, move |rank, comm| {
            let random = |channels: usize, seed: i64| {
                let steps = Tensor::arange(2 * channels as i64 * 3, (Kind::Double, tch::Device::Cpu));
                ((steps + seed) * 1.7).sin().view([2, channels as i64, 3])
            };
            let x = random(exchange.owned[rank].len(), rank as i64);
            let read = if in_parts { exchange.owned.clone() } else { vec![exchange.needed[rank].clone()] };
            let y: Vec<Tensor> = read.iter().map(|part| random(part.len(), 100 + rank as i64)).collect();
            let (forward, back) = (call("x"), call("y"));
            let ticket = exchange::start(&exchange, comm, &forward, &x)?;
            let brought = exchange::finish(&exchange, comm, ticket, &x)?;
            let ticket = exchange::start_back(&exchange, comm, &back, &y)?;
            let returned = exchange::finish_back(&exchange, comm, ticket, &y)?;
            let sizes = |tensors: &[Tensor]| tensors.iter().map(Tensor::size).collect::<Vec<_>>();
            assert_eq!((sizes(&brought), returned.size()), (sizes(&y), x.size()));
            let product = |a: &Tensor, b: &Tensor| (a * b).sum(Kind::Double).double_value(&[]);
            Ok((brought.iter().zip(&y).map(|(a, b)| product(a, b)).sum::<f64>(), product(&x, &returned)))
        });
        let (forward, back) =
            products.unwrap().into_iter().fold((0.0, 0.0), |sum: (f64, f64), own| (sum.0 + own.0, sum.1 + own.1));
        assert!((forward - back).abs() < 1e-12 * forward.abs().max(1.0), "{forward} {back}");
    }
}

fn failure(body: impl Fn(usize, &mut Local) -> Result<()> + Clone + Send + 'static) -> Error {
    on_ranks(2, body).unwrap_err()
}

#[test]
fn unlike_calls_are_an_error_that_names_both() {
    let own = || numbers(&[1.0, 2.0]);
    let operations = failure(move |rank, comm| match rank {
        0 => comm.all_gather(&call("conv3"), &own()).map(|_| ()),
        _ => comm.all_reduce(&call("conv3"), &own()).map(|_| ()),
    });
    let layers = failure(move |rank, comm| comm.all_gather(&call(["conv3", "fc6"][rank]), &own()).map(|_| ()));
    let shapes = failure(move |rank, comm| comm.all_reduce(&call("conv3"), &numbers(&[0.0; 3][rank..])).map(|_| ()));
    let types = failure(move |rank, comm| {
        let kind = [Kind::Float, Kind::Double][rank];
        comm.all_reduce(&call("conv3"), &own().to_kind(kind)).map(|_| ())
    });
    let stages = failure(move |rank, comm| {
        let stage = [Stage::Forward, Stage::Backward][rank];
        comm.all_gather(&Call::new("conv3", stage), &own()).map(|_| ())
    });
    for (error, mine, theirs) in [
        (operations, "all-gather for conv3", "all-reduce for conv3"),
        (layers, "all-gather for conv3", "all-gather for fc6"),
        (shapes, "[[3]]", "[[2]]"),
        (types, "of Float", "of Double"),
        (stages, "(forward)", "(backward)"),
    ] {
        let message = error.to_string();
        assert!(matches!(error, Error::Failed(_)), "{error:?}");
        let named = |rank: usize| message.contains(&format!("rank {rank} is in "));
        assert!(named(0) && named(1), "{message}");
        assert!(message.contains(mine) && message.contains(theirs), "{message}");
    }
}

#[test]
fn what_comes_in_another_shape_than_expected_is_named() {
    let error = failure(|rank, comm| {
        let sends = match rank {
            0 => vec![None, Some(numbers(&[1.0, 2.0]))],
            _ => vec![None, None],
        };
        let receives = match rank {
            0 => vec![None, None],
            _ => vec![Some(double(&[3])), None],
        };
        comm.send_receive(&call("conv2"), sends, receives).map(|_| ())
    });
    let message = error.to_string();
    assert!(
        message.contains("conv2") && message.contains("rank 1 expects [3] from rank 0, which sent [2]"),
        "{message}"
    );
}

#[test]
fn a_rank_that_fails_or_panics_ends_the_run_with_its_own_error() {
    let failed = failure(|rank, comm| match rank {
        1 => Err(Error::failed("the disk of rank 1 is on fire")),
        _ => comm.all_reduce(&call("a"), &numbers(&[1.0])).map(|_| ()),
    });
    assert_eq!(failed.to_string(), "the disk of rank 1 is on fire");
    let panicked = failure(|rank, comm| match rank {
        1 => panic!("index out of range"),
        _ => comm.all_reduce(&call("a"), &numbers(&[1.0])).map(|_| ()),
    });
    assert_eq!(panicked.to_string(), "rank 1 panicked: index out of range");
}

#[test]
fn a_rank_that_ends_early_is_an_error_for_those_who_wait() {
    let error = failure(|rank, comm| match rank {
        1 => Ok(()),
        _ => comm.all_gather(&call("conv3"), &numbers(&[1.0])).map(|_| ()),
    });
    assert!(error.to_string().starts_with("rank 0 waits in all-gather for conv3"), "{error}");
    assert!(error.to_string().ends_with("but rank 1 has ended"), "{error}");
}
