//! The targets of the dispatcher.

use super::{bare_sql, built_in, floor, parallel_consumer, restate, upserts, usher};
use crate::report::{Bound, Sample, TargetRow, Values};

const HTTP: &str = "dispatcher, http step, 0 ms";
const HTTP_10_MS: &str = "dispatcher, http step, 10 ms";
const MAIL: &str = "dispatcher, mail step, 0 ms";
const BUILT_IN: &str = "dispatcher, built-in step, 0 ms";
const DATABASE: &str = "dispatcher, database step, 0 ms";

/// Returns the rows of these samples.
pub(super) fn rows(samples: &[Sample]) -> Vec<TargetRow> {
    let usher = usher::KAFKA;
    let [(parallel_consumer, _), _] = parallel_consumer::ARMS;
    let mut rows = Vec::new();
    let mut row = |measure: &str, target: Bound, values: Vec<f64>, command: &str| {
        let measure = measure.to_owned();
        let command = format!("just bench {command}");
        rows.push(TargetRow { measure, target, values, command });
    };
    let http = Values::of(samples, HTTP);
    let plain = "dispatcher";
    let rate = http.ratio(usher, parallel_consumer, Sample::rate);
    row("http step / Parallel Consumer KEY 100, events/s", Bound::AtLeast(1.5), rate, plain);
    let cpu = http.ratio(parallel_consumer, usher, Sample::cpu);
    row("Parallel Consumer KEY 100 / http step, CPU an event", Bound::AtLeast(1.7), cpu, plain);
    let memory = http.ratio(parallel_consumer, usher, Sample::memory);
    row("Parallel Consumer KEY 100 / http step, memory", Bound::AtLeast(3.0), memory, plain);
    let pooled = http.ratio(usher::POOLED, usher, Sample::rate);
    row("http step behind PgBouncer / without, events/s", Bound::AtLeast(0.7), pooled, plain);
    let by_floor = http.ratio(usher, floor::POSTGRES, Sample::rate);
    row("http step / floor, events/s", Bound::AtLeast(0.6), by_floor, plain);
    let by_restate = http.ratio(usher, restate::NAME, Sample::rate);
    row("http step / Restate, events/s", Bound::AtLeast(12.0), by_restate, plain);
    let memory = http.ratio(restate::NAME, usher, Sample::memory);
    row("Restate with SDK / http step, memory", Bound::AtLeast(5.0), memory, plain);
    let embedded = http.each(usher::EMBEDDED, Sample::rate);
    row("embedded pair, events/s", Bound::AtLeast(4_000.0), embedded, plain);
    let by_sqlite = http.ratio(usher::EMBEDDED, floor::SQLITE, Sample::rate);
    row("embedded pair / floor on SQLite, events/s", Bound::AtLeast(0.7), by_sqlite, plain);
    for (values, step, command) in
        [(&http, "http", plain), (&Values::of(samples, MAIL), "mail", "dispatcher --step mail")]
    {
        let postgres = values.ratio(usher, bare_sql::NAME, |sample| sample.cpu_of("Postgres"));
        let measure = format!("{step} step / bare SQL, Postgres' CPU an event");
        row(&measure, Bound::AtMost(5.0), postgres, command);
    }
    let mail = Values::of(samples, MAIL).ratio(usher, floor::POSTGRES, Sample::rate);
    row("mail step / floor with mails, events/s", Bound::AtLeast(0.9), mail, "dispatcher --step mail");
    let slow = Values::of(samples, HTTP_10_MS).ratio(usher, parallel_consumer, Sample::rate);
    let measure = "http step with a receiver of 10 ms / Parallel Consumer KEY 100, events/s";
    row(measure, Bound::AtLeast(1.0), slow, "dispatcher --delay 10");
    let all = Values::of(samples, BUILT_IN).ratio(built_in::ALL, built_in::ONE, Sample::rate);
    row("all eight built-in flows / one, effects/s", Bound::AtLeast(1.0), all, "dispatcher --step built-in");
    let database = Values::of(samples, DATABASE).ratio(usher, upserts::NAME, Sample::rate);
    row(
        "database step / one upsert with its own commit, rows/s",
        Bound::AtLeast(1.0),
        database,
        "dispatcher --step database",
    );
    rows
}
