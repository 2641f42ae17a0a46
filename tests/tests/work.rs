//! The work that each event causes in a process, counted: allocations and instructions. Neither depends on how fast a machine
//! is or on what else it does. The program `workload` does the work; valgrind counts its instructions.
//!
//! Instructions are those of the build that tests use, which is not optimised but for the engine: an optimised build of all that
//! the works need takes minutes. They change with the compiler and with dependencies, and by a few percent from run to run,
//! because hashes are seeded at random.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use usher_tests::backend::log_once;
use usher_tests::needs;

/// One kind of work and its figures when they were recorded, for each time.
struct Recorded {
    /// Name of the work: an argument of `workload`.
    name: &'static str,
    allocations: u64,
    allocated_bytes: u64,
    /// Instructions by architecture, as Rust names it.
    instructions: &'static [(&'static str, u64)],
}

const RECORDED: [Recorded; 5] = [
    // A request through ingest, to the record that is appended, and its answer.
    Recorded { name: "webhook", allocations: 51, allocated_bytes: 8_060, instructions: &[("x86_64", 2_330_707)] },
    // An event from its record.
    Recorded { name: "event", allocations: 10, allocated_bytes: 422, instructions: &[("x86_64", 50_448)] },
    // A batch of 32 runs through the engine, from reading to their ends.
    Recorded { name: "engine", allocations: 1116, allocated_bytes: 219_445, instructions: &[("x86_64", 1_712_605)] },
    // The request of an `http.post` step, from its run.
    Recorded { name: "http", allocations: 92, allocated_bytes: 30_783, instructions: &[("x86_64", 1_766_019)] },
    // The same of a `resend.send` step with three templates.
    Recorded { name: "mail", allocations: 290, allocated_bytes: 89_348, instructions: &[("x86_64", 7_051_807)] },
];

/// Times that a work is done. So many that what happens now and then, such as the growth of a table, has its share.
const TIMES: u64 = 50;
/// Part of a recorded figure by which it may be exceeded.
const SLACK: f64 = 0.1;

/// Returns the output of a program that has succeeded.
fn succeeded(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

const WORKLOAD: &str = env!("CARGO_BIN_EXE_workload");

/// Returns the allocations and the allocated bytes of each time.
fn allocated(name: &str) -> [u64; 2] {
    let output = succeeded(Command::new(WORKLOAD).args([name, &TIMES.to_string()]));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut counts = text.split_whitespace().map(|count| count.parse::<u64>().unwrap().div_ceil(TIMES));
    [counts.next().unwrap(), counts.next().unwrap()]
}

/// Returns the instructions of each time.
fn instructions(name: &str) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("counts");
    succeeded(
        Command::new("valgrind")
            .args(["--tool=callgrind", "--toggle-collect=workload::measured*"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .args([WORKLOAD, name, &TIMES.to_string()]),
    );
    let counts = std::fs::read_to_string(file).unwrap();
    let total = counts.lines().find_map(|line| line.strip_prefix("totals: ")).expect("callgrind writes a total");
    total.trim().parse::<u64>().unwrap().div_ceil(TIMES)
}

/// Returns a complaint if a figure has exceeded its record by more than the slack, or is none.
fn complaint(work: &str, what: &str, seen: u64, recorded: u64) -> Option<String> {
    let most = (recorded as f64 * (1.0 + SLACK)).floor() as u64;
    log_once(&format!("work: {work}: {seen} {what}, {most} at most"));
    assert!(seen > 0, "{work}: nothing was counted");
    (seen > most).then(|| format!("{work}: {seen} {what} each time, {recorded} when they were recorded"))
}

/// Fails with all complaints, and with what is to be done.
fn check(complaints: Vec<String>) {
    assert!(
        complaints.is_empty(),
        "{complaints:#?}\n\
         Each event causes more work than before. If that is worth it, or a new compiler or dependency is the cause, write the \
         figures seen into RECORDED in {}, and the reason into the commit.",
        file!()
    );
}

#[test]
fn an_event_allocates_no_more_memory_than_recorded() {
    let mut complaints = Vec::new();
    for Recorded { name, allocations, allocated_bytes, .. } in RECORDED {
        let [seen, bytes] = allocated(name);
        complaints.extend(complaint(name, "allocations", seen, allocations));
        complaints.extend(complaint(name, "allocated bytes", bytes, allocated_bytes));
    }
    check(complaints);
}

#[needs(valgrind)]
#[test]
fn an_event_takes_no_more_instructions_than_recorded() {
    let architecture = std::env::consts::ARCH;
    let mut complaints = Vec::new();
    for work in RECORDED {
        let seen = instructions(work.name);
        let recorded = work.instructions.iter().find(|(name, _)| *name == architecture);
        let (_, recorded) = recorded.unwrap_or_else(|| {
            panic!("{}: no figure is recorded for {architecture}: write {seen} into {}", work.name, file!())
        });
        complaints.extend(complaint(work.name, "instructions", seen, *recorded));
    }
    check(complaints);
}
