//! Creates an object.

use usher_engine::{Cause, Outcome};

use super::Stripe;
use super::classify::{classify, created, is_replayed};
use super::request::Make;
use crate::{CallGate, Lookup, stored};

impl Stripe {
    /// Sends a request that creates an object. Two kinds of failure are looked up, because the key reveals nothing more
    /// for a day: a retry that Stripe only replays, and a failure that Stripe says is not worth repeating although it
    /// may have had an effect.
    pub(super) async fn make(&self, make: &Make, key: &str, gate: &CallGate) -> Outcome {
        let Some(path) = make.path() else {
            return stored::unreadable();
        };
        let answer = match self.api.post(&path, make.form_under(key), Some(key), gate).await {
            Ok(answer) => answer,
            Err(outcome) => return outcome,
        };
        if answer.status.is_success() {
            return match answer.json()["id"].as_str() {
                Some(_) => Outcome::Done(created(&answer.json())),
                None => Outcome::retry(Cause::Interrupted),
            };
        }
        let refused = classify(&answer);
        let replayed = is_replayed(&answer);
        // A definite refusal (400, 402, 404) that is replayed still means that nothing was created.
        let unsettled = match &refused {
            Outcome::Retry { .. } => replayed,
            _ => answer.status.is_server_error(),
        };
        if !unsettled {
            return refused;
        }
        match (self.look_up_made(make, key, gate).await, replayed) {
            (Lookup::Found(effect), _) => Outcome::Done(effect),
            (Lookup::Absent, true) => Outcome::retry(Cause::Replayed),
            // Retried under this key until the object can be looked up or the key expires.
            (Lookup::Unknown | Lookup::Later(_), true) => Outcome::retry(Cause::Unavailable),
            (Lookup::Later(outcome), false) => outcome,
            (Lookup::Absent | Lookup::Unknown, false) => refused,
        }
    }
}
