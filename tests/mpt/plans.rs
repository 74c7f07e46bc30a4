//! Plans as pure data: who owns what, what is read, and what travels.

use crate::networks::{network, pieces};
use mpt::model::parse::Edits;
use mpt::model::{Channels, Model, shipped};
use mpt::plan::exchange::transfers;
use mpt::plan::memory::{Sizes, fullest};
use mpt::plan::{Exchange, Mesh, Mode, Operation, Placement, Plan, Read, Weights, plan};
use proptest::prelude::*;

fn model_parallel(model: &Model, devices: usize) -> mpt::error::Result<Plan> {
    plan(model, Mesh { data: 1, model: devices }, Mode::ModelParallel)
}

fn alexnet() -> Model {
    shipped::load("alexnet", &Edits::default()).unwrap()
}

#[test]
fn alexnet_on_two_devices_exchanges_where_the_towers_cross_and_nowhere_else() {
    let plan = model_parallel(&alexnet(), 2).unwrap();
    let names: Vec<&str> = plan.exchanges.iter().map(|e| plan.model.layers[e.reader].name.as_str()).collect();
    assert_eq!(names, ["conv3", "fc6", "fc7", "loss"]);
    let values: Vec<_> = plan.exchanges.iter().map(|exchange| exchange.values_sent(&plan.model, 0)).collect();
    assert_eq!(values, [(128 * 12 * 12, 128 * 12 * 12), (3200, 3200), (2048, 2048), (10, 0)]);
    let operations: Vec<_> = plan.exchanges.iter().map(|exchange| exchange.operation).collect();
    assert_eq!(operations, [Operation::AllGather, Operation::AllGather, Operation::AllGather, Operation::AllReduce]);
}

#[test]
fn each_of_two_devices_stores_half_of_the_split_weights() {
    let plan = model_parallel(&alexnet(), 2).unwrap();
    for layer in 0..plan.model.layers.len() {
        let shares = plan.parameter_shares(layer, 0).into_iter().zip(plan.parameter_shares(layer, 1));
        for (first, second) in shares {
            let whole: usize = first.whole.iter().product();
            let replicated = plan.layers[layer].weights == Weights::InputSplit && first.whole.len() == 1;
            let expected = if replicated { whole } else { whole / 2 };
            assert_eq!((first.len(), second.len()), (expected, expected), "{}", plan.model.layers[layer].name);
            assert!(replicated || first.held.intersection(&second.held).is_empty());
        }
    }
}

#[test]
fn a_split_network_fits_where_the_whole_one_does_not() {
    let sizes = Sizes { batch_size: 128, value_bytes: 4, master_bytes: 4, momentum: true, checkpoints: true };
    let needs = |devices| fullest(&model_parallel(&alexnet(), devices).unwrap(), sizes).total();
    assert!(needs(2) * 10 < needs(1) * 6 && needs(4) < needs(2), "{} {} {}", needs(1), needs(2), needs(4));
}

#[test]
fn too_many_devices_are_refused_with_the_layer_and_the_most() {
    let lenet = shipped::load("lenet", &Edits::default()).unwrap();
    let message = model_parallel(&lenet, 7).unwrap_err().to_string();
    assert_eq!(
        message,
        "model lenet: layer conv1 has 6 output channels, too few to leave each of 7 devices one; \
         use at most 6 devices along the model axis"
    );
    model_parallel(&lenet, 6).unwrap();
    model_parallel(&alexnet(), 8).unwrap();
}

