//! The commands of an action on many runs, appended to the log in order and at a pace, until the operator stops them.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use usher_proto::SubjectId;

use super::{BulkOptions, OperatorError};

/// Number of commands that are appended to the log at a time. None of them has the subject of another one, because their order
/// would be lost.
const AT_ONCE: usize = 32;

/// The target of a command.
pub(super) trait HasSubject {
    /// Returns the subject, whose partition gets the command.
    fn subject(&self) -> &SubjectId;
}

/// Sends a command for each target, in order, and gives what came of each to `sent`. Returns the failure that ended it early; the
/// command during which it happened may be executed nevertheless.
pub(super) async fn send_in_order<'a, T: HasSubject, C>(
    targets: &'a [T],
    options: &BulkOptions,
    send: impl AsyncFn(&'a T) -> Result<C, OperatorError>,
    mut sent: impl FnMut(&'a T, C),
) -> Option<OperatorError> {
    let mut failure = None;
    let mut rest = targets;
    let mut pace = options.rate.map(|rate| tokio::time::interval(Duration::from_secs_f64(1.0 / rate)));
    while !rest.is_empty() && failure.is_none() && !options.stop.is_cancelled() {
        if let Some(pace) = &mut pace
            && options.stop.run_until_cancelled(pace.tick()).await.is_none()
        {
            break;
        }
        let most = if pace.is_some() { 1 } else { AT_ONCE };
        let (now, later) = rest.split_at(apart(rest, most));
        rest = later;
        for (target, came) in now.iter().zip(join_all(now.iter().map(|target| send(target))).await) {
            match came {
                Ok(came) => sent(target, came),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
    }
    failure
}

/// Returns the number of targets at the beginning, at most `most`, of which no two have the same subject.
fn apart<T: HasSubject>(targets: &[T], most: usize) -> usize {
    let mut subjects = BTreeSet::new();
    targets.iter().take(most).take_while(|target| subjects.insert(target.subject())).count()
}

#[cfg(test)]
mod tests {
    use usher_proto::{Instance, Key, Source};

    use super::*;

    impl HasSubject for SubjectId {
        fn subject(&self) -> &SubjectId {
            self
        }
    }

    #[test]
    fn commands_of_one_subject_are_never_sent_at_once() {
        let subject = |user| SubjectId::new(Source::Clerk, &Instance::default(), &Key::new(user));
        let targets = ["a", "b", "a", "c"].map(subject);
        assert_eq!(apart(&targets, 32), 2);
        assert_eq!(apart(&targets[2..], 32), 2);
        assert_eq!(apart(&targets, 1), 1);
    }
}
