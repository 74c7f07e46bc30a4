//! How tables look: plain columns that can be read, piped and compared.

use comfy_table::{CellAlignment, Table, presets};

/// A table with these headings; the columns in `right` hold numbers.
pub fn table(headings: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings.to_vec());
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The table as text, without blanks at line ends.
pub fn text(table: &Table) -> String {
    table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Blocks of lines next to one another.
pub fn beside(blocks: &[Vec<String>]) -> String {
    let height = blocks.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> =
        blocks.iter().map(|lines| lines.iter().map(|line| line.chars().count()).max().unwrap_or(0)).collect();
    let mut output = String::new();
    for row in 0..height {
        let cells = blocks.iter().zip(&widths).map(|(lines, &width)| {
            let line = lines.get(row).map_or("", String::as_str);
            format!("{line:width$}")
        });
        output += cells.collect::<Vec<_>>().join("   |   ").trim_end();
        output.push('\n');
    }
    output
}

/// A number with commas: `46,764,746`.
pub fn commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn commas_stand_before_every_third_digit() {
        for (number, text) in [(0u64, "0"), (999, "999"), (1000, "1,000"), (46_764_746, "46,764,746")] {
            assert_eq!(super::commas(number), text);
        }
    }
}
