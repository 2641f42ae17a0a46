//! Tests of the times at which the engine asks the store for waits that are over: exactly then, and hardly ever otherwise.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// Returns true if the steps ask the store for anything.
fn asks(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::Store(_) | Step::Look(_) | Step::AskFrontiers | Step::ReadAhead(_)))
}

fn asks_for_due(steps: &[Step]) -> bool {
    steps.iter().any(|step| matches!(step, Step::Store(StoreRequest::Write(StoreWrite::Due(_)))))
}

fn answer(next: Option<Timestamp>) -> Input {
    Input::Due { heads: Vec::new(), behind: Vec::new(), next, retried: false }
}

/// An engine at rest: it has asked once, and nothing waits.
fn at_rest() -> Bench {
    let mut bench = Bench::new(limits());
    let steps = bench.own(1, &[P]);
    assert!(asks_for_due(&steps), "the waits of a new partition are not known: {steps:?}");
    assert!(!asks(&bench.give(answer(None))));
    bench
}

impl Bench {
    /// Lets this time pass, with a wake-up whenever the engine wants one. Returns the times from the beginning at which it
    /// asked the store for something; each question is answered with `next`.
    fn asked_within(&mut self, time: Duration, next: Option<Timestamp>) -> Vec<Duration> {
        let begun = self.now;
        let end = begun.plus(time);
        let mut asked = Vec::new();
        while let Some(at) = self.engine.next_wakeup(self.now, &self.destinations).filter(|at| *at <= end) {
            self.now = at;
            if asks(&self.give(Input::Wakeup)) {
                asked.push(at.since(begun));
                self.give(answer(next));
            }
        }
        self.now = end;
        asked
    }

    /// Admits a run of this key, whose step waits until this time.
    fn waits(&mut self, key: &str, position: i64, until: Timestamp) {
        self.admit(vec![run_for(key, position, None)]);
        let steps = self.report(&format!("{key}-{position}"), StepReport::Wait { until, news_after: None });
        let steps = self.wrote(written(&steps), Changed::Written);
        assert!(!asks_for_due(&steps), "its time is known: {steps:?}");
    }
}

#[test]
fn an_engine_with_nothing_to_do_asks_for_nothing_but_a_look_every_half_minute() {
    let asked = at_rest().asked_within(100 * SECOND, None);
    assert_eq!(asked, [30 * SECOND, 60 * SECOND, 90 * SECOND]);
}

#[test]
fn the_end_of_a_wait_that_the_engine_has_written_is_asked_for_at_its_time() {
    let mut bench = at_rest();
    bench.waits("a", 1, NOW.plus(17 * SECOND));
    bench.waits("b", 2, NOW.plus(12 * SECOND));
    // The time in the answer counts as well as the one that was written meanwhile.
    assert_eq!(bench.asked_within(13 * SECOND, Some(NOW.plus(17 * SECOND))), [12 * SECOND]);
    assert_eq!(bench.asked_within(10 * SECOND, None), [4 * SECOND]);
}

#[test]
fn a_wait_that_is_written_while_the_store_is_asked_is_not_forgotten() {
    let mut bench = at_rest();
    assert!(asks_for_due(&bench.after_seconds(30)));
    bench.waits("a", 1, NOW.plus(35 * SECOND));
    bench.give(answer(None));
    assert_eq!(bench.asked_within(20 * SECOND, None), [5 * SECOND]);
}

#[test]
fn waits_that_end_one_after_the_other_are_asked_for_together() {
    let mut bench = at_rest();
    bench.now = NOW.plus(SECOND);
    let over = bench.now;
    let asked = bench.asked_within(SECOND, Some(over)).len();
    assert_eq!(asked, 0, "nothing is known to be over");
    bench.waits("a", 1, bench.now.plus(SECOND));
    let asked = bench.asked_within(2 * SECOND, Some(over));
    assert_eq!(asked.first(), Some(&SECOND));
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] == Duration::from_millis(100)), "{asked:?}");
}

#[test]
fn claims_that_are_given_back_after_a_lost_answer_are_looked_for_at_once() {
    let mut bench = at_rest();
    bench.now = NOW.plus(SECOND).plus(Duration::from_millis(30));
    let admission = Some(Admission::default());
    bench.give(Input::Admitted { partition: P, epoch: EPOCH, frontier: Offset(1), admission, retried: true });
    bench.found(P, Vec::new(), true);
    assert_eq!(bench.asked_within(SECOND, None), [Duration::from_millis(70)]);
}

#[test]
fn a_clock_that_is_set_back_stops_no_wait() {
    let mut bench = at_rest();
    bench.now = NOW.minus(3_600 * SECOND);
    assert!(asks_for_due(&bench.give(Input::Wakeup)));
}
