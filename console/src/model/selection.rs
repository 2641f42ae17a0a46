//! Filters of dead letters: as they stand in an address or a form, and as they select.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use usher_proto::{SubjectId, Timestamp};
use usher_store::DeadLetterRow;

use super::causes::cause_id;
use crate::Console;
use crate::problem::ConsoleError;

/// Ages that the page offers: in an address, in words, and as a time.
pub(crate) const AGES: [(&str, &str, Duration); 4] = [
    ("1h", "last hour", Duration::from_secs(3_600)),
    ("24h", "last 24 hours", Duration::from_secs(24 * 3_600)),
    ("7d", "last 7 days", Duration::from_secs(7 * 24 * 3_600)),
    ("30d", "last 30 days", Duration::from_secs(30 * 24 * 3_600)),
];

/// Filters in words. An empty one does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DeadFilter {
    pub(crate) flow: String,
    pub(crate) reason: String,
    /// Id of a cause.
    pub(crate) cause: String,
    /// A user's id or address, or another subject's identity.
    pub(crate) person: String,
    /// Age: one of [`AGES`], before `until` or now.
    pub(crate) within: String,
    /// Given up at or after this time.
    pub(crate) since: String,
    /// Given up at or before this time.
    pub(crate) until: String,
    /// Those that were not given up again in this redrive.
    pub(crate) not_of: String,
    /// Ids of chosen dead letters ([`pick_id`]); if there are any, only these.
    pub(crate) pick: Vec<String>,
}

impl DeadFilter {
    /// Reads the filters of an address or a form. Other names are passed over.
    pub(crate) fn of(pairs: &[(String, String)]) -> Self {
        let last =
            |name: &str| pairs.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.trim().to_owned());
        let last = |name: &str| last(name).unwrap_or_default();
        Self {
            flow: last("flow"),
            reason: last("reason"),
            cause: last("cause"),
            person: last("person"),
            within: last("within"),
            since: last("since"),
            until: last("until"),
            not_of: last("not_of"),
            pick: pairs.iter().filter(|(name, _)| name == "pick").map(|(_, value)| value.clone()).collect(),
        }
    }

    /// Returns the filters that restrict, as they stand in an address, without `until`.
    pub(crate) fn parts(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("flow", &self.flow),
            ("reason", &self.reason),
            ("cause", &self.cause),
            ("person", &self.person),
            ("within", &self.within),
            ("since", &self.since),
            ("not_of", &self.not_of),
        ];
        let picks = self.pick.iter().map(|pick| ("pick", pick.as_str()));
        let given = all.into_iter().map(|(name, value)| (name, value.as_str())).filter(|(_, value)| !value.is_empty());
        given.chain(picks).collect()
    }

    /// Returns the filters in words, for people: what was looked for, with chosen ones as a number. An address is not repeated.
    pub(crate) fn words(&self) -> Vec<String> {
        let word = |(name, value): (&str, &str)| match name {
            "within" => AGES
                .iter()
                .find(|(age, ..)| *age == value)
                .map_or_else(|| value.to_owned(), |(_, words, _)| (*words).to_owned()),
            "person" => format!("person = {}", crate::mask::Masking::Masked.sentence(value)),
            "since" => format!("given up since {value}"),
            "not_of" => format!("not of redrive {value}"),
            _ => format!("{name} = {value}"),
        };
        let mut words: Vec<String> = self.parts().into_iter().filter(|(name, _)| *name != "pick").map(word).collect();
        if !self.pick.is_empty() {
            words.push(format!("{} chosen", self.pick.len()));
        }
        words
    }

    /// Looks up what the filters name.
    ///
    /// # Errors
    ///
    /// A time or an age cannot be read, or the store does not answer.
    pub(crate) async fn read(&self, console: &Console, now: Timestamp) -> Result<DeadSelection, ConsoleError> {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let time = |name: &str, text: &String| -> Result<Option<Timestamp>, ConsoleError> {
            let read = given(text).map(|text| text.parse::<Timestamp>()).transpose();
            read.map_err(|error| {
                ConsoleError::BadRequest(format!("{name}, a time such as 2026-01-31T12:00:00Z: {error}"))
            })
        };
        let until = time("until", &self.until)?;
        let mut since = time("since", &self.since)?;
        if !self.within.is_empty() {
            let age = AGES.iter().find(|(age, ..)| *age == self.within);
            let ages = AGES.map(|(age, ..)| age).join(", ");
            let (.., age) = age.ok_or_else(|| ConsoleError::BadRequest(format!("within: it may be {ages}")))?;
            since = since.max(Some(until.unwrap_or(now).minus(*age)));
        }
        let subjects = match self.person.as_str() {
            "" => None,
            person => Some(console.store().find_subjects(person).await?),
        };
        let not = match self.not_of.as_str() {
            "" => BTreeSet::new(),
            redrive => console.store().redrive_failed(redrive).await?.into_iter().collect(),
        };
        Ok(DeadSelection {
            flow: given(&self.flow),
            reason: given(&self.reason),
            cause: given(&self.cause),
            subjects,
            since,
            until,
            not,
            picks: self.pick.iter().cloned().collect(),
        })
    }
}

/// Selection of dead letters. A field that is `None` or empty does not restrict it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeadSelection {
    /// Of this flow.
    pub(crate) flow: Option<String>,
    /// Given up for this reason.
    pub(crate) reason: Option<String>,
    /// Of this cause, by its id.
    pub(crate) cause: Option<String>,
    /// Of these subjects.
    pub(crate) subjects: Option<Vec<SubjectId>>,
    /// Given up since this time.
    pub(crate) since: Option<Timestamp>,
    /// Given up until this time.
    pub(crate) until: Option<Timestamp>,
    /// None of these: flow and event.
    pub(crate) not: BTreeSet<(String, String)>,
    /// Only these, by [`pick_id`].
    pub(crate) picks: BTreeSet<String>,
}

impl DeadSelection {
    /// Returns true if a row matches, of which times and subject are known to match.
    pub(crate) fn takes(&self, row: &DeadLetterRow) -> bool {
        self.flow.as_ref().is_none_or(|flow| *flow == row.flow)
            && self.reason.as_ref().is_none_or(|reason| *reason == row.reason)
            && self.cause.as_ref().is_none_or(|cause| *cause == cause_id(row))
            && (self.not.is_empty() || !self.not.contains(&(row.flow.clone(), row.reference.as_str().to_owned())))
            && (self.picks.is_empty() || self.picks.contains(&pick_id(row)))
    }
}

/// Returns the id of a dead letter for the box beside it: short, because many of them stand in an address.
pub(crate) fn pick_id(row: &DeadLetterRow) -> String {
    hex::encode(&Sha256::digest(format!("{}\n{}\n{}", row.flow, row.reference, row.deaths))[..6])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_stand_in_an_address_and_are_read_from_it() {
        let pairs = [("flow", " email "), ("pick", "a1"), ("pick", "b2"), ("within", "24h"), ("other", "x")];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let filter = DeadFilter::of(&pairs);
        assert_eq!(filter.parts(), [("flow", "email"), ("within", "24h"), ("pick", "a1"), ("pick", "b2")]);
        assert_eq!(filter.words(), ["flow = email", "last 24 hours", "2 chosen"]);
        let person = DeadFilter { person: "dana@work.test".to_owned(), ..DeadFilter::default() };
        assert!(!person.words()[0].contains("dana"), "{:?}", person.words());
    }
}
