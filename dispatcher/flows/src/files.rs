//! The setting that says where the flow files are, and the reading of all of them.

use std::path::PathBuf;

use usher_service::ConfigError;

use crate::{Flow, FlowSource, builtin, read_folder};

/// The flow files to use.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FlowFiles {
    /// A folder of flow files; without it the built-in ones are used.
    #[arg(long = "flows", env = "USHER_FLOWS")]
    pub folder: Option<PathBuf>,
}

impl FlowFiles {
    /// Reads the flow files without checking them.
    ///
    /// # Errors
    ///
    /// The folder or one of its files cannot be read.
    pub fn read(&self) -> Result<Vec<FlowSource>, ConfigError> {
        let Some(folder) = &self.folder else { return Ok(builtin()) };
        read_folder(folder).map_err(|error| match folder.is_dir() {
            true => error,
            false => ConfigError::new("USHER_FLOWS", error),
        })
    }

    /// Reads and checks all flows. Warnings are logged.
    ///
    /// # Errors
    ///
    /// The files cannot be read, or flows are invalid. The error then lists every problem of all files.
    pub fn check(&self) -> Result<Vec<Flow>, ConfigError> {
        let mut flows = Vec::new();
        let mut problems = Vec::new();
        for source in self.read()? {
            match Flow::check(source) {
                Ok(flow) => {
                    flow.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                    flows.push(flow);
                }
                Err(found) => problems.extend(found.iter().map(ToString::to_string)),
            }
        }
        problems.extend(Flow::same_by_former_name(&flows).map(|problem| problem.to_string()));
        if problems.is_empty() { Ok(flows) } else { Err(ConfigError(problems.join("\n"))) }
    }
}
