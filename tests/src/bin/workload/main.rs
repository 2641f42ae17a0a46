//! One of the works that every event causes, done a given number of times in one thread: `workload NAME TIMES`. Prints the
//! allocations and the allocated bytes of all of them. `tests/work.rs` runs it, also below valgrind, which counts the
//! instructions of [`measured`] alone.
#![allow(clippy::unwrap_used)]

mod allocator;
mod engine;
mod event;
mod request;
mod samples;
mod webhook;

use allocator::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// A piece of work. Its inputs were made before; each call consumes one.
type Work = Box<dyn FnMut()>;

/// Returns work of this name that can be done so many times.
fn prepare(name: &str, times: usize) -> Option<Work> {
    Some(match name {
        "webhook" => webhook::work(times),
        "event" => event::work(times),
        "engine" => engine::work(times),
        "http" => request::work(request::HTTP, times),
        "mail" => request::work(request::MAIL, times),
        _ => return None,
    })
}

/// Does the work. Valgrind finds this function by its name, so it stays a function of its own.
#[inline(never)]
fn measured(work: &mut dyn FnMut(), times: usize) {
    for _ in 0..times {
        work();
    }
}

#[expect(clippy::print_stdout, reason = "the counts are the result of this program")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, times] = &arguments[..] else { panic!("usage: workload NAME TIMES") };
    let times: usize = times.parse().expect("a number");
    let mut work = prepare(name, times + 1).expect("webhook, event, engine, http or mail");
    // The first time makes what is kept for all further ones.
    work();
    let before = ALLOCATOR.allocated();
    measured(&mut *work, times);
    let after = ALLOCATOR.allocated();
    println!("{} {}", after.allocations - before.allocations, after.bytes - before.bytes);
    // What an exit would clean up is no part of the work, and takes long below valgrind.
    std::process::exit(0);
}
