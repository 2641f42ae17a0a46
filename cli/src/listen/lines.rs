//! The lines that `usher listen` prints, as text and as JSON.

use serde::Serialize;
use usher_dispatcher::operator::duration;
use usher_proto::{EventRef, SubjectId, Timestamp};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum ListenLine {
    /// The beginning.
    Listening { at: Timestamp },
    /// An event has come.
    Event {
        at: Timestamp,
        source: String,
        #[serde(rename = "type")]
        kind: String,
        instance: String,
        #[serde(serialize_with = "id_of")]
        event: EventRef,
        /// The user's id; `None` if it is about none.
        user: Option<String>,
        #[serde(skip)]
        subject: SubjectId,
        partition: i32,
        offset: i64,
    },
    /// An operator's command has come.
    Command {
        at: Timestamp,
        command: &'static str,
        flow: String,
        #[serde(serialize_with = "id_of")]
        event: EventRef,
        by: String,
        #[serde(skip)]
        subject: SubjectId,
        #[serde(skip)]
        partition: i32,
        #[serde(skip)]
        offset: i64,
    },
    /// A run has changed.
    Run {
        at: Timestamp,
        flow: String,
        event: String,
        user: Option<String>,
        #[serde(rename = "type")]
        kind: String,
        state: String,
        why: String,
        effects: Vec<String>,
        /// The command that has taken the run up: redrive, rerun or replay; `None` if it follows from its event.
        again: Option<&'static str>,
    },
    /// No flow has begun a run of an event.
    NoRun {
        at: Timestamp,
        #[serde(serialize_with = "id_of")]
        event: EventRef,
    },
    /// Records that the log does not hold any more were not seen.
    Gap { at: Timestamp, partition: i32, from: i64, to: i64 },
    /// The log or the store does not answer.
    Disconnected { at: Timestamp, from: &'static str, why: String },
    /// It answers again.
    Reconnected { at: Timestamp, to: &'static str, for_ms: u64 },
    /// Too many events wait for their outcomes: the oldest of them is not watched any more.
    Forgotten { at: Timestamp, events: usize },
    /// Nothing else has happened for a while.
    Heartbeat {
        at: Timestamp,
        /// Time since the log's last answer.
        log_age_ms: u64,
        /// Number of events whose runs have not all ended.
        expected: usize,
    },
}

fn id_of<S: serde::Serializer>(event: &EventRef, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(event.id())
}

/// Returns the time of the day.
fn clock(at: &Timestamp) -> String {
    let text = at.to_string();
    text.split_once('T').map_or(text.clone(), |(_, time)| time.trim_end_matches('Z').to_owned())
}

fn seconds(ms: u64) -> String {
    if ms < 10_000 { format!("{}.{} s", ms / 1000, ms % 1000 / 100) } else { duration(ms / 1000) }
}

impl ListenLine {
    /// Returns the line for a terminal.
    pub(crate) fn text(&self) -> String {
        let dash = |user: &Option<String>| user.clone().unwrap_or_else(|| "-".to_owned());
        match self {
            Self::Listening { at } => format!("{}  -- listening (UTC); Ctrl-C ends it", clock(at)),
            Self::Event { at, source, kind, event, user, .. } => {
                format!("{}  <- {source}/{kind}  {}  {}", clock(at), dash(user), event.id())
            }
            Self::Command { at, command, flow, event, by, .. } => {
                format!("{}  <- {command} of {flow}/{} by {by}", clock(at), event.id())
            }
            Self::Run { at, flow, event, user, state, why, effects, again, .. } => {
                let again = again.map(|again| format!(" ({again})")).unwrap_or_default();
                let effects = effects.join(", ");
                let rest = if why.is_empty() || effects.is_empty() {
                    format!("{why}{effects}")
                } else {
                    format!("{why}; {effects}")
                };
                format!("{}     {flow}/{event}  {}  {state}{again}  {rest}", clock(at), dash(user))
                    .trim_end()
                    .to_owned()
            }
            Self::NoRun { at, event } => format!("{}     {}: no flow has begun a run", clock(at), event.id()),
            Self::Gap { at, partition, from, to } => format!(
                "{}  -- a gap: offsets {from} to {} of partition {partition} were not seen, and the log does not hold them any more",
                clock(at),
                to - 1
            ),
            Self::Disconnected { at, from, why } => {
                format!("{}  -- the {from} does not answer: {why}; trying again", clock(at))
            }
            Self::Reconnected { at, to, for_ms } => {
                format!("{}  -- the {to} answers again after {}; going on where it ended", clock(at), seconds(*for_ms))
            }
            Self::Forgotten { at, events } => {
                format!("{}  -- {events} older events are not watched any more: too many have open runs", clock(at))
            }
            Self::Heartbeat { at, log_age_ms, expected } => format!(
                "{}  -- nothing new; the log answered {} ago; {expected} events have open runs",
                clock(at),
                seconds(*log_age_ms)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use usher_proto::{EventId, Instance, Source};

    use super::*;

    #[test]
    fn a_line_says_when_what_and_of_whom() {
        let at = Timestamp::from_millis(3_600_250);
        let run = ListenLine::Run {
            at,
            flow: "email".into(),
            event: "msg_1".into(),
            user: Some("user_1".into()),
            kind: "user.created".into(),
            state: "done".into(),
            why: String::new(),
            effects: vec!["resend m1".into()],
            again: Some("redrive"),
        };
        assert_eq!(run.text(), "01:00:00.250     email/msg_1  user_1  done (redrive)  resend m1");
        let gap = ListenLine::Gap { at, partition: 3, from: 5, to: 9 };
        assert!(gap.text().contains("offsets 5 to 8 of partition 3"), "{}", gap.text());
        let event = EventRef::new(Source::Clerk, &Instance::default(), &EventId::new("msg_1"));
        let json = serde_json::to_value(ListenLine::NoRun { at, event }).expect("JSON");
        assert_eq!((&json["what"], &json["event"]), (&"no_run".into(), &"msg_1".into()));
        let beat = ListenLine::Heartbeat { at, log_age_ms: 400, expected: 2 };
        assert!(beat.text().ends_with("the log answered 0.4 s ago; 2 events have open runs"), "{}", beat.text());
    }
}
