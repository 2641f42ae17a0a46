//! The destinations as one process knows them: what holds for a destination holds in every flow that uses it.

use std::collections::BTreeMap;

use usher_proto::Timestamp;

use super::breaker::{Breaker, Sign, Ticket};

/// All destinations, by their connectors' names.
#[derive(Debug, Default)]
pub struct Destinations(BTreeMap<String, Breaker>);

impl Destinations {
    /// Leave for one call; see [`Breaker::permit`].
    pub fn permit(&mut self, destination: &str, now: Timestamp) -> Option<Ticket> {
        match self.0.get_mut(destination) {
            Some(breaker) => breaker.permit(now),
            None => self.0.entry(destination.to_owned()).or_default().permit(now),
        }
    }

    /// What came of a call; see [`Breaker::answered`].
    pub fn answered(&mut self, destination: &str, ticket: Ticket, sign: Sign, who: u64, now: Timestamp, jitter: f64) {
        if let Some(breaker) = self.0.get_mut(destination) {
            breaker.answered(ticket, sign, who, now, jitter);
        }
    }

    /// Whether a call may be made now.
    pub fn admits(&self, destination: &str, now: Timestamp) -> bool {
        self.0.get(destination).is_none_or(|breaker| breaker.admits(now))
    }

    /// Whether the destination is not known to be in trouble.
    pub fn is_closed(&self, destination: &str) -> bool {
        self.0.get(destination).is_none_or(Breaker::is_closed)
    }

    /// Whether a failure at that time was the run's own; see [`Breaker::served_others_since`].
    pub fn served_others_since(&self, destination: &str, failed_at: Timestamp) -> bool {
        self.0.get(destination).is_some_and(|breaker| breaker.served_others_since(failed_at))
    }

    /// Those that admit no call now.
    pub fn held(&self, now: Timestamp) -> Vec<String> {
        self.0.iter().filter(|(_, breaker)| !breaker.admits(now)).map(|(name, _)| name.clone()).collect()
    }

    /// All that have been asked, with whether they are closed.
    pub fn states(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().map(|(name, breaker)| (name.as_str(), breaker.is_closed()))
    }
}
