//! The complete help of every program and command, and what `usher check` says of good and of bad flows, so that every
//! change of one is noticed.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use usher_tests::program::programs;

/// Width of the help. Without it, the width would be that of the terminal.
const COLUMNS: &str = "100";

/// Runs a program in a folder, without the environment. Returns both streams and the exit code.
fn ran(words: &[&str], folder: &Path) -> String {
    let output = Command::new(programs().join(words[0]))
        .args(&words[1..])
        .env_clear()
        .env("COLUMNS", COLUMNS)
        .current_dir(folder)
        .output()
        .expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let code = output.status.code().expect("it ends by itself");
    format!("{}{}(exit code {code})\n", text(&output.stdout), text(&output.stderr))
}

/// Returns the commands that a help lists.
fn commands(help: &str) -> Vec<&str> {
    let listed = help.split_once("\nCommands:\n").map_or("", |(_, listed)| listed);
    let listed = listed.split("\n\n").next().unwrap_or_default();
    // The description of a command may go on in lines with a deeper indent.
    let first = listed.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    first.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}

/// Adds the help of a command and of all commands below it.
fn describe(words: &[&str], folder: &Path, all: &mut String) {
    let help = ran(&[words, &["--help"]].concat(), folder);
    writeln!(all, "$ {} --help\n{help}", words.join(" ")).unwrap();
    for command in commands(&help) {
        describe(&[words, &[command]].concat(), folder, all);
    }
}

#[test]
fn what_each_program_and_command_says_of_itself() {
    let folder = tempfile::tempdir().unwrap();
    for (program, least) in [("usher", 16), ("ingest", 1), ("dispatcher", 1)] {
        let mut all = String::new();
        describe(&[program], folder.path(), &mut all);
        assert!(all.matches("--help\n").count() >= least, "the commands are found: {all}");
        insta::assert_snapshot!(format!("help_of_{program}"), all);
    }
}

const MAIL: &str = r#"on = ["clerk/user.created"]
[[step]]
name = "mail"
use = "resend.send"
to = "{{ user.email }}"
subject = "Welcome"
template = "welcome"
"#;

const SYNC: &str = "on = [\"clerk/user.*\"]\n[[step]]\nuse = \"database.sync_user\"\n";

/// Writes flow files and a template, and returns the folder.
fn flows(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let templates = folder.path().join("templates");
    std::fs::create_dir(&templates).unwrap();
    std::fs::write(templates.join("welcome.html"), "<p>Hello {{ user.first_name }}</p>\n").unwrap();
    std::fs::write(templates.join("broken.txt"), "Hello\n{{ usr.name }}\n{% if %}\n").unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// A case of `usher check`: its title, the files with their texts, and the paths given to the command.
type CheckCase<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn what_check_says_of_good_and_of_bad_flows() {
    let several = "on = [\"clerk/user.create\", \"clark/user.created\"]\nform = \"Acme\"\n[[step]]\n\
                   use = \"resend.sned\"\n[[step]]\nwait = \"3 dayz\"\n";
    let unclosed = "on = [\"clerk/user.created]\n[[step]]\nuse = \"database.sync_user\"\n";
    let broken = MAIL.replace("\"welcome\"", "\"broken\"");
    let missing = MAIL.replace("\"welcome\"", "\"welcom\"");
    let typo = SYNC.replace("user.*", "user.create");
    let cases: [CheckCase<'_>; 9] = [
        ("a good flow", &[("sync.toml", SYNC)], &["sync.toml"]),
        ("a folder of good flows, one with a warning", &[("mail.toml", MAIL), ("sync.toml", SYNC)], &["."]),
        ("a flow that nothing starts", &[("sync.toml", &typo)], &["sync.toml"]),
        ("several mistakes", &[("bad.toml", several)], &["bad.toml"]),
        ("no TOML", &[("bad.toml", unclosed)], &["bad.toml"]),
        ("a template with mistakes", &[("mail.toml", &broken)], &["mail.toml"]),
        ("a template that is not there", &[("mail.toml", &missing)], &["mail.toml"]),
        ("a good one and two bad ones", &[("a.toml", unclosed), ("b.toml", SYNC), ("c.toml", several)], &["."]),
        ("two files, one of them not there", &[("sync.toml", SYNC)], &["sync.toml", "none.toml"]),
    ];
    let mut all = String::new();
    for (what, files, paths) in cases {
        let folder = flows(files);
        let said = ran(&[&["usher", "check"], paths].concat(), folder.path());
        writeln!(all, "# {what}\n$ usher check {}\n{said}", paths.join(" ")).unwrap();
    }
    insta::assert_snapshot!(all);
}
