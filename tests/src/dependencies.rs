//! Dependencies of the workspace's crates: each is used and has its reason, and crates that decide have none that do I/O.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::names::sources;

/// Crates that do I/O by themselves: runtimes, databases, network, Kafka.
const DOES_IO: [&str; 7] = ["hyper", "libsqlite3_sys", "mio", "rdkafka_sys", "socket2", "sqlx_core", "tokio"];

/// Returns the root of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// Returns the lines of `cargo tree` with these arguments.
fn tree(arguments: &[&str]) -> Vec<String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["tree", "--offline", "--locked"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

/// A crate of the workspace, and the library names of its direct dependencies.
struct Member {
    folder: PathBuf,
    libraries: Vec<String>,
}

/// Returns all crates of the workspace with their dependencies of one kind: `normal` or `dev`.
fn members(kind: &str) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::new();
    let format = ["--no-dedupe", "--depth", "1", "--prefix", "depth", "--format", "{lib} {p}"];
    for line in tree(&[&["--workspace", "--edges", kind], &format[..]].concat()) {
        if let Some(package) = line.strip_prefix('0') {
            let folder = package.rsplit_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).expect("a folder");
            members.push(Member { folder: folder.into(), libraries: Vec::new() });
        } else if let Some(dependency) = line.strip_prefix('1') {
            let (library, _) = dependency.split_once(' ').expect("a library and its package");
            members.last_mut().expect("a crate before its dependencies").libraries.push(library.to_owned());
        }
    }
    assert!(members.len() > 10, "the crates are found: {}", members.len());
    members
}

/// True if the code names something of the library: `library::...` or `use library`, outside comments.
fn names(code: &str, library: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    code.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).any(|line| {
        line.match_indices(library).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + library.len()..]);
            let is_import = before.ends_with("use ") && after.starts_with([';', ' ']);
            !before.ends_with(is_word) && (after.starts_with("::") || is_import)
        })
    })
}

#[test]
fn every_dependency_is_used() {
    let mut unused = Vec::new();
    for (kind, folders) in [("normal", ["src", "src"]), ("dev", ["src", "tests"])] {
        for member in members(kind) {
            let files = folders.map(|folder| member.folder.join(folder));
            let code: String = files
                .iter()
                .filter(|folder| folder.is_dir())
                .flat_map(|folder| sources(folder))
                .map(|path| std::fs::read_to_string(path).expect("a source"))
                .collect();
            let name = member.folder.strip_prefix(root()).expect("below the root").display();
            let of_member = member.libraries.iter().filter(|library| !names(&code, library));
            unused.extend(of_member.map(|library| format!("{name}: {library} ({kind})")));
        }
    }
    assert!(unused.is_empty(), "{unused:#?}");
}

#[test]
fn every_dependency_of_the_workspace_has_a_user_and_a_reason() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect(path);
    let manifest = read("Cargo.toml");
    let (_, section) = manifest.split_once("[workspace.dependencies]\n").expect("dependencies");
    let names = section.lines().take_while(|line| !line.starts_with('[')).filter_map(|line| line.split_once(" = "));
    let names: Vec<&str> = names.map(|(name, _)| name).collect();
    assert!(names.len() > 50, "the dependencies are found: {}", names.len());

    let manifests: String =
        members("normal").iter().map(|member| read(&member.folder.join("Cargo.toml").to_string_lossy())).collect();
    let reasons = read("docs/adr/0002-dependencies.md");
    let crates = reasons.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let explained: Vec<&str> =
        crates.flat_map(|(crates, _)| crates.split([',', ' ', '(', ')'])).filter(|word| !word.is_empty()).collect();
    for name in names {
        let is_used = manifests.lines().any(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(".workspace") || rest.starts_with(" = { workspace"))
        });
        assert!(is_used, "no crate depends on {name}");
        assert!(name.starts_with("usher-") || explained.contains(&name), "ADR 2 has no line for {name}");
    }
}

/// Asserts that a crate depends on none of these, directly or through others.
fn assert_free_of(package: &str, refused: &[&str]) {
    let libraries = tree(&["--package", package, "--edges", "normal", "--prefix", "none", "--format", "{lib}"]);
    assert!(libraries.len() > 10, "{package}: the dependencies are found");
    // A crate that occurs again is marked by ` (*)`.
    let libraries: BTreeSet<&str> = libraries.iter().map(|line| line.trim_end_matches(" (*)")).collect();
    for library in refused {
        let why = format!("cargo tree --package {package} --edges normal --invert {library}");
        assert!(!libraries.contains(library), "{package} depends on {library}; {why}");
    }
}

#[test]
fn crates_that_decide_do_no_io() {
    for package in ["usher-proto", "usher-clerk", "usher-quota", "usher-engine"] {
        assert_free_of(package, &DOES_IO);
    }
}

#[test]
fn flows_are_checked_without_kafka_and_without_a_store() {
    assert_free_of("usher-flows", &["rdkafka", "rdkafka_sys", "usher_eventlog", "usher_store"]);
}

#[test]
fn uses_of_a_library_are_recognised() {
    for (line, is_use) in [
        ("use bytes::Bytes;", true),
        ("    let a = hex::encode(b);", true),
        ("#[bytes::test]", true),
        ("pub use hex;", true),
        ("use hex as base16;", true),
        ("// hex::encode", false),
        ("use crate::hex::encode;", false),
        ("let bytes = 1;", false),
        ("my_bytes::of(1)", false),
    ] {
        assert_eq!(["bytes", "hex"].iter().any(|library| names(line, library)), is_use, "{line}");
    }
}
