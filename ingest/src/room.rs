//! The memory for verified requests in flight. Further requests are refused and must be repeated.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Memory for all requests, in KiB.
const ALL: usize = 512 * 1024;
/// Memory that a request takes besides its body, in KiB: its headers and its record.
const BESIDES_BODY: usize = 32;

/// Room for requests in flight. An unverified request takes none, because anybody could occupy it that way;
/// [`usher_service::http`] bounds those requests.
pub(crate) struct Room(Semaphore);

impl Room {
    pub(crate) const fn new() -> Self {
        Self(Semaphore::const_new(ALL))
    }

    /// Takes the room for a request with a body of `bytes`, until the permit is dropped. `None` if there is not so much. It
    /// is memory that is bounded and not the number of requests: a burst of small ones has to be taken, because their
    /// senders would wait for seconds before they repeat them.
    pub(crate) fn take(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let size = BESIDES_BODY + bytes.div_ceil(1024);
        self.0.try_acquire_many(u32::try_from(size).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_of_small_requests_have_room_and_not_even_hundreds_of_the_largest() {
        let taken = |bytes: usize| {
            let room = Room::new();
            let permits: Vec<_> = std::iter::from_fn(|| room.take(bytes)).collect();
            let count = permits.len();
            drop(permits);
            assert!(room.take(bytes).is_some(), "there is room again");
            count
        };
        assert_eq!(taken(2_000), 15_420);
        assert_eq!(taken(1 << 20), 496);
        assert!(Room::new().take(usize::MAX).is_none());
    }
}
