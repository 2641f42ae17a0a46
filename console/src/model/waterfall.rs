//! The attempts of an event's runs as bars on a scale of time: the logarithm of the time since the first run was admitted, so that
//! an attempt of milliseconds and a wait of days are both seen. The shape of a bar tells what it is, not only its colour.

use usher_proto::Timestamp;

use super::{RunDetail, RunStep};

/// Length in milliseconds up to which the scale is about linear.
const LINEAR_MS: f64 = 10.0;
/// Smallest distance between two marks of the scale, and from its end, in per cent.
const APART: f64 = 8.0;
/// Smallest distance of the first mark from the begin, which has a word of its own.
const FIRST: f64 = 24.0;
/// Smallest width of a bar, in per cent.
const THIN: f64 = 0.7;
/// Marks of the scale: milliseconds, and their name.
const MARKS: [(i64, &str); 11] = [
    (10, "10 ms"),
    (100, "100 ms"),
    (1_000, "1 s"),
    (10_000, "10 s"),
    (60_000, "1 min"),
    (600_000, "10 min"),
    (3_600_000, "1 h"),
    (21_600_000, "6 h"),
    (86_400_000, "1 day"),
    (864_000_000, "10 days"),
    (8_640_000_000, "100 days"),
];

/// The kind of a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BarKind {
    /// An attempt that succeeded: filled.
    Done,
    /// An attempt that failed: hollow, with a stroke through it.
    Failed,
    /// The time until the next attempt: hatched.
    Hold,
    /// A wait of the flow, or in the queue: dotted.
    Wait,
}

/// A bar, in per cent of the scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct WaterfallBar {
    pub(crate) kind: BarKind,
    pub(crate) x: f64,
    pub(crate) width: f64,
}

/// The scale of an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waterfall {
    from: Timestamp,
    /// Length in milliseconds.
    length: f64,
    now: Option<Timestamp>,
}

impl Waterfall {
    /// Returns the scale of these runs. `now` is marked if one of them has not ended.
    pub(crate) fn new(runs: &[RunDetail], now: Timestamp) -> Self {
        let from = runs.iter().map(|run| run.admitted_at.at()).min().unwrap_or(now);
        let is_open = runs.iter().any(RunDetail::is_open);
        let ends = runs.iter().flat_map(|run| {
            let steps = run.steps.iter().flat_map(|step| {
                let attempts = step.attempts.iter().map(|attempt| end(attempt.at.at(), attempt.took_ms));
                attempts.chain(step.at.map(|at| at.at()))
            });
            steps.chain(run.ended_at.map(|at| at.at())).chain(run.due_at.filter(|_| run.is_open()).map(|at| at.at()))
        });
        let last = ends.chain(is_open.then_some(now)).max().unwrap_or(from);
        let length = (last.millis() - from.millis()).max(100);
        #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
        let length = length as f64;
        Self { from, length, now: is_open.then_some(now) }
    }

    /// Returns the place of a time, from 0 to 100.
    fn place(&self, at: Timestamp) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
        let ms = (at.millis() - self.from.millis()).max(0) as f64;
        let scale = |ms: f64| (ms / LINEAR_MS).ln_1p();
        (100.0 * scale(ms) / scale(self.length)).clamp(0.0, 100.0)
    }

    fn bar(&self, kind: BarKind, from: Timestamp, to: Timestamp) -> WaterfallBar {
        let x = self.place(from).min(100.0 - THIN);
        WaterfallBar { kind, x, width: (self.place(to) - x).max(THIN) }
    }

    /// Returns the bars of a step, in their order.
    pub(crate) fn bars(&self, run: &RunDetail, step: &RunStep) -> Vec<WaterfallBar> {
        let mut bars = Vec::new();
        let attempts: Vec<_> = step.attempts.iter().filter(|attempt| attempt.number > 0).collect();
        for (at, attempt) in attempts.iter().enumerate() {
            let over = end(attempt.at.at(), attempt.took_ms);
            // What something newer has overtaken was not needed any more.
            let is_good = matches!(attempt.outcome.as_str(), "done" | "overtaken");
            let kind = if is_good { BarKind::Done } else { BarKind::Failed };
            let next = attempts.get(at + 1).map(|next| next.at.at());
            // Also beyond its time the step is held: its destination may not serve, or its turn has not come.
            let held = || attempt.next_at.map(|at| at.at()).max(self.now);
            let pending = if run.is_open() && step.state == "now" { held() } else { None };
            if let Some(until) = next.or(pending)
                && kind == BarKind::Failed
                && until > over
            {
                bars.push(self.bar(BarKind::Hold, over, until));
            }
            bars.push(self.bar(kind, attempt.at.at(), over));
        }
        match (step.at, step.state) {
            // An effect without a recorded attempt.
            (Some(at), _) if attempts.is_empty() => bars.push(self.bar(BarKind::Done, at.at(), at.at())),
            (None, "now") if attempts.is_empty() => {
                let from = self.last_before(run, step);
                let until = run.due_at.map(|at| at.at()).or(self.now).unwrap_or(from);
                bars.push(self.bar(BarKind::Wait, from, until));
            }
            _ => {}
        }
        bars
    }

    /// Returns the time of the last thing that earlier steps have done.
    fn last_before(&self, run: &RunDetail, step: &RunStep) -> Timestamp {
        let earlier = run.steps.iter().take_while(|other| other.name != step.name);
        let times = earlier.flat_map(|step| {
            let attempts = step.attempts.iter().map(|attempt| end(attempt.at.at(), attempt.took_ms));
            attempts.chain(step.at.map(|at| at.at()))
        });
        times.max().unwrap_or(run.admitted_at.at())
    }

    /// Returns the marks of the scale: place and name.
    pub(crate) fn marks(&self) -> Vec<(f64, &'static str)> {
        let mut marks: Vec<(f64, &'static str)> = Vec::new();
        for (ms, name) in MARKS {
            let place = self.place(Timestamp::from_millis(self.from.millis() + ms));
            if place < 100.0 - APART && marks.last().is_none_or(|(last, _)| place - last >= APART) && place >= FIRST {
                marks.push((place, name));
            }
        }
        marks
    }

    /// Returns the place of now; `None` if every run has ended.
    pub(crate) fn now(&self) -> Option<f64> {
        self.now.map(|now| self.place(now))
    }
}

