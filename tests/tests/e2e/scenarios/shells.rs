//! Completions for shells and manual pages, as the tools that read them take them.

use std::process::Command;

use usher_tests::program::programs;

fn usher(arguments: &[&str]) -> String {
    let output = Command::new(programs().join("usher")).args(arguments).env_clear().output().expect("it runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs a program with a text as a file. Returns its output; `None` if there is no such program.
fn read_by(program: &str, arguments: &[&str], text: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(program).args(arguments).arg(&file).output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{program}: {said}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn completions_are_accepted_and_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = usher(&["completions", shell]);
        for word in ["listen", "replay", "redrive", "max-deaths"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let bash = usher(&["completions", "bash"]);
    read_by("bash", &["-n"], &bash).expect("bash is there");
    let asked = format!(
        "{bash}\nCOMP_WORDS=(usher li); COMP_CWORD=1; _usher usher li usher; echo \"reply: ${{COMPREPLY[*]}}\""
    );
    let replied = read_by("bash", &["--norc"], &asked).expect("bash is there");
    assert!(replied.contains("reply: listen"), "{replied}");
}

#[test]
fn manual_pages_are_whole() {
    let page = usher(&["man"]);
    for part in [".TH usher 1", ".SH NAME", ".SH SYNOPSIS", ".SH SUBCOMMANDS", "usher\\-replay(1)"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    let folder = tempfile::tempdir().unwrap();
    usher(&["man", "--to", &folder.path().display().to_string()]);
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().to_string_lossy().into_owned();
    let pages: Vec<String> = std::fs::read_dir(folder.path()).unwrap().map(name).collect();
    for page in ["usher.1", "usher-runs.1", "usher-dlq-redrive.1"] {
        assert!(pages.iter().any(|name| name == page), "{page} in {pages:?}");
    }
    // With warnings as errors, if there is a program that renders it.
    if let Some(shown) = read_by("groff", &["-man", "-Tutf8", "-ww"], &page) {
        assert!(shown.contains("Carries Clerk") && shown.contains("usher-listen(1)"), "{shown}");
    }
}
