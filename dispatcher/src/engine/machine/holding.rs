//! When nothing is begun: while the flow is paused, until it has caught up with the log, and while the clock is wrong.

use usher_proto::{Partition, Timestamp};

use super::Engine;
use crate::engine::clock::ClockState;
use crate::engine::{Looked, Step, Unread};

/// Whether an operator has paused the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pause {
    /// The store has not said yet.
    Unknown,
    /// It is not paused.
    No,
    /// It is paused since then. With how many steps under way that was confirmed last.
    Since(Timestamp, Option<usize>),
}

impl Engine {
    /// Whether nothing may be begun. The one gate: all that leaves begins behind it.
    pub(in crate::engine) fn is_holding(&self) -> bool {
        self.pause != Pause::No || !self.catch_up.is_done() || self.clock == ClockState::Wrong
    }

    /// Whether time may end anything: a wait, a run that expires.
    pub(super) fn time_ends(&self) -> bool {
        self.clock == ClockState::Right
    }

    /// Whether the flow has partitions and begins nothing because it has not caught up with the log.
    pub fn is_catching_up(&self) -> bool {
        !self.catch_up.is_done() && !self.partitions.0.is_empty()
    }

    /// What has still to be admitted before anything is begun, if something has.
    pub fn catching_up(&self) -> Option<Unread> {
        self.catch_up.unread().filter(|_| self.is_catching_up())
    }

    /// Whether an operator has paused the flow.
    pub fn is_paused(&self) -> bool {
        matches!(self.pause, Pause::Since(..))
    }

    /// The store says whether the flow is paused.
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

    /// The log's ends and the flow's pause, read together.
    pub(super) fn looked(&mut self, look: u64, seen: Option<Looked>, now: Timestamp) {
        if !self.catch_up.is_current(look) {
            return;
        }
        let ends = seen.map(|Looked { paused, ends }| {
            // The pause was read before the ends. Its absence is old news where a pause has been learnt since.
            if paused.is_some() || self.pause == Pause::Unknown {
                self.learn_pause(paused);
            }
            ends
        });
        self.catch_up.looked(ends, now);
    }

    /// Goes on with catching up, if that is under way.
    pub(super) fn catch_up(&mut self, now: Timestamp, steps: &mut Vec<Step>) {
        // The look comes after the partitions are taken over: an operator who pauses the flow meanwhile either is seen by
        // the look, or sees this replica among those that are to confirm.
        if self.catch_up.is_done() || self.partitions.0.is_empty() || !self.acquiring.is_empty() || self.stopping {
            return;
        }
        if let Some(look) = self.catch_up.wants_look(now) {
            return steps.push(Step::Look(look));
        }
        let frontier = |partition: Partition| self.partitions.frontier(partition);
        self.catch_up.read_on(frontier);
        if self.catch_up.wants_frontiers(|partition| frontier(partition).is_some(), now) {
            steps.push(Step::AskFrontiers);
        }
    }

    /// Confirms a pause when it begins to hold, and once more when nothing is under way any more.
    pub(super) fn confirm_pause(&mut self, steps: &mut Vec<Step>) {
        let under_way = self.lanes.busy();
        if let Pause::Since(since, confirmed) = self.pause
            && (confirmed.is_none() || (under_way == 0 && confirmed != Some(0)))
        {
            self.pause = Pause::Since(since, Some(under_way));
            steps.push(Step::ConfirmPause { since, under_way });
        }
    }
}
