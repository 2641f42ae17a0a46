//! The command `usher`: runs everything on one machine, and has the operator's tools. Each subcommand has its own file.

mod data;
mod output;

mod bulk;
mod check;
mod completions;
mod console;
mod dead_letter;
mod dlq;
mod flows;
mod follow;
mod health;
mod init;
mod lab;
mod listen;
mod move_runs;
mod orders;
mod pause;
mod repair;
mod replay;
mod runs;
mod seek;
mod send;
mod status;
mod suppress;
mod table;
mod up;
mod values;

use std::process::ExitCode;

use usher_service::options::{self, Environment};
use usher_service::{exit, files, runtime};

/// Carries Clerk's webhooks to email, billing, databases and other destinations.
#[derive(Debug, clap::Parser)]
#[command(name = "usher", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Up(up::UpArguments),
    Send(send::SendArguments),
    Check(check::CheckArguments),
    Init(init::InitArguments),
    Flows(flows::FlowsArguments),
    Status(status::StatusArguments),
    Runs(runs::RunsArguments),
    Listen(listen::ListenArguments),
    Dlq(dlq::DlqArguments),
    /// Stops a flow from starting new steps until it is resumed. Webhooks are stored meanwhile.
    Pause(pause::PauseArguments),
    /// Resumes a paused flow.
    Resume(pause::PauseArguments),
    Cancel(orders::Cancel),
    Wake(orders::Wake),
    Rerun(orders::Rerun),
    Replay(replay::ReplayArguments),
    Suppress(suppress::SuppressArguments),
    Seek(seek::Seek),
    Move(seek::Move),
    Repair(repair::RepairArguments),
    Console(console::ConsoleArguments),
    Lab(lab::LabArguments),
    Health(health::HealthArguments),
    Completions(completions::CompletionsArguments),
    Man(completions::ManArguments),
}

/// An event takes hundreds of small allocations, many of them freed by another thread, which glibc's allocator does slowly.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One file is the services, too, if it is called by their names: an image or a package then needs only one.
fn main() -> ExitCode {
    match options::program_name().as_deref() {
        Some("usher-ingest") => runtime::run(usher_ingest::program()),
        Some("usher-dispatcher") => runtime::run(usher_dispatcher::program()),
        _ => runtime::run(program()),
    }
}

async fn program() -> ExitCode {
    files::private_by_default();
    let environment = Environment::from_process();
    let Arguments { command } = match options::parse(&environment) {
        Ok(arguments) => arguments,
        Err(code) => return code.into(),
    };
    let result = match command {
        Command::Status(arguments) => match status::run(arguments, &environment).await {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Up(arguments) => up::run(arguments, environment).await,
        Command::Send(arguments) => send::run(arguments, &environment).await,
        Command::Check(arguments) => check::run(&arguments, &environment).await,
        Command::Init(arguments) => init::run(&arguments),
        Command::Flows(arguments) => flows::run(&arguments, &environment),
        Command::Runs(arguments) => runs::run(arguments).await,
        Command::Listen(arguments) => listen::run(arguments, &environment).await,
        Command::Dlq(arguments) => dlq::run(arguments, &environment).await,
        Command::Pause(arguments) => pause::run(arguments, true).await,
        Command::Resume(arguments) => pause::run(arguments, false).await,
        Command::Cancel(arguments) => orders::cancel(arguments, &environment).await,
        Command::Wake(arguments) => orders::wake(arguments, &environment).await,
        Command::Rerun(arguments) => orders::rerun(arguments, &environment).await,
        Command::Replay(arguments) => replay::run(arguments, &environment).await,
        Command::Suppress(arguments) => suppress::run(arguments, &environment).await,
        Command::Seek(arguments) => seek::seek(arguments, &environment).await,
        Command::Move(arguments) => seek::relocate(arguments, &environment).await,
        Command::Repair(arguments) => repair::run(arguments).await,
        Command::Console(arguments) => console::run(arguments, environment).await,
        Command::Lab(arguments) => lab::run(arguments, &environment).await,
        Command::Health(arguments) => health::run(&arguments).await,
        Command::Completions(arguments) => completions::completions(&arguments),
        Command::Man(arguments) => completions::man(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(error.as_ref()),
    }
}
