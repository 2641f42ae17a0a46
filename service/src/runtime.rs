//! The runtime that a program's tasks share.

use std::process::ExitCode;

use crate::exit;

/// Runs a program to its end.
///
/// Half of the cores serve its tasks, one at least. The others are for what serves the program: librdkafka's threads, the
/// store's, and mostly the database and the broker beside it. With a thread for each core, tasks wake one another across
/// threads more often than they find work.
pub fn run(program: impl Future<Output = ExitCode>) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match tokio::runtime::Builder::new_multi_thread().worker_threads(cores.div_ceil(2)).enable_all().build() {
        Ok(runtime) => runtime.block_on(program),
        Err(error) => exit::report(&error),
    }
}
