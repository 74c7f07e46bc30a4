//! What `mpt bench` measured, for people and for programs.

use super::plot::{Curve, Plot};
use super::table::{table, text};
use crate::bench::scaling::{Configuration, Row, Scaling};
use crate::bench::step::{LayerTime, StepTime};
use crate::bench::{exchange, loader};
use crate::plan::Mode;
use crate::recipe::duration::show_bytes;
use serde_json::{Value, json};

/// What is to be known of a step that was taken apart on a GPU.
const ONE_BY_ONE: &str = "\nlayers were timed one by one: the GPU was waited for before and after each, so that nothing overlapped, and\n\
                          such a step takes longer than one of `mpt train` or of `mpt bench scaling`\n";

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A row a configuration: the median over the rounds, and its quartiles.
pub fn scaling(rows: &[Row]) -> String {
    let headings = [
        "mode",
        "devices",
        "scaling",
        "batch",
        "examples/sec",
        "quartiles",
        "speed-up",
        "efficiency",
        "moving",
        "waiting",
    ];
    let mut cells = table(&headings, &[1, 3, 4, 5, 6, 7, 8, 9]);
    for row in rows {
        let Configuration { mode, devices, scaling } = row.configuration;
        cells.add_row([
            mode.to_string(),
            devices.to_string(),
            if devices > 1 { scaling.name().to_owned() } else { String::new() },
            row.batch_size.to_string(),
            format!("{:.1}", row.rate.median),
            format!("{:.1} to {:.1}", row.rate.low, row.rate.high),
            format!("{:.2}", row.speedup.median),
            percent(row.efficiency()),
            percent(row.exchange_share),
            percent(row.wait_share),
        ]);
    }
    text(&cells)
}

/// The same for programs.
pub fn scaling_json(rows: &[Row]) -> Vec<Value> {
    let one = |row: &Row| {
        let Configuration { mode, devices, scaling } = row.configuration;
        json!({
            "mode": mode.to_string(), "devices": devices, "scaling": scaling.name(), "batch_size": row.batch_size,
            "examples_per_second": row.rate.median,
            "examples_per_second_quartiles": [row.rate.low, row.rate.high],
            "speedup": row.speedup.median, "speedup_quartiles": [row.speedup.low, row.speedup.high],
            "efficiency": row.efficiency(), "exchange_share": row.exchange_share, "wait_share": row.wait_share,
        })
    };
    rows.iter().map(one).collect()
}

/// Examples a second against devices, with what perfect scaling would be.
pub fn scaling_plot(title: &str, rows: &[Row]) -> Plot {
    let alone = rows.first().map_or(f64::NAN, |row| row.rate.median);
    let most = rows.iter().map(|row| row.configuration.devices).max().unwrap_or(1);
    let ideal = (1..=most).map(|devices| (devices as f64, alone * devices as f64)).collect();
    let mut curves = Vec::new();
    for mode in [Mode::ModelParallel, Mode::DataParallel] {
        for scaling in [Scaling::Strong, Scaling::Weak] {
            let of = |row: &&Row| row.configuration.mode == mode && row.configuration.scaling == scaling;
            let measured = rows.iter().filter(of).map(|row| (row.configuration.devices as f64, row.rate.median));
            let points: Vec<(f64, f64)> = std::iter::once((1.0, alone)).chain(measured).collect();
            if points.len() > 1 {
                curves.push(Curve { name: format!("{mode}, {}", scaling.name()), points, marked: true });
            }
        }
    }
    curves.push(Curve { name: "as many times one device".into(), points: ideal, marked: false });
    Plot { title: title.into(), across: "devices".into(), up: "examples/sec".into(), curves, ..Plot::default() }
}

