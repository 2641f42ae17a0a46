//! What one double remembers by idempotency keys. Decides what a key means now; never what is said about it.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use usher_proto::Timestamp;

use crate::answer::{Answer, Kept};
use crate::bounded::Bounded;
use crate::double::Key;
use crate::locked::Locked;
use crate::request::Request;

/// What makes two requests the same under one key, as a digest: endpoint and parameters, compared by value. The order in
/// which parameters were written is not among it, for JSON's objects are sorted by name here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

impl From<&Request> for Fingerprint {
    fn from(request: &Request) -> Self {
        Self(Sha256::digest(format!("{} {}\n{}", request.method, request.path, request.body)).into())
    }
}

/// What a key means now.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nobody has it: run, and hand the answer to the ticket.
    First(Ticket),
    /// It was answered before.
    Again(Answer),
    /// It was used for something else.
    Reused,
    /// The first request with it still runs.
    InUse,
}

#[derive(Debug)]
struct Remembered {
    fingerprint: Fingerprint,
    /// None while it runs.
    answer: Option<Kept>,
    forgotten_at: Timestamp,
}

/// The memory of one double: the newest keys, for as long as the real one remembers them.
#[derive(Debug)]
pub(crate) struct Memory {
    keys: Locked<Bounded<String, Remembered>>,
}

impl Memory {
    pub(crate) fn of(most: usize) -> Self {
        Self { keys: Locked::new(Bounded::new(most)) }
    }

    /// Claims `key` for a request, or says why it cannot be had.
    pub(crate) fn claim(self: &Arc<Self>, key: Key, fingerprint: Fingerprint, now: Timestamp) -> Claim {
        self.keys.with(|keys| {
            // All keys of a double last as long, so the oldest is the first to end.
            while keys.oldest().is_some_and(|(_, oldest)| oldest.answer.is_some() && oldest.forgotten_at <= now) {
                keys.pop_oldest();
            }
            match keys.get(&key.text) {
                Some(have) if have.answer.is_some() && have.forgotten_at <= now => {}
                Some(have) if have.fingerprint != fingerprint => return Claim::Reused,
                Some(Remembered { answer: None, .. }) => return Claim::InUse,
                Some(Remembered { answer: Some(answer), .. }) => return Claim::Again(answer.give()),
                None => {}
            }
            let forgotten_at = now.plus(key.lasts);
            keys.insert(key.text.clone(), Remembered { fingerprint, answer: None, forgotten_at });
            Claim::First(Ticket { memory: self.clone(), key: Some(key.text) })
        })
    }

    /// Forgets every key that was answered, as if its time were over. Those that still run stay taken.
    pub(crate) fn forget(&self) {
        self.keys.with(|keys| keys.retain(|remembered| remembered.answer.is_none()));
    }
}

/// The right to run under a key. Dropped without an answer it frees the key, so a request that was refused, or that
/// died, leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Ticket {
    memory: Arc<Memory>,
    key: Option<String>,
}

impl Ticket {
    /// Remembers the answer if it is one that is kept.
    pub(crate) fn settle(mut self, answer: &Answer) {
        if !answer.kept {
            return;
        }
        if let Some(key) = self.key.take() {
            self.memory.keys.with(|keys| {
                if let Some(remembered) = keys.get_mut(&key) {
                    remembered.answer = Some(answer.keep());
                }
            });
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.memory.keys.with(|keys| drop(keys.remove(&key)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::double::DAY;
    use axum::http::{Method, StatusCode};
    use serde_json::json;

    fn fingerprint(body: &str) -> Fingerprint {
        Fingerprint::from(&Request::of(Method::POST, "/emails", "application/json", body))
    }

    fn claim(memory: &Arc<Memory>, body: &str, now: i64) -> Claim {
        let key = Key { text: "k".into(), lasts: DAY };
        memory.claim(key, fingerprint(body), Timestamp::from_seconds(now))
    }

    fn ticket(claim: Claim) -> Ticket {
        match claim {
            Claim::First(ticket) => ticket,
            Claim::Again(_) | Claim::Reused | Claim::InUse => panic!("the key is taken: {claim:?}"),
        }
    }

    #[test]
    fn the_first_answer_comes_again() {
        let memory = Arc::new(Memory::of(10));
        ticket(claim(&memory, "{}", 0)).settle(&Answer::done(json!({"id": 1})));
        assert!(matches!(claim(&memory, "{}", 5), Claim::Again(answer) if *answer.body == json!({"id": 1})));
    }

    #[test]
    fn the_order_of_parameters_makes_no_difference_but_their_values_do() {
        let memory = Arc::new(Memory::of(10));
        ticket(claim(&memory, r#"{"a":1,"b":2}"#, 0)).settle(&Answer::done(json!({})));
        assert!(matches!(claim(&memory, r#"{"b":2, "a":1}"#, 0), Claim::Again(_)));
        assert!(matches!(claim(&memory, r#"{"a":1,"b":3}"#, 0), Claim::Reused));
    }

    #[test]
    fn a_twin_waits_for_the_first() {
        let memory = Arc::new(Memory::of(10));
        let _running = ticket(claim(&memory, "{}", 0));
        assert!(matches!(claim(&memory, "{}", 0), Claim::InUse));
        assert!(matches!(claim(&memory, r#"{"a":1}"#, 0), Claim::Reused));
    }

    #[test]
    fn what_was_refused_leaves_the_key_free() {
        let memory = Arc::new(Memory::of(10));
        ticket(claim(&memory, "{}", 0)).settle(&Answer::refused(StatusCode::BAD_REQUEST, json!({})));
        drop(ticket(claim(&memory, r#"{"other":1}"#, 0)));
        drop(ticket(claim(&memory, "{}", 0)));
    }

    #[test]
    fn forgotten_keys_start_anew_unless_they_run() {
        let memory = Arc::new(Memory::of(10));
        ticket(claim(&memory, "{}", 0)).settle(&Answer::done(json!({})));
        memory.forget();
        let _running = ticket(claim(&memory, r#"{"a":1}"#, 0));
        memory.forget();
        assert!(matches!(claim(&memory, r#"{"a":1}"#, 0), Claim::InUse));
    }

    #[test]
    fn of_many_keys_the_newest_are_remembered() {
        let memory = Arc::new(Memory::of(2));
        for text in ["a", "b", "c"] {
            let key = Key { text: text.into(), lasts: DAY };
            ticket(memory.claim(key, fingerprint("{}"), Timestamp::from_seconds(0))).settle(&Answer::done(json!({})));
        }
        let known = |text: &str| {
            let key = Key { text: text.into(), lasts: DAY };
            matches!(memory.claim(key, fingerprint("{}"), Timestamp::from_seconds(0)), Claim::Again(_))
        };
        assert_eq!(["c", "b", "a"].map(known), [true, true, false]);
    }

    #[test]
    fn after_a_day_the_key_starts_anew() {
        let memory = Arc::new(Memory::of(10));
        ticket(claim(&memory, "{}", 0)).settle(&Answer::done(json!({})));
        let day = DAY.as_secs().cast_signed();
        assert!(matches!(claim(&memory, r#"{"a":1}"#, day - 1), Claim::Reused));
        drop(ticket(claim(&memory, r#"{"a":1}"#, day)));
    }
}
