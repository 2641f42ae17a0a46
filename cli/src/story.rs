//! The story of a run in words.

use usher_proto::Timestamp;
use usher_store::{AttemptRecord, RunRecord};

/// Returns a time as text.
pub(crate) fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.to_string())
}

/// Returns the status and the error's name of a destination's answer; empty if it gave none.
pub(crate) fn answer(attempt: &AttemptRecord) -> String {
    let status = attempt.status.map(|status| status.to_string());
    [status.as_ref(), attempt.error.as_ref()].into_iter().flatten().cloned().collect::<Vec<_>>().join(" ")
}

/// Returns the reason for the state of a run: of one that has ended, why it ended so; of another, the one thing that it waits
/// for.
pub(crate) fn why(run: &RunRecord, worked: &[String]) -> String {
    if run.ended_at.is_some() {
        let mut parts: Vec<String> = [&run.reason, &run.error, &run.note].into_iter().flatten().cloned().collect();
        if let (true, Some(last)) = (parts.is_empty(), run.story.last())
            && run.effects.is_empty()
            && last.attempt == 0
        {
            parts.push(passed_over(last));
        }
        return parts.join(": ");
    }
    let mut parts = Vec::new();
    if !worked.contains(&run.flow) {
        parts.push(format!("no process works on {}", run.flow));
    }
    let last = run
        .story
        .iter()
        .rev()
        .find(|attempt| attempt.step == run.step && attempt.pass == run.pass && attempt.attempt > 0);
    if run.step > 0 || run.attempts > 0 {
        // Counted from 1 for people.
        let name = last.map(|attempt| format!(" {}", attempt.name)).unwrap_or_default();
        parts.push(format!("step {}{name}", run.step + 1));
    }
    match run.attempts {
        0 => {}
        1 => parts.push("1 attempt".to_owned()),
        attempts => parts.push(format!("{attempts} attempts")),
    }
    if let Some(last) = last {
        let answer = answer(last);
        let what = if answer.is_empty() { last.outcome.clone() } else { format!("{} {answer}", last.outcome) };
        parts.push(format!("{what} at {}", last.at));
    }
    let next = last.and_then(|last| last.next_at);
    match (&run.destination, run.due_at.or(next)) {
        (_, Some(due)) if run.state == "waiting" => parts.push(format!("waits until {due}")),
        (Some(destination), Some(due)) if last.is_some() => parts.push(format!("asks {destination} again at {due}")),
        (Some(destination), Some(due)) => parts.push(format!("asks {destination} at {due}")),
        (None, Some(due)) => parts.push(format!("next at {due}")),
        (Some(destination), None) if run.attempts > 0 => parts.push(format!("waits for {destination}")),
        (Some(_) | None, None) => {}
    }
    parts.join(", ")
}

/// Returns why a run did nothing, from its last step, which was passed over.
fn passed_over(last: &AttemptRecord) -> String {
    match last.outcome.as_str() {
        "condition" => format!("step {}: its `when` does not hold", last.name),
        "deleted" => format!("step {}: the subject is deleted", last.name),
        outcome => format!("step {}: {outcome}", last.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(outcome: &str, number: i64) -> AttemptRecord {
        let at = Timestamp::from_seconds(10);
        AttemptRecord {
            step: 0,
            name: "welcome".into(),
            attempt: number,
            pass: 0,
            at,
            ms: 5,
            outcome: outcome.into(),
            status: (number > 0).then_some(503),
            error: (number > 0).then(|| "application_error".into()),
            next_at: (number > 0).then(|| Timestamp::from_seconds(12)),
        }
    }

    #[test]
    fn a_step_that_was_passed_over_says_why() {
        assert_eq!(passed_over(&attempt("condition", 0)), "step welcome: its `when` does not hold");
        assert_eq!(passed_over(&attempt("suppressed", 0)), "step welcome: suppressed");
    }

    #[test]
    fn an_answer_is_told_by_status_and_name() {
        assert_eq!(answer(&attempt("unavailable", 1)), "503 application_error");
        assert_eq!(answer(&attempt("condition", 0)), "");
    }
}
