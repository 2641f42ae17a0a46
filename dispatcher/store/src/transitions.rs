//! The columns that a run's change of state sets and resets, each group in one place. A statement adds its own values and
//! its condition; `$1` is the time of the change where a group has a time.

/// No attempt is claimed.
pub(super) const UNCLAIMED: &str = "claimed_at = NULL, claimed_until = NULL";

/// Nothing is waited for.
pub(super) const AWAITS_NOTHING: &str = "due_at = NULL, awaits_news = 0";

/// No attempt of the step was made. What identifies its requests (`generation`, `asked_at`, `request`) is kept.
pub(super) const UNTRIED: &str = "attempts = 0, spent = 0, unanswered = 0, tried_since = NULL, failed_at = NULL";

/// The step has no request: the next one is its first.
pub(super) const UNASKED: &str = "generation = 0, asked_at = NULL, request = NULL";

/// The run begins with another step, or with the same one in another pass: untried, unasked, unclaimed, waiting for nothing.
pub(super) fn fresh_step() -> String {
    format!("{UNTRIED}, {UNASKED}, {UNCLAIMED}, {AWAITS_NOTHING}")
}

/// An ended run is taken up again: queued, with nothing of its end.
pub(super) const TAKEN_UP: &str = "state = 'queued', reason = NULL, error = NULL, note = NULL, ended_at = NULL, \
                                   cancel_asked = 0";

/// The run is cancelled: its content is deleted. If its last attempt may have taken effect, the note says so.
pub(super) fn cancelled() -> String {
    format!(
        "state = 'cancelled', ended_at = $1, body = NULL, before_event = NULL, \
         note = CASE WHEN request IS NULL THEN note ELSE 'in_doubt' END, request = NULL, {UNCLAIMED}, {AWAITS_NOTHING}"
    )
}
