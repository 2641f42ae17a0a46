//! Delivery reports on the runtime that waits for them. librdkafka writes to an eventfd when its queue of reports is no
//! longer empty, and a task reads them then: no thread polls, and nothing runs while no record is in flight.

#![expect(unsafe_code, reason = "rdkafka offers no safe access to the queue of a producer")]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::bindings;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rustix::event::{EventfdFlags, eventfd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A producer whose reports are read by a task of the runtime in which it was made.
pub(super) struct ReportingProducer<C: ProducerContext> {
    // Dropped in this order: librdkafka writes to the descriptor until the producer is gone.
    producer: Arc<BaseProducer<C>>,
    _bell: Bell,
}

impl<C: ProducerContext + 'static> ReportingProducer<C> {
    /// Starts to read the reports of this producer.
    ///
    /// # Errors
    ///
    /// The system has no further file descriptor.
    pub(super) fn new(producer: BaseProducer<C>) -> io::Result<Self> {
        // Rung once from the start: librdkafka rings for the first event of an empty queue only, and this one may hold
        // some already.
        let bell = Bell(Arc::new(eventfd(1, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?));
        let producer = Arc::new(producer);
        ReportQueue::of(&producer).ring_at(bell.0.as_fd());
        // SAFETY: a shared descriptor always has the same number, and stays open as long as it is shared.
        let rung = unsafe { AsyncFd::register_with_interest(bell.0.clone(), Interest::READABLE)? };
        tokio::spawn(read_reports(rung, Arc::downgrade(&producer)));
        Ok(Self { producer, _bell: bell })
    }

    /// Returns the producer.
    pub(super) fn get(&self) -> &BaseProducer<C> {
        &self.producer
    }
}

/// The descriptor that librdkafka writes to. It rings once more when it is dropped, which ends the task.
struct Bell(Arc<OwnedFd>);

impl Drop for Bell {
    fn drop(&mut self) {
        // A full counter rings, too.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

/// The queue of a producer's reports.
struct ReportQueue(*mut bindings::rd_kafka_queue_t);

impl ReportQueue {
    fn of<C: ProducerContext>(producer: &BaseProducer<C>) -> Self {
        // SAFETY: the client lives as long as the reference. The queue is counted, so it may live longer.
        Self(unsafe { bindings::rd_kafka_queue_get_main(producer.client().native_ptr()) })
    }

    fn ring_at(&self, bell: BorrowedFd<'_>) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: librdkafka copies the payload. It writes to the descriptor as long as the client exists, and whoever
        // holds the client holds the descriptor.
        unsafe {
            bindings::rd_kafka_queue_io_event_enable(self.0, bell.as_raw_fd(), one.as_ptr().cast(), one.len());
        }
    }

    fn is_empty(&self) -> bool {
        // SAFETY: the queue exists until it is released.
        unsafe { bindings::rd_kafka_queue_length(self.0) == 0 }
    }
}

impl Drop for ReportQueue {
    fn drop(&mut self) {
        // SAFETY: this releases the count that `rd_kafka_queue_get_main` has taken.
        unsafe { bindings::rd_kafka_queue_destroy(self.0) };
    }
}

/// Reads reports whenever the bell rings, until the producer is gone.
async fn read_reports<C: ProducerContext>(bell: AsyncFd<Arc<OwnedFd>>, producer: Weak<BaseProducer<C>>) {
    // An error means that the runtime ends.
    while let Ok(mut rung) = bell.readable().await {
        // Before the queue is read: what arrives afterwards rings again. The only error is that nothing has rung.
        let _ = rustix::io::read(&**bell.get_ref(), &mut [0; 8]);
        rung.clear_ready();
        let Some(producer) = producer.upgrade() else { return };
        let queue = ReportQueue::of(&producer);
        // Polled once even if it is empty: librdkafka rings no second time before that.
        loop {
            producer.poll(Duration::ZERO);
            if queue.is_empty() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::ClientConfig;
    use rdkafka::producer::DefaultProducerContext;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[tokio::test]
    async fn the_task_and_the_descriptor_go_with_their_producer() {
        let config = ClientConfig::new();
        let producer: BaseProducer<DefaultProducerContext> = config.create().expect("a client that reaches nothing");
        let producer = ReportingProducer::new(producer).expect("a descriptor");
        let descriptor = Arc::downgrade(&producer._bell.0);
        // Until the task has taken the first ring and waits for another.
        let rung = || poll(&mut [PollFd::new(&producer._bell.0, PollFlags::IN)], Some(&Timespec::default()));
        while rung().expect("a descriptor") > 0 || Arc::strong_count(&producer.producer) > 1 {
            tokio::task::yield_now().await;
        }
        drop(producer);
        let begun = Instant::now();
        while descriptor.upgrade().is_some() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the task holds the descriptor for ever");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
