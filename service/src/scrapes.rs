//! Metrics that are brought up to date when they are read, because finding them out costs something.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

/// Longest time for which a reader of the metrics waits for values that are newer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Announces reads of the metrics to those who bring some of them up to date. Clones share the subscribers.
#[derive(Debug, Clone, Default)]
pub struct Scrapes(Arc<Mutex<Vec<mpsc::UnboundedSender<Scrape>>>>);

/// A read of the metrics. The reader waits until it is dropped, but at most a second.
#[derive(Debug)]
pub struct Scrape {
    _done: oneshot::Sender<()>,
}

/// The reads that are announced to one subscriber.
#[derive(Debug)]
pub struct ScrapeQueue(mpsc::UnboundedReceiver<Scrape>);

impl ScrapeQueue {
    /// Returns the next read; `None` if nothing can announce one any more.
    pub async fn next(&mut self) -> Option<Scrape> {
        self.0.recv().await
    }
}

impl Scrapes {
    /// Subscribes to the reads from now on.
    pub fn subscribe(&self) -> ScrapeQueue {
        let (subscriber, reads) = mpsc::unbounded_channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(subscriber);
        ScrapeQueue(reads)
    }

    /// Announces a read, and waits until the subscribers are done with it, or a second has passed: then the metrics are those
    /// of an earlier read.
    pub async fn announce(&self) {
        let mut pending = Vec::new();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|subscriber| {
            let (done, is_done) = oneshot::channel();
            pending.push(is_done);
            subscriber.send(Scrape { _done: done }).is_ok()
        });
        let all_done = async {
            for done in pending {
                // A scrape that is dropped is done, which the receiver reports as an error.
                let _ = done.await;
            }
        };
        // Later than that, the metrics are those of an earlier read.
        let _ = tokio::time::timeout(PATIENCE, all_done).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_for_the_subscribers_and_not_for_ever() {
        let scrapes = Scrapes::default();
        scrapes.announce().await;
        let mut reads = scrapes.subscribe();
        let announcer = scrapes.clone();
        let announced = tokio::spawn(async move { announcer.announce().await });
        let read = reads.next().await.expect("it is announced");
        assert!(!announced.is_finished());
        let begun = tokio::time::Instant::now();
        drop(read);
        announced.await.expect("no panic");
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let begun = tokio::time::Instant::now();
        scrapes.announce().await;
        assert_eq!(begun.elapsed(), PATIENCE);
        drop(reads);
        let begun = tokio::time::Instant::now();
        scrapes.announce().await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "a subscriber that has gone is not waited for");
    }
}
