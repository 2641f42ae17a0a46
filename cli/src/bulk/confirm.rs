//! The question before an action on many runs.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use usher_service::ConfigError;

/// Number of runs or events that an action takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BulkSize(pub(crate) usize);

/// Number of runs above which the number is to be typed, and above which nothing is done without a terminal.
const MANY: usize = 100;

/// The kinds of confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confirmation {
    /// None.
    NotNeeded,
    /// `y`.
    Yes,
    /// The number of runs.
    Count,
    /// There is nobody to ask.
    Refused,
}

fn needed(count: usize, yes: bool, is_terminal: bool) -> Confirmation {
    match (yes, is_terminal, count > MANY) {
        (true, ..) | (false, false, false) => Confirmation::NotNeeded,
        (false, true, false) => Confirmation::Yes,
        (false, true, true) => Confirmation::Count,
        (false, false, true) => Confirmation::Refused,
    }
}

fn is_confirmed(asked: Confirmation, answer: &str, count: usize) -> bool {
    let answer = answer.trim();
    match asked {
        Confirmation::NotNeeded => true,
        Confirmation::Yes => matches!(answer, "y" | "Y" | "yes"),
        Confirmation::Count => answer.replace(',', "") == count.to_string(),
        Confirmation::Refused => false,
    }
}

/// Asks if the action, which is said in a sentence without its end, is to be carried out. Returns the answer; true without a
/// question if none is needed.
///
/// # Errors
///
/// There is no terminal to ask at, and there are many runs; or the terminal cannot be read.
pub(crate) fn confirmed(action: &str, BulkSize(count): BulkSize, yes: bool) -> anyhow::Result<bool> {
    let is_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    let asked = needed(count, yes, is_terminal);
    let question = match asked {
        Confirmation::NotNeeded => return Ok(true),
        Confirmation::Yes => "[y/N]",
        Confirmation::Count => "Type the number to go on:",
        Confirmation::Refused => {
            let why = format!("{action}: look with --dry-run, then say --yes");
            return Err(ConfigError::new("--yes", why).into());
        }
    };
    let mut stderr = std::io::stderr();
    write!(stderr, "{action}. {question} ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(is_confirmed(asked, &answer, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_runs_need_more_than_a_keystroke_and_nobody_is_no_yes() {
        assert_eq!(needed(1, false, true), Confirmation::Yes);
        assert_eq!(needed(101, false, true), Confirmation::Count);
        assert_eq!(needed(100, false, false), Confirmation::NotNeeded);
        assert_eq!(needed(101, false, false), Confirmation::Refused);
        assert_eq!(needed(100_000, true, false), Confirmation::NotNeeded);
    }

    #[test]
    fn only_the_answer_that_was_asked_for_counts() {
        for (asked, answer, confirmed) in [
            (Confirmation::Yes, "y\n", true),
            (Confirmation::Yes, "\n", false),
            (Confirmation::Yes, "n\n", false),
            (Confirmation::Count, "y\n", false),
            (Confirmation::Count, "1,200\n", true),
            (Confirmation::Count, "1200", true),
            (Confirmation::Count, "", false),
        ] {
            assert_eq!(is_confirmed(asked, answer, 1200), confirmed, "{asked:?} {answer:?}");
        }
    }
}
