//! Dead letters grouped by their cause, which is how they are mended: one fault of a destination or of a flow file kills many
//! runs. Two runs have the same cause if flow, step and reason are the same, and the errors differ only in words with digits,
//! which are ids, times and amounts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use usher_dispatcher::operator::CommandTarget;
use usher_engine::RunState;
use usher_proto::Timestamp;
use usher_store::{BoundedCount, DeadLetterCursor, DeadLetterQuery, DeadLetterRow, SCAN};

use super::{DeadSelection, Moment};
use crate::Console;
use crate::mask::Masking;
use crate::problem::ConsoleError;

/// Largest number of dead letters that a redrive looks at.
const MOST_FOR_REDRIVE: usize = 100_000;
/// Number of dead letters that one look for a page of the list reads.
const CHUNK: usize = 1_000;

/// The dead letters that one cause has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct CauseGroup {
    /// Id of the cause, for filters.
    pub(crate) id: String,
    pub(crate) flow: String,
    /// Number of the step, from 1.
    pub(crate) step: i64,
    pub(crate) reason: String,
    /// Error of the newest of them.
    pub(crate) error: String,
    pub(crate) destination: Option<String>,
    /// Number of runs.
    pub(crate) runs: BoundedCount,
    /// Number of people or other subjects.
    pub(crate) people: BoundedCount,
    pub(crate) first: Moment,
    pub(crate) last: Moment,
}

/// Dead letters that a selection has found among the newest ones.
pub(crate) struct DeadLetters {
    /// Those that match, newest first.
    pub(crate) rows: Vec<DeadLetterRow>,
    /// True if there are older ones that were not looked at.
    pub(crate) more: bool,
    /// The time until which they were given up: later ones are not touched by an action on these.
    pub(crate) until: Timestamp,
    now: Timestamp,
}

/// A page of dead letters, one by one.
pub(crate) struct DeadLetterPage {
    /// Newest first.
    pub(crate) rows: Vec<DeadLetterRow>,
    /// The place at which the next page begins; `None` if there are no more.
    pub(crate) next: Option<DeadLetterCursor>,
}

fn query(of: &DeadSelection, until: Timestamp, after: Option<DeadLetterCursor>) -> DeadLetterQuery {
    DeadLetterQuery { since: of.since, until: Some(until), subjects: of.subjects.clone(), after }
}

impl DeadLetters {
    /// Reads the dead letters of a selection, among the newest [`SCAN`].
    pub(crate) async fn read(console: &Console, of: &DeadSelection, now: Timestamp) -> Result<Self, ConsoleError> {
        Self::read_up_to(console, of, SCAN, now).await
    }

    /// Reads the dead letters of a selection, among the newest [`MOST_FOR_REDRIVE`].
    pub(crate) async fn read_all(console: &Console, of: &DeadSelection, now: Timestamp) -> Result<Self, ConsoleError> {
        Self::read_up_to(console, of, MOST_FOR_REDRIVE, now).await
    }

    async fn read_up_to(
        console: &Console,
        of: &DeadSelection,
        most: usize,
        now: Timestamp,
    ) -> Result<Self, ConsoleError> {
        let until = of.until.unwrap_or(now);
        let mut rows = Vec::new();
        let mut looked_at = 0;
        let mut after = None;
        let more = loop {
            // One more than is wanted shows if there are more.
            let mut chunk = console.store().dead_letters(&query(of, until, after), SCAN + 1).await?;
            let is_full = chunk.len() > SCAN;
            chunk.truncate(SCAN);
            looked_at += chunk.len();
            after = chunk.last().map(DeadLetterCursor::from);
            rows.extend(chunk.into_iter().filter(|row| of.takes(row)));
            if !is_full || looked_at >= most {
                break is_full;
            }
        };
        Ok(Self { rows, more, until, now })
    }

    /// Reads a page of the dead letters of a selection. If few of them match, the page may be short although there are more.
    pub(crate) async fn page(
        console: &Console,
        of: &DeadSelection,
        after: Option<DeadLetterCursor>,
        limit: usize,
        now: Timestamp,
    ) -> Result<DeadLetterPage, ConsoleError> {
        let until = of.until.unwrap_or(now);
        let mut page = DeadLetterPage { rows: Vec::new(), next: after };
        let mut looked_at = 0;
        loop {
            let chunk = console.store().dead_letters(&query(of, until, page.next.take()), CHUNK).await?;
            let is_full = chunk.len() == CHUNK;
            looked_at += chunk.len();
            page.next = chunk.last().filter(|_| is_full).map(DeadLetterCursor::from);
            page.rows.extend(chunk.into_iter().filter(|row| of.takes(row)));
            if page.rows.len() > limit {
                page.rows.truncate(limit);
                page.next = page.rows.last().map(DeadLetterCursor::from);
                return Ok(page);
            }
            if page.next.is_none() || looked_at >= SCAN {
                return Ok(page);
            }
        }
    }

    /// Returns their number.
    pub(crate) fn count(&self) -> BoundedCount {
        BoundedCount { count: self.rows.len() as u64, more: self.more }
    }

