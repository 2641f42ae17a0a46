//! Output to the terminal. No other file of the command prints to standard output. Ids, types, keys and errors come
//! from outside, so control characters in them are escaped and never sent to the terminal. A reader that closes the
//! pipe (`usher runs | head`) is no error.

use std::io::{ErrorKind, Write as _};

use serde::Serialize;
use usher_proto::visible;
use usher_service::best_effort;

/// Prints one line and escapes the control characters in `text`.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    print(&visible::line(text))
}

/// Prints a value as JSON on one line.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&visible::json(&serde_json::to_string(value)?))
}

/// Prints a value as JSON over several lines.
pub(crate) fn pretty_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&visible::json(&serde_json::to_string_pretty(value)?))
}

/// Prints a text of Usher's own, of several lines, as it is.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    print(text.trim_end_matches('\n'))
}

fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints one line that only accompanies the work, as servers do. The work continues if the line cannot be printed.
pub(crate) fn notice(text: &str) {
    best_effort::stdout().line(text);
}

/// Prints an additional line to standard error, apart from the requested output.
pub(crate) fn hint(text: &str) {
    best_effort::stderr().line(text);
}

/// Prints rows under a header, in columns as wide as their widest cell.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> anyhow::Result<()> {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| visible::line(cell).into_owned())).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let padded_line = |cells: [&str; N]| {
        let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        line(padded.join("  ").trim_end())
    };
    padded_line(head)?;
    for row in &rows {
        padded_line(row.each_ref().map(String::as_str))?;
    }
    Ok(())
}
