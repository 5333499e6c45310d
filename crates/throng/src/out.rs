//! The only file that prints: data to standard output, everything else to standard error.
//!
//! A reader that closes the pipe, such as `head`, is not an error: the rest of the output is dropped, and
//! the command runs to its end. Any other error of the standard output, such as a full disk, fails the
//! command at its end.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde::Serialize;
use throng_model::one_line;
pub(crate) use throng_model::{count, counted, printable};

/// The form of what a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Text for people.
    Text,
    /// One JSON document, for programs.
    Json,
}

impl Output {
    /// `json`: whether the command line has `--json`.
    pub(crate) fn of(json: bool) -> Self {
        match json {
            true => Self::Json,
            false => Self::Text,
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self == Self::Json
    }
}

/// The first error of the standard output.
static STDOUT_ERROR: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Writes to the standard output. Writes nothing after the first error.
fn write(text: std::fmt::Arguments<'_>) {
    let mut first = STDOUT_ERROR.lock();
    if first.is_some() {
        return;
    }
    let mut stdout = std::io::stdout().lock();
    *first = stdout.write_fmt(text).and_then(|()| stdout.flush()).err();
}

/// The error because of which the standard output is incomplete; `None` if it is complete, or if its
/// reader closed the pipe. Called once, at the end.
pub(crate) fn stdout_error() -> Option<std::io::Error> {
    let mut first = STDOUT_ERROR.lock();
    first.take().filter(|error| error.kind() != ErrorKind::BrokenPipe)
}

/// Prints a line of data, or several. Control characters are escaped, as in [`message`].
pub(crate) fn line(text: impl std::fmt::Display) {
    write(format_args!("{}\n", printable(&text.to_string(), &['\n', '\t'])));
}

/// Prints text as it is.
pub(crate) fn text(text: &str) {
    write(format_args!("{text}"));
}

/// Prints one JSON document. One that cannot be written as JSON, because of a path that is not UTF-8 for
/// example, fails the command as an error of the standard output does.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(document) => write(format_args!("{document}\n")),
        Err(error) => {
            let mut first = STDOUT_ERROR.lock();
            if first.is_none() {
                *first = Some(error.into());
            }
        }
    }
}

/// Prints one JSON document on one line, so that a program can read it without waiting for the end of the
/// output.
///
/// # Errors
/// If it cannot be written as JSON.
pub(crate) fn json_line(value: &impl Serialize) -> serde_json::Result<()> {
    write(format_args!("{}\n", serde_json::to_string(value)?));
    Ok(())
}

/// Prints a line for people to the standard error. Control characters are escaped: the name of a file or the answer
/// of a platform could have those that change what a terminal shows.
pub(crate) fn message(text: impl std::fmt::Display) {
    let text = printable(&text.to_string(), &['\n', '\t']);
    // A failed write to the standard error cannot be reported anywhere.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Asks a person at the terminal whether to continue, and returns the answer; `None` without a terminal.
pub(crate) fn ask(what: &str) -> std::io::Result<Option<String>> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    message(format_args!("{what}\ncontinue? [y/N]"));
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    Ok(Some(answer))
}

/// Prints a table. Each row is one line: the message of an alert may have several.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) {
    line(table_of(header, rows));
}

fn table_of(header: &[&str], rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| one_line(cell)));
    }
    table
}

/// A progress bar with an ETA on the standard error; hidden if that is not a terminal.
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

/// A progress bar of bytes with an ETA on the standard error; hidden if that is not a terminal.
pub(crate) fn byte_bar(what: &str) -> ProgressBar {
    let bar = bar(0, what);
    if let Ok(style) = ProgressStyle::with_template(
        "{msg:<28} {wide_bar:.cyan/blue} {bytes}/{total_bytes} {elapsed} eta {eta}",
    ) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_row_of_a_table_is_one_line() {
        let text = "errors:\n  a.yaml:3: no a\r\n\n  b.yaml:9: no b\n";
        let rows = [text, "held"].map(|cell| vec![cell.to_owned()]);
        let shown = super::table_of(&["MESSAGE"], rows.to_vec()).to_string();
        let shown: Vec<&str> = shown.lines().map(str::trim).collect();
        assert_eq!(shown, ["MESSAGE", "errors: a.yaml:3: no a; b.yaml:9: no b", "held"]);
    }
}