    /// Returns the runs as targets of commands.
    pub(crate) fn targets(&self) -> Vec<CommandTarget> {
        let target = |row: &DeadLetterRow| CommandTarget {
            flow: row.flow.clone(),
            reference: row.reference.clone(),
            subject: row.subject.clone(),
            partition: row.partition,
            offset: row.offset,
            step: row.step,
            state: RunState::Dead.label().to_owned(),
            deaths: row.deaths,
            reason: Some(row.reason.clone()),
        };
        self.rows.iter().map(target).collect()
    }

    /// Groups them by cause, the largest group first.
    pub(crate) fn causes(&self) -> Vec<CauseGroup> {
        let mut groups: BTreeMap<String, (CauseGroup, BTreeSet<&str>)> = BTreeMap::new();
        let bounded = |count: usize| BoundedCount { count: count as u64, more: self.more };
        for row in &self.rows {
            let id = cause_id(row);
            let at = Moment::new(row.ended_at, self.now);
            let group = || CauseGroup {
                id: id.clone(),
                flow: row.flow.clone(),
                step: row.step + 1,
                reason: row.reason.clone(),
                error: Masking::Masked.sentence(&row.error),
                destination: row.destination.clone(),
                runs: bounded(0),
                people: bounded(0),
                first: at,
                last: at,
            };
            let (group, people) = groups.entry(id.clone()).or_insert_with(|| (group(), BTreeSet::new()));
            group.runs.count += 1;
            group.first = at; // the rows are in order, newest first
            people.insert(row.subject.as_str());
        }
        let counted =
            |(group, people): (CauseGroup, BTreeSet<&str>)| CauseGroup { people: bounded(people.len()), ..group };
        let mut groups: Vec<CauseGroup> = groups.into_values().map(counted).collect();
        groups.sort_by(|a, b| b.runs.count.cmp(&a.runs.count).then_with(|| a.id.cmp(&b.id)));
        groups
    }
}

/// Returns the id of a dead letter's cause.
pub(crate) fn cause_id(row: &DeadLetterRow) -> String {
    let text = format!("{}\n{}\n{}\n{}", row.flow, row.step, row.reason, pattern(&row.error));
    hex::encode(&Sha256::digest(text)[..6])
}

/// Replaces the words with digits or an `@` in an error, so that errors with the same cause are the same text.
fn pattern(error: &str) -> String {
    let varies = |word: &str| word.contains('@') || word.contains(|c: char| c.is_ascii_digit());
    // The status of an answer, which is the first word, is part of the cause.
    let word = |(at, word): (usize, &'_ str)| if at > 0 && varies(word) { "#".to_owned() } else { word.to_owned() };
    error.split_whitespace().enumerate().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use usher_proto::{EventId, EventRef, Instance, Key, Offset, Source, SubjectId};

    use super::*;

    fn row(flow: &str, step: i64, error: &str, user: &str, at: i64) -> DeadLetterRow {
        let instance = Instance::default();
        DeadLetterRow {
            flow: flow.to_owned(),
            reference: EventRef::new(Source::Clerk, &instance, &EventId::new(format!("msg_{at}"))),
            subject: SubjectId::new(Source::Clerk, &instance, &Key::new(user)),
            kind: "user.created".to_owned(),
            partition: 0,
            offset: Offset(at),
            step,
            reason: "invalid_request".to_owned(),
            error: error.to_owned(),
            deaths: 1,
            destination: None,
            flow_version: "v".to_owned(),
            ended_at: Timestamp::from_seconds(at),
        }
    }

    #[test]
    fn one_cause_is_one_group_whatever_ids_its_errors_hold() {
        let now = Timestamp::from_seconds(100);
        let rows = vec![
            row("mail", 0, "422 no such id cus_9 of dana@work.test", "user_2", 9),
            row("mail", 0, "500 broken", "user_1", 8),
            row("mail", 0, "422 no such id cus_7 of zoe@work.test", "user_1", 7),
            row("mail", 1, "422 no such id cus_7 of zoe@work.test", "user_1", 6),
            row("mail", 0, "422 no such id cus_5 of zoe@work.test", "user_1", 5),
        ];
        let letters = DeadLetters { rows, more: false, until: now, now };
        let causes = letters.causes();
        assert_eq!(causes.len(), 3);
        let first = &causes[0];
        assert_eq!((first.runs.count, first.people.count, first.step), (3, 2, 1));
        assert_eq!(
            (first.first.iso().as_str(), first.last.iso().as_str()),
            ("1970-01-01T00:00:05.000Z", "1970-01-01T00:00:09.000Z")
        );
        assert!(!first.error.contains("dana"), "{}", first.error);
        let only = DeadSelection { cause: Some(first.id.clone()), ..DeadSelection::default() };
        assert_eq!(
            letters.rows.iter().filter(|row| only.takes(row)).count(),
            3,
            "the link leads to the rows that it counts"
        );
        let none = DeadSelection { flow: Some("other".to_owned()), ..only };
        assert_eq!(letters.rows.iter().filter(|row| none.takes(row)).count(), 0, "a further filter never adds rows");
    }
}
