//! A plan for people: per layer what each device holds, what is exchanged and what it costs; then the memory of each
//! device.

use super::table::{commas, table, text};
use crate::comm::{Operation as Collective, Volume};
use crate::engine::traffic::{self, Flow};
use crate::model::LayerId;
use crate::plan::memory::{Memory, Sizes, of_process, of_rank};
use crate::plan::{Adjoint, Exchange, Operation, Placement, Plan, Read, Weights};
use crate::recipe::duration::show_bytes;
use serde_json::{Value, json};

/// The plan as tables.
pub fn render(plan: &Plan, sizes: Sizes) -> String {
    let mut output = format!(
        "{} over {} ({}): {} data x {} model, batch {}\n\n",
        plan.model.name,
        devices(plan.mesh.ranks()),
        plan.mode,
        plan.mesh.data,
        plan.mesh.model,
        commas(sizes.batch_size as u64)
    );
    output += &layers(plan, sizes);
    output.push('\n');
    output += &exchanges(plan, sizes);
    output.push('\n');
    output += &memory(plan, sizes);
    output
}

/// `1 device`, `2 devices`.
pub fn devices(count: usize) -> String {
    if count == 1 { "1 device".into() } else { format!("{count} devices") }
}

fn layers(plan: &Plan, sizes: Sizes) -> String {
    let headings =
        ["layer", "output", "weights", "activations", "exchange before it", "parameters/device", "GFLOP/step/device"];
    let mut rows = table(&headings, &[5, 6]);
    rows.add_row(["image", &plan.model.input.to_string(), "", &placement(plan, 0), "", "", ""]);
    for (index, layer) in plan.model.layers.iter().enumerate() {
        let ranks = 0..plan.mesh.model;
        let held = |rank| plan.parameter_shares(index, rank).iter().map(|share| share.len() as u64).sum();
        let examples = sizes.batch_size.div_ceil(plan.mesh.data) as u64;
        let work = |rank| plan.layer_flops(index, rank) * examples;
        rows.add_row([
            layer.name.clone(),
            layer.output.to_string(),
            weights(plan.layers[index].weights).to_owned(),
            placement(plan, index + 1),
            exchange_before(plan, index),
            spread(ranks.clone().map(held), commas),
            spread(ranks.map(work), |operations| format!("{:.1}", operations as f64 / 1e9)),
        ]);
    }
    text(&rows)
}

/// The word for where a layer's weights lie.
pub fn weights(weights: Weights) -> &'static str {
    match weights {
        Weights::None => "",
        Weights::Replicated => "replicated",
        Weights::OutputSplit => "split by output",
        Weights::InputSplit => "split by input",
    }
}

fn placement(plan: &Plan, activation: usize) -> String {
    let over_model = match &plan.placements[activation] {
        Placement::Replicated => "replicated".into(),
        Placement::Partial => "partial".into(),
        Placement::Shard(owned) => {
            let shares: Vec<String> = owned.iter().map(ToString::to_string).collect();
            format!("channels {}", shares.join(" | "))
        }
    };
    match (plan.mesh.data, plan.mesh.model) {
        (1, _) => over_model,
        (_, 1) => "by example".into(),
        _ => format!("by example, {over_model}"),
    }
}

/// One number where all devices have the same, else the least and the most; nothing for nothing.
pub fn spread(counts: impl Iterator<Item = u64>, show: impl Fn(u64) -> String) -> String {
    let counts: Vec<u64> = counts.collect();
    match (counts.iter().min(), counts.iter().max()) {
        (Some(&low), Some(&high)) if low != high => format!("{} to {}", show(low), show(high)),
        (Some(&same), _) if same > 0 => show(same),
        _ => String::new(),
    }
}

fn exchange_before(plan: &Plan, layer: LayerId) -> String {
    let names = plan.layers[layer].sources.iter().filter_map(|source| match source {
        Read::Exchanged(id) if plan.exchanges[*id].reader == layer => Some(operation(&plan.exchanges[*id]).to_owned()),
        Read::Exchanged(id) => Some(format!("as {}", plan.model.layers[plan.exchanges[*id].reader].name)),
        _ => None,
    });
    names.collect::<Vec<_>>().join(", ")
}

