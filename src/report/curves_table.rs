//! The epochs of runs as tables, and the best of each figure.

use super::curves::Run;
use super::epochs::{FIGURES, best};
use super::table::{beside, table, text};

/// One table for each run, next to one another.
pub fn render(runs: &[Run]) -> String {
    beside(&runs.iter().map(lines).collect::<Vec<_>>())
}

fn lines(run: &Run) -> Vec<String> {
    let headings: Vec<&str> = std::iter::once("epoch").chain(FIGURES.map(|figure| figure.name)).collect();
    let mut rows = table(&headings, &[0, 1, 2, 3]);
    let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    for epoch in &run.epochs {
        rows.add_row(std::iter::once(epoch.number.to_string()).chain(epoch.values.map(shown)));
    }
    let best: Vec<Option<(u64, f64)>> = (0..FIGURES.len()).map(|figure| best(&run.epochs, figure)).collect();
    let values = best.iter().map(|best| shown(best.map(|(_, value)| value)));
    rows.add_row(std::iter::once("best".to_owned()).chain(values));
    let epochs = best.iter().map(|best| best.map_or("-".to_owned(), |(epoch, _)| epoch.to_string()));
    rows.add_row(std::iter::once("in epoch".to_owned()).chain(epochs));
    let mut lines = vec![run.name.clone(), run.about.clone()];
    lines.extend(text(&rows).lines().map(str::to_owned));
    lines
}
