//! Transitions between the two tables of runs, and the columns that each sets and resets, in one place. A statement adds its
//! own values and its condition; `$1` is the flow and `$2` the time.

use serde_json::json;
use usher_proto::{EventRef, Timestamp};
use usher_sql::{Dialect, SqlParam, SqlQuery, query};

use super::rows::{LASTING_COLUMNS, RUN_COLUMNS};
use super::story::{self, CANCELLED, StoryCause};

/// Nothing is waited for.
pub(super) const AWAITS_NOTHING: &str = "due_at = NULL, wakes_at = NULL, awaits_news = 0";

/// The run begins with another step, or with the same one in another pass: untried, without a request, unclaimed, waiting for
/// nothing.
pub(super) fn fresh_step() -> String {
    format!(
        "attempts = 0, spent = 0, unanswered = 0, tried_since = NULL, failed_at = NULL, generation = 0, asked_at = NULL, \
         request = NULL, claimed_at = NULL, claimed_until = NULL, {AWAITS_NOTHING}"
    )
}

/// The columns of an ended run besides [`LASTING_COLUMNS`].
pub(super) const ENDED_COLUMNS: &str = "ended_at, state, note, reason, error, body, before_event, results, request, deaths, \
                                        letter, answers, sent";

/// Returns [`LASTING_COLUMNS`] of the table `o`.
pub(super) fn lasting() -> String {
    let columns: Vec<String> = LASTING_COLUMNS.split(", ").map(|column| format!("o.{column}")).collect();
    columns.join(", ")
}

/// The entry of a story that tells who or what has cancelled the run. Step and pass are those of the run.
pub(super) struct CancelEntry {
    by: StoryCause,
    at: Timestamp,
}

impl CancelEntry {
    /// Returns the entry of a cancellation by an operator's command.
    pub(super) fn by_operator(operator: &str, at: Timestamp) -> Self {
        Self { by: StoryCause::Operator { operator: operator.to_owned() }, at }
    }

    /// Returns the entry of a cancellation by an event of this type.
    pub(super) fn by_event(event: &EventRef, kind: &str, at: Timestamp) -> Self {
        Self { by: StoryCause::Event { event: event.to_string(), kind: kind.to_owned() }, at }
    }

    /// Returns the parameter that [`Self::story`] refers to.
    fn param(&self) -> SqlParam {
        let entry = json!({ "name": "", "at": self.at.millis(), "outcome": CANCELLED, "by": self.by }).to_string();
        // The object goes on with numbers that the statement knows.
        entry.strip_suffix('}').unwrap_or_default().into()
    }

    /// Returns the SQL of the column `story` of run `o` with the entry, whose parameter has this number.
    fn story(dialect: Dialect, number: usize) -> String {
        let entry = format!("(${number} || ',\"pass\":' || o.pass || ',\"step\":' || o.step || '}}')");
        story::joined(dialect, "story", &entry)
    }
}

/// Returns the statements that cancel the open runs `o` of a flow that meet `which`: their content is deleted. If the last
/// attempt of one may have taken effect, its note says so. `entry` is added to their stories, unless it is there already. The
/// first answer holds the events of the runs.
pub(super) fn cancel(
    dialect: Dialect,
    flow: &str,
    now: Timestamp,
    which: &str,
    params: &[SqlParam],
    entry: Option<&CancelEntry>,
) -> Vec<SqlQuery> {
    let mut params = params.to_vec();
    let lasting = match entry {
        None => lasting(),
        Some(entry) => {
            params.push(entry.param());
            // The flow and the time come first.
            lasting().replace("o.story", &CancelEntry::story(dialect, params.len() + 2))
        }
    };
    let values = format!(
        "{lasting}, $2, 'cancelled', CASE WHEN o.request IS NULL THEN o.note ELSE 'in_doubt' END, o.reason, o.error, NULL, NULL, \
         NULL, CAST(NULL AS BYTEA), o.deaths, o.letter, NULL, CAST(NULL AS BYTEA)"
    );
    let columns = format!("{LASTING_COLUMNS}, {ENDED_COLUMNS}");
    let which = format!("o.flow = $1 AND {which}");
    let moved = moved(dialect, "usher_open_run", "usher_ended_run", &columns, &values, &which, "event_ref, subject");
    with_params(moved, flow, now, &params)
}

/// Returns the statement that lets open runs `o` of a flow that meet `which` end after the attempt in flight, and adds `entry`
/// to their stories.
pub(super) fn ask_to_cancel(
    dialect: Dialect,
    flow: &str,
    now: Timestamp,
    which: &str,
    params: &[SqlParam],
    entry: &CancelEntry,
) -> SqlQuery {
    let story = CancelEntry::story(dialect, params.len() + 3);
    let sql = format!(
        "UPDATE usher_open_run AS o SET cancel_asked = 1, story = {story} \
         WHERE o.flow = $1 AND o.cancel_asked = 0 AND {which}"
    );
    let asked = query(sql).bind(flow).bind(now.millis());
    params.iter().cloned().chain([entry.param()]).fold(asked, SqlQuery::bind)
}

/// The condition that a run `o` has no attempt in flight.
pub(super) const NOT_UNDER_WAY: &str = "(o.state IN ('queued', 'waiting', 'parked') OR o.claimed_at IS NULL)";

/// Values of an ended run that is taken up again.
pub(super) struct TakenUp<'a> {
    /// Columns that get other values than those of the ended run, with the values in SQL.
    pub(super) set: &'a [(&'a str, &'a str)],
    /// The condition of the ended run `o`.
    pub(super) which: &'a str,
}

