//! Decisions about an event when it arrives: whether it starts a run, and when the run expires.
//!
//! The expressions used here can access the event only. An expression that cannot be evaluated never loses an event:
//! the event starts a run, which evaluates the expression again when it is processed and is then dead-lettered, where
//! an operator sees it. Such a run also expires, so that a possible one-time code is not stored for long.

use usher_clerk::fields;
use usher_engine::field_diff::Fields;
use usher_proto::Snapshot;
use usher_proto::{Event, Json, Source, Timestamp};

use super::{Context, Flow, Unrenderable, evaluate};

impl Flow {
    /// True if the event has a type and an instance that start a run.
    pub fn starts_on(&self, event: &Event) -> bool {
        let instance = self.instances.contains(event.instance());
        let is_ours = event.kind == self.name || self.was.as_ref() == Some(&event.kind);
        let is_due = event.source == Source::Schedule && self.schedule.is_some() && is_ours;
        instance && (is_due || self.on.iter().any(|pattern| pattern.matches(event)))
    }

    /// True if the event starts a run, by its type and instance and by the expression `if`. An expression that cannot
    /// be evaluated counts as true.
    pub fn starts(&self, event: &Event) -> bool {
        let unwanted = || Context::of_event(event).is_ok_and(|context| self.takes(&context) == Ok(false));
        self.starts_on(event) && (self.starts_if.is_none() || !unwanted())
    }

    /// Evaluates the expressions `if` and `subjects` when the run begins. Returns true if the flow has neither. The user
    /// may have changed since they were selected.
    ///
    /// # Errors
    ///
    /// An expression cannot be evaluated.
    pub fn wants(&self, context: &Context) -> Result<bool, Unrenderable> {
        Ok(self.takes(context)? && self.is_selected(context)?)
    }

    fn takes(&self, context: &Context) -> Result<bool, Unrenderable> {
        self.starts_if.as_deref().map_or(Ok(true), |expression| is_true(expression, context))
    }

    /// True if the event cancels earlier runs of its key, by its type and by the expression `cancel_if`. An expression
    /// that cannot be evaluated counts as true: a mail too few is better than one to somebody who has left.
    pub fn cancels_on(&self, event: &Event) -> bool {
        let matches = self.cancel_on.iter().any(|pattern| pattern.matches(event));
        matches
            && self.cancel_if.as_deref().is_none_or(|expression| {
                Context::of_event(event).ok().and_then(|context| is_true(expression, &context).ok()).unwrap_or(true)
            })
    }

    /// Returns the expiry of a run of the event; `None` if the run does not expire. An expression `expires_if` that
    /// cannot be evaluated counts as true.
    pub fn expires_at(&self, event: &Event) -> Option<Timestamp> {
        let life = self.expires_after?;
        let expires = self.expires_if.as_deref().is_none_or(|expression| {
            Context::of_event(event).ok().and_then(|context| is_true(expression, &context).ok()).unwrap_or(true)
        });
        expires.then(|| event.occurred_at.plus(life))
    }

    /// Returns the snapshot's values of the fields that the flow stores; `None` if the flow stores no fields.
    pub fn remembers(&self, snapshot: &Snapshot) -> Option<Fields> {
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
