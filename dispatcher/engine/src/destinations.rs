//! The state of all destinations in one process. The state of a destination is shared by all flows that use it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use usher_proto::{Instance, Timestamp};

use super::breaker::{Breaker, Health, Permit};

/// Returns the account that a connector uses for events of an instance: `stripe`, or `stripe@staging` for any instance
/// but the default one. Breakers and quotas belong to accounts.
pub fn account(connector: &str, instance: &str) -> String {
    if instance == Instance::DEFAULT { connector.to_owned() } else { format!("{connector}@{instance}") }
}

/// All destinations, by their accounts.
#[derive(Debug, Default)]
pub struct Destinations {
    breakers: BTreeMap<String, Breaker>,
    /// Accounts whose calls are used up, and the time until which they are. The flag is true for urgent flows.
    used_up: BTreeMap<(String, bool), Timestamp>,
    /// Maximum number of concurrent calls of one flow; absent if the account has no quota.
    rooms: BTreeMap<String, usize>,
    /// Number of changes that calls may have waited for.
    changes: u64,
    /// For each destination in trouble: the time since which it is, and the time of the last report.
    told: BTreeMap<String, (Timestamp, Timestamp)>,
}

/// Interval between two reports of a destination that stays in trouble.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// A destination whose breaker is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TroubledDestination<'a> {
    /// The destination's account.
    pub destination: &'a str,
    /// The time since which it is in trouble.
    pub since: Timestamp,
    /// The time of the next call that tries it; absent while calls are let through one by one.
    pub next_probe: Option<Timestamp>,
}

/// A change of a destination that is reported to an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationReport {
    /// The destination takes no calls, or only probes.
    Trouble {
        /// The destination's account.
        destination: String,
        /// The time since which it is in trouble.
        since: Timestamp,
        /// The time of the next probe; absent while it is being probed.
        next_probe: Option<Timestamp>,
    },
    /// The destination serves as usual again.
    Over {
        /// The destination's account.
        destination: String,
        /// The time since which it had been in trouble.
        since: Timestamp,
    },
}

impl Destinations {
    /// Returns a permit for one call, if one may be made now; see [`Breaker::permit`].
    pub fn permit(&mut self, destination: &str, urgent: bool, now: Timestamp) -> Option<Permit> {
        if self.is_used_up(destination, urgent, now) {
            return None;
        }
        match self.breakers.get_mut(destination) {
            Some(breaker) => breaker.permit(now),
            None => self.breakers.entry(destination.to_owned()).or_default().permit(now),
        }
    }

    /// Records that the account's calls are used up until this time.
    pub fn use_up(&mut self, destination: &str, urgent: bool, until: Timestamp) {
        self.used_up.insert((destination.to_owned(), urgent), until);
    }

    fn is_used_up(&self, destination: &str, urgent: bool, now: Timestamp) -> bool {
        self.used_up.get(&(destination.to_owned(), urgent)).is_some_and(|until| now < *until)
    }

    /// Sets the maximum number of concurrent calls of one flow.
    pub fn make_room(&mut self, destination: &str, calls: usize) {
        if self.rooms.insert(destination.to_owned(), calls) != Some(calls) {
            self.changes += 1;
        }
    }

    /// Returns true if a quota limits the number of concurrent calls, so that heads may have to wait long.
    pub fn has_quota(&self, destination: &str) -> bool {
        self.room(destination) < usize::MAX
    }

    /// Returns the maximum number of concurrent calls of one flow; `usize::MAX` without a quota.
    pub fn room(&self, destination: &str) -> usize {
        self.rooms.get(destination).copied().unwrap_or(usize::MAX)
    }

    /// Takes the result of a call; see [`Breaker::answered`].
    pub fn answered(
        &mut self,
        destination: &str,
        permit: Permit,
        health: Health,
        who: u64,
        now: Timestamp,
        jitter: f64,
    ) {
        let Some(breaker) = self.breakers.get_mut(destination) else { return };
        let was_closed = breaker.is_closed();
        breaker.answered(permit, health, who, now, jitter);
        if !was_closed || !breaker.is_closed() {
            self.changes += 1;
        }
    }

    /// Returns true if a call may be made now.
    pub fn admits(&self, destination: &str, urgent: bool, now: Timestamp) -> bool {
        let breaker = self.breakers.get(destination).is_none_or(|breaker| breaker.admits(now));
        breaker && !self.is_used_up(destination, urgent, now)
    }

