//! One word, one idea: no type that other files can see shares its name with another one of the workspace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Returns the name of a type that a line declares with a visibility (`pub`, `pub(crate)`, `pub(super)`).
fn declared(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(scoped) => scoped.split_once(')')?.1,
        None => rest,
    };
    let mut words = rest.strip_prefix(' ')?.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    let is_type = matches!(words.next()?, "struct" | "enum" | "trait" | "type" | "union");
    words.next().filter(|name| is_type && name.starts_with(char::is_uppercase))
}

/// Returns the Rust files below a folder, without those of builds.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let ours = |path: &PathBuf| !["target", ".git", "node_modules"].iter().any(|name| path.ends_with(name));
    files
        .into_iter()
        .filter(is_source)
        .chain(folders.iter().filter(|path| ours(path)).flat_map(|path| sources(path)))
        .collect()
}

#[test]
fn no_public_type_name_occurs_twice() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for path in sources(root) {
        let text = std::fs::read_to_string(&path).expect("a source");
        for (number, line) in text.lines().enumerate() {
            if let Some(name) = declared(line) {
                let place = format!("{}:{}", path.strip_prefix(root).expect("below the root").display(), number + 1);
                places.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
    assert!(places.len() > 300, "the sources are found: {} names", places.len());
    let twice: BTreeMap<_, _> = places.into_iter().filter(|(_, places)| places.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}

#[test]
fn declarations_are_recognised() {
    for (line, name) in [
        ("pub struct Run {", Some("Run")),
        ("    pub(super) enum Head<'a> {", Some("Head")),
        ("pub(in crate::delivery) struct CallPermit(Option<Issued>);", Some("CallPermit")),
        ("pub type Wrap = Box<dyn Fn()>;", Some("Wrap")),
        ("struct Private;", None),
        ("pub fn type_of() {}", None),
        ("// pub struct InAComment;", None),
    ] {
        assert_eq!(declared(line), name, "{line}");
    }
}
