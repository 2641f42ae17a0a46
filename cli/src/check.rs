//! `usher check`: says everything that is wrong with flow files, before anything is started.

use std::path::PathBuf;

use usher_dispatcher::config::FlowFiles;
use usher_dispatcher::flows::{self, Flow, FlowSource};
use usher_service::exit::BadSetting;

use crate::output;

/// Checks flow files whole, with file, line and suggestion.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Flow files; default: those of the folder, else the built-in ones.
    paths: Vec<PathBuf>,
    /// Where the flow files are.
    #[command(flatten)]
    files: FlowFiles,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let sources = if arguments.paths.is_empty() { arguments.files.read()? } else { named(&arguments.paths)? };
    let mut problems = Vec::new();
    for source in sources {
        match Flow::check(source) {
            Ok(flow) => output::line(&format!(
                "{}: good, {} steps, version {}",
                flow.source.file,
                flow.steps.len(),
                flow.version
            ))?,
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(BadSetting(told.join("\n")).into())
}

/// The named files, each with the templates beside it.
fn named(paths: &[PathBuf]) -> Result<Vec<FlowSource>, BadSetting> {
    let mut sources = Vec::new();
    for path in paths {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .map_or_else(|| PathBuf::from("."), PathBuf::from);
        let file = folder.join(path.file_name().unwrap_or_default()).display().to_string();
        let found = flows::read_folder(&folder)?.into_iter().find(|source| source.file == file);
        let why = "there is no such flow file (<name>.toml)";
        sources.push(found.ok_or_else(|| BadSetting::new(&path.display().to_string(), why))?);
    }
    Ok(sources)
}
