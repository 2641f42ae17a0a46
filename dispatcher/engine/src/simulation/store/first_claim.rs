//! First claims, which are written with the admission of their runs.

use std::time::Duration;

use usher_proto::Timestamp;

use super::SimulatedStore;
use crate::RunState;
use crate::arrival::FirstClaim;
use crate::simulation::attempt::LEASE;
use crate::simulation::destination::TIMEOUT;
use crate::simulation::happening::{EventPlan, Fate};
use crate::simulation::plan::Defect;

/// Requests that are made with an admission have numbers above this one.
pub(super) const FIRST_CLAIMS: u64 = 1 << 40;

/// The first step of a flow.
#[derive(Debug, Clone, Copy)]
pub(in crate::simulation) struct FirstStep {
    /// True if it waits until the subject is new enough.
    pub(super) needs: bool,
    /// True if its destination recognises a repeated request.
    pub(super) remembers: bool,
}

impl SimulatedStore {
    /// Returns true if no other run of its user is open. It has not entered the indexes.
    pub(super) fn is_alone(&self, number: u32) -> bool {
        let lane = &self.lanes[self.row(number as usize).expect("a row").user as usize];
        self.defect == Defect::FollowersClaimed || (lane.order.is_empty() && lane.waiting.is_empty())
    }

    /// Writes the first claim of a run and returns it, if its request can be made.
    pub(super) fn claim_first(&mut self, number: u32, events: &[EventPlan], now: i64) -> Option<FirstClaim> {
        let of = &events[number as usize];
        let FirstStep { needs, remembers } = self.first?;
        let user = self.row(number as usize).expect("a row").user;
        let not_made = of.fate == Fate::Superseded(0)
            || self.is_suppressed(user)
            || of.skips & 1 != 0
            || (needs && self.revision(user) < of.needs);
        if not_made {
            return None;
        }
        self.claims += 1;
        let request = self.claims.to_le_bytes().to_vec();
        let since_boot = Duration::from_millis(now.unsigned_abs());
        let at = Timestamp::from_millis(now);
        let waits = !remembers && self.defect != Defect::NoClaims;
        let until = waits.then(|| Timestamp::from_millis(now + LEASE + TIMEOUT));
        let claim = FirstClaim { request, at, until, since_boot };
        if self.defect != Defect::FirstClaimsUnwritten {
            let tries = claim.tries();
            let request = Some(claim.request.clone());
            self.update(number, |row| {
                (row.state, row.claimed, row.tries, row.request) = (RunState::Running, true, tries, request);
            });
        }
        Some(claim)
    }
}
