//! Admissions and news: retried until the store answers, and isolated if it refuses them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use usher_engine::arrival::{Admission, Batch, FirstClaim};
use usher_engine::isolate::{self, RetryingStore, StoreAnswer};
use usher_engine::{Change, Changed, Input, Run};
use usher_proto::{Epoch, EventRef, Offset, Partition, Subject, SubjectId};
use usher_service::clock;
use usher_store::{FirstClaims, StoreError};

use super::turn::Turn;
use super::{StoreActor, StoreParts};

fn place(batch: &Batch) -> (Partition, Epoch, Offset) {
    (batch.partition, batch.epoch, batch.frontier)
}

impl StoreActor {
    /// Admits batches together, or one by one if the store refuses something in them.
    pub(super) async fn run_admissions(&self, batches: Vec<Batch>, turn: &Turn) -> Option<()> {
        if batches.len() > 1 {
            let claims = NotedClaims::new(&*self.parts.claims, turn);
            let retried = AtomicBool::new(false);
            if let StoreAnswer::Done(admitted) = self.admit_all(&batches, &claims, &retried).await? {
                let retried = retried.into_inner();
                for (batch, admission) in batches.iter().zip(admitted) {
                    self.admitted(place(batch), admission, retried, &claims).await?;
                }
                return Some(());
            }
        }
        for batch in batches {
            let place = place(&batch);
            let claims = NotedClaims::new(&*self.parts.claims, turn);
            let store = Isolating { actor: self, taking: Taking::Events(&claims), retried: AtomicBool::new(false) };
            let isolated = isolate::admit(&store, batch).await?;
            self.count_refused("admission", isolated.refused);
            // If the batch was admitted in parts, a later part may have taken up a head, so heads are searched again.
            let retried = isolated.in_parts || store.has_retried();
            self.admitted(place, isolated.admission, retried, &claims).await?;
        }
        Some(())
    }

    async fn admit_all(
        &self,
        batches: &[Batch],
        claims: &NotedClaims<'_>,
        retried: &AtomicBool,
    ) -> Option<StoreAnswer<Vec<Option<Admission>>, StoreError>> {
        let StoreParts { store, flow, .. } = &self.parts;
        self.retry_refusable(retried, || store.admit_claiming(flow, batches, claims)).await
    }

    /// Answers the admission of a batch. Claims that were written and whose answer was lost are given back first: nothing was
    /// sent for them, which nobody could know later.
    async fn admitted(
        &self,
        (partition, epoch, frontier): (Partition, Epoch, Offset),
        admission: Option<Admission>,
        retried: bool,
        claims: &NotedClaims<'_>,
    ) -> Option<()> {
        if let Some(admission) = admission.as_ref().filter(|_| retried) {
            let give_back = |(event, key)| FirstClaim::give_back(event, key, (partition, epoch), clock::now());
            let changes: Vec<Change> = claims.lost(partition, admission).into_iter().map(give_back).collect();
            isolate::change(&Isolating::news(self), &changes).await?;
        }
        self.answer(Input::Admitted { partition, epoch, frontier, admission, retried });
        Some(())
    }
}

/// The claims that were made for an admission, however often it was tried.
struct NotedClaims<'a> {
    claims: &'a dyn FirstClaims,
    turn: &'a Turn,
    made: Mutex<BTreeMap<EventRef, (Partition, SubjectId)>>,
}

impl<'a> NotedClaims<'a> {
    fn new(claims: &'a dyn FirstClaims, turn: &'a Turn) -> Self {
        Self { claims, turn, made: Mutex::default() }
    }

    /// Returns the runs of a partition with a claim that may have been written, and is not in the answer.
    fn lost(&self, partition: Partition, answer: &Admission) -> Vec<(EventRef, SubjectId)> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |event: &EventRef| answer.heads.iter().any(|run| run.claimed.is_some() && event.is(&run.event));
        let lost = made.iter().filter(|(event, (of, _))| *of == partition && !known(event));
        lost.map(|(event, (_, key))| (event.clone(), key.clone())).collect()
    }
}

#[async_trait]
impl FirstClaims for NotedClaims<'_> {
    async fn turn(&self) {
        self.turn.come().await;
    }

    async fn first_claim(&self, run: &Run, subject: Option<&Subject>) -> Option<FirstClaim> {
        let claim = self.claims.first_claim(run, subject).await?;
        let of = (run.partition, run.event.subject.clone());
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(run.event.reference(), of);
        Some(claim)
    }
}

/// The part of a batch that the store takes.
enum Taking<'a> {
    /// Its events, with claims of runs that begin.
    Events(&'a NotedClaims<'a>),
    /// Its news; the events are admitted later.
    News,
}

/// The store, as isolation uses it.
pub(super) struct Isolating<'a> {
    actor: &'a StoreActor,
    taking: Taking<'a>,
    /// True if a request was retried.
    retried: AtomicBool,
}

impl<'a> Isolating<'a> {
    /// Returns the store as it takes news of batches.
    pub(super) fn news(actor: &'a StoreActor) -> Self {
        Self { actor, taking: Taking::News, retried: AtomicBool::new(false) }
    }

    /// Returns true if a request was retried, and so may have been carried out before.
    pub(super) fn has_retried(&self) -> bool {
        self.retried.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl RetryingStore for Isolating<'_> {
    type Error = StoreError;

    async fn admit(&self, batch: &Batch) -> Option<StoreAnswer<Option<Admission>, StoreError>> {
        let StoreParts { store, flow, .. } = &self.actor.parts;
        let answer = match &self.taking {
            Taking::Events(claims) => self.actor.admit_all(std::slice::from_ref(batch), claims, &self.retried).await?,
            Taking::News => {
                let tell = || async { unless_fenced(store.tell(flow, batch).await) };
                return self.actor.retry_refusable(&self.retried, tell).await;
            }
        };
        Some(match answer {
            StoreAnswer::Done(mut admitted) => StoreAnswer::Done(admitted.pop().flatten()),
            StoreAnswer::Refused(error) => StoreAnswer::Refused(error),
        })
    }

    async fn change(&self, changes: &[Change]) -> Option<StoreAnswer<Vec<Changed>, StoreError>> {
        let StoreParts { store, flow, .. } = &self.actor.parts;
        // Writing a change twice has the same effect as writing it once, so a retry does not matter.
        self.actor.retry_refusable(&self.retried, || store.change(flow, changes)).await
    }

    async fn refuses_everything(&self, error: &StoreError) -> Option<()> {
        self.actor.back_off(error).await
    }
}

/// Returns the answer to a batch; absent if another replica owns the partition.
fn unless_fenced(answer: Result<Admission, StoreError>) -> Result<Option<Admission>, StoreError> {
    match answer {
        Ok(admission) => Ok(Some(admission)),
        Err(StoreError::Fenced(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
