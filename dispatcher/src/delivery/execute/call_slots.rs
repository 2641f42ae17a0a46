//! The slots of a flow's calls. More attempts may be claimed than there are slots, because runs begin with their admission
//! when a slot is about to become free; here they wait for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use usher_engine::FlowLimits;

/// The slots of a flow in this process.
pub(in crate::delivery) struct CallSlots {
    all: Arc<Semaphore>,
    /// Slots that one destination may take.
    of_each: usize,
    destinations: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// A slot, taken until it is dropped.
pub(super) struct CallSlot(#[expect(dead_code, reason = "held until the call is over")] [OwnedSemaphorePermit; 2]);

impl CallSlots {
    /// Returns as many free slots as the limits allow.
    pub(in crate::delivery) fn new(limits: &FlowLimits) -> Self {
        let all = Arc::new(Semaphore::new(limits.in_flight));
        Self { all, of_each: limits.slots_of_each(), destinations: Mutex::default() }
    }

    /// Waits for a slot for a call of this account, in the order in which it is asked for.
    pub(super) async fn take(&self, account: &str) -> CallSlot {
        let own = {
            let mut destinations = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Semaphore::new(self.of_each));
            destinations.entry(account.to_owned()).or_insert_with(new).clone()
        };
        // Its own one first: who waits for a destination that hangs takes no slot from the others.
        CallSlot([take(own).await, take(self.all.clone()).await])
    }
}

async fn take(slots: Arc<Semaphore>) -> OwnedSemaphorePermit {
    match slots.acquire_owned().await {
        Ok(slot) => slot,
        Err(_) => unreachable!("slots are never closed"),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use usher_flows::{Flow, FlowSource};

    use super::*;

    fn slots(steps: &str) -> CallSlots {
        let toml = format!("on = [\"clerk/user.created\"]\nconcurrency = 4\n{steps}");
        let source = FlowSource { name: "f".into(), file: "f.toml".into(), toml, templates: BTreeMap::new() };
        CallSlots::new(&crate::delivery::limits(&Flow::read(source).expect("it can run"), 1))
    }

    #[test]
    fn there_are_no_more_calls_than_slots_and_no_destination_takes_them_all_from_another() {
        let post = "[[step]]\nuse = \"http.post\"\nurl = \"https://h/x\"\n";
        let one = slots(post);
        let taken: Vec<_> = (0..5).filter_map(|_| one.take("http").now_or_never()).collect();
        assert_eq!(taken.len(), 4);
        drop(taken);
        assert!(one.take("http").now_or_never().is_some());

        let two = slots(&format!(
            "{post}[[step]]\nname = \"t\"\nuse = \"novu.trigger\"\nworkflow = \"w\"\nsubscriber_id = \"s\"\n"
        ));
        let hang: Vec<_> = (0..5).filter_map(|_| two.take("http").now_or_never()).collect();
        assert_eq!(hang.len(), 3);
        let other = two.take("novu").now_or_never();
        assert!(other.is_some() && two.take("novu").now_or_never().is_none(), "four in all");
    }
}
