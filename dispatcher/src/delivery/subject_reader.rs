//! Reads the states of subjects for all steps that ask at about the same time in one statement.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use usher_proto::{Subject, SubjectId};
use usher_store::{StoreError, SubjectStore};

/// Largest number of questions that are answered together.
const MAX_BATCH: usize = 256;

/// An answer of the store, for one of several that have asked together.
type Answer = Result<Option<Subject>, Arc<StoreError>>;

/// Handle of the reader of a flow.
#[derive(Clone)]
pub(super) struct SubjectReader {
    questions: mpsc::UnboundedSender<(SubjectId, oneshot::Sender<Answer>)>,
}

impl SubjectReader {
    /// Starts a reader, which ends with the last handle. While one statement runs, the next questions gather.
    pub(super) fn start(store: Arc<dyn SubjectStore>) -> Self {
        // Unbounded here: each step in flight has one question at most.
        let (questions, queue) = mpsc::unbounded_channel();
        tokio::spawn(run(store, queue));
        Self { questions }
    }

    /// Returns the newest state of a subject; `None` if the subject is unknown.
    ///
    /// # Errors
    ///
    /// If the store does not answer, or holds a row that cannot be read.
    pub(super) async fn read(&self, subject: SubjectId) -> Answer {
        let (answer, answered) = oneshot::channel();
        // The reader lives as long as this handle.
        let _ = self.questions.send((subject, answer));
        answered.await.unwrap_or_else(|_| Err(Arc::new(failed())))
    }
}

fn failed() -> StoreError {
    StoreError::Unreadable("the read of a subject failed by a bug".to_owned())
}

async fn run(store: Arc<dyn SubjectStore>, mut queue: mpsc::UnboundedReceiver<(SubjectId, oneshot::Sender<Answer>)>) {
    let mut questions = Vec::with_capacity(MAX_BATCH);
    while queue.recv_many(&mut questions, MAX_BATCH).await > 0 {
        let mut subjects: Vec<SubjectId> = questions.iter().map(|(subject, _)| subject.clone()).collect();
        subjects.sort_unstable();
        subjects.dedup();
        let asked = AssertUnwindSafe(store.subjects(&subjects)).catch_unwind().await;
        let found: Result<HashMap<SubjectId, Subject>, _> = match asked {
            Ok(found) => found.map_err(Arc::new),
            // A panic ends no more than this read: the next one may have other rows.
            Err(_) => Err(Arc::new(failed())),
        };
        for (subject, answer) in questions.drain(..) {
            // A step that has ended no longer needs the answer.
            let _ = answer.send(match &found {
                Ok(found) => Ok(found.get(&subject).cloned()),
                Err(error) => Err(error.clone()),
            });
        }
    }
}
