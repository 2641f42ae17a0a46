//! The documentation is true as far as a program can tell: links lead somewhere, commands exist with their options, flow files
//! are good, and tables have the columns that are named.

mod examples;
mod links;
mod shell;
mod tables;

use std::path::{Path, PathBuf};

/// A page in Markdown.
struct Page {
    path: PathBuf,
    text: String,
}

/// A fenced block of a page.
struct Block<'a> {
    /// Words behind the fence, such as `console run`.
    info: &'a str,
    /// Number of its first line, from 1.
    line: usize,
    lines: Vec<&'a str>,
}

/// Returns the root of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// Returns all pages: those of the root and everything below `docs/`.
fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    let mut folders = vec![root().join("docs")];
    let mut paths: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        pages.push(Page { path, text });
    }
    assert!(pages.len() > 40, "the pages are found: {}", pages.len());
    pages
}

impl Page {
    /// Returns the path below the root.
    fn name(&self) -> String {
        self.path.strip_prefix(root()).unwrap().display().to_string()
    }

    /// Returns the lines outside of fenced blocks, with their numbers from 1.
    fn prose(&self) -> Vec<(usize, &str)> {
        let mut is_fenced = false;
        let mut prose = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                is_fenced = !is_fenced;
            } else if !is_fenced {
                prose.push((index + 1, line));
            }
        }
        assert!(!is_fenced, "{}: a block is not closed", self.name());
        prose
    }

    /// Returns the fenced blocks.
    fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut open: Option<Block<'_>> = None;
        for (index, line) in self.text.lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), open.as_mut()) {
                (Some(info), None) => {
                    open = Some(Block { info: info.trim(), line: index + 2, lines: Vec::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (None, Some(block)) => block.lines.push(line),
                (None, None) => {}
            }
        }
        blocks
    }
}