    /// Returns true if the destination takes calls as usual: it is not known to be in trouble, and its quota is
    /// not used up.
    pub fn is_closed(&self, destination: &str, urgent: bool, now: Timestamp) -> bool {
        let breaker = self.breakers.get(destination).is_none_or(Breaker::is_closed);
        breaker && !self.is_used_up(destination, urgent, now)
    }

    /// Returns the time at which a destination takes calls again: after a pause, or when its account has calls again.
    /// `None` if it takes them now, or if that depends on answers.
    pub fn opens_at(&self, destination: &str, urgent: bool, now: Timestamp) -> Option<Timestamp> {
        let paused = self.breakers.get(destination).and_then(Breaker::opens_at);
        let used_up = self.used_up.get(&(destination.to_owned(), urgent)).copied();
        paused.max(used_up).filter(|at| *at > now)
    }

    /// Returns the number of changes that calls may have waited for, such as a breaker that admits more of them. A flow
    /// learns from it that another one has changed something.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns true if a failure at that time was the run's own; see [`Breaker::served_others_since`].
    pub fn served_others_since(&self, destination: &str, failed_at: Timestamp) -> bool {
        self.breakers.get(destination).is_some_and(|breaker| breaker.served_others_since(failed_at))
    }

    /// Returns the destinations that admit no call now.
    pub fn held(&self, urgent: bool, now: Timestamp) -> Vec<String> {
        let used_up = self.used_up.iter().filter(|((_, whose), until)| *whose == urgent && now < **until);
        let down = self.breakers.iter().filter(|(_, breaker)| !breaker.admits(now));
        let names: BTreeSet<&String> = used_up.map(|((name, _), _)| name).chain(down.map(|(name, _)| name)).collect();
        names.into_iter().cloned().collect()
    }

    /// Returns the changes since the last call, and once a minute each destination that is still in trouble. Each
    /// report is returned once, to only one of the callers.
    pub fn news(&mut self, now: Timestamp) -> Vec<DestinationReport> {
        let mut news = Vec::new();
        for (destination, breaker) in &self.breakers {
            let Some((since, next_probe)) = breaker.trouble() else {
                if let Some((since, _)) = self.told.remove(destination) {
                    news.push(DestinationReport::Over { destination: destination.clone(), since });
                }
                continue;
            };
            // A destination that is being probed, and serves, may take long to serve as usual if few runs call it. It
            // is not reported again meanwhile.
            let lasts = |told: Timestamp| next_probe.is_some() && now.since(told) >= TELL_EVERY;
            if self.told.get(destination).is_none_or(|(_, told)| lasts(*told)) {
                self.told.insert(destination.clone(), (since, now));
                news.push(DestinationReport::Trouble { destination: destination.clone(), since, next_probe });
            }
        }
        news
    }

    /// Returns the destinations whose breakers are not closed.
    pub fn troubles(&self) -> impl Iterator<Item = TroubledDestination<'_>> {
        self.breakers.iter().filter_map(|(destination, breaker)| {
            let (since, next_probe) = breaker.trouble()?;
            Some(TroubledDestination { destination, since, next_probe })
        })
    }

    /// Returns all destinations that have been called. The flag is true if the destination's breaker is closed.
    pub fn states(&self) -> impl Iterator<Item = (&str, bool)> {
        self.breakers.iter().map(|(name, breaker)| (name.as_str(), breaker.is_closed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn call(destinations: &mut Destinations, health: Health, who: u64, now: Timestamp) {
        let permit = destinations.permit("resend", false, now).expect("leave");
        destinations.answered("resend", permit, health, who, now, 1.0);
    }

    #[test]
    fn trouble_is_told_when_it_begins_once_a_minute_and_when_it_is_over() {
        let mut destinations = Destinations::default();
        call(&mut destinations, Health::Serves, 1, at(0));
        assert_eq!(destinations.news(at(0)), []);
        (0..8).for_each(|who| call(&mut destinations, Health::Down, who, at(0)));
        let trouble =
            |next_probe| DestinationReport::Trouble { destination: "resend".into(), since: at(0), next_probe };
        assert_eq!(destinations.news(at(0)), [trouble(Some(at(1)))]);
        assert_eq!(destinations.news(at(59)), []);
        assert_eq!(destinations.news(at(60)), [trouble(Some(at(1)))]);
        call(&mut destinations, Health::Serves, 1, at(61));
        assert_eq!(destinations.news(at(200)), [], "it serves, if not as usual yet");
        while !destinations.is_closed("resend", false, at(61)) {
            call(&mut destinations, Health::Serves, 1, at(61));
        }
        assert_eq!(destinations.news(at(61)), [DestinationReport::Over { destination: "resend".into(), since: at(0) }]);
        assert_eq!(destinations.news(at(200)), []);
    }
}
