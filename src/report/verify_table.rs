//! A comparison of two runs, layer by layer.

use super::table::{table, text};
use crate::model::Model;
use crate::verify::Comparison;

/// One row a layer: how far its tensors are from those of the whole run.
pub fn render(model: &Model, comparison: &Comparison) -> String {
    let headings = ["layer", "output", "gradient of output", "gradient of weights", "weights after"];
    let mut rows = table(&headings, &[1, 2, 3, 4]);
    let number = |distance: Option<f64>| distance.map_or(String::new(), |distance| format!("{distance:.1e}"));
    for (layer, row) in model.layers.iter().zip(&comparison.layers) {
        rows.add_row([
            layer.name.clone(),
            number(row.output),
            number(row.output_gradient),
            number(row.weight_gradient),
            number(row.weights),
        ]);
    }
    let losses: Vec<String> = comparison.losses.iter().map(|distance| format!("{distance:.1e}")).collect();
    format!("{}\nloss of each step: {}\n", text(&rows), losses.join(", "))
}
