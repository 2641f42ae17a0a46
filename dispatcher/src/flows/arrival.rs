//! What an event means to a flow when it arrives.
//!
//! The expressions here see the event alone. One that cannot be evaluated never loses an event: the event starts a run,
//! which looks again when it is worked on and is given up where an operator sees it; and it expires, so that what may be a
//! one-time code is not kept.

use usher_proto::{Event, Json, Timestamp};

use super::{Context, Flow, Unrenderable, evaluate};
use crate::field_diff::Fields;
use crate::subject::{Snapshot, fields};

impl Flow {
    /// Whether the event is of a type, and of an instance, that starts a run.
    pub fn starts_on(&self, event: &Event) -> bool {
        let instance = self.instances.contains(event.instance());
        instance && self.on.iter().any(|pattern| pattern.matches(event))
    }

    /// Whether the event starts a run: by its type, and by `if`.
    pub(crate) fn starts(&self, event: &Event) -> bool {
        let unwanted = || Context::of_event(event).is_ok_and(|context| self.demand(&context) == Ok(false));
        self.starts_on(event) && (self.starts_if.is_none() || !unwanted())
    }

    /// What `if` says.
    pub(crate) fn demand(&self, context: &Context) -> Result<bool, Unrenderable> {
        self.starts_if.as_deref().map_or(Ok(true), |expression| is_true(expression, context))
    }

    /// From when on a run of the event is worth nothing.
    pub(crate) fn expires_at(&self, event: &Event) -> Option<Timestamp> {
        let life = self.expires_after?;
        let expires = self.expires_if.as_deref().is_none_or(|expression| {
            Context::of_event(event).ok().and_then(|context| is_true(expression, &context).ok()).unwrap_or(true)
        });
        expires.then(|| event.occurred_at.plus(life))
    }

    /// What the snapshot says of the fields that the flow remembers; none where it remembers nothing.
    pub(crate) fn remembers(&self, snapshot: &Snapshot) -> Option<Fields> {
        if self.remember.is_empty() {
            return None;
        }
        let user = snapshot.data.as_deref().and_then(Json::read);
        Some(user.map(|user| fields(user, &self.remember)).unwrap_or_default())
    }
}

fn is_true(expression: &str, context: &Context) -> Result<bool, Unrenderable> {
    Ok(evaluate(expression, context)?.is_some_and(|value| value.is_true()))
}
