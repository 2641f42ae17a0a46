//! Waits of a flow, and the end of a wait that depends on the event.

use std::time::Duration;

use usher_proto::Timestamp;

use super::template::{Unrenderable, evaluate_template};
use super::times;
use super::{Context, LONGEST_WAIT};

/// A step that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// Waits for this time, counted from the moment at which the step is reached.
    For(Duration),
    /// Waits until the time that this template gives. It is rendered when the step is reached, once.
    Until(String),
}

/// The key of a wait's end in a flow file.
pub(super) const WAIT_UNTIL: &str = "wait_until";

impl Wait {
    /// Returns the end of a wait whose step is reached at `now`. It is before `now` if there is nothing to wait for.
    ///
    /// # Errors
    ///
    /// The template cannot be rendered, or its result is no time, or a time more than 366 days after `now`.
    pub fn end(&self, context: &Context, now: Timestamp) -> Result<Timestamp, Unrenderable> {
        match self {
            Self::For(time) => Ok(now.plus(*time)),
            Self::Until(template) => {
                let until = until(template, context)?;
                if until > now.plus(LONGEST_WAIT) {
                    return Err(unreadable("it is more than 366 days ahead"));
                }
                Ok(until)
            }
        }
    }
}

/// Returns the time that a `wait_until` gives, however far it is.
///
/// # Errors
///
/// The template cannot be rendered, or its result is no time.
pub(super) fn until(template: &str, context: &Context) -> Result<Timestamp, Unrenderable> {
    let value = evaluate_template(WAIT_UNTIL, template, context)?;
    let value = value.ok_or_else(|| unreadable("it came out empty; leave the step out by when"))?;
    times::read(&value).ok_or_else(|| unreadable(times::NO_TIME))
}

fn unreadable(what: &str) -> Unrenderable {
    Unrenderable { place: WAIT_UNTIL.to_owned(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_775_037_600);

    fn end(template: &str, data: Value) -> Result<Timestamp, String> {
        let context = Context::of(json!({ "event": { "data": data }, "user": {}, "steps": {} }));
        Wait::Until(template.to_owned()).end(&context, NOW).map_err(|error| error.to_string())
    }

    fn at(text: &str) -> Result<Timestamp, String> {
        Ok(text.parse().expect("a time"))
    }

    #[test]
    fn a_time_may_have_each_form_that_senders_use() {
        for (given, expected) in [
            (json!("2026-04-02T09:30:00Z"), "2026-04-02T09:30:00Z"),
            (json!("2026-04-02T11:30:00.250+02:00"), "2026-04-02T09:30:00.250Z"),
            (json!("2026-04-02"), "2026-04-02T00:00:00Z"),
            (json!(1_775_122_200), "2026-04-02T09:30:00Z"),
            (json!(1_775_122_200_250_i64), "2026-04-02T09:30:00.250Z"),
            (json!(1_775_122_200.0), "2026-04-02T09:30:00Z"),
            (json!("1775122200"), "2026-04-02T09:30:00Z"),
            (json!("1775122200250"), "2026-04-02T09:30:00.250Z"),
            (json!(" 2026-04-02 "), "2026-04-02T00:00:00Z"),
        ] {
            assert_eq!(end("{{ event.data.at }}", json!({ "at": given })), at(expected), "{given}");
        }
        assert_eq!(end("{{ event.data.day }}T09:30:00Z", json!({"day": "2026-04-02"})), at("2026-04-02T09:30:00Z"));
        assert_eq!(end("2026-04-02", json!({})), at("2026-04-02T00:00:00Z"));
    }

    #[test]
    fn a_time_is_moved_by_plus_and_minus() {
        let data = || json!({ "end": 1_775_122_200, "day": "2026-04-02", "meta_data": {} });
        assert_eq!(end("{{ event.data.end | minus('1h 30m') }}", data()), at("2026-04-02T08:00:00Z"));
        assert_eq!(end("{{ event.data.day | plus('9h') }}", data()), at("2026-04-02T09:00:00Z"));
        assert_eq!(end("{{ event.data.day | plus('2d') | minus('1s') }}", data()), at("2026-04-03T23:59:59Z"));
        let wrong = end("{{ event.data.day | plus('soon') }}", data()).unwrap_err();
        assert!(wrong.contains("plus and minus take a time such as '90m' or '3d'"), "{wrong}");
        let wrong = end("{{ event.data.meta_data | plus('1d') }}", data()).unwrap_err();
        assert!(wrong.contains(times::NO_TIME), "{wrong}");
    }

    #[test]
    fn what_is_past_is_returned_and_what_is_no_time_or_beyond_a_year_is_refused_without_its_value() {
        assert_eq!(end("{{ event.data.at }}", json!({"at": "2001-01-01"})), at("2001-01-01T00:00:00Z"));
        assert_eq!(end("{{ event.data.at }}", json!({"at": 0})), at("1970-01-01T00:00:00Z"));
        for (given, expected) in [
            (json!("tomorrow at noon"), times::NO_TIME),
            (json!("2026-04-02T09:30:00"), times::NO_TIME),
            (json!(true), times::NO_TIME),
            (json!(i64::MAX), times::NO_TIME),
            (json!(1e300), times::NO_TIME),
            (json!(null), "it came out empty"),
            (json!(""), "it came out empty"),
            (json!("2027-04-03"), "it is more than 366 days ahead"),
        ] {
            let error = end("{{ event.data.at }}", json!({ "at": given })).expect_err("no time");
            assert!(error.starts_with("wait_until: ") && error.contains(expected), "{given}: {error}");
            assert!(!error.contains("noon"), "{error}");
        }
        let error = end("{{ event.data.other }}", json!({})).expect_err("no such name");
        assert_eq!(error, "wait_until: event.data has no other");
    }
}
