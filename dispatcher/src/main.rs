//! The service `dispatcher`.

use std::process::ExitCode;

/// An event takes hundreds of small allocations, many of them freed by another thread, which glibc's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    usher_service::runtime::run(usher_dispatcher::program())
}
