//! `usher seek` and `usher move`: set the offsets of flows after a log or a store was lost, restored or moved.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use usher_eventlog::{Creation, Log, LogAddress, LogLayout, TopicSpec, Watermarks};
use usher_flows::FlowFiles;
use usher_proto::{Offset, Partition, Timestamp, Topics};
use usher_service::options::Environment;
use usher_service::retry::{Backoff, Jitter, RetryLimit, retry};
use usher_service::{ConfigError, clock};
use usher_store::SqlStore;

use crate::bulk::{BulkArguments, Selection};
use crate::orders::OperatorTarget;
use crate::{data, move_runs, output};

/// Sets the offsets from which a flow reads, after a log or a store was lost or restored. Running dispatchers apply
/// them within about a second.
///
/// Events that are read again have no effect again if the store knows them. After the loss of a store, only the
/// destinations can recognise repeated requests, for a day or so; see docs/guarantees.md.
#[derive(Debug, clap::Args)]
pub(crate) struct Seek {
    #[command(flatten)]
    desk: OperatorTarget,
    /// The flow.
    #[arg(required_unless_present = "all")]
    flow: Option<String>,
    /// Every flow that has ever run.
    #[arg(long, conflicts_with = "flow")]
    all: bool,
    /// Target: the beginning or the end of the log, the offsets that the flow's group has committed, or a time
    /// such as 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "beginning|end|committed|TIME")]
    to: SeekTarget,
    /// Only report what would be done.
    #[arg(long)]
    dry_run: bool,
}

/// Target of a seek.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SeekTarget {
    Beginning,
    End,
    Committed,
    Time(Timestamp),
}

impl FromStr for SeekTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" => Ok(Self::Beginning),
            "end" => Ok(Self::End),
            "committed" => Ok(Self::Committed),
            time => time
                .parse()
                .map(Self::Time)
                .map_err(|_| "it is beginning, end, committed, or a time such as 2026-01-31T12:00:00Z".to_owned()),
        }
    }
}

pub(crate) async fn seek(arguments: Seek, environment: &Environment) -> anyhow::Result<()> {
    let Seek { desk, flow, all, to, dry_run } = arguments;
    let store = desk.place.store().await?;
    let log = desk.log(environment).await?;
    if let Some(flow) = &flow {
        data::known_flow(&store, flow).await?;
    }
    let flows = if all { store.flow_names().await? } else { flow.into_iter().collect() };
    let topics = &desk.layout.topics;
    let watermarks = log.watermarks(&topics.events()).await?;
    for flow in flows {
        let offsets = match to {
            SeekTarget::Beginning => watermarks.iter().map(|(partition, marks)| (*partition, marks.low)).collect(),
            SeekTarget::End => ends(&watermarks),
            SeekTarget::Time(at) => log.offsets_at(&topics.events(), at).await?,
            SeekTarget::Committed => {
                let committed = log.committed(&topics.group(&flow), &topics.events()).await?;
                let of = |(partition, marks): (&Partition, &Watermarks)| {
                    (*partition, committed.get(partition).copied().unwrap_or(marks.low))
                };
                watermarks.iter().map(of).collect()
            }
        };
        let (ahead, again) = difference(&store.places(&flow).await?, &offsets);
        if !dry_run {
            store.seek(&flow, &offsets, &desk.by, clock::now()).await?;
        }
        let does = if dry_run { "would go on" } else { "goes on" };
        output::line(&format!(
            "flow {flow} {does} there: {ahead} offsets are passed over, {again} are read again, of {} in the log",
            watermarks.values().map(|marks| marks.high - marks.low).sum::<i64>()
        ))?;
    }
    Ok(())
}

fn ends(watermarks: &BTreeMap<Partition, Watermarks>) -> BTreeMap<Partition, Offset> {
    watermarks.iter().map(|(partition, marks)| (*partition, marks.high)).collect()
}

/// Returns the number of offsets between a flow's place and its new one, over all partitions: skipped, and read again.
fn difference(stands: &BTreeMap<Partition, Offset>, offsets: &BTreeMap<Partition, Offset>) -> (i64, i64) {
    let apart = |(partition, offset): (&Partition, &Offset)| *offset - *stands.get(partition).unwrap_or(offset);
    let sum = |(ahead, again), apart: i64| (ahead + apart.max(0), again + (-apart).max(0));
    offsets.iter().map(apart).fold((0, 0), sum)
}

/// Moves runs of a flow to another flow (--flow, --to), or everything to another topic (--to-log, --to-prefix).
///
/// Runs of a flow that has no file any more, or is replaced, go on in the other one at the step of the same name. Runs that are
/// under way, or whose step the other flow does not have, are left alone and counted.
///
/// Another topic may be in another cluster, or have another number of partitions. Unfinished runs are moved along. First stop ingest, let every flow read the whole log, and stop the dispatchers; docs/operations.md has the steps.
#[derive(Debug, clap::Args)]
pub(crate) struct Move {
    #[command(flatten)]
    desk: OperatorTarget,
    /// The log to move to; the same if not given.
    #[arg(long)]
    to_log: Option<LogAddress>,
    /// Prefix of the new topics' names; the present one if not given.
    #[arg(long)]
    to_prefix: Option<Topics>,
    /// Number of partitions of the new topics; the present number if not given.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1024))]
    to_partitions: Option<i32>,
    /// The flow in which runs of the flow of --flow go on. It has a file.
    #[arg(long, value_name = "FLOW", conflicts_with_all = ["to_log", "to_prefix", "to_partitions"])]
    to: Option<String>,
    #[command(flatten)]
    which: Selection,
    #[command(flatten)]
    how: BulkArguments,
    /// Location of the flow files, for --to.
    #[command(flatten)]
    files: FlowFiles,
}

