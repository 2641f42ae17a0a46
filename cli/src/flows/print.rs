//! A timeline as text and as JSON.

use std::time::Duration;

use serde_json::{Value, json};
use usher_flows::{Flow, FlowTimeline, PlannedAction, PlannedStep, PreviewEvent};

use super::preview::PlannedMail;
use crate::output;

const DAY_SECONDS: u64 = 24 * 60 * 60;

pub(super) fn print(flow: &Flow, event: &PreviewEvent, timeline: &FlowTimeline) -> anyhow::Result<()> {
    output::line(&format!("flow {}, version {}, for {}", flow.name, flow.version, event.event.kind))?;
    if let Some(why) = &timeline.starts_nothing {
        return output::line(&format!("starts no run: {why}"));
    }
    if timeline.all_changed {
        output::line(&format!("as if {} had changed", flow.remember.join(", ")))?;
    }
    output::line("")?;
    let rows: Vec<[String; 3]> =
        timeline.steps.iter().map(|step| [time(step.after), step.step.clone(), words(step)]).collect();
    output::table(["time", "step", "does"], &rows)?;
    if let Some(cancelled) = cancelled(flow) {
        output::line("")?;
        output::line(&cancelled)?;
    }
    for mail in PlannedMail::of(timeline) {
        output::line("")?;
        output::line(&format!("--- {}, {}", mail.step.step, time(mail.step.after)))?;
        for (name, title) in [("to", "To"), ("subject", "Subject")] {
            if let Some(value) = mail.text(name) {
                output::line(&format!("{title}: {value}"))?;
            }
        }
        output::line("")?;
        match mail.text("text") {
            Some(text) => text.trim_end().lines().try_for_each(output::line)?,
            None => output::line("(no text; --out FOLDER writes the HTML)")?,
        }
    }
    Ok(())
}

/// Returns the time of a step, such as `day 3 00:00`. Seconds stand there only if there are some.
fn time(after: Duration) -> String {
    let seconds = after.as_secs();
    let day = seconds / DAY_SECONDS;
    let hours = seconds % DAY_SECONDS / 3600;
    let minutes = seconds % 3600 / 60;
    match seconds % 60 {
        0 => format!("day {day} {hours:02}:{minutes:02}"),
        rest => format!("day {day} {hours:02}:{minutes:02}:{rest:02}"),
    }
}

/// Returns the action of a step in words.
fn words(step: &PlannedStep) -> String {
    match &step.action {
        PlannedAction::Wait(time) => format!("waits {}", length(*time)),
        PlannedAction::Skipped(why) => format!("skipped: {why}"),
        PlannedAction::Failed(why) => format!("is given up: {why}"),
        PlannedAction::Call { operation, is_mail, params, condition } => {
            let text = |name: &str| params.get(name).and_then(Value::as_str).unwrap_or_default();
            let mail = if *is_mail { format!(" to {}: {}", text("to"), text("subject")) } else { String::new() };
            let condition = condition.as_ref().map(|when| format!(" (if {when})")).unwrap_or_default();
            format!("{operation}{mail}{condition}")
        }
    }
}

/// Returns a length of time as flow files have it, such as `3d`.
fn length(time: Duration) -> String {
    humantime::format_duration(time).to_string().replace("days", "d").replace("day", "d")
}

fn cancelled(flow: &Flow) -> Option<String> {
    let events: Vec<String> = flow.cancel_on.iter().map(ToString::to_string).collect();
    let condition = flow.cancel_if.as_ref().map(|condition| format!(", if {condition}")).unwrap_or_default();
    (!events.is_empty()).then(|| format!("cancelled by {}{condition}", events.join(", ")))
}

pub(super) fn json(flow: &Flow, event: &PreviewEvent, timeline: &FlowTimeline) -> Value {
    let steps: Vec<Value> = timeline
        .steps
        .iter()
        .map(|planned| {
            let mut step = json!({ "step": planned.step, "after_seconds": planned.after.as_secs() });
            let fields = match &planned.action {
                PlannedAction::Wait(time) => json!({ "action": "wait", "wait_seconds": time.as_secs() }),
                PlannedAction::Skipped(why) => json!({ "action": "skipped", "why": why }),
                PlannedAction::Failed(why) => json!({ "action": "failed", "why": why }),
                PlannedAction::Call { operation, is_mail, params, condition } => json!({
                    "action": if *is_mail { "mail" } else { "call" }, "operation": operation, "params": params,
                    "condition": condition,
                }),
            };
            if let (Value::Object(step), Value::Object(fields)) = (&mut step, fields) {
                step.extend(fields);
            }
            step
        })
        .collect();
    json!({
        "flow": flow.name, "version": flow.version, "event": event.event.kind,
        "starts_nothing": timeline.starts_nothing, "all_changed": timeline.all_changed, "steps": steps,
        "cancel_on": flow.cancel_on.iter().map(ToString::to_string).collect::<Vec<_>>(), "cancel_if": flow.cancel_if,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_days_and_hours() {
        for (seconds, expected) in
            [(0, "day 0 00:00"), (90, "day 0 00:01:30"), (259_200, "day 3 00:00"), (130_500, "day 1 12:15")]
        {
            assert_eq!(time(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(length(Duration::from_secs(259_200)), "3d");
        assert_eq!(length(Duration::from_secs(90_000)), "1d 1h");
    }
}
