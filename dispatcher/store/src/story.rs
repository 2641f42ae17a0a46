//! The story of a run in its columns: `story` and `answers` hold a JSON object a line, `sent` the request of the last attempt
//! that failed. An attempt that succeeded stands in the column `effects`. Lines are added by the statements of the changes; the oldest half goes when a column is full.

use serde::{Deserialize, Serialize};
use serde_json::json;
use usher_engine::{Change, StoryEntry};
use usher_proto::Timestamp;
use usher_sql::{Dialect, Rows};

use super::StoreError;

/// Length from which on a column is cut, in characters, and the length of the rest at least. A line is shorter than the rest.
const FULL: usize = 6_000;
const REST: usize = 3_000;

/// Adds the columns of a change's story to the rows of a statement.
pub(super) fn with_story<'a, T>(rows: Rows<'a, T>, change: impl Fn(&'a T) -> &'a Change + Copy) -> Rows<'a, T> {
    rows.text("story", move |item| story(&change(item).story))
        .text("answers", move |item| answers(&change(item).story))
        .bytes("sent", move |item| sent(&change(item).story).map(bytes::Bytes::copy_from_slice))
}

/// Returns the entries without the destinations' messages; `None` if there are none.
pub(super) fn story(entries: &[StoryEntry]) -> Option<String> {
    lines(entries.iter().map(|entry| {
        let StoryEntry { pass, step, name, number, at, took, outcome, answer, next_at, sent: _ } = entry;
        let mut line = json!({ "step": step, "name": name, "at": at.millis(), "outcome": outcome });
        if *number > 0 {
            line["attempt"] = json!(number);
            line["ms"] = json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        }
        if *pass > 0 {
            line["pass"] = json!(pass);
        }
        if let Some(answer) = answer {
            line["status"] = json!(answer.status);
            line["error"] = json!(answer.name);
        }
        if let Some(next_at) = next_at {
            line["next_at"] = json!(next_at.millis());
        }
        line.to_string()
    }))
}

/// Returns the destinations' messages; `None` if there are none.
fn answers(entries: &[StoryEntry]) -> Option<String> {
    lines(entries.iter().filter_map(|entry| {
        let message = entry.answer.as_ref()?.message.as_ref()?;
        Some(json!({ "at": entry.at.millis(), "step": entry.step, "message": message }).to_string())
    }))
}

fn lines(lines: impl Iterator<Item = String>) -> Option<String> {
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn sent(entries: &[StoryEntry]) -> Option<&[u8]> {
    entries.last()?.sent.as_deref()
}

/// Returns the SQL that adds the lines of row `r` to a column of run `o`. Written a second time, after a lost answer, it finds
/// them at the end and adds nothing.
pub(super) fn added(dialect: Dialect, column: &str) -> String {
    joined(dialect, column, &format!("r.{column}"))
}

/// Returns the SQL that adds `lines`, an expression, to a column of run `o`.
pub(super) fn joined(dialect: Dialect, column: &str, lines: &str) -> String {
    let position = dialect.position();
    format!(
        "CASE WHEN {lines} IS NULL THEN o.{column} WHEN o.{column} IS NULL THEN {lines} \
              WHEN substr(o.{column}, length(o.{column}) - length({lines}) + 1) = {lines} THEN o.{column} \
              WHEN length(o.{column}) > {FULL} \
              THEN substr(o.{column}, {REST} + {position}(substr(o.{column}, {REST}), '\n')) || '\n' || {lines} \
              ELSE o.{column} || '\n' || {lines} END"
    )
}

/// Outcome of the entry that tells who or what has cancelled a run.
pub const CANCELLED: &str = "cancelled";

/// The cause of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StoryCause {
    /// An operator's command.
    Operator {
        /// The operator.
        operator: String,
    },
    /// An event.
    Event {
        /// The event's reference.
        event: String,
        /// The event's type.
        #[serde(rename = "type")]
        kind: String,
    },
}

/// Returns the assignments of an update that adds the story of row `r`, of an attempt that failed or a step that is over.
pub(super) fn set_story(dialect: Dialect) -> String {
    format!("story = {}, answers = {}, sent = r.sent", added(dialect, "story"), added(dialect, "answers"))
}

/// An attempt at a step, a step that was passed over, or a cancellation, as shown to operators.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// The step's index, from 0.
    pub step: i64,
    /// The step's name; empty for a cancellation.
    pub name: String,
    /// The attempt's number at this step, from 1; 0 for a step that was passed over and for a cancellation.
    #[serde(default)]
    pub attempt: i64,
    /// Number of times that the run had been run again.
    #[serde(default)]
    pub pass: i64,
    /// The time at which it began.
    #[serde(deserialize_with = "millis")]
    pub at: Timestamp,
    /// The time that it took, in milliseconds.
    #[serde(default)]
    pub ms: u64,
    /// The outcome as a label.
    pub outcome: String,
    /// The status of the destination's answer; `None` if there was none, or it was a success.
    #[serde(default)]
    pub status: Option<u16>,
    /// The name of the destination's error; `None` if it has none.
    #[serde(default)]
    pub error: Option<String>,
    /// The time from which the next attempt may be made; `None` if there is none.
    #[serde(default, deserialize_with = "maybe_millis")]
    pub next_at: Option<Timestamp>,
    /// The cause of a cancellation; `None` for any other entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<StoryCause>,
}

fn millis<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    i64::deserialize(deserializer).map(Timestamp::from_millis)
}

fn maybe_millis<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Option::<i64>::deserialize(deserializer)?.map(Timestamp::from_millis))
}

/// The message of a destination in answer to an attempt. It may hold personal data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptMessage {
    /// The time at which the attempt began.
    #[serde(deserialize_with = "millis")]
    pub at: Timestamp,
    /// The step's index, from 0.
    pub step: i64,
    /// The message.
    pub message: String,
}

/// Reads the column `story`, and puts the attempts that succeeded into it, each after those at its step that failed.
pub(super) fn read(story: Option<&str>, succeeded: Vec<AttemptRecord>) -> Result<Vec<AttemptRecord>, StoreError> {
    let lines = story.unwrap_or_default().lines();
    let mut story: Vec<AttemptRecord> =
        lines.map(serde_json::from_str).collect::<Result<_, _>>().map_err(|_| unreadable("story"))?;
    story.extend(succeeded);
    story.sort_by_key(|attempt| (attempt.pass, attempt.step));
    Ok(story)
}

/// Reads the column `answers`.
pub(super) fn read_messages(answers: Option<&str>) -> Result<Vec<AttemptMessage>, StoreError> {
    let lines = answers.unwrap_or_default().lines();
    lines.map(serde_json::from_str).collect::<Result<_, _>>().map_err(|_| unreadable("answers"))
}

fn unreadable(column: &str) -> StoreError {
    StoreError::Unreadable(column.to_owned())
}
