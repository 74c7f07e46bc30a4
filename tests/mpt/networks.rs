//! Random networks: graphs that nobody would have thought of.

use mpt::model::kind::{Conv, Linear, Multipliers, Norm, Window};
use mpt::model::{Draft, Initial, Kind, Model, Shape};
use proptest::prelude::*;

/// A layer of a random network: what is possible is tried on what came before.
#[derive(Clone, Debug)]
pub enum Piece {
    Conv { out: usize, groups: usize },
    Relu,
    Pool,
    Norm { size: usize, groups: usize },
    AddBack,
    JoinBack,
    Linear(usize),
}

/// Some pieces.
pub fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        4 => (1usize..5, 1usize..5).prop_map(|(out, groups)| Piece::Conv { out: out * groups, groups }),
        1 => Just(Piece::Relu),
        1 => Just(Piece::Pool),
        2 => (1usize..6, 1usize..3).prop_map(|(size, groups)| Piece::Norm { size, groups }),
        1 => Just(Piece::AddBack),
        2 => Just(Piece::JoinBack),
        1 => (1usize..20).prop_map(Piece::Linear),
    ];
    prop::collection::vec(piece, 1..10)
}

/// A network of the pieces that fit, each checked by the model itself.
pub fn network(pieces: &[Piece]) -> Option<Model> {
    let initial = Initial::KaimingUniform;
    let linear = |out_features| {
        Kind::Linear(Linear {
            out_features,
            bias: true,
            weight_initial: initial,
            bias_initial: initial,
            weight_multipliers: Multipliers::default(),
            bias_multipliers: Multipliers::default(),
        })
    };
    let mut drafts: Vec<Draft> = Vec::new();
    let mut ends = vec![Draft { name: "loss".into(), kind: Kind::SoftmaxCrossEntropy, inputs: vec![] }];
    ends.insert(0, Draft { name: "logits".into(), kind: linear(9), inputs: vec![] });
    let flatten = Draft { name: "flatten".into(), kind: Kind::Flatten, inputs: vec![] };
    let sound = |drafts: &[Draft], flat: bool| {
        let mut all = drafts.to_vec();
        if !flat {
            all.push(flatten.clone());
        }
        all.extend(ends.clone());
        Model::new("random", Shape::image(8, 9, 9), all).ok()
    };
    let mut flat = false;
    for (index, piece) in pieces.iter().enumerate() {
        let before = drafts.len().checked_sub(1).map_or("image".to_owned(), |last| drafts[last].name.clone());
        let back = drafts.len().checked_sub(3).map_or("image".to_owned(), |earlier| drafts[earlier].name.clone());
        let window = Window { kernel: 3, stride: 1, padding: 1, ceil_mode: false };
        let (kind, inputs) = match piece {
            Piece::Conv { out, groups } => {
                let settings = Conv {
                    out_channels: *out,
                    window,
                    groups: *groups,
                    bias: true,
                    weight_initial: initial,
                    bias_initial: initial,
                    weight_multipliers: Multipliers::default(),
                    bias_multipliers: Multipliers::default(),
                };
                (Kind::Conv(settings), vec![])
            }
            Piece::Relu => (Kind::Relu, vec![]),
            Piece::Pool => (Kind::MaxPool(Window { kernel: 2, stride: 1, padding: 0, ceil_mode: false }), vec![]),
            Piece::Norm { size, groups } => {
                let norm = Norm { size: *size, alpha: 1.0, beta: 0.75, k: 1.0 };
                (Kind::LocalResponseNorm { norm, groups: *groups }, vec![])
            }
            Piece::AddBack => (Kind::Add, vec![before, back]),
            Piece::JoinBack => (Kind::Concat, vec![before, back]),
            Piece::Linear(out) => (linear(*out), vec![]),
        };
        let mut tried = drafts.clone();
        let mut flattened = flat;
        if matches!(kind, Kind::Linear(_)) && !flat {
            tried.push(Draft { name: format!("flatten{index}"), kind: Kind::Flatten, inputs: vec![] });
            flattened = true;
        }
        tried.push(Draft { name: format!("layer{index}"), kind, inputs });
        if sound(&tried, flattened).is_some() {
            (drafts, flat) = (tried, flattened);
        }
    }
    sound(&drafts, flat)
}
