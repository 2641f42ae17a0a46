//! Printing to standard output. A reader that goes away (`usher runs | head`) is no error.

use std::io::{ErrorKind, Write as _};

/// Prints one line.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints one line that only accompanies the work, as a program that serves does: where it cannot be printed, to a full disk
/// say, the work goes on.
pub(crate) fn notice(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints one line beside what was asked for, to standard error.
pub(crate) fn hint(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints rows under a head, in columns as wide as their widest entry.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> anyhow::Result<()> {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([head[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let print = |cells: [&str; N]| {
        let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        line(padded.join("  ").trim_end())
    };
    print(head)?;
    for row in rows {
        print(row.each_ref().map(String::as_str))?;
    }
    Ok(())
}