/// The word for how an exchange is carried out.
pub fn operation(exchange: &Exchange) -> &'static str {
    match exchange.operation {
        Operation::AllGather => "all-gather",
        Operation::SendReceive => "send-receive",
        Operation::AllReduce => "all-reduce",
    }
}

/// The word for how its gradient goes back.
pub fn adjoint(exchange: &Exchange) -> &'static str {
    match (exchange.adjoint, exchange.operation) {
        (Adjoint::Slice, _) => "slice",
        (Adjoint::Identity, _) => "nothing",
        (Adjoint::Sum, Operation::AllGather) => "reduce-scatter",
        (Adjoint::Sum, _) => "send-receive and sum",
    }
}

/// Each exchange in a line: what, before which layer, and the values per example that a device sends.
pub fn exchange_lines(plan: &Plan) -> Vec<String> {
    let line = |exchange: &Exchange| {
        let (forward, back) = exchange.values_sent(&plan.model, 0);
        let reader = &plan.model.layers[exchange.reader].name;
        let source = plan.model.activation_name(exchange.source);
        format!(
            "before {reader}: {} of {source}{}, {} values per example and device; back: {}{}",
            operation(exchange),
            exchange.manner(),
            commas(forward as u64),
            adjoint(exchange),
            if back > 0 { format!(", {} values", commas(back as u64)) } else { String::new() }
        )
    };
    plan.exchanges.iter().map(line).collect()
}

/// The flows of each rank in a step.
fn flows(plan: &Plan, sizes: Sizes) -> Vec<Vec<Flow>> {
    let of_rank = |rank| traffic::of_step(plan, rank, sizes.batch_size, sizes.value_bytes);
    (0..plan.mesh.ranks()).map(of_rank).collect()
}

fn exchanges(plan: &Plan, sizes: Sizes) -> String {
    if plan.exchanges.is_empty() && plan.mesh.data == 1 {
        return "no exchange: every device computes alone\n".into();
    }
    let mut rows = table(
        &["exchange", "of", "forward", "backward", "values/image/device", "sent/step/device", "received/step/device"],
        &[4, 5, 6],
    );
    let flows = flows(plan, sizes);
    let bytes = |which: &dyn Fn(&Flow) -> bool, of: &dyn Fn(&Volume) -> u64| {
        let of_rank = |rank: &Vec<Flow>| rank.iter().filter(|flow| which(flow)).map(|flow| of(&flow.volume)).sum();
        spread(flows.iter().map(of_rank), show_bytes)
    };
    let both = |which: &dyn Fn(&Flow) -> bool| {
        [bytes(which, &|volume| volume.sent_bytes), bytes(which, &|volume| volume.received_bytes)]
    };
    for (id, exchange) in plan.exchanges.iter().enumerate() {
        let [sent, received] = both(&|flow| flow.exchange == Some(id));
        let values = (0..plan.mesh.model).map(|rank| exchange.values_sent(&plan.model, rank).0 as u64);
        rows.add_row([
            format!("before {}", plan.model.layers[exchange.reader].name),
            plan.model.activation_name(exchange.source).to_owned(),
            format!("{}{}", operation(exchange), exchange.manner()),
            adjoint(exchange).to_owned(),
            spread(values, commas),
            sent,
            received,
        ]);
    }
    if plan.mesh.data > 1 {
        let [sent, received] = both(&|flow| flow.exchange.is_none());
        rows.add_row([
            "after backward",
            "gradients",
            "all-to-all and sum",
            "all-gather of weights",
            "",
            &sent,
            &received,
        ]);
    }
    let [sent, received] = both(&|_| true);
    rows.add_row(["in all", "", "", "", "", &sent, &received]);
    text(&rows)
}

