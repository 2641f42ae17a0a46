//! `usher check`: reports every problem of flow files, before anything is started.

use std::path::PathBuf;

use usher_flows::{Flow, FlowFiles, FlowSource};
use usher_service::ConfigError;

use crate::output;

/// Validates flow files: builds each step with samples of the events that start it. Reports the file, the line and the
/// correction of each problem.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArguments {
    /// Flow files, or folders of them. Default: the files of the flow folder, else the built-in flows.
    paths: Vec<PathBuf>,
    /// Location of the flow files.
    #[command(flatten)]
    files: FlowFiles,
}

pub(crate) fn run(arguments: &CheckArguments) -> anyhow::Result<()> {
    let sources = if arguments.paths.is_empty() { arguments.files.read()? } else { named(&arguments.paths)? };
    let mut problems = Vec::new();
    for source in sources {
        match Flow::check(source) {
            Ok(flow) => {
                for warning in &flow.warnings {
                    output::line(&format!("warning: {warning}"))?;
                }
                let file = &flow.source.file;
                let version = &flow.version;
                let steps = match flow.steps.len() {
                    1 => "1 step".to_owned(),
                    count => format!("{count} steps"),
                };
                output::line(&format!("{file}: good, {steps}, version {version}"))?;
            }
            Err(found) => problems.extend(found),
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(ConfigError(told.join("\n")).into())
}

/// Reads the flows of folders, and single flow files with the templates beside each.
fn named(paths: &[PathBuf]) -> Result<Vec<FlowSource>, ConfigError> {
    let mut sources = Vec::new();
    for path in paths {
        if path.is_dir() {
            sources.extend(usher_flows::read_folder(path)?);
            continue;
        }
        let shown = path.display().to_string();
        if !path.exists() {
            return Err(ConfigError::new(&shown, "no such file"));
        }
        if path.extension().is_none_or(|extension| extension != "toml") {
            return Err(ConfigError::new(&shown, "it is not read: flows are <name>.toml"));
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .map_or_else(|| PathBuf::from("."), PathBuf::from);
        let file = folder.join(path.file_name().unwrap_or_default()).display().to_string();
        let found = usher_flows::read_folder(&folder)?.into_iter().find(|source| source.file == file);
        sources.push(found.ok_or_else(|| ConfigError::new(&shown, "it is no file"))?);
    }
    Ok(sources)
}
