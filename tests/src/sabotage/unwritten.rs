//! A store that does not record effects: it reports the results of steps as written without writing them.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use usher_engine::{Change, ChangeKind, Changed, RunState};
use usher_store::{RunStore, StoreError};

use super::Sabotage;

/// The sabotage described in the module documentation.
pub struct DroppedWrites {
    on: bool,
    done: AtomicUsize,
}

impl DroppedWrites {
    /// Drops the writes. With `on` false it passes them through.
    pub fn new(on: bool) -> Self {
        Self { on, done: AtomicUsize::new(0) }
    }

    /// Number of runs reported as done to the dispatcher.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    fn drops(&self, change: &Change) -> bool {
        self.on && (is_done(change) || matches!(change.kind, ChangeKind::Advance { .. }))
    }
}

fn is_done(change: &Change) -> bool {
    matches!(change.kind, ChangeKind::End { state: RunState::Done, .. })
}

#[async_trait]
impl Sabotage for DroppedWrites {
    async fn change(&self, store: &dyn RunStore, flow: &str, changes: &[Change]) -> Result<Vec<Changed>, StoreError> {
        let written: Vec<Change> = changes.iter().filter(|change| !self.drops(change)).cloned().collect();
        let mut answers = store.change(flow, &written).await?.into_iter();
        let mut answer = |change: &Change| if self.drops(change) { Some(Changed::Written) } else { answers.next() };
        let changed: Vec<Changed> = changes.iter().filter_map(&mut answer).collect();
        let done = changes.iter().zip(&changed).filter(|(change, it)| is_done(change) && **it == Changed::Written);
        self.done.fetch_add(done.count(), Ordering::SeqCst);
        Ok(changed)
    }
}
