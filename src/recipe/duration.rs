//! Spans of time and amounts of memory as people write them.

use crate::error::{Error, Result};
use std::time::Duration;

/// The longest span that is read, a hundred years: any two of them can be added to each other and to the time of day.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A span like `90s`, `5m`, `1h30m` or `2.5h`; a plain number is seconds.
///
/// # Errors
/// Says how a span is written.
pub fn parse(text: &str) -> Result<Duration> {
    let fault = || Error::usage(format!("`{text}` is no span of time; write it like 90s, 5m or 1h30m"));
    let mut seconds = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(fault());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| fault())?;
        rest = &rest[digits..];
        let (unit, length) = match rest.chars().next() {
            None | Some('s') => (1.0, 1),
            Some('m') => (60.0, 1),
            Some('h') => (3600.0, 1),
            Some('d') => (86400.0, 1),
            Some(_) => return Err(fault()),
        };
        seconds += number * unit;
        rest = rest.get(length..).unwrap_or("").trim_start();
    }
    match Duration::try_from_secs_f64(seconds) {
        Ok(span) if span <= LONGEST => Ok(span),
        _ => Err(Error::usage(format!("`{text}` is longer than a hundred years, the longest span that mpt counts"))),
    }
}

/// A span for people: `0.8 s`, `42 s`, `3 min 20 s`, `1 h 05 min`.
pub fn show(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    let whole = seconds.round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// An amount of memory like `3GiB`, `512MiB`, `3GB` or plain bytes.
///
/// # Errors
/// Says how an amount is written.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let fault = || Error::usage(format!("`{text}` is no amount of memory; write it like 3GiB, 512MiB or 3GB"));
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| fault())?;
    let unit: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(fault()),
    };
    let bytes = number * unit as f64;
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(fault()) }
}

/// An amount of memory for people: `512 B`, `21.6 KiB`, `1.9 GiB`.
pub fn show_bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < units.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0);
    format!("{amount:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in
            [("90", 90.0), ("90s", 90.0), ("5m", 300.0), ("1h30m", 5400.0), ("2.5h", 9000.0), ("1h 5s", 3605.0)]
        {
            assert_eq!(parse(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        for text in ["", "m", "5x", "-5m", "1..5s", "5m x", "é", "5é"] {
            assert!(parse(text).unwrap_err().to_string().contains("no span of time"), "{text}");
        }
        for text in ["18446744073709551615s", "36501d", &"9".repeat(400)] {
            assert!(parse(text).unwrap_err().to_string().contains("longer than a hundred years"), "{text}");
        }
        assert!(parse("36500d").unwrap() == LONGEST);
    }

    #[test]
    fn memory_is_read_and_shown_in_units() {
        assert_eq!(parse_bytes("3GiB").unwrap(), 3 << 30);
        assert_eq!(parse_bytes("1.5 GB").unwrap(), 1_500_000_000);
        assert_eq!(show_bytes(3 << 30), "3.0 GiB");
        assert_eq!(show_bytes(512), "512 B");
        for text in ["", "GiB", "3XB", "-3GiB", "0"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
