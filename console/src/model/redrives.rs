//! Redrives of dead letters: how far each is, and what came of its runs.

use serde::Serialize;
use usher_proto::Timestamp;
use usher_store::{BoundedCount, RedriveCame, RedriveCounts, RedriveRecord, RedriveRow};

use super::{DeadFilter, DeadLetters, DeadSelection, Moment};
use crate::Console;
use crate::mask::Masking;
use crate::problem::ConsoleError;

/// Number of redrives of a page.
pub(crate) const REDRIVES: i64 = 50;
/// Number of a redrive's runs of a page.
pub(crate) const REDRIVE_RUNS: i64 = 100;

/// One redrive.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RedriveDetail {
    pub(crate) at: Moment,
    pub(crate) ended: Option<Moment>,
    /// running, stopped, stopping or ended.
    pub(crate) standing: &'static str,
    /// The filters, in words.
    pub(crate) selected: Vec<String>,
    pub(crate) counts: RedriveCounts,
    /// Dead letters that match and were given up since the order, without those of this redrive; only of one redrive.
    pub(crate) new_since: Option<BoundedCount>,
    /// Flows of it on which no process works.
    pub(crate) not_worked: Vec<String>,
    #[serde(flatten)]
    pub(crate) record: RedriveRecord,
    #[serde(skip)]
    pub(crate) filter: DeadFilter,
}

impl RedriveDetail {
    async fn read(console: &Console, record: RedriveRecord, now: Timestamp) -> Result<Self, ConsoleError> {
        let counts = console.store().redrive_counts(&record.id).await?;
        let pairs: Vec<(String, String)> = serde_urlencoded::from_str(&record.selection).unwrap_or_default();
        let filter = DeadFilter::of(&pairs);
        let standing = match (record.ended_at, record.stopped_at) {
            (Some(_), None) => "ended",
            (Some(_), Some(_)) => "stopped",
            (None, Some(_)) => "stopping",
            (None, None) => "running",
        };
        Ok(Self {
            at: Moment::new(record.at, now),
            ended: record.ended_at.map(|at| Moment::new(at, now)),
            standing,
            selected: filter.words(),
            counts,
            new_since: None,
            not_worked: Vec::new(),
            record,
            filter,
        })
    }

    /// Returns the number of runs of which it is known what came of them.
    pub(crate) fn over(&self) -> i64 {
        self.record.runs - self.counts.left - self.counts.asked
    }

    /// Returns the filters of the dead letters that are new since the order, as they stand in an address.
    pub(crate) fn new_filter(&self) -> DeadFilter {
        let since = Timestamp::from_millis(self.record.until.millis() + 1).to_string();
        let of = self.filter.clone();
        DeadFilter { since, within: String::new(), pick: Vec::new(), not_of: self.record.id.clone(), ..of }
    }
}

/// One run of a redrive.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RedriveLine {
    pub(crate) flow: String,
    pub(crate) event: String,
    pub(crate) subject: String,
    #[serde(skip)]
    pub(crate) key: String,
    pub(crate) step: i64,
    #[serde(skip)]
    pub(crate) number: i64,
}

impl From<RedriveRow> for RedriveLine {
    fn from(row: RedriveRow) -> Self {
        Self {
            event: row.reference.as_str().to_owned(),
            subject: row.subject.as_str().to_owned(),
            key: Masking::Masked.sentence(row.subject.key()),
            step: row.step + 1,
            flow: row.flow,
            number: row.number,
        }
    }
}

/// Returns a redrive with its numbers.
pub(crate) async fn redrive_detail(console: &Console, id: &str, now: Timestamp) -> Result<RedriveDetail, ConsoleError> {
    let store = console.store();
    let none =
        || ConsoleError::NotFound(format!("there is no redrive {id}: a redrive is shown for 30 days after its end"));
    let record = store.redrive(id).await?.ok_or_else(none)?;
    let mut detail = RedriveDetail::read(console, record, now).await?;
    let selection: DeadSelection = detail.new_filter().read(console, now).await?;
    detail.new_since = Some(DeadLetters::read(console, &selection, now).await?.count());
    if detail.counts.asked > 0 {
        let worked = store.worked_flows().await?;
        let asked = store.redrive_runs(id, RedriveCame::Asked, -1, REDRIVE_RUNS).await?;
        detail.not_worked = asked.into_iter().map(|run| run.flow).filter(|flow| !worked.contains(flow)).collect();
        detail.not_worked.sort();
        detail.not_worked.dedup();
    }
    Ok(detail)
}

/// Returns the redrives that were ordered before a time, newest first: at most [`REDRIVES`].
pub(crate) async fn redrive_list(
    console: &Console,
    before: Timestamp,
    now: Timestamp,
) -> Result<Vec<RedriveDetail>, ConsoleError> {
    let mut list = Vec::new();
    for record in console.store().redrives(before, REDRIVES).await? {
        list.push(RedriveDetail::read(console, record, now).await?);
    }
    Ok(list)
}

/// Returns the runs of a redrive of which this came, after a number.
pub(crate) async fn redrive_lines(
    console: &Console,
    id: &str,
    came: RedriveCame,
    after: i64,
) -> Result<Vec<RedriveLine>, ConsoleError> {
    let rows = console.store().redrive_runs(id, came, after, REDRIVE_RUNS).await?;
    Ok(rows.into_iter().map(RedriveLine::from).collect())
}
