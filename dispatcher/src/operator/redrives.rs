//! Redrives of many dead letters, carried out by whichever program has a runner: the console's. The store knows the runs and
//! what came of each ([`SqlStore::begin_redrive`]), so a redrive goes on after a restart, or in another process, where it was.
//!
//! Commands are paced in two ways: by a rate, and by the number of runs that are at work. While a destination does not serve, a
//! flow is paused or a quota is used up, runs stay at work, and nothing more is asked for.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use usher_engine::arrival::CommandKind;
use usher_proto::Timestamp;
use usher_service::clock;
use usher_store::{RedriveCame, RedriveRecord, RedriveRow, SqlStore};

use super::{CommandTarget, OperatorCommands, OperatorError};
use crate::orders;

/// Commands a second, unless another number is given.
pub const DEFAULT_REDRIVE_RATE: u32 = 50;
/// Largest number of commands a second.
pub const MAX_REDRIVE_RATE: u32 = 1_000;
/// Largest number of runs of one redrive that are at work at once.
pub const REDRIVE_WINDOW: i64 = 200;
/// Interval between steps of a redrive. A stop is noticed at the next one.
const STEP_EVERY: Duration = Duration::from_millis(500);
/// Interval between looks for redrives that another process has left.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Time for which a redrive stays with a process that does not say anything any more.
const HELD_FOR: Duration = Duration::from_secs(15);

/// Returns the id of a redrive. The same order has the same id, so that one that is sent twice begins once.
pub fn redrive_id(selection: &str, until: Timestamp, runs: usize) -> String {
    let digest = Sha256::digest(format!("{selection}\n{}\n{runs}", until.millis()));
    hex::encode(&digest[..8])
}

/// Returns the rows of a redrive of these runs, in their order.
pub fn redrive_rows(targets: &[CommandTarget]) -> Vec<RedriveRow> {
    let row = |(at, run): (usize, &CommandTarget)| RedriveRow {
        number: i64::try_from(at).unwrap_or(i64::MAX),
        flow: run.flow.clone(),
        reference: run.reference.clone(),
        subject: run.subject.clone(),
        partition: run.partition,
        offset: run.offset,
        step: run.step,
        deaths: run.deaths,
        command: orders::event(&run.flow, &run.reference, &run.subject, "", &order(run.deaths), Timestamp::default())
            .id
            .to_string(),
        came: RedriveCame::Left,
    };
    targets.iter().enumerate().map(row).collect()
}

fn order(deaths: i64) -> CommandKind {
    CommandKind::Redrive { deaths: u32::try_from(deaths).unwrap_or(u32::MAX) }
}

/// Carries redrives out.
pub struct RedriveRunner {
    commands: OperatorCommands,
    /// Name of this process among those that could hold a redrive.
    me: String,
    news: Notify,
}

impl RedriveRunner {
    /// Returns a runner that gives its commands through `commands`.
    pub fn new(commands: OperatorCommands) -> Arc<Self> {
        let me = format!("{}-{:08x}", std::process::id(), rand::random::<u32>());
        Arc::new(Self { commands, me, news: Notify::new() })
    }

    /// Makes it look for redrives now.
    pub fn wake(&self) {
        self.news.notify_one();
    }

    /// Carries out the redrives of the store until `stop` is cancelled. Failures are recorded with the redrive, and it is tried
    /// again.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let pause = if self.step_all().await { STEP_EVERY } else { LOOK_EVERY };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.news.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Does a step of every redrive that this process holds. Returns true if there is one.
    async fn step_all(&self) -> bool {
        let redrives = match self.store().open_redrives().await {
            Ok(redrives) => redrives,
            Err(error) => {
                // Also while the store is not laid out yet.
                tracing::debug!(%error, "looking for redrives failed; looking again");
                return false;
            }
        };
        let mut any = false;
        for redrive in redrives {
            match self.step(&redrive).await {
                Ok(held) => any |= held,
                Err(error) => {
                    any = true;
                    tracing::warn!(%error, redrive = redrive.id, "redrive does not go on; trying again");
                    let told = self.store().redrive_trouble(&redrive.id, Some(&error.to_string())).await;
                    if let Err(error) = told {
                        tracing::debug!(%error, "recording why a redrive does not go on failed");
                    }
                }
            }
        }
        any
    }

    fn store(&self) -> &SqlStore {
        &self.commands.store
    }

    /// Does a step of a redrive: looks what came of its runs, and asks for the next ones. Returns false if another process
    /// holds it.
    async fn step(&self, redrive: &RedriveRecord) -> Result<bool, OperatorError> {
        let now = clock::now();
        if !self.store().hold_redrive(&redrive.id, &self.me, now, now.plus(HELD_FOR)).await? {
            return Ok(false);
        }
        let counts = self.store().settle_redrive(&redrive.id, now).await?;
        if redrive.stopped_at.is_none() && counts.left > 0 {
            let room = allowed(redrive.rate, counts.asked);
            let next = self.store().redrive_runs(&redrive.id, RedriveCame::Left, -1, room).await?;
            for run in &next {
                let event =
                    orders::event(&run.flow, &run.reference, &run.subject, &redrive.who, &order(run.deaths), now);
                self.commands.log.append(&self.commands.layout.events(), event.into_record()).await?;
            }
            if let (Some(first), Some(last)) = (next.first(), next.last()) {
                self.store().redrive_asked(&redrive.id, first.number, last.number).await?;
            }
        }
        if redrive.trouble.is_some() {
            self.store().redrive_trouble(&redrive.id, None).await?;
        }
        Ok(true)
    }
}

/// Returns the number of runs that one step asks for: by the rate, and up to [`REDRIVE_WINDOW`] at work.
fn allowed(rate: i64, at_work: i64) -> i64 {
    let steps_a_second = i64::try_from(1_000 / STEP_EVERY.as_millis()).unwrap_or(1);
    (rate / steps_a_second).max(1).min(REDRIVE_WINDOW - at_work).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_asks_for_no_more_than_the_rate_and_the_room_allow() {
        for (rate, at_work, asks) in
            [(50, 0, 25), (1, 0, 1), (1_000, 0, 200), (50, 190, 10), (50, 200, 0), (50, 300, 0)]
        {
            assert_eq!(allowed(rate, at_work), asks, "{rate} a second, {at_work} at work");
        }
    }

    #[test]
    fn the_same_order_has_the_same_id() {
        let until = Timestamp::from_seconds(9);
        assert_eq!(redrive_id("flow=a", until, 3), redrive_id("flow=a", until, 3));
        assert_ne!(redrive_id("flow=a", until, 3), redrive_id("flow=a", until, 4));
        assert_ne!(redrive_id("flow=a", until, 3), redrive_id("flow=b", until, 3));
    }
}
