//! `usher listen`: events and what becomes of them, as they come, from the log and the store.
//!
//! The log tells of events and of operators' commands, from a position of its own in each partition: it joins no consumer group.
//! The store tells of the runs of these events. Neither is changed.

mod lines;
mod log_tail;
mod outcomes;

use std::sync::Arc;
use std::time::Duration;

use lines::ListenLine;
use log_tail::LogTail;
use outcomes::Outcomes;
use tokio::time::Instant;
use usher_eventlog::Log;
use usher_proto::{SubjectId, Timestamp};
use usher_service::options::Environment;
use usher_service::{clock, shutdown};
use usher_store::{SqlStore, StoreError};

use crate::orders::OperatorTarget;
use crate::{data, output, values};

/// Interval between two looks at the log and the store.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Time without any other line after which one tells that the log still answers.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Shows events and what becomes of them, as they come, until it is interrupted. It shows ids, and no content.
#[derive(Debug, clap::Args)]
pub(crate) struct ListenArguments {
    #[command(flatten)]
    target: OperatorTarget,
    /// Only runs of this flow.
    #[arg(long)]
    flow: Option<String>,
    /// Only of this user, by id or primary address, or of any other key.
    #[arg(long, value_name = "ID|ADDRESS")]
    user: Option<String>,
    /// Begin with the events since this time, such as 2026-01-31T12:00:00Z, this day, or this duration ago, such as 2h;
    /// default: with the next event.
    #[arg(long, value_parser = values::since)]
    since: Option<Timestamp>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// The users whose events are shown.
enum Users {
    All,
    /// Those known by now, and the text itself: a user may come that is not known yet.
    Some {
        known: Vec<SubjectId>,
        text: String,
    },
}

impl Users {
    fn take(&self, subject: &SubjectId) -> bool {
        match self {
            Self::All => true,
            Self::Some { known, text } => known.contains(subject) || subject.key() == text,
        }
    }
}

pub(crate) async fn run(arguments: ListenArguments, environment: &Environment) -> anyhow::Result<()> {
    let ListenArguments { target, flow, user, since, json } = arguments;
    let store = target.place.store().await?;
    let log = target.log(environment).await?;
    if let Some(flow) = &flow {
        data::known_flow(&store, flow).await?;
    }
    let users = match user {
        None => Users::All,
        Some(text) => Users::Some { known: store.find_subjects(&text).await?, text },
    };
    let stop = shutdown::on_signal()?;
    let listening = Listening::begin(log, target.layout.topics.events(), store, since).await?;
    let mut listening = Listening { users, flow, json, ..listening };
    listening.say(&ListenLine::Listening { at: clock::now() })?;
    // Printing is never cut off in the middle of a look.
    while !stop.is_cancelled() {
        listening.look().await?;
        // Cancellation only ends the sleep.
        let _ = stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await;
    }
    Ok(())
}

struct Listening {
    store: SqlStore,
    tail: LogTail,
    outcomes: Outcomes,
    users: Users,
    flow: Option<String>,
    json: bool,
    /// Time since which the store does not answer.
    store_gone: Option<Instant>,
    last_line: Instant,
}

impl Listening {
    async fn begin(
        log: Arc<dyn Log>,
        topic: String,
        store: SqlStore,
        since: Option<Timestamp>,
    ) -> anyhow::Result<Self> {
        let tail = LogTail::begin(log, topic, since).await?;
        Ok(Self {
            store,
            tail,
            outcomes: Outcomes::default(),
            users: Users::All,
            flow: None,
            json: false,
            store_gone: None,
            last_line: Instant::now(),
        })
    }

    fn say(&mut self, line: &ListenLine) -> anyhow::Result<()> {
        self.last_line = Instant::now();
        if self.json { output::json(line) } else { output::line(&line.text()) }
    }

    /// Looks at the log, then at the store, and prints what is new.
    async fn look(&mut self) -> anyhow::Result<()> {
        for line in self.tail.look().await {
            match line {
                ListenLine::Event { ref event, ref subject, .. } if self.users.take(subject) => {
                    self.outcomes.expect(event.clone(), &line);
                    // Which flows an event concerns is known by its runs.
                    if self.flow.is_none() {
                        self.say(&line)?;
                    }
                }
                ListenLine::Command { ref flow, ref event, ref subject, .. } if self.users.take(subject) => {
                    self.outcomes.expect(event.clone(), &line);
                    if self.flow.as_ref().is_none_or(|wanted| wanted == flow) {
                        self.say(&line)?;
                    }
                }
                ListenLine::Event { .. } | ListenLine::Command { .. } => {}
                other => self.say(&other)?,
            }
        }
        match self.outcomes.look(&self.store, self.flow.as_deref()).await {
            Ok(lines) => {
                if let Some(since) = self.store_gone.take() {
                    let for_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                    self.say(&ListenLine::Reconnected { at: clock::now(), to: "store", for_ms })?;
                }
                for line in lines {
                    self.say(&line)?;
                }
            }
            Err(error) => self.store_fails(&error)?,
        }
        if self.last_line.elapsed() >= HEARTBEAT {
            let log_age_ms = u64::try_from(self.tail.age().as_millis()).unwrap_or(u64::MAX);
            let expected = self.outcomes.expected();
            self.say(&ListenLine::Heartbeat { at: clock::now(), log_age_ms, expected })?;
        }
        Ok(())
    }

    fn store_fails(&mut self, error: &StoreError) -> anyhow::Result<()> {
        if self.store_gone.is_some() {
            return Ok(());
        }
        self.store_gone = Some(Instant::now());
        self.say(&ListenLine::Disconnected { at: clock::now(), from: "store", why: error.to_string() })
    }
}