/// A row a layer, then the phases of the step, then what it comes to.
pub fn step(measured: &StepTime) -> String {
    let headings = ["layer", "forward ms", "GFLOP/s", "backward ms", "GFLOP/s", "of the step"];
    let mut cells = table(&headings, &[1, 2, 3, 4, 5]);
    let rate = |operations: f64, seconds: f64| match operations > 0.0 && seconds > 0.0 {
        true => format!("{:.0}", operations / seconds / 1e9),
        false => String::new(),
    };
    for layer in &measured.layers {
        cells.add_row([
            measured.plan.model.layers[layer.layer].name.clone(),
            format!("{:.2}", 1e3 * layer.forward),
            rate(layer.forward_operations, layer.forward),
            format!("{:.2}", 1e3 * layer.backward),
            rate(layer.backward_operations, layer.backward),
            percent((layer.forward + layer.backward) / measured.seconds),
        ]);
    }
    let mut phases = table(&["phase", "ms", "of the step"], &[1, 2]);
    for &(phase, seconds) in &measured.phases {
        phases.add_row([phase.name().to_owned(), format!("{:.2}", 1e3 * seconds), percent(seconds / measured.seconds)]);
    }
    let inside = measured.layers.iter().filter(|layer| layer.multiplies);
    let sums = inside.fold((0.0, 0.0), |(operations, seconds), layer: &LayerTime| {
        (operations + layer.forward_operations + layer.backward_operations, seconds + layer.forward + layer.backward)
    });
    let achieved = sums.0 / sums.1;
    format!(
        "{}\n{}\na step of {} examples: {:.1} ms, {:.1} examples/sec\n\
         inside convolutions and matrix products: {}\n\
         they compute {:.0} GFLOP/s a device; a product of two 2048 x 2048 matrices {:.0} GFLOP/s: {}\n{}",
        text(&cells),
        text(&phases),
        measured.batch_size,
        1e3 * measured.seconds,
        measured.batch_size as f64 / measured.seconds,
        percent(measured.multiplying_share()),
        achieved / 1e9,
        measured.product_rate / 1e9,
        percent(achieved / measured.product_rate),
        if measured.one_by_one() { ONE_BY_ONE } else { "" },
    )
}

/// The same for programs.
pub fn step_json(measured: &StepTime) -> Value {
    let layer = |layer: &LayerTime| {
        json!({
            "layer": measured.plan.model.layers[layer.layer].name, "multiplies": layer.multiplies,
            "forward_seconds": layer.forward, "backward_seconds": layer.backward,
            "forward_operations": layer.forward_operations, "backward_operations": layer.backward_operations,
        })
    };
    let phases: serde_json::Map<String, Value> = measured
        .phases
        .iter()
        .map(|(phase, seconds)| (format!("{}_seconds", phase.name()), (*seconds).into()))
        .collect();
    json!({
        "batch_size": measured.batch_size, "seconds": measured.seconds,
        "examples_per_second": measured.batch_size as f64 / measured.seconds,
        "layers_one_by_one": measured.one_by_one(),
        "multiplying_share": measured.multiplying_share(),
        "matrix_product_operations_per_second": measured.product_rate,
        "phases": phases, "rows": measured.layers.iter().map(layer).collect::<Vec<_>>(),
    })
}

/// A row a collective and size.
pub fn exchanges(rows: &[exchange::Row]) -> String {
    let mut cells =
        table(&["collective", "ranks", "received", "microseconds", "GB/s", "of a copy's rate"], &[1, 2, 3, 4, 5]);
    for row in rows {
        cells.add_row([
            row.operation.to_string(),
            row.ranks.to_string(),
            show_bytes(row.received as u64),
            format!("{:.1}", 1e6 * row.seconds),
            format!("{:.2}", row.bandwidth() / 1e9),
            percent(row.of_a_copy()),
        ]);
    }
    text(&cells)
}

/// The same for programs.
pub fn exchanges_json(rows: &[exchange::Row]) -> Vec<Value> {
    let one = |row: &exchange::Row| {
        json!({
            "operation": row.operation.to_string(), "ranks": row.ranks, "received_bytes": row.received,
            "seconds": row.seconds, "bytes_per_second": row.bandwidth(), "copy_seconds": row.copy_seconds,
        })
    };
    rows.iter().map(one).collect()
}

/// A row a variant.
pub fn loader(rows: &[loader::Row]) -> String {
    let mut cells = table(&["what is loaded", "images", "images/s", "images/s and core"], &[1, 2, 3]);
    for row in rows {
        let rates = [row.rate(), row.rate_per_core()].map(|rate| format!("{rate:.0}"));
        let [rate, per_core] = rates;
        cells.add_row([row.what.to_owned(), row.images.to_string(), rate, per_core]);
    }
    text(&cells)
}

/// The same for programs.
pub fn loader_json(rows: &[loader::Row]) -> Vec<Value> {
    let one = |row: &loader::Row| {
        json!({
            "what": row.what, "images": row.images, "seconds": row.seconds,
            "processor_seconds": row.processor_seconds,
            "images_per_second": row.rate(), "images_per_second_and_core": row.rate_per_core(),
        })
    };
    rows.iter().map(one).collect()
}