/// The columns of an open run that is taken up again, with their values unless others are given: queued, with nothing of its
/// end, and no attempt of its step. What identifies its requests is kept.
const TAKEN_UP: [(&str, &str); 19] = [
    ("state", "'queued'"),
    ("position", "o.position"),
    ("body", "o.body"),
    ("before_event", "o.before_event"),
    ("attempts", "0"),
    ("failed_at", "CAST(NULL AS BIGINT)"),
    ("partition", "o.partition"),
    ("step", "o.step"),
    ("destination", "o.destination"),
    ("pass", "o.pass"),
    ("generation", "o.generation"),
    ("flow_version", "o.flow_version"),
    ("asked_at", "o.asked_at"),
    ("deaths", "o.deaths"),
    ("letter", "o.letter"),
    ("request", "o.request"),
    ("answers", "o.answers"),
    ("sent", "o.sent"),
    ("results", "COALESCE(o.results, '{}')"),
];

/// Returns the statements that take an ended run up again. The first answer holds the run.
pub(super) fn take_up(
    dialect: Dialect,
    flow: &str,
    now: Timestamp,
    how: &TakenUp<'_>,
    params: &[SqlParam],
) -> Vec<SqlQuery> {
    let unchanged = LASTING_COLUMNS.split(", ").filter(|column| TAKEN_UP.iter().all(|(known, _)| known != column));
    let mut columns: Vec<&str> = unchanged.clone().collect();
    let mut values: Vec<String> = unchanged.map(|column| format!("o.{column}")).collect();
    for (column, usual) in TAKEN_UP {
        let given = how.set.iter().find(|(name, _)| *name == column).map(|(_, value)| *value);
        columns.push(column);
        values.push(given.unwrap_or(usual).to_owned());
    }
    let which = format!("o.flow = $1 AND {}", how.which);
    let columns = columns.join(", ");
    let values = values.join(", ");
    let moved = moved(dialect, "usher_ended_run", "usher_open_run", &columns, &values, &which, RUN_COLUMNS);
    with_params(moved, flow, now, params)
}

/// Values of an open run that goes on in another flow.
pub(super) struct Moved<'a> {
    /// Columns that get other values than those of the run, with the values in SQL.
    pub(super) set: &'a [(&'a str, &'a str)],
    /// The condition of the open run `o`.
    pub(super) which: &'a str,
}

/// The columns of an open run that goes on in another flow, besides [`LASTING_COLUMNS`], with their values unless others are given:
/// queued, with no attempt of its step.
const MOVED: [(&str, &str); 14] = [
    ("state", "'queued'"),
    ("attempts", "0"),
    ("generation", "0"),
    ("asked_at", "CAST(NULL AS BIGINT)"),
    ("failed_at", "CAST(NULL AS BIGINT)"),
    ("deaths", "0"),
    ("body", "o.body"),
    ("before_event", "o.before_event"),
    ("due_at", "o.due_at"),
    ("changed_at", "$2"),
    ("answers", "o.answers"),
    ("results", "o.results"),
    ("reason", "o.reason"),
    ("error", "o.error"),
];

/// Returns the statements that move an open run from a flow, `$1`, to another one. The first answer holds the run.
pub(super) fn move_open(
    dialect: Dialect,
    from: &str,
    now: Timestamp,
    how: &Moved<'_>,
    params: &[SqlParam],
) -> Vec<SqlQuery> {
    let lasting = LASTING_COLUMNS.split(", ").filter(|column| MOVED.iter().all(|(known, _)| known != column));
    let lasting: Vec<(String, String)> = lasting.map(|column| (column.to_owned(), format!("o.{column}"))).collect();
    let others = MOVED.iter().map(|(column, value)| ((*column).to_owned(), (*value).to_owned()));
    let mut columns = Vec::new();
    let mut values = Vec::new();
    for (column, usual) in lasting.into_iter().chain(others) {
        let given = how.set.iter().find(|(name, _)| *name == column).map(|(_, value)| (*value).to_owned());
        values.push(given.unwrap_or(usual));
        columns.push(column);
    }
    let which = format!("o.flow = $1 AND {}", how.which);
    let (columns, values) = (columns.join(", "), values.join(", "));
    let moved = moved(dialect, "usher_open_run", "usher_open_run", &columns, &values, &which, RUN_COLUMNS);
    with_params(moved, from, now, params)
}

/// Returns the statements that move the rows `o` that meet `which` from one table to another and return some columns of what
/// they have written.
fn moved(
    dialect: Dialect,
    from: &str,
    to: &str,
    columns: &str,
    values: &str,
    which: &str,
    returning: &str,
) -> Vec<String> {
    match dialect {
        Dialect::Postgres => vec![format!(
            "WITH gone AS (DELETE FROM {from} AS o WHERE {which} RETURNING {values}) \
             INSERT INTO {to} ({columns}) SELECT * FROM gone RETURNING {returning}"
        )],
        Dialect::Sqlite => vec![
            format!(
                "INSERT INTO {to} ({columns}) SELECT {values} FROM {from} AS o WHERE {which} RETURNING {returning}"
            ),
            format!("DELETE FROM {from} AS o WHERE {which}"),
        ],
    }
}

fn with_params(statements: Vec<String>, flow: &str, now: Timestamp, params: &[SqlParam]) -> Vec<SqlQuery> {
    let bound = |sql: String| {
        let query = query(sql).bind(flow).bind(now.millis());
        params.iter().fold(query, |query, param| query.bind(param.clone()))
    };
    statements.into_iter().map(bound).collect()
}
