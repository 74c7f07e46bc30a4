//! The layers of models, side by side: name, output shape, parameters, multiply-accumulates.

use super::table::{beside, commas, table, text};
use crate::model::Model;
use crate::model::cost::{multiply_accumulates, parameter_count};

/// One table for each model, next to one another.
pub fn render(models: &[Model]) -> String {
    beside(&models.iter().map(lines).collect::<Vec<_>>())
}

fn lines(model: &Model) -> Vec<String> {
    let mut rows = table(&["layer", "kind", "output", "parameters", "MACs"], &[3, 4]);
    rows.add_row(["image", "", &model.input.to_string(), "", ""]);
    let (mut parameters, mut macs) = (0, 0);
    for (index, layer) in model.layers.iter().enumerate() {
        let (own, work) = (parameter_count(model, index), multiply_accumulates(model, index, layer.output.channels));
        parameters += own;
        macs += work;
        let or_blank = |number: u64| if number == 0 { String::new() } else { commas(number) };
        rows.add_row([
            layer.name.clone(),
            layer.kind.name().to_owned(),
            layer.output.to_string(),
            or_blank(own as u64),
            or_blank(work),
        ]);
    }
    rows.add_row(["in all", "", "", &commas(parameters as u64), &commas(macs)]);
    let mut lines = vec![model.name.clone()];
    lines.extend(text(&rows).lines().map(str::to_owned));
    lines
}