fn memory(plan: &Plan, sizes: Sizes) -> String {
    let mut rows = table(&["device", "weights", "gradients", "optimizer", "activations", "in all"], &[1, 2, 3, 4, 5]);
    for rank in 0..plan.mesh.ranks() {
        let Memory { weights, gradients, optimizer, activations } = of_rank(plan, rank, sizes);
        let total = of_rank(plan, rank, sizes).total();
        let mut row = vec![rank.to_string()];
        row.extend([weights, gradients, optimizer, activations, total].map(show_bytes));
        rows.add_row(row);
    }
    let process = show_bytes(of_process(plan, sizes));
    format!("{}\nin one process, as CPU devices: {process}\n", text(&rows))
}

/// The plan as JSON: the same facts, in plain numbers.
pub fn to_json(plan: &Plan, sizes: Sizes) -> Value {
    let layers: Vec<Value> = (0..plan.model.layers.len()).map(|layer| layer_json(plan, layer)).collect();
    let exchanges: Vec<Value> = plan.exchanges.iter().map(|exchange| exchange_json(plan, exchange)).collect();
    let memory: Vec<Value> = (0..plan.mesh.ranks())
        .map(|rank| {
            let Memory { weights, gradients, optimizer, activations } = of_rank(plan, rank, sizes);
            json!({ "device": rank, "weights_bytes": weights, "gradients_bytes": gradients,
                    "optimizer_bytes": optimizer, "activations_bytes": activations })
        })
        .collect();
    json!({
        "model": plan.model.name, "mode": plan.mode.name(), "mesh": plan.mesh.to_string(),
        "batch_size": sizes.batch_size, "value_bytes": sizes.value_bytes, "master_bytes": sizes.master_bytes,
        "layers": layers, "exchanges": exchanges, "traffic": traffic_json(plan, sizes), "memory": memory, "process_bytes": of_process(plan, sizes),
    })
}

fn layer_json(plan: &Plan, layer: LayerId) -> Value {
    let planned = &plan.layers[layer];
    let ranks = 0..plan.mesh.model;
    let parameters: Vec<usize> =
        ranks.clone().map(|rank| plan.parameter_shares(layer, rank).iter().map(|share| share.len()).sum()).collect();
    let macs: Vec<u64> = ranks.map(|rank| plan.multiply_accumulates(layer, rank)).collect();
    json!({
        "name": plan.model.layers[layer].name,
        "kind": plan.model.layers[layer].kind.name(),
        "output": plan.model.layers[layer].output.to_string(),
        "weights": weights(planned.weights),
        "activations": placement(plan, layer + 1),
        "parameters_per_model_rank": parameters,
        "multiply_accumulates_per_example_per_model_rank": macs,
    })
}

/// What each device sends and receives in a step.
fn traffic_json(plan: &Plan, sizes: Sizes) -> Value {
    let device = |(rank, flows): (usize, Vec<Flow>)| {
        let traffic = traffic::total(&flows);
        let operations: Vec<Value> = Collective::ALL
            .into_iter()
            .filter(|&operation| traffic.of(operation) != Volume::default())
            .map(|operation| {
                let Volume { sent_bytes, received_bytes } = traffic.of(operation);
                json!({ "operation": operation.name(), "sent_bytes": sent_bytes, "received_bytes": received_bytes })
            })
            .collect();
        json!({ "device": rank, "sent_bytes": traffic.sent_bytes(), "received_bytes": traffic.received_bytes(),
                "operations": operations })
    };
    flows(plan, sizes).into_iter().enumerate().map(device).collect()
}

fn exchange_json(plan: &Plan, exchange: &Exchange) -> Value {
    let ranks = 0..plan.mesh.model;
    let (forward, back): (Vec<usize>, Vec<usize>) = ranks.map(|rank| exchange.values_sent(&plan.model, rank)).unzip();
    json!({
        "before": plan.model.layers[exchange.reader].name,
        "of": plan.model.activation_name(exchange.source),
        "forward": operation(exchange), "backward": adjoint(exchange), "own_part_first": exchange.in_parts, "in_fp16": exchange.in_half,
        "values_sent_forward_per_example": forward, "values_sent_backward_per_example": back,
    })
}
