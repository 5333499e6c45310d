//! The only file that prints: data to standard output, everything else to standard error.

#![expect(clippy::print_stdout, reason = "this is the one place that may")]

use std::io::IsTerminal;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// Prints a line of data.
pub(crate) fn line(text: impl std::fmt::Display) {
    println!("{text}");
}

/// Prints one JSON document.
pub(crate) fn json(value: &Value) {
    println!("{value:#}");
}

/// Says something to the person at the terminal.
pub(crate) fn say(text: impl std::fmt::Display) {
    eprintln!("{text}");
}

/// Prints a table.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    println!("{table}");
}

/// A progress bar with an ETA on standard error; nothing if that is not a terminal.
pub(crate) fn bar(total: u64, what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template(
        "{msg:<28} {wide_bar:.cyan/blue} {human_pos}/{human_len} {elapsed} eta {eta}",
    ) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A progress bar of bytes with an ETA on standard error; nothing if that is not a terminal.
pub(crate) fn byte_bar(what: &str) -> ProgressBar {
    let bar = bar(0, what);
    if let Ok(style) = ProgressStyle::with_template(
        "{msg:<28} {wide_bar:.cyan/blue} {bytes}/{total_bytes} {elapsed} eta {eta}",
    ) {
        bar.set_style(style);
    }
    bar
}

/// `12,345`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_have_commas() {
        assert_eq!(super::count(0), "0");
        assert_eq!(super::count(999), "999");
        assert_eq!(super::count(1_000), "1,000");
        assert_eq!(super::count(12_345_678), "12,345,678");
    }
}
