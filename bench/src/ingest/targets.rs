//! The targets of the ingest.

use super::arms::IngestArm;
use super::case_name;
use crate::report::{Bound, Sample, TargetRow, Values};

/// The parts that every ingest has.
const FLOORS: [IngestArm; 4] = [IngestArm::Hello, IngestArm::Signatures, IngestArm::Keys, IngestArm::Producer];

/// Returns the rows of these samples.
pub(super) fn rows(samples: &[Sample]) -> Vec<TargetRow> {
    let usher = IngestArm::Usher.name();
    let naive = IngestArm::Naive.name();
    let node = IngestArm::Node.name();
    let embedded = IngestArm::Embedded.name();
    let mut rows = Vec::new();
    for (connections, least) in [(64, 1.2), (512, 1.0)] {
        let case = case_name(connections);
        let values = Values::of(samples, &case);
        let command = format!("just bench ingest --connections {connections}");
        let mut row = |measure: String, target: Bound, values: Vec<f64>| {
            rows.push(TargetRow { measure, target, values, command: command.clone() });
        };
        let with = format!("at {connections} connections");
        row(
            format!("ingest / naive, requests/s {with}"),
            Bound::AtLeast(least),
            values.ratio(usher, naive, Sample::rate),
        );
        row(
            format!("ingest / naive, CPU an event {with}"),
            Bound::AtMost(0.9),
            values.ratio(usher, naive, Sample::cpu),
        );
        let arms: Vec<&str> = std::iter::once(usher).chain(FLOORS.map(IngestArm::name)).collect();
        let by_floors = values.rounds(&arms, |of| match of {
            [usher, floors @ ..] => usher.cpu() / floors.iter().map(|floor| floor.cpu()).sum::<f64>(),
            [] => f64::NAN,
        });
        row(format!("ingest / sum of limits, CPU an event {with}"), Bound::AtMost(1.4), by_floors);
        row(
            format!("Node / ingest, CPU an event {with}"),
            Bound::AtLeast(15.0),
            values.ratio(node, usher, Sample::cpu),
        );
        let rate = values.each(embedded, Sample::rate);
        row(format!("embedded ingest, requests/s {with}"), Bound::AtLeast(15_000.0), rate);
        let cpu = values.each(embedded, Sample::cpu);
        row(format!("embedded ingest, us of CPU an event {with}"), Bound::AtMost(70.0), cpu);
    }
    rows
}
