//! Retry loops: exponential backoff with jitter, up to a deadline or until the process stops.

use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Distribution of a pause below its upper limit. Without jitter, callers that failed together retry together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// Between nothing and the limit.
    Full,
    /// Between half of the limit and the limit, so that no caller retries at once.
    Equal,
}

/// Exponential backoff: the upper limit of a pause begins at `first`, doubles with each failure, and ends at `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The upper limit of the first pause.
    pub first: Duration,
    /// The upper limit of all pauses.
    pub max: Duration,
    /// The part of a pause that is random.
    pub jitter: Jitter,
}

impl Backoff {
    /// Returns the pause after `failures` failures in a row, which are at least 1. `random` is in 0..1.
    fn pause(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        let limit = self.first.saturating_mul(1 << doublings).min(self.max);
        match self.jitter {
            Jitter::Full => limit.mul_f64(random),
            Jitter::Equal => limit / 2 + (limit / 2).mul_f64(random),
        }
    }
}

/// The end of a retry loop that does not succeed.
#[derive(Debug, Clone, Copy)]
pub enum RetryLimit<'a> {
    /// No try begins after this instant. The last pause is shortened, so that one try begins at it.
    Deadline(Instant),
    /// No try begins, and a pause ends, once the token is cancelled. A try that has begun is finished.
    Stop(&'a CancellationToken),
}

impl RetryLimit<'_> {
    /// Waits for `pause`. Returns false if no further try may begin.
    async fn wait(&self, pause: Duration) -> bool {
        match self {
            Self::Deadline(deadline) => {
                let now = Instant::now();
                let left = deadline.saturating_duration_since(now);
                tokio::time::sleep(pause.min(left)).await;
                !left.is_zero()
            }
            Self::Stop(stop) => stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some(),
        }
    }
}

/// Calls `attempt` until it breaks, and pauses after each call that continues. At least one call is made.
///
/// # Errors
///
/// The limit is reached. The error is the one with which the last call continued.
pub async fn retry<T, E, F: Future<Output = ControlFlow<T, E>>>(
    backoff: Backoff,
    limit: RetryLimit<'_>,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E> {
    let mut failures: u32 = 0;
    loop {
        let error = match attempt().await {
            ControlFlow::Break(done) => return Ok(done),
            ControlFlow::Continue(error) => error,
        };
        failures = failures.saturating_add(1);
        if !limit.wait(backoff.pause(failures, rand::random())).await {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BACKOFF: Backoff = Backoff { first: SECOND, max: Duration::from_secs(10), jitter: Jitter::Equal };

    /// Runs a loop whose tries all fail. Returns the times of the tries, counted from the first, and the last error.
    async fn failing(limit: RetryLimit<'_>, backoff: Backoff) -> (Vec<Duration>, Result<(), usize>) {
        let begun = Instant::now();
        let mut tries = Vec::new();
        let result = retry(backoff, limit, || {
            tries.push(begun.elapsed());
            std::future::ready(ControlFlow::<(), usize>::Continue(tries.len()))
        })
        .await;
        (tries, result)
    }

    #[test]
    fn the_limit_of_a_pause_doubles_up_to_the_cap_and_jitter_stays_below_it() {
        let seconds = |backoff: Backoff, random| -> Vec<f64> {
            (1..=6).map(|failures| backoff.pause(failures, random).as_secs_f64()).collect()
        };
        let full = Backoff { jitter: Jitter::Full, ..BACKOFF };
        assert_eq!(seconds(full, 0.0), [0.0; 6]);
        assert_eq!(seconds(full, 0.5), [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]);
        assert_eq!(seconds(BACKOFF, 0.0), [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]);
        assert_eq!(seconds(BACKOFF, 0.5), [0.75, 1.5, 3.0, 6.0, 7.5, 7.5]);
        assert_eq!(BACKOFF.pause(u32::MAX, 0.0), 5 * SECOND);
        let longest = Backoff { first: Duration::MAX, max: Duration::MAX, jitter: Jitter::Equal };
        assert_eq!(longest.pause(u32::MAX, 0.0), Duration::MAX / 2, "nothing overflows");
    }

    #[tokio::test(start_paused = true)]
    async fn tries_are_made_until_one_breaks() {
        let stop = CancellationToken::new();
        let begun = Instant::now();
        let mut tries = 0;
        let result = retry(BACKOFF, RetryLimit::Stop(&stop), || {
            tries += 1;
            let result = if tries < 4 { ControlFlow::Continue("failed") } else { ControlFlow::Break(tries) };
            std::future::ready(result)
        })
        .await;
        assert_eq!(result, Ok(4));
        let took = begun.elapsed();
        assert!(took >= SECOND * 7 / 2 && took <= 7 * SECOND + SECOND / 10, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_try_begins_at_the_deadline_and_its_error_is_returned() {
        let deadline = Instant::now() + 20 * SECOND;
        let (tries, result) = failing(RetryLimit::Deadline(deadline), BACKOFF).await;
        assert_eq!(result, Err(tries.len()));
        let last = *tries.last().expect("a try");
        assert!(last >= 20 * SECOND && last <= 20 * SECOND + SECOND / 10, "{tries:?}");
        assert!(tries[tries.len() - 2] < 20 * SECOND, "{tries:?}");
        assert_eq!(Instant::now() - deadline, last - 20 * SECOND, "no pause follows it");

        let (tries, result) = failing(RetryLimit::Deadline(Instant::now()), BACKOFF).await;
        assert_eq!((tries.len(), result), (1, Err(1)), "one try is always made");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_a_pause_and_finishes_a_try() {
        let begun = Instant::now();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(100 * SECOND).await;
            stopped.cancel();
        });
        let (tries, result) = failing(RetryLimit::Stop(&stop), BACKOFF).await;
        assert_eq!(result, Err(tries.len()));
        let took = begun.elapsed();
        assert!(took >= 100 * SECOND && took < 101 * SECOND, "{took:?}");

        let slow = || async {
            tokio::time::sleep(SECOND).await;
            ControlFlow::<(), &str>::Continue("finished")
        };
        let begun = Instant::now();
        assert_eq!(retry(BACKOFF, RetryLimit::Stop(&stop), slow).await, Err("finished"));
        assert!(begun.elapsed() >= SECOND && begun.elapsed() < SECOND * 11 / 10, "it does not pause then");
    }
}
