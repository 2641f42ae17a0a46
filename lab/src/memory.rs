//! The idempotency keys of one double. Decides the outcome of claiming a key; the response is built elsewhere.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use usher_proto::Timestamp;

use crate::answer::{FakeResponse, StoredAnswer};
use crate::bounded::Bounded;
use crate::double::ExpiringKey;
use crate::locked::Locked;
use crate::request::Request;

/// A digest of endpoint and parameters, by which two requests with one key are the same. The order of the parameters
/// does not matter, because the fields of JSON objects are sorted by name here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

impl From<&Request> for Fingerprint {
    fn from(request: &Request) -> Self {
        Self(Sha256::digest(format!("{} {}\n{}", request.method, request.path, request.body)).into())
    }
}

/// The outcome of claiming a key.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The key is free. The caller runs the request and passes the response to the claim.
    First(KeyClaim),
    /// The key has a stored response.
    Again(FakeResponse),
    /// The key was used for another request.
    Reused,
    /// The first request with the key is still in flight.
    InUse,
}

#[derive(Debug)]
struct Remembered {
    fingerprint: Fingerprint,
    /// The stored response. `None` while the request is in flight.
    answer: Option<StoredAnswer>,
    forgotten_at: Timestamp,
}

/// The idempotency keys of one double: the newest keys, within the retention of the real service.
#[derive(Debug)]
pub(crate) struct IdempotencyKeys {
    keys: Locked<Bounded<String, Remembered>>,
}

impl IdempotencyKeys {
    pub(crate) fn of(most: usize) -> Self {
        Self { keys: Locked::new(Bounded::new(most)) }
    }

    /// Claims `key` for a request, or returns why it is not free.
    pub(crate) fn claim(self: &Arc<Self>, key: ExpiringKey, fingerprint: Fingerprint, now: Timestamp) -> Claim {
        self.keys.with(|keys| {
            // All keys of a double have the same retention, so the oldest expires first.
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
            Claim::First(KeyClaim { memory: self.clone(), key: Some(key.text) })
        })
    }

    /// Forgets every key that has a stored response, as if it had expired. Keys of requests in flight stay claimed.
    pub(crate) fn forget(&self) {
        self.keys.with(|keys| keys.retain(|remembered| remembered.answer.is_none()));
    }
}

/// The claim on a key. If it is dropped without a stored response, it frees the key, so that a request that was refused
/// or panicked leaves nothing behind.
#[derive(Debug)]
pub(crate) struct KeyClaim {
    memory: Arc<IdempotencyKeys>,
    key: Option<String>,
}

impl KeyClaim {
    /// Stores the response under the key if it is to be stored; otherwise frees the key.
    pub(crate) fn settle(mut self, answer: &FakeResponse) {
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

impl Drop for KeyClaim {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.memory.keys.with(|keys| drop(keys.remove(&key)));
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};
    use serde_json::json;

    use super::*;
    use crate::double::DAY;

    fn fingerprint(body: &str) -> Fingerprint {
        Fingerprint::from(&Request::of(Method::POST, "/emails", "application/json", body))
    }

    fn claim(memory: &Arc<IdempotencyKeys>, body: &str, now: i64) -> Claim {
        let key = ExpiringKey { text: "k".into(), lasts: DAY };
        memory.claim(key, fingerprint(body), Timestamp::from_seconds(now))
    }

    fn key_claim(claim: Claim) -> KeyClaim {
        match claim {
            Claim::First(key_claim) => key_claim,
            Claim::Again(_) | Claim::Reused | Claim::InUse => panic!("the key is taken: {claim:?}"),
        }
    }

    #[test]
    fn the_first_answer_comes_again() {
        let memory = Arc::new(IdempotencyKeys::of(10));
        key_claim(claim(&memory, "{}", 0)).settle(&FakeResponse::done(json!({"id": 1})));
        assert!(matches!(claim(&memory, "{}", 5), Claim::Again(answer) if *answer.body == json!({"id": 1})));
    }

    #[test]
    fn the_order_of_parameters_makes_no_difference_but_their_values_do() {
        let memory = Arc::new(IdempotencyKeys::of(10));
        key_claim(claim(&memory, r#"{"a":1,"b":2}"#, 0)).settle(&FakeResponse::done(json!({})));
        assert!(matches!(claim(&memory, r#"{"b":2, "a":1}"#, 0), Claim::Again(_)));
        assert!(matches!(claim(&memory, r#"{"a":1,"b":3}"#, 0), Claim::Reused));
    }

    #[test]
    fn a_twin_waits_for_the_first() {
        let memory = Arc::new(IdempotencyKeys::of(10));
        let _running = key_claim(claim(&memory, "{}", 0));
        assert!(matches!(claim(&memory, "{}", 0), Claim::InUse));
        assert!(matches!(claim(&memory, r#"{"a":1}"#, 0), Claim::Reused));
    }

    #[test]
    fn what_was_refused_leaves_the_key_free() {
        let memory = Arc::new(IdempotencyKeys::of(10));
        key_claim(claim(&memory, "{}", 0)).settle(&FakeResponse::refused(StatusCode::BAD_REQUEST, json!({})));
        drop(key_claim(claim(&memory, r#"{"other":1}"#, 0)));
        drop(key_claim(claim(&memory, "{}", 0)));
    }

    #[test]
    fn forgotten_keys_start_again_unless_they_run() {
        let memory = Arc::new(IdempotencyKeys::of(10));
        key_claim(claim(&memory, "{}", 0)).settle(&FakeResponse::done(json!({})));
        memory.forget();
        let _running = key_claim(claim(&memory, r#"{"a":1}"#, 0));
        memory.forget();
        assert!(matches!(claim(&memory, r#"{"a":1}"#, 0), Claim::InUse));
    }

    #[test]
    fn of_many_keys_the_newest_are_remembered() {
        let memory = Arc::new(IdempotencyKeys::of(2));
        for text in ["a", "b", "c"] {
            let key = ExpiringKey { text: text.into(), lasts: DAY };
            key_claim(memory.claim(key, fingerprint("{}"), Timestamp::from_seconds(0)))
                .settle(&FakeResponse::done(json!({})));
        }
        let known = |text: &str| {
            let key = ExpiringKey { text: text.into(), lasts: DAY };
            matches!(memory.claim(key, fingerprint("{}"), Timestamp::from_seconds(0)), Claim::Again(_))
        };
        assert_eq!(["c", "b", "a"].map(known), [true, true, false]);
    }

    #[test]
    fn after_a_day_the_key_starts_again() {
        let memory = Arc::new(IdempotencyKeys::of(10));
        key_claim(claim(&memory, "{}", 0)).settle(&FakeResponse::done(json!({})));
        let day = DAY.as_secs().cast_signed();
        assert!(matches!(claim(&memory, r#"{"a":1}"#, day - 1), Claim::Reused));
        drop(key_claim(claim(&memory, r#"{"a":1}"#, day)));
    }
}