fn end(at: Timestamp, took_ms: u64) -> Timestamp {
    Timestamp::from_millis(at.millis().saturating_add(i64::try_from(took_ms).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::super::Moment;
    use super::super::runs::StepAttempt;
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);

    fn moment(ms: i64) -> Moment {
        Moment::new(Timestamp::from_millis(900_000 + ms), NOW)
    }

    fn attempt(number: i64, ms: i64, took_ms: u64, outcome: &str, next: Option<i64>) -> StepAttempt {
        StepAttempt {
            number,
            at: moment(ms),
            took_ms,
            outcome: outcome.to_owned(),
            answer: String::new(),
            message: None,
            next_at: next.map(moment),
        }
    }

    fn run(steps: Vec<RunStep>, open: bool) -> RunDetail {
        RunDetail {
            ending: None,
            flow: "email".to_owned(),
            version: String::new(),
            state: if open { "parked" } else { "done" }.to_owned(),
            blocker: None,
            reason: None,
            error: None,
            note: None,
            attempts: 0,
            deaths: 0,
            destination: None,
            failed_at: None,
            due_at: None,
            admitted_at: moment(0),
            ended_at: (!open).then(|| moment(20_000)),
            steps,
            request: None,
            actions: Vec::new(),
        }
    }

    fn step(name: &str, state: &'static str, attempts: Vec<StepAttempt>) -> RunStep {
        RunStep { name: name.to_owned(), action: String::new(), state, effect: None, at: None, attempts }
    }

    #[test]
    fn between_attempts_the_step_is_held_and_bars_follow_each_other() {
        let attempts = vec![attempt(1, 100, 50, "later", Some(1_000)), attempt(2, 1_100, 40, "done", None)];
        let run = run(vec![step("welcome", "done", attempts)], false);
        let scale = Waterfall::new(std::slice::from_ref(&run), NOW);
        let bars = scale.bars(&run, &run.steps[0]);
        let kinds: Vec<BarKind> = bars.iter().map(|bar| bar.kind).collect();
        assert_eq!(kinds, [BarKind::Hold, BarKind::Failed, BarKind::Done]);
        let (hold, failed, done) = (bars[0], bars[1], bars[2]);
        assert!(failed.x < hold.x && hold.x < done.x, "{bars:?}");
        assert!((hold.x + hold.width - done.x).abs() < 0.1, "the hold ends where the next attempt begins: {bars:?}");
        assert!(bars.iter().all(|bar| bar.x >= 0.0 && bar.x + bar.width <= 100.01), "{bars:?}");
        assert_eq!(scale.now(), None, "it has ended");
        assert!(scale.marks().iter().any(|(_, name)| *name == "1 s"), "{:?}", scale.marks());
    }

    #[test]
    fn what_has_not_begun_is_dotted_until_now_and_a_failed_attempt_is_held_until_the_next() {
        let held = attempt(1, 0, 10, "later", Some(200_000));
        let mut open = run(vec![step("one", "now", vec![held])], true);
        open.due_at = Some(moment(200_000));
        let scale = Waterfall::new(std::slice::from_ref(&open), NOW);
        let kinds: Vec<BarKind> = scale.bars(&open, &open.steps[0]).iter().map(|bar| bar.kind).collect();
        assert_eq!(kinds, [BarKind::Hold, BarKind::Failed]);
        assert!(scale.now().is_some_and(|now| now > 50.0 && now < 100.0), "{:?}", scale.now());
        let queued = run(vec![step("one", "now", Vec::new()), step("two", "later", Vec::new())], true);
        let scale = Waterfall::new(std::slice::from_ref(&queued), NOW);
        assert_eq!(scale.bars(&queued, &queued.steps[0])[0].kind, BarKind::Wait);
        assert!(scale.bars(&queued, &queued.steps[1]).is_empty());
    }
}
