//! The random faults of a world.

use rand::Rng as _;
use usher_proto::Timestamp;

use super::destination::DestinationTrouble;
use super::world::{Occurrence, World};
use crate::Input;

impl World {
    pub(super) fn misfortune(&mut self) {
        let r = self.rng.random_range(0..self.replicas.len());
        let is_up = self.replicas[r].up && self.replicas[r].stopping.is_none();
        match self.rng.random_range(0..20) {
            0 | 1 if is_up => self.goes_down(r),
            2 | 3 if is_up && self.replicas[r].frozen.is_none() => {
                let longest = if self.rng.random_bool(0.5) { 4_000 } else { 40_000 };
                let frozen = self.rng.random_range(100..longest);
                let replica = &mut self.replicas[r];
                replica.frozen = Some(Vec::new());
                replica.silent_since = Some(self.now);
                let incarnation = replica.incarnation;
                self.at(self.now + frozen, Occurrence::Thaw { r, incarnation });
            }
            4 => self.kick(r),
            5 | 6 if is_up && self.replicas[r].frozen.is_none() => self.stops(r),
            7..=9 => self.rotate(),
            10 | 14 => {
                let pause = self.rng.random_range(500..15_000);
                self.pause(true);
                self.at(self.now + pause, Occurrence::Paused(false));
            }
            11 | 12 => self.store_back_at = self.now + self.rng.random_range(200..6_000),
            13 => {
                let p = self.rng.random_range(0..self.plan.partitions);
                self.log.0[p].committed = self.rng.random_bool(0.8).then_some(0);
                self.rotate();
            }
            _ => {
                let d = self.rng.random_range(0..self.destinations.len());
                let trouble = match self.rng.random_range(0..5) {
                    0 => DestinationTrouble::Unreachable,
                    1 => DestinationTrouble::OutOfOrder,
                    2 => DestinationTrouble::Hangs,
                    3 => DestinationTrouble::Throttles(None),
                    _ => DestinationTrouble::Throttles(Some(self.rng.random_range(100..20_000))),
                };
                self.destinations[d].trouble = trouble;
                let longest = if self.rng.random_bool(0.7) { 10_000 } else { 90_000 };
                let lasts = self.rng.random_range(100..longest);
                self.at(self.now + lasts, Occurrence::Trouble(d, DestinationTrouble::None));
            }
        }
    }

    /// Pauses the flow as an operator does, or resumes it.
    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused.then_some(Timestamp::from_millis(self.now));
        for r in 0..self.replicas.len() {
            let incarnation = self.replicas[r].incarnation;
            self.at(
                self.now,
                Occurrence::Told { r, incarnation, subscription: None, input: Box::new(Input::Paused(self.paused)) },
            );
        }
    }

    /// Ends all faults: every remaining run must now end.
    pub(super) fn calm_down(&mut self) {
        self.is_calm = true;
        self.plan.answers_lost = 0.0;
        self.store_back_at = self.now;
        self.pause(false);
        self.destinations.iter_mut().for_each(super::destination::Destination::calm_down);
    }
}
