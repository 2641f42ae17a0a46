//! `usher init`: writes the built-in flows and templates into a folder of the user's own, to be edited.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use usher_flows::FlowSource;
use usher_service::ConfigError;

use crate::output;

/// Writes the built-in flows and their templates into a folder, as a start for your own.
#[derive(Debug, clap::Args)]
pub(crate) struct InitArguments {
    /// The folder. It is made if it is not there.
    folder: PathBuf,
    /// Write into a folder that holds files already. Those of the same names are replaced, the others stay.
    #[arg(long)]
    force: bool,
    /// Also write flows for services that few use, such as Slack, into the subfolder `examples`. None of them runs there; move
    /// those that you want.
    #[arg(long)]
    examples: bool,
}

/// The subfolder of the examples. No program reads flows from it.
const EXAMPLES: &str = "examples";

pub(crate) fn run(arguments: &InitArguments) -> anyhow::Result<()> {
    let folder = &arguments.folder;
    let shown = folder.display().to_string();
    if folder.exists() && !folder.is_dir() {
        return Err(ConfigError::new(&shown, "it is a file; name a folder").into());
    }
    let is_used = folder.is_dir() && std::fs::read_dir(folder).with_context(|| shown.clone())?.next().is_some();
    if is_used && !arguments.force {
        let why = "it is not empty; name a new folder, or say --force to replace the files of the same names";
        return Err(ConfigError::new(&shown, why).into());
    }
    let sources = usher_flows::builtin();
    let files = files(&sources);
    for (path, text) in &files {
        write(&folder.join(path), text)?;
    }
    let examples = if arguments.examples { usher_flows::examples() } else { Vec::new() };
    for example in &examples {
        write(&folder.join(EXAMPLES).join(format!("{}.toml", example.name)), &example.toml)?;
    }
    let flows = files.keys().filter(|path| path.extension().is_some_and(|extension| extension == "toml")).count();
    output::line(&format!("wrote {flows} flows and {} templates to {shown}", files.len() - flows))?;
    if !examples.is_empty() {
        output::line(&format!("wrote {} examples to {}", examples.len(), folder.join(EXAMPLES).display()))?;
    }
    output::text(
        "\nNext:\n\
         - Delete the flows that you do not use. Each flow in a folder of your own needs the settings of its destinations.\n\
         - Edit the others. One that says enabled = false runs only if it is named (--flow), or without that line.",
    )?;
    output::line(&format!("- usher check {shown}"))?;
    output::line(&format!("- usher up --flows {shown}, or USHER_FLOWS={shown} for every program"))
}

/// Returns the files of these flows and their templates: text by path in the folder.
fn files(sources: &[FlowSource]) -> BTreeMap<PathBuf, &str> {
    let mut files = BTreeMap::new();
    for source in sources {
        files.insert(PathBuf::from(format!("{}.toml", source.name)), source.toml.as_str());
        for (name, text) in &source.templates {
            files.insert(Path::new("templates").join(name), text.as_str());
        }
    }
    files
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_folder_is_read_back_as_the_built_in_flows() {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = |force| InitArguments { folder: folder.path().to_owned(), force, examples: false };
        run(&arguments(false)).expect("an empty folder is written into");
        let read = usher_flows::read_folder(folder.path()).expect("it is a folder of flows");
        // The version is the one of the built-in flow: runs that are under way go on with it.
        let versions = |sources: &[FlowSource]| -> BTreeMap<String, String> {
            sources.iter().map(|source| (source.name.clone(), source.version())).collect()
        };
        assert_eq!(versions(&read), versions(&usher_flows::builtin()));

        std::fs::write(folder.path().join("email.toml"), "changed").expect("it is written");
        std::fs::write(folder.path().join("own.toml"), "own").expect("it is written");
        let refused = run(&arguments(false)).expect_err("it is not empty").to_string();
        assert!(refused.contains("it is not empty"), "{refused}");
        let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
        assert_eq!(text("email.toml"), "changed");
        run(&arguments(true)).expect("it is forced");
        assert_ne!(text("email.toml"), "changed");
        assert_eq!(text("own.toml"), "own", "other files stay");
    }

    #[test]
    fn examples_are_written_apart_from_the_flows_that_run() {
        let folder = tempfile::tempdir().expect("a folder");
        run(&InitArguments { folder: folder.path().to_owned(), force: false, examples: true }).expect("it is written");
        let read = usher_flows::read_folder(folder.path()).expect("it is a folder of flows");
        assert_eq!(read.len(), usher_flows::builtin().len(), "no example runs");
        let names = |sources: &[FlowSource]| -> Vec<String> {
            let mut names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
            names.sort();
            names
        };
        let examples = usher_flows::read_folder(&folder.path().join(EXAMPLES)).expect("it is a folder of flows");
        assert_eq!(names(&examples), names(&usher_flows::examples()));
    }

    #[test]
    fn a_file_is_no_folder() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let arguments = InitArguments { folder: file.path().to_owned(), force: true, examples: false };
        assert!(run(&arguments).expect_err("it is a file").to_string().contains("name a folder"));
    }
}
