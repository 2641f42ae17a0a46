//! Reads of the store that gather: all who ask at about the same time are answered by one statement.

use std::collections::HashMap;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use usher_proto::suppression::SuppressionEntry;
use usher_proto::{Subject, SubjectId};
use usher_store::{MailRecipients, StoreError, SubjectStore};

/// Largest number of questions that are answered together.
const MAX_BATCH: usize = 256;

/// An answer of the store, for one of several that have asked together.
type Answer<A> = Result<A, Arc<StoreError>>;

/// Questions with those who wait for their answers.
type Questions<Q, A> = mpsc::UnboundedReceiver<(Q, oneshot::Sender<Answer<A>>)>;

/// Handle of a reader that answers questions of one kind.
pub(super) struct GatheredRead<Q, A>(mpsc::UnboundedSender<(Q, oneshot::Sender<Answer<A>>)>);

impl<Q, A> GatheredRead<Q, A>
where
    Q: Clone + Ord + Hash + Send + Sync + 'static,
    A: Clone + Default + Send + Sync + 'static,
{
    /// Starts a reader, which ends with its handle. `read` returns the answers to different questions; one that it does not
    /// answer has the default. While it runs, the next questions gather.
    pub(super) fn start<F>(read: impl Fn(Vec<Q>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<HashMap<Q, A>, StoreError>> + Send + 'static,
    {
        // Unbounded here: each step in flight has one question at most.
        let (questions, queue) = mpsc::unbounded_channel();
        tokio::spawn(run(read, queue));
        Self(questions)
    }

    /// Returns the answer to a question.
    ///
    /// # Errors
    ///
    /// If the store does not answer, or holds a row that cannot be read.
    pub(super) async fn read(&self, question: Q) -> Answer<A> {
        let (answer, answered) = oneshot::channel();
        // The reader lives as long as this handle.
        let _ = self.0.send((question, answer));
        answered.await.unwrap_or_else(|_| Err(Arc::new(failed())))
    }
}

fn failed() -> StoreError {
    StoreError::Unreadable("a read failed by a bug".to_owned())
}

async fn run<Q, A, F>(read: impl Fn(Vec<Q>) -> F, mut queue: Questions<Q, A>)
where
    Q: Clone + Ord + Hash,
    A: Clone + Default,
    F: Future<Output = Result<HashMap<Q, A>, StoreError>>,
{
    let mut questions = Vec::with_capacity(MAX_BATCH);
    while queue.recv_many(&mut questions, MAX_BATCH).await > 0 {
        let mut different: Vec<Q> = questions.iter().map(|(question, _)| question.clone()).collect();
        different.sort_unstable();
        different.dedup();
        let asked = AssertUnwindSafe(async { read(different).await }).catch_unwind().await;
        // A panic ends no more than this read: the next one may have other rows.
        let found = asked.unwrap_or_else(|_| Err(failed())).map_err(Arc::new);
        for (question, answer) in questions.drain(..) {
            // A step that has ended no longer needs the answer.
            let _ = answer.send(match &found {
                Ok(found) => Ok(found.get(&question).cloned().unwrap_or_default()),
                Err(error) => Err(error.clone()),
            });
        }
    }
}

/// Reads the newest states of subjects; `None` of one that is unknown.
pub(super) type SubjectReader = GatheredRead<SubjectId, Option<Subject>>;

/// Starts a reader of subjects.
pub(super) fn subjects(store: Arc<dyn SubjectStore>) -> SubjectReader {
    GatheredRead::start(move |subjects| {
        let store = store.clone();
        async move { Ok(store.subjects(&subjects).await?.into_iter().map(|(id, subject)| (id, Some(subject))).collect()) }
    })
}

/// Reads the suppression entries of the recipients of mails.
pub(super) type SuppressionReader = GatheredRead<MailRecipients, Vec<SuppressionEntry>>;

/// Starts a reader of suppression entries.
pub(super) fn suppressions(store: Arc<dyn SubjectStore>) -> SuppressionReader {
    GatheredRead::start(move |mails: Vec<MailRecipients>| {
        let store = store.clone();
        async move { Ok(mails.iter().cloned().zip(store.listed(&mails).await?).collect()) }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn who_asks_together_is_answered_together() {
        let statements = Arc::new(AtomicUsize::new(0));
        let counter = statements.clone();
        let doubled = GatheredRead::start(move |numbers: Vec<usize>| {
            counter.fetch_add(1, Ordering::Relaxed);
            assert!(!numbers.contains(&9), "a bug");
            async move { Ok(numbers.into_iter().filter(|number| *number > 0).map(|number| (number, 2 * number)).collect()) }
        });
        let ask = async |number| doubled.read(number).await.ok();
        let answers = join_all([1, 0, 2, 1].map(ask)).await;
        assert_eq!(answers, [Some(2), Some(0), Some(4), Some(2)], "each its own, and the default where there is none");
        assert_eq!(statements.load(Ordering::Relaxed), 1);
        assert_eq!(join_all([9, 1].map(ask)).await, [None, None]);
        assert_eq!(ask(1).await, Some(2), "a panic ends no more than its read");
    }
}
