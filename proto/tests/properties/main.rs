//! Properties that hold for every input, checked with random ones: round trips, invariants, and agreement with models
//! that are simpler than the code.

mod addresses;
mod json;
mod records;
mod shape;
mod signed;
mod times;

use proptest::test_runner::Config;

/// Number of random inputs of each property. A failing input is printed, and not stored in a file.
fn cases(number: u32) -> Config {
    Config { failure_persistence: None, ..Config::with_cases(number) }
}
