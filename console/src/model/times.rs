//! Times as people read them: the absolute one in UTC, and how long ago it was, both at once.

use std::time::Duration;

use serde::{Serialize, Serializer};
use usher_proto::Timestamp;

/// A time, and the time at which it is looked at. In the API only the time itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    at: Timestamp,
    now: Timestamp,
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.at.serialize(serializer)
    }
}

impl Moment {
    pub(crate) const fn new(at: Timestamp, now: Timestamp) -> Self {
        Self { at, now }
    }

    /// Returns the time itself.
    pub(crate) const fn at(&self) -> Timestamp {
        self.at
    }

    /// Returns the time for machines.
    pub(crate) fn iso(&self) -> String {
        self.at.to_string()
    }

    /// Returns day and time to the second.
    pub(crate) fn absolute(&self) -> String {
        let text = self.at.to_string();
        let (date, time) = text.split_once('T').unwrap_or((&text, ""));
        format!("{date} {}", time.split('.').next().unwrap_or_default()).trim_end().to_owned()
    }

    /// Returns both for a page, as HTML. They hold digits and words of ours alone.
    pub(crate) fn html(&self) -> String {
        format!(
            "<time datetime=\"{}\">{}</time> <span class=\"soft\">{}</span>",
            self.iso(),
            self.absolute(),
            self.relative()
        )
    }

    /// Returns the distance to now.
    pub(crate) fn relative(&self) -> String {
        match (self.now.since(self.at), self.at.since(self.now)) {
            (Duration::ZERO, Duration::ZERO) => "now".to_owned(),
            (Duration::ZERO, ahead) => format!("in {}", rough(ahead)),
            (ago, _) => format!("{} ago", rough(ago)),
        }
    }
}

/// Returns a duration in its largest unit.
fn rough(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_absolute_and_relative() {
        let at = Timestamp::from_seconds(1_767_261_600);
        let moment = |after: i64| Moment::new(at, Timestamp::from_millis(at.millis() + after));
        assert_eq!(moment(0).absolute(), "2026-01-01 10:00:00");
        for (after, relative) in [
            (0, "now"),
            (250, "250 ms ago"),
            (119_000, "119 s ago"),
            (120_000, "2 min ago"),
            (7_200_000, "2 h ago"),
            (-172_800_000, "in 2 days"),
        ] {
            assert_eq!(moment(after).relative(), relative);
        }
    }
}
