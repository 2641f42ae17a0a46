//! The conditions under which no step begins: while the flow is paused, until it has caught up with the log, and while
//! the clock is wrong.

use usher_proto::{Partition, Timestamp};

use super::{Decision, Engine};
use crate::clock::ClockState;
use crate::{CatchUpTarget, Seen, Step, StoreRequest, StoreWrite, Unread};

/// The operator's pause of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// The store has not reported it yet.
    Unknown,
    /// The flow is not paused.
    No,
    /// The flow is paused since this time. Holds the number of steps in flight in the last confirmation, if
    /// there was one.
    Since(Timestamp, Option<usize>),
}

impl Engine {
    /// Returns true if no step may begin. This is the only gate: every effect begins behind it.
    pub(crate) fn is_holding(&self) -> bool {
        self.pause != Pause::No || !self.catch_up.is_done() || self.clock == ClockState::Wrong
    }

    /// Returns true if time may end a wait or a run.
    pub(super) fn time_ends(&self) -> bool {
        self.clock == ClockState::Right
    }

    /// Returns true if the flow has partitions and begins nothing because it has not caught up with the log.
    pub fn is_catching_up(&self) -> bool {
        !self.catch_up.is_done() && !self.partitions.0.is_empty()
    }

    /// Returns true if the flow catches up by reading ahead.
    pub(super) fn is_catching_up_ahead(&self) -> bool {
        self.was_far_behind && self.is_catching_up()
    }

    /// Returns the records that must be known before any step begins; `None` if the flow is not catching up.
    pub fn catching_up(&self) -> Option<Unread> {
        self.catch_up.unread().filter(|_| self.is_catching_up())
    }

    /// Returns true if an operator has paused the flow.
    pub fn is_paused(&self) -> bool {
        matches!(self.pause, Pause::Since(..))
    }

    /// Takes the flow's pause from the store. A resume starts catching up again.
    pub(super) fn paused(&mut self, since: Option<Timestamp>) {
        let was_paused = self.is_paused();
        self.learn_pause(since);
        if was_paused && !self.is_paused() {
            self.catch_up.start();
        }
    }

    fn learn_pause(&mut self, since: Option<Timestamp>) {
        self.pause = match (since, self.pause) {
            (None, _) => Pause::No,
            (Some(since), Pause::Since(known, confirmed)) if since == known => Pause::Since(since, confirmed),
            (Some(since), _) => Pause::Since(since, None),
        };
    }

    /// Takes the log's ends and the flow's pause, which were read together.
    pub(super) fn looked(&mut self, look: u64, seen: Option<CatchUpTarget>, now: Timestamp) {
        if !self.catch_up.is_current(look) {
            return;
        }
        let ends = seen.map(|CatchUpTarget { paused, ends }| {
            // The pause was read before the ends. If a pause has been reported since, its absence in this
            // read is outdated.
            if paused.is_some() || self.pause == Pause::Unknown {
                self.learn_pause(paused);
            }
            ends
        });
        for Seen { partition, end, .. } in ends.iter().flatten() {
            self.partitions.ends(*partition, *end);
        }
        self.was_far_behind = ends.is_some() && self.partitions.unadmitted() > self.limits.far_behind;
        self.catch_up.looked(ends, now);
    }

    /// Continues catching up, if that is in progress.
    pub(super) fn catch_up(&mut self, decision: &mut Decision<'_>) {
        // The ends are read after the partitions are taken over. If an operator pauses the flow meanwhile, then either
        // this read returns the pause, or the operator sees this replica among those that must confirm it.
        if !self.may_catch_up() {
            return;
        }
        if let Some(look) = self.catch_up.wants_look(decision.now) {
            return decision.steps.push(Step::Look(look));
        }
        let known = |partition: Partition| self.partitions.known(partition);
        self.catch_up.read_on(known);
        if self.catch_up.wants_frontiers(|partition| known(partition).is_some(), decision.now) {
            decision.steps.push(Step::AskFrontiers);
        }
    }

    /// Returns true if catching up is in progress, and the partitions are taken over.
    pub(super) fn may_catch_up(&self) -> bool {
        self.is_catching_up() && self.acquiring.is_empty() && !self.stopping
    }

    /// Confirms a pause when it takes effect, and again once nothing is in flight.
    pub(super) fn confirm_pause(&mut self, decision: &mut Decision<'_>) {
        let under_way = self.lanes.busy() + self.lanes.writing();
        if let Pause::Since(since, confirmed) = self.pause
            && (confirmed.is_none() || (under_way == 0 && confirmed != Some(0)))
        {
            self.pause = Pause::Since(since, Some(under_way));
            decision.steps.push(Step::Store(StoreRequest::Write(StoreWrite::ConfirmPause { since, under_way })));
        }
    }
}
