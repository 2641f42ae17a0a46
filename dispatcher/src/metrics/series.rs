//! The series that exist from the start, at 0.

use usher_service::metric::create_series;

use super::DispatcherMetrics;
use super::labels::{
    FIRINGS, KINDS, PRIORITIES, RESOLUTIONS, attempt_outcomes, reasons, run_outcomes, skip_reasons, stored_states,
};

impl DispatcherMetrics {
    /// Creates the series of a flow that uses these connectors.
    pub(crate) fn create_series_of_flow(&self, flow: &str, connectors: &[&str]) {
        let flow = [flow];
        for counter in [&self.events, &self.repeated, &self.runs_parked, &self.rejoins] {
            create_series(counter, &[&flow]);
        }
        for gauge in [
            &self.lag_events,
            &self.lag_seconds,
            &self.frontier_age,
            &self.lag_half_kept,
            &self.last_success,
            &self.in_flight,
            &self.retrying,
            &self.lanes_blocked,
            &self.loaded,
            &self.loaded_bytes,
            &self.paused,
            &self.catching_up,
            &self.catching_up_events,
            &self.stalled_seconds,
        ] {
            create_series(gauge, &[&flow]);
        }
        create_series(&self.effect_seconds, &[&flow]);
        create_series(&self.runs, &[&flow, &run_outcomes()]);
        create_series(&self.dead_letters, &[&flow, &reasons()]);
        create_series(&self.stored, &[&flow, &stored_states()]);
        create_series(&self.oldest, &[&flow, &stored_states()]);
        create_series(&self.steps_skipped, &[&flow, &skip_reasons()]);
        create_series(&self.unstorable, &[&flow, &KINDS]);
        create_series(&self.attempts, &[&flow, connectors, &attempt_outcomes()]);
        create_series(&self.attempt_seconds, &[&flow, connectors]);
        create_series(&self.unknown_outcomes, &[&flow, connectors, &RESOLUTIONS]);
    }

    /// Creates the series of a flow that has a schedule.
    pub(crate) fn create_series_of_schedule(&self, flow: &str) {
        create_series(&self.firings, &[&[flow], &FIRINGS]);
        create_series(&self.firing_lateness, &[&[flow]]);
    }

    /// Creates the series of accounts of destinations.
    pub(crate) fn create_series_of_accounts(&self, accounts: &[&str]) {
        create_series(&self.breaker_open, &[accounts]);
    }

    /// Creates the series of accounts that have a quota, or may announce a rate limit.
    pub(crate) fn create_series_of_limited_accounts(&self, accounts: &[&str]) {
        create_series(&self.quota_share, &[accounts]);
        create_series(&self.quota_waiting, &[accounts]);
        create_series(&self.quota_used, &[accounts]);
        create_series(&self.quota_wait_seconds, &[accounts, &PRIORITIES]);
    }
}
