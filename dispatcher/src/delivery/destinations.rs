//! The one owner of the destinations' state: the flows' engines ask it, and it tells the flows, the operator and the
//! metrics of changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use usher_engine::{DestinationReport, Destinations, Engine, Input, Step};
use usher_proto::Timestamp;
use usher_service::clock;

use crate::metrics::DispatcherMetrics;

/// Interval of the reports while a destination is in trouble, if no change causes one earlier.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// The same while none is.
const QUIET_EVERY: Duration = Duration::from_secs(10);

/// The state of all destinations of a process. Shared, because the health of a destination is the same for every flow
/// that uses it. The lock is held for one decision at a time, and only here.
#[derive(Clone)]
pub(super) struct SharedDestinations {
    destinations: Arc<Mutex<Destinations>>,
    changes: watch::Sender<u64>,
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
    pub(super) async fn report(self, metrics: DispatcherMetrics) {
        let mut changes = self.changes();
        loop {
            let every = if self.report_once(&metrics) { REPORT_EVERY } else { QUIET_EVERY };
            // It ends by a change or by its deadline.
            let _ = tokio::time::timeout(every, changes.changed()).await;
        }
    }

    /// Reports the present state. Returns true if a destination is in trouble.
    fn report_once(&self, metrics: &DispatcherMetrics) -> bool {
        let now = clock::now();
        let mut trouble = false;
        let news = {
            let mut destinations = self.locked();
            for (name, closed) in destinations.states() {
                metrics.breaker_open.with_label_values(&[name]).set(i64::from(!closed));
                trouble |= !closed;
            }
            destinations.news(now)
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
        trouble
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
