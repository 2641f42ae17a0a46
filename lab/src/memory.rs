//! What one double remembers by idempotency keys. Decides what a key means now; never what is said about it.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::Method;
use serde_json::Value;
use usher_proto::Timestamp;

use crate::answer::Answer;
use crate::double::Key;
use crate::locked::Locked;
use crate::request::Request;

/// What makes two requests the same under one key: endpoint and parameters, compared by value. The order in which
/// parameters were written is not among it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fingerprint {
    method: Method,
    path: String,
    parameters: Arc<Value>,
}

impl From<&Request> for Fingerprint {
    fn from(request: &Request) -> Self {
        Self { method: request.method.clone(), path: request.path.clone(), parameters: request.body.clone() }
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
    answer: Option<Answer>,
    forgotten_at: Timestamp,
}

/// The memory of one double. Kept until the process ends: a key that is too old counts as new when it comes again.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    keys: Locked<HashMap<String, Remembered>>,
}

impl Memory {
    /// Claims `key` for a request, or says why it cannot be had.
    pub(crate) fn claim(self: &Arc<Self>, key: Key, fingerprint: Fingerprint, now: Timestamp) -> Claim {
        self.keys.with(|keys| {
            match keys.get(&key.text) {
                Some(have) if have.answer.is_some() && have.forgotten_at <= now => {}
                Some(have) if have.fingerprint != fingerprint => return Claim::Reused,
                Some(Remembered { answer: None, .. }) => return Claim::InUse,
                Some(Remembered { answer: Some(answer), .. }) => return Claim::Again(answer.clone()),
                None => {}
            }
            let forgotten_at = now.plus(key.lasts);
            keys.insert(key.text.clone(), Remembered { fingerprint, answer: None, forgotten_at });
            Claim::First(Ticket { memory: self.clone(), key: Some(key.text) })
        })
    }

    /// Forgets every key that was answered, as if its time were over. Those that still run stay taken.
    pub(crate) fn forget(&self) {
        self.keys.with(|keys| keys.retain(|_, remembered| remembered.answer.is_none()));
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
                    remembered.answer = Some(answer.clone());
                }
            });
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.memory.keys.with(|keys| keys.remove(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::double::DAY;
    use axum::http::StatusCode;
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
        let memory = Arc::default();
        ticket(claim(&memory, "{}", 0)).settle(&Answer::done(json!({"id": 1})));
        assert!(matches!(claim(&memory, "{}", 5), Claim::Again(answer) if *answer.body == json!({"id": 1})));
    }

    #[test]
    fn the_order_of_parameters_makes_no_difference_but_their_values_do() {
        let memory = Arc::default();
        ticket(claim(&memory, r#"{"a":1,"b":2}"#, 0)).settle(&Answer::done(json!({})));
        assert!(matches!(claim(&memory, r#"{"b":2, "a":1}"#, 0), Claim::Again(_)));
        assert!(matches!(claim(&memory, r#"{"a":1,"b":3}"#, 0), Claim::Reused));
    }

    #[test]
    fn a_twin_waits_for_the_first() {
        let memory = Arc::default();
        let _running = ticket(claim(&memory, "{}", 0));
        assert!(matches!(claim(&memory, "{}", 0), Claim::InUse));
        assert!(matches!(claim(&memory, r#"{"a":1}"#, 0), Claim::Reused));
    }

    #[test]
    fn what_was_refused_leaves_the_key_free() {
        let memory = Arc::default();
        ticket(claim(&memory, "{}", 0)).settle(&Answer::refused(StatusCode::BAD_REQUEST, json!({})));
        drop(ticket(claim(&memory, r#"{"other":1}"#, 0)));
        drop(ticket(claim(&memory, "{}", 0)));
    }

    #[test]
    fn forgotten_keys_start_anew_unless_they_run() {
        let memory = Arc::default();
        ticket(claim(&memory, "{}", 0)).settle(&Answer::done(json!({})));
        memory.forget();
        let _running = ticket(claim(&memory, r#"{"a":1}"#, 0));
        memory.forget();
        assert!(matches!(claim(&memory, r#"{"a":1}"#, 0), Claim::InUse));
    }

    #[test]
    fn after_a_day_the_key_starts_anew() {
        let memory = Arc::default();
        ticket(claim(&memory, "{}", 0)).settle(&Answer::done(json!({})));
        let day = DAY.as_secs().cast_signed();
        assert!(matches!(claim(&memory, r#"{"a":1}"#, day - 1), Claim::Reused));
        drop(ticket(claim(&memory, r#"{"a":1}"#, day)));
    }
}
