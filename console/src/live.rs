//! Live pages. While any page is open, the store is looked at every two seconds, once for all pages; while none is, not at
//! all. A page is told that something has changed, and loads itself again. What changed is not sent, so a stream holds no
//! data.

use std::collections::hash_map::DefaultHasher;
use std::convert::Infallible;
use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use futures::stream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use usher_proto::Timestamp;
use usher_store::{DeadLetterQuery, EventQuery, SqlStore, StoreError};

use crate::Console;

/// Interval between looks at the store.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Interval between signs of life on a stream without news.
const SIGN_EVERY: Duration = Duration::from_secs(10);
/// Numbers of newest events and dead letters whose changes are noticed.
const NEWEST: usize = 50;
/// Data of every message: a browser drops a message without any (HTML, 9.2.6).
const NOW: &str = "now";

/// Looks at the store for all open pages.
pub(crate) struct LiveFeed {
    store: Arc<SqlStore>,
    stop: CancellationToken,
    /// The looks under way; gone once no page listens.
    looks: Mutex<Weak<Looks>>,
    /// Number of looks so far.
    #[cfg(test)]
    pub(crate) looked: Arc<std::sync::atomic::AtomicU64>,
}

/// Looks that go on as long as a page holds this value.
struct Looks {
    /// Digest of what the last look has seen; 0 before the first one.
    seen: watch::Sender<u64>,
    stop: CancellationToken,
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl LiveFeed {
    pub(crate) fn new(store: Arc<SqlStore>, stop: CancellationToken) -> Self {
        Self {
            store,
            stop,
            looks: Mutex::default(),
            #[cfg(test)]
            looked: Arc::default(),
        }
    }

    /// Returns the looks under way, and begins them if this is the first page.
    fn listen(&self) -> Arc<Looks> {
        let mut held = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(looks) = held.upgrade() {
            return looks;
        }
        let looks = Arc::new(Looks { seen: watch::Sender::new(0), stop: self.stop.child_token() });
        *held = Arc::downgrade(&looks);
        let (store, stop, weak) = (self.store.clone(), looks.stop.clone(), Arc::downgrade(&looks));
        #[cfg(test)]
        let looked = self.looked.clone();
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(LOOK_EVERY);
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while stop.run_until_cancelled(interval.tick()).await.is_some() {
                #[cfg(test)]
                looked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                // The next look may succeed; pages that are loaded meanwhile tell that the store does not answer.
                let fingerprint = match fingerprint(&store).await {
                    Ok(fingerprint) => fingerprint,
                    Err(error) => {
                        tracing::debug!(%error, "looking for news failed; looking again");
                        continue;
                    }
                };
                let Some(looks) = weak.upgrade() else { return };
                looks.seen.send_if_modified(|seen| std::mem::replace(seen, fingerprint) != fingerprint);
            }
        });
        looks
    }
}

/// Returns a number, not 0, that changes with what the overview and the newest events show.
async fn fingerprint(store: &SqlStore) -> Result<u64, StoreError> {
    let mut hasher = DefaultHasher::new();
    for flow in store.flow_counts().await? {
        format!("{flow:?}").hash(&mut hasher);
    }
    for event in store.events(&EventQuery::default(), NEWEST).await?.events {
        format!("{event:?}").hash(&mut hasher);
    }
    for dead in store.dead_letters(&DeadLetterQuery::default(), NEWEST).await? {
        (dead.reference.as_str(), dead.flow, dead.ended_at.millis()).hash(&mut hasher);
    }
    for redrive in store.open_redrives().await? {
        (&redrive.id, redrive.stopped_at.map(Timestamp::millis)).hash(&mut hasher);
        format!("{:?}", store.redrive_counts(&redrive.id).await?).hash(&mut hasher);
    }
    Ok(hasher.finish().max(1))
}

/// `GET /live`: sends `live` after a look at the store, and then `changed` whenever something has changed since the last time.
pub(crate) async fn stream(State(console): State<Console>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let looks = console.live().listen();
    let seen = looks.seen.subscribe();
    let stop = looks.stop.clone();
    let changes = stream::unfold((looks, seen, stop, true), |(looks, mut seen, stop, is_first)| async move {
        if is_first {
            // Tells the page that it is live from here on: it loads once more, in case something has changed since it did.
            stop.run_until_cancelled(seen.wait_for(|seen| *seen != 0)).await?.ok()?;
            return Some((Ok(Event::default().event("live").data(NOW)), (looks, seen, stop, false)));
        }
        stop.run_until_cancelled(seen.changed()).await?.ok()?;
        Some((Ok(Event::default().event("changed").data(NOW)), (looks, seen, stop, false)))
    });
    Sse::new(changes).keep_alive(KeepAlive::new().interval(SIGN_EVERY))
}
