//! The command `usher`: all of it on one machine, and the operator's tools. One file a subcommand.

mod data;
mod output;

mod check;
mod dlq;
mod health;
mod lab;
mod runs;
mod send;
mod up;

use std::process::ExitCode;

use usher_service::exit;
use usher_service::options::{self, Environment};

/// Carries Clerk's webhooks to everything that should follow from them.
#[derive(Debug, clap::Parser)]
#[command(name = "usher", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Up(up::Arguments),
    Send(send::Arguments),
    Check(check::Arguments),
    Runs(runs::Arguments),
    Dlq(dlq::Arguments),
    Lab(lab::Arguments),
    Health(health::Arguments),
}

#[tokio::main]
async fn main() -> ExitCode {
    let environment = Environment::of_process();
    let Arguments { command } = match options::parse(&environment) {
        Ok(arguments) => arguments,
        Err(code) => return code.into(),
    };
    let result = match command {
        Command::Up(arguments) => up::run(arguments, environment).await,
        Command::Send(arguments) => send::run(arguments, &environment).await,
        Command::Check(arguments) => check::run(&arguments),
        Command::Runs(arguments) => runs::run(arguments).await,
        Command::Dlq(arguments) => dlq::run(arguments).await,
        Command::Lab(arguments) => lab::run(arguments, &environment).await,
        Command::Health(arguments) => health::run(&arguments).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(error.as_ref()),
    }
}