/// What a plan must be whatever the model: complete, without overlap, and exact about what travels.
fn check(plan: &Plan) {
    for (activation, placement) in plan.placements.iter().enumerate() {
        if let Placement::Shard(owned) = placement {
            let all = owned.iter().fold(Channels::none(), |all, own| all.union(own));
            let count: usize = owned.iter().map(Channels::len).sum();
            let channels = plan.model.shape(activation).channels;
            assert_eq!((all, count), (Channels::all(channels), channels), "each channel has one owner");
            assert!(owned.iter().all(|own| !own.is_empty()), "each rank has a channel");
        }
    }
    for (layer, planned) in plan.layers.iter().enumerate() {
        let inputs = plan.model.layers[layer].inputs.iter().zip(&planned.sources).zip(&planned.reads);
        for ((&input, source), reads) in inputs {
            for (rank, read) in reads.iter().enumerate() {
                let held = plan.held(input, rank);
                match source {
                    Read::Held => assert_eq!(&held, read),
                    Read::Part(parts) => assert!(held.contains(read) && parts[rank] == *read),
                    Read::Exchanged(id) => assert_eq!(plan.exchanges[*id].needed[rank], *read),
                }
            }
        }
    }
    for exchange in plan.exchanges.iter().filter(|exchange| exchange.operation != Operation::AllReduce) {
        let travels = exchange.transfers();
        for (rank, needed) in exchange.needed.iter().enumerate() {
            let received = travels.iter().filter(|transfer| transfer.to == rank);
            let received: Vec<&Channels> = received.map(|transfer| &transfer.channels).collect();
            let kept = exchange.owned[rank].intersection(needed);
            let all = received.iter().fold(kept.clone(), |all, part| all.union(part));
            let count = kept.len() + received.iter().map(|part| part.len()).sum::<usize>();
            assert_eq!((&all, count), (needed, needed.len()), "owned and received make up what is read, once");
        }
        let mut there_and_back = exchange.adjoint_transfers();
        for transfer in &mut there_and_back {
            std::mem::swap(&mut transfer.from, &mut transfer.to);
        }
        if !there_and_back.is_empty() {
            assert_eq!(there_and_back, travels, "the adjoint of the adjoint is the exchange");
        }
    }
}

/// conv3 and the linear layers of AlexNet read all channels: they can begin with their own. conv2 on three devices reads
/// some of the others' channels only, and the logits are a sum.
#[test]
fn dense_layers_can_begin_with_their_own_part() {
    for (devices, expected) in [(2, &["conv3", "fc6", "fc7"][..]), (3, &["conv3", "fc6", "fc7"])] {
        let plan = model_parallel(&alexnet(), devices).unwrap();
        assert!(plan.exchanges.iter().all(|exchange| !exchange.in_parts));
        let own_first = plan.clone().own_part_first();
        let in_parts = own_first.exchanges.iter().filter(|exchange| exchange.in_parts);
        let readers: Vec<&str> = in_parts.map(|exchange| &own_first.model.layers[exchange.reader].name[..]).collect();
        assert_eq!(readers, expected, "on {devices} devices");
        assert!(own_first.exchanges.len() > readers.len());
        // What travels is the same.
        let travels = |plan: &Plan| plan.exchanges.iter().map(Exchange::transfers).collect::<Vec<_>>();
        assert_eq!(travels(&own_first), travels(&plan));
    }
}

#[test]
fn shipped_models_have_sound_plans_on_any_number_of_devices() {
    let mut sound = 0;
    for name in shipped::names() {
        let model = shipped::load(name, &Edits::default()).unwrap();
        for devices in [1, 2, 3, 4, 5, 6, 7, 8] {
            if let Ok(plan) = model_parallel(&model, devices) {
                check(&plan);
                sound += 1;
            }
            check(&plan(&model, Mesh { data: devices, model: 1 }, Mode::DataParallel).unwrap());
        }
    }
    assert!(sound > 40, "{sound}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_networks_have_sound_plans(pieces in pieces(), devices in 1usize..6) {
        if let Some(plan) = network(&pieces).and_then(|model| model_parallel(&model, devices).ok()) {
            check(&plan);
        }
    }

    #[test]
    fn transfers_bring_each_rank_what_it_needs_and_does_not_own(
        borders in prop::collection::vec(0usize..30, 1..5),
        needs in prop::collection::vec((0usize..30, 0usize..30), 6),
    ) {
        let mut borders = borders;
        borders.extend([0, 30]);
        borders.sort_unstable();
        let owned: Vec<Channels> = borders.windows(2).map(|pair| (pair[0]..pair[1]).into()).collect();
        let needed: Vec<Channels> =
            needs[..owned.len()].iter().map(|&(a, b)| (a.min(b)..a.max(b)).into()).collect();
        let travels = transfers(&owned, &needed);
        for (rank, need) in needed.iter().enumerate() {
            let received: Vec<&Channels> = travels.iter().filter(|t| t.to == rank).map(|t| &t.channels).collect();
            let all = received.iter().fold(Channels::none(), |all, part| all.union(part));
            prop_assert_eq!(&all, &need.difference(&owned[rank]));
            prop_assert_eq!(all.len(), received.iter().map(|part| part.len()).sum::<usize>());
        }
    }
}
