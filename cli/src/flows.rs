//! `usher flows`: shows what flows do, without running them.

mod preview;

use usher_service::options::Environment;
mod print;

/// Shows what flows do, without running them.
#[derive(Debug, clap::Args)]
pub(crate) struct FlowsArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Preview(preview::PreviewArguments),
}

pub(crate) fn run(arguments: &FlowsArguments, environment: &Environment) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Preview(arguments) => preview::run(arguments, environment),
    }
}
