//! `usher completions` and `usher man`: made from the declarations of the command line, as its help is.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{Arguments, output};

/// Prints a script that completes commands and options in a shell.
///
/// For bash: `usher completions bash > ~/.local/share/bash-completion/completions/usher`.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArguments {
    /// The shell.
    shell: Shell,
}

/// Prints the manual page of `usher`, or writes those of all commands.
///
/// To read it: `usher man | man -l -`.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArguments {
    /// Write a page for each command into this folder, such as /usr/local/share/man/man1.
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

pub(crate) fn completions(arguments: &CompletionsArguments) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "usher", &mut script);
    output::text(&String::from_utf8(script)?)
}

pub(crate) fn man(arguments: &ManArguments) -> anyhow::Result<()> {
    let command = Arguments::command();
    if let Some(folder) = &arguments.to {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        return clap_mangen::generate_to(command, folder)
            .with_context(|| format!("cannot write to {}", folder.display()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    output::text(&String::from_utf8(page)?)
}
