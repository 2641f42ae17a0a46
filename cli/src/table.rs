//! Tables that fit the terminal. Pure, apart from the look at the terminal's width.
//!
//! Without a terminal, or with `--wide`, every cell is printed whole, for other programs and for files.

use std::io::IsTerminal as _;

use terminal_size::{Width, terminal_size_of};
use usher_proto::visible;

use crate::output;

/// Space between two columns.
const GAP: &str = "  ";

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) head: &'static str,
    /// Width to which its cells may be cut; `None` if a cut cell would be of no use, such as an id.
    pub(crate) least: Option<usize>,
    /// Importance: columns with a higher number are cut, and left out, before those with a lower one. Columns with 0 are never
    /// left out.
    pub(crate) rank: u8,
}

/// Returns the width into which tables are to be fitted: that of the terminal, or `None` if the output is none or is wanted whole.
pub(crate) fn width(wide: bool) -> Option<usize> {
    let stdout = std::io::stdout();
    if wide || !stdout.is_terminal() {
        return None;
    }
    terminal_size_of(stdout).map(|(Width(columns), _)| usize::from(columns)).filter(|columns| *columns > 0)
}

/// Prints rows under a header. If `width` is given, columns are cut and left out until a row fits into it.
pub(crate) fn print<const N: usize>(
    columns: [Column; N],
    rows: &[[String; N]],
    width: Option<usize>,
) -> anyhow::Result<()> {
    lines(columns, rows, width).iter().try_for_each(|line| output::line(line))
}

fn lines<const N: usize>(columns: [Column; N], rows: &[[String; N]], width: Option<usize>) -> Vec<String> {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| visible::line(cell).into_owned())).collect();
    let longest = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([columns[column].head.len()]).max().unwrap_or_default()
    };
    let natural: [usize; N] = std::array::from_fn(longest);
    let widths = width.map_or(natural.map(Some), |width| fit(&columns, &natural, width));
    let line = |cells: [&str; N]| {
        let shown = cells.iter().zip(widths).filter_map(|(cell, width)| width.map(|width| padded(cell, width)));
        shown.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    let head = line(columns.map(|column| column.head));
    std::iter::once(head).chain(rows.iter().map(|row| line(row.each_ref().map(String::as_str)))).collect()
}

/// Returns the cell in exactly this width: with spaces at its end, or cut with a sign that it is.
fn padded(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return format!("{cell:width$}");
    }
    let kept: String = cell.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// Returns the width of each column, or `None` for one that is left out. The columns that must not be left out stay, even if
/// they do not fit.
fn fit<const N: usize>(columns: &[Column; N], natural: &[usize; N], width: usize) -> [Option<usize>; N] {
    let least = |at: usize| columns[at].least.map_or(natural[at], |least| least.min(natural[at]));
    let mut by_rank: Vec<usize> = (0..N).collect();
    by_rank.sort_by_key(|at| columns[*at].rank);
    let mut widths = [None; N];
    let mut needed = 0;
    for at in &by_rank {
        let gap = if needed == 0 { 0 } else { GAP.len() };
        if columns[*at].rank == 0 || needed + gap + least(*at) <= width {
            needed += gap + least(*at);
            widths[*at] = Some(least(*at));
        }
    }
    // The width that is left goes to the most important ones first.
    let mut left = width.saturating_sub(needed);
    for at in by_rank {
        if let Some(width) = &mut widths[at] {
            let more = (natural[at] - *width).min(left);
            left -= more;
            *width += more;
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column { head: "run", least: None, rank: 0 },
        Column { head: "why", least: Some(6), rank: 1 },
        Column { head: "type", least: Some(4), rank: 3 },
        Column { head: "effects", least: Some(7), rank: 2 },
    ];

    fn printed(width: Option<usize>) -> Vec<String> {
        let row = ["email/msg_1", "a reason of some length", "user.created", "resend mail_1"].map(str::to_owned);
        lines(COLUMNS, &[row], width)
    }

    #[test]
    fn without_a_terminal_every_cell_is_whole() {
        assert_eq!(printed(None)[1], "email/msg_1  a reason of some length  user.created  resend mail_1");
    }

    #[test]
    fn a_row_fits_the_terminal_and_loses_the_least_important_first() {
        for (width, row) in [
            (80, "email/msg_1  a reason of some length  user.created  resend mail_1"),
            (60, "email/msg_1  a reason of some length  user.c…  resend mail_1"),
            (50, "email/msg_1  a reason of some leng…  use…  resend…"),
            (40, "email/msg_1  a reason of…  use…  resend…"),
            (26, "email/msg_1  a reas…  use…"),
            (24, "email/msg_1  a reason o…"),
            (5, "email/msg_1"),
        ] {
            let printed = printed(Some(width));
            assert_eq!(printed[1].chars().count().min(width.max(11)), printed[1].chars().count(), "{width}");
            assert_eq!(printed[1], row, "{width}");
        }
    }
}
