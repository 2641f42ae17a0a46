//! The destinations as one process knows them: what holds for a destination holds in every flow that uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use usher_proto::{Instance, Timestamp};

use super::breaker::{Breaker, Health, Permit};

/// The account that a connector uses for events of an instance: `stripe`, or `stripe@staging` for any instance but the
/// default one. Breakers and quotas belong to accounts.
pub fn account(connector: &str, instance: &str) -> String {
    if instance == Instance::DEFAULT { connector.to_owned() } else { format!("{connector}@{instance}") }
}

/// All destinations, by their accounts.
#[derive(Debug, Default)]
pub struct Destinations {
    breakers: BTreeMap<String, Breaker>,
    /// Accounts whose calls are used up, for usual and for urgent flows, and until when.
    used_up: BTreeMap<(String, bool), Timestamp>,
    /// How many calls of one flow may be under way at once, where the account's quota says so.
    rooms: BTreeMap<String, usize>,
    /// Of each destination in trouble: since when it is, and when that was told last.
    told: BTreeMap<String, (Timestamp, Timestamp)>,
}

/// Interval between two reports of a destination that stays in trouble.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// News of a destination for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It takes no calls, or only single ones.
    Trouble {
        /// Its account.
        destination: String,
        /// Since when.
        since: Timestamp,
        /// Time of the next try; none while it is tried.
        next_probe: Option<Timestamp>,
    },
    /// It serves as usual again.
    Over {
        /// Its account.
        destination: String,
        /// Since when it had been in trouble.
        since: Timestamp,
    },
}

impl Destinations {
    /// Leave for one call; see [`Breaker::permit`].
    pub fn permit(&mut self, destination: &str, urgent: bool, now: Timestamp) -> Option<Permit> {
        if self.is_used_up(destination, urgent, now) {
            return None;
        }
        match self.breakers.get_mut(destination) {
            Some(breaker) => breaker.permit(now),
            None => self.breakers.entry(destination.to_owned()).or_default().permit(now),
        }
    }

    /// The account's calls are used up for a while.
    pub fn use_up(&mut self, destination: &str, urgent: bool, until: Timestamp) {
        self.used_up.insert((destination.to_owned(), urgent), until);
    }

    fn is_used_up(&self, destination: &str, urgent: bool, now: Timestamp) -> bool {
        self.used_up.get(&(destination.to_owned(), urgent)).is_some_and(|until| now < *until)
    }

    /// Says how many calls of one flow may be under way at once.
    pub fn make_room(&mut self, destination: &str, calls: usize) {
        self.rooms.insert(destination.to_owned(), calls);
    }

    /// Whether a quota says how many calls may be under way at once: heads may have to wait long for room.
    pub fn has_quota(&self, destination: &str) -> bool {
        self.room(destination) < usize::MAX
    }

    /// How many calls of one flow may be under way at once.
    pub fn room(&self, destination: &str) -> usize {
        self.rooms.get(destination).copied().unwrap_or(usize::MAX)
    }

    /// What came of a call; see [`Breaker::answered`].
    pub fn answered(
        &mut self,
        destination: &str,
        permit: Permit,
        health: Health,
        who: u64,
        now: Timestamp,
        jitter: f64,
    ) {
        if let Some(breaker) = self.breakers.get_mut(destination) {
            breaker.answered(permit, health, who, now, jitter);
        }
    }

    /// Whether a call may be made now.
    pub fn admits(&self, destination: &str, urgent: bool, now: Timestamp) -> bool {
        let breaker = self.breakers.get(destination).is_none_or(|breaker| breaker.admits(now));
        breaker && !self.is_used_up(destination, urgent, now)
    }

    /// Whether the destination takes calls as usual: it is not known to be in trouble, nor its quota used up.
    pub fn is_closed(&self, destination: &str, urgent: bool, now: Timestamp) -> bool {
        let breaker = self.breakers.get(destination).is_none_or(Breaker::is_closed);
        breaker && !self.is_used_up(destination, urgent, now)
    }

    /// Whether a failure at that time was the run's own; see [`Breaker::served_others_since`].
    pub fn served_others_since(&self, destination: &str, failed_at: Timestamp) -> bool {
        self.breakers.get(destination).is_some_and(|breaker| breaker.served_others_since(failed_at))
    }

    /// Those that admit no call now.
    pub fn held(&self, urgent: bool, now: Timestamp) -> Vec<String> {
        let used_up = self.used_up.iter().filter(|((_, whose), until)| *whose == urgent && now < **until);
        let down = self.breakers.iter().filter(|(_, breaker)| !breaker.admits(now));
        let names: BTreeSet<&String> = used_up.map(|((name, _), _)| name).chain(down.map(|(name, _)| name)).collect();
        names.into_iter().cloned().collect()
    }

    /// The changes since the last call, and once a minute the troubles that last. One of those who ask is told.
    pub fn news(&mut self, now: Timestamp) -> Vec<News> {
        let mut news = Vec::new();
        for (destination, breaker) in &self.breakers {
            let Some((since, next_probe)) = breaker.trouble() else {
                if let Some((since, _)) = self.told.remove(destination) {
                    news.push(News::Over { destination: destination.clone(), since });
                }
                continue;
            };
            // One that is tried, and serves, may take long to be as usual where few ask it.
            let lasts = |told: Timestamp| next_probe.is_some() && now.since(told) >= TELL_EVERY;
            if self.told.get(destination).is_none_or(|(_, told)| lasts(*told)) {
                self.told.insert(destination.clone(), (since, now));
                news.push(News::Trouble { destination: destination.clone(), since, next_probe });
            }
        }
        news
    }

    /// All that have been asked, with whether they are closed.
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
        let trouble = |next_probe| News::Trouble { destination: "resend".into(), since: at(0), next_probe };
        assert_eq!(destinations.news(at(0)), [trouble(Some(at(1)))]);
        assert_eq!(destinations.news(at(59)), []);
        assert_eq!(destinations.news(at(60)), [trouble(Some(at(1)))]);
        call(&mut destinations, Health::Serves, 1, at(61));
        assert_eq!(destinations.news(at(200)), [], "it serves, if not as usual yet");
        while !destinations.is_closed("resend", false, at(61)) {
            call(&mut destinations, Health::Serves, 1, at(61));
        }
        assert_eq!(destinations.news(at(61)), [News::Over { destination: "resend".into(), since: at(0) }]);
        assert_eq!(destinations.news(at(200)), []);
    }
}
