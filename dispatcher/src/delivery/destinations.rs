//! The one owner of the destinations' state: the flows' engines ask it, and it tells the flows, the operator and the
//! metrics of changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use usher_engine::{DestinationReport, Destinations, Engine, Input, Step, TroubledDestination};
use usher_proto::Timestamp;
use usher_service::clock;
use usher_store::{Store, TroubleTold};

use crate::metrics::DispatcherMetrics;

/// Interval of the reports while a destination is in trouble, if no change causes one earlier.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The same while none is.
const QUIET_EVERY: Duration = Duration::from_secs(10);

/// Time after which the store is told again of a trouble that has not changed.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// The state of all destinations of a process. Shared, because the health of a destination is the same for every flow
/// that uses it. The lock is held for one decision at a time, and only here.
#[derive(Clone)]
pub(super) struct SharedDestinations {
    destinations: Arc<Mutex<Destinations>>,
    changes: watch::Sender<u64>,
}

/// The destinations' trouble as this process has last told it to the store.
struct Told {
    store: Arc<dyn Store>,
    member: String,
    troubles: BTreeMap<String, (TroubleTold, Timestamp)>,
}

impl Told {
    /// Writes what is new to the store, for operators, and once a minute what lasts. What cannot be written is written later.
    async fn tell(&mut self, troubles: BTreeMap<String, TroubleTold>, now: Timestamp) {
        let is_over = |account: &&String| !troubles.contains_key(*account);
        let over: Vec<String> = self.troubles.keys().filter(is_over).cloned().collect();
        for account in over {
            if self.write(&account, None, now).await {
                self.troubles.remove(&account);
            }
        }
        for (account, trouble) in troubles {
            let known = self.troubles.get(&account);
            let is_told = known.is_some_and(|(told, at)| *told == trouble && now.since(*at) < TELL_AGAIN);
            if !is_told && self.write(&account, Some(trouble), now).await {
                self.troubles.insert(account, (trouble, now));
            }
        }
    }

    async fn write(&self, account: &str, trouble: Option<TroubleTold>, now: Timestamp) -> bool {
        let written = self.store.tell_trouble(account, &self.member, trouble, now).await;
        if let Err(error) = &written {
            tracing::debug!(account, %error, "recording a destination's trouble failed");
        }
        written.is_ok()
    }
}

/// The result of one decision of an engine.
pub(super) struct Decided {
    /// The steps to carry out.
    pub(super) steps: Vec<Step>,
    /// The time at which the engine wants to be woken, if nothing happens before.
    pub(super) wakeup: Option<Timestamp>,
}

impl SharedDestinations {
    pub(super) fn new() -> Self {
        Self { destinations: Arc::default(), changes: watch::Sender::new(0) }
    }

    /// Passes an input to a flow's engine.
    pub(super) fn decide(&self, engine: &mut Engine, input: Input) -> Decided {
        let now = clock::now();
        let mut destinations = self.locked();
        let steps = engine.handle(input, now, rand::random(), &mut destinations);
        let wakeup = engine.next_wakeup(now, &destinations);
        self.tell(&destinations);
        Decided { steps, wakeup }
    }

    /// Sets the maximum number of concurrent calls of one flow, by destination.
    pub(super) fn make_room<'a>(&self, rooms: impl IntoIterator<Item = (&'a str, usize)>) {
        let mut destinations = self.locked();
        rooms.into_iter().for_each(|(destination, room)| destinations.make_room(destination, room));
        self.tell(&destinations);
    }

    /// Returns the number of changes that a flow's heads may have waited for, to be watched.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Reports the destinations' state in metrics and log lines, until it is dropped.
    pub(super) async fn report(self, metrics: DispatcherMetrics, store: Arc<dyn Store>, member: String) {
        let mut changes = self.changes();
        let mut told = Told { store, member, troubles: BTreeMap::new() };
        loop {
            let troubles = self.report_once(&metrics);
            let every = if troubles.is_empty() { QUIET_EVERY } else { REPORT_EVERY };
            told.tell(troubles, clock::now()).await;
            // It ends by a change or by its deadline.
            let _ = tokio::time::timeout(every, changes.changed()).await;
        }
    }

    /// Reports the present state, and returns the destinations that are in trouble.
    fn report_once(&self, metrics: &DispatcherMetrics) -> BTreeMap<String, TroubleTold> {
        let now = clock::now();
        let (troubles, news) = {
            let mut destinations = self.locked();
            for (name, closed) in destinations.states() {
                metrics.breaker_open.with_label_values(&[name]).set(i64::from(!closed));
            }
            let trouble = |TroubledDestination { destination, since, next_probe }: TroubledDestination<'_>| {
                (destination.to_owned(), TroubleTold { since, next_probe })
            };
            let troubles: BTreeMap<String, TroubleTold> = destinations.troubles().map(trouble).collect();
            (troubles, destinations.news(now))
        };
        for report in news {
            match report {
                DestinationReport::Trouble { destination, since, next_probe } => {
                    let held = metrics.blocked_lanes();
                    let for_seconds = now.since(since).as_secs();
                    let next_probe = next_probe.map(tracing::field::display);
                    tracing::warn!(
                        destination,
                        held,
                        for_seconds,
                        next_probe,
                        "destination is in trouble; its runs are held"
                    );
                }
                DestinationReport::Over { destination, since } => {
                    let for_seconds = now.since(since).as_secs();
                    tracing::warn!(destination, for_seconds, "destination serves again; its runs go on");
                }
            }
        }
        troubles
    }

    fn tell(&self, destinations: &Destinations) {
        self.changes.send_if_modified(|known| {
            let before = std::mem::replace(known, destinations.changes());
            before != *known
        });
    }

    fn locked(&self) -> MutexGuard<'_, Destinations> {
        self.destinations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