pub(crate) async fn relocate(arguments: Move, environment: &Environment) -> anyhow::Result<()> {
    let Move { desk, to_log, to_prefix, to_partitions, to, which, how, files } = arguments;
    if let Some(to) = to {
        return move_runs::run(&desk, &files, &to, which, &how, environment).await;
    }
    if !which.is_of_all() {
        return Err(ConfigError("specify the flow in which the runs go on: --to".to_owned()).into());
    }
    if to_log.is_none() && to_prefix.is_none() {
        let why = "specify where to: --to-log, or --to-prefix for another topic of the same log; or --flow and --to for runs of a flow";
        return Err(ConfigError(why.to_owned()).into());
    }
    let store = desk.place.store().await?;
    let old = desk.log(environment).await?;
    let flows = store.flow_names().await?;
    all_is_read(&store, &*old, &desk.layout, &flows).await?;

    let partitions = to_partitions.unwrap_or(desk.layout.partitions);
    let layout = LogLayout { topics: to_prefix.unwrap_or_else(|| desk.layout.topics.clone()), partitions };
    let new: Arc<dyn Log> = match &to_log {
        None => old,
        Some(address) => usher_eventlog::open(address, &usher_eventlog::kafka_properties(environment)?).await?,
    };
    let events = TopicSpec { creation: Creation::Always, ..layout.events() };
    let dead_letters = flows.iter().map(|flow| layout.dead_letters(flow));
    let topics: Vec<TopicSpec> = std::iter::once(events).chain(dead_letters).collect();
    new.ensure(&topics).await.context("the topics to move to")?;
    let watermarks = watermarks_of_new(&*new, &layout.topics.events()).await?;
    if watermarks.values().any(|marks| marks.high > marks.low) {
        bail!("topic {} holds events already: move to an empty one, by --to-prefix", layout.topics.events());
    }
    let own = watermarks.into_iter().filter(|(partition, _)| partition.0 < partitions).collect();
    let moved = store.relocate(&ends(&own), &desk.by, clock::now()).await?;
    output::line(&format!("{moved} runs that have not ended moved along; start everything again with"))?;
    if let Some(address) = to_log {
        output::line(&format!("  USHER_LOG={address}"))?;
    }
    output::line(&format!("  USHER_TOPIC_PREFIX={}", layout.topics.prefix()))?;
    output::line(&format!("  USHER_PARTITIONS={partitions}"))
}

/// Time for the leaders of a new topic to be elected.
const ELECTED_WITHIN: Duration = Duration::from_secs(10);

/// Returns the watermarks of a new topic. Retries, because the leaders of a new topic are elected a moment later.
async fn watermarks_of_new(log: &dyn Log, topic: &str) -> anyhow::Result<BTreeMap<Partition, Watermarks>> {
    let attempt = || async {
        match log.watermarks(topic).await {
            Ok(watermarks) => ControlFlow::Break(watermarks),
            Err(error) => ControlFlow::Continue(error),
        }
    };
    let backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(1), jitter: Jitter::Equal };
    let limit = RetryLimit::Deadline(tokio::time::Instant::now() + ELECTED_WITHIN);
    Ok(retry(backoff, limit, attempt).await?)
}

/// Fails if a flow has not read all of the log: a move would lose accepted events.
async fn all_is_read(store: &SqlStore, log: &dyn Log, layout: &LogLayout, flows: &[String]) -> anyhow::Result<()> {
    let watermarks = log.watermarks(&layout.topics.events()).await?;
    for flow in flows {
        let stands = store.places(flow).await?;
        let left = |(partition, marks): (&Partition, &Watermarks)| {
            (marks.high - stands.get(partition).copied().unwrap_or(marks.low)).max(0)
        };
        let unread: i64 = watermarks.iter().map(left).sum();
        if unread > 0 {
            bail!(
                "flow {flow} has {unread} offsets to read yet: stop ingest, and let the dispatchers read them first; \
                 a flow that runs no more is passed over by `usher seek {flow} --to end`"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_over_and_what_is_read_again_is_told_apart() {
        let of = |offsets: [i64; 3]| offsets.into_iter().zip(0..).map(|(at, p)| (Partition(p), Offset(at))).collect();
        assert_eq!(difference(&of([5, 5, 5]), &of([9, 5, 2])), (4, 3));
        assert_eq!(difference(&BTreeMap::new(), &of([9, 5, 2])), (0, 0), "it stands nowhere");
    }

    #[test]
    fn a_target_is_a_word_or_a_time() {
        assert_eq!("end".parse(), Ok(SeekTarget::End));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(SeekTarget::Time(Timestamp::from_seconds(1))));
        assert!("now".parse::<SeekTarget>().is_err());
    }
}
