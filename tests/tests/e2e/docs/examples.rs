//! Commands in the documentation are commands, with options that exist, and flow files in it are good.
//!
//! A line `$ ...` of a block `console`, and a code span that begins with the name of a program, is given to the program with
//! `--help` added: it answers with its help if it can read everything before. Blocks `console run` are carried out.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use usher_tests::eventually;
use usher_tests::program::{Program, programs};

use super::shell::{commands, without_prefix};
use super::{Page, pages, root};

/// Programs of others that the documentation names. One that is missing here may be a misspelt one of ours.
const OTHERS: [&str; 19] = [
    "apt",
    "bash",
    "bench",
    "cargo",
    "curl",
    "docker",
    "editor",
    "eval",
    "export",
    "fuzz/run",
    "git",
    "go",
    "just",
    "kcat",
    "npm",
    "promtool",
    "sqlite3",
    "systemctl",
    "openssl",
];
/// Characters of a synopsis or of something left out: such a code span is no command line.
const SYNOPSIS: [&str; 6] = ["[", "<", "|", "...", "{", "…"];

/// Maximum time for `usher up` to be ready, in a debug build on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Words that stand for a value, where not every word can be one.
const PLACEHOLDERS: [(&str, &str); 3] =
    [("URL", "http://127.0.0.1:8081/readyz"), ("REASON", "expired"), ("SHELL", "bash")];

/// A command line of ours, and where it stands.
struct OwnCommand {
    place: String,
    words: Vec<String>,
}

/// The mistakes in the documentation's commands, and the commands that are ours.
#[derive(Default)]
struct Found {
    own: Vec<OwnCommand>,
    problems: Vec<String>,
}

impl Found {
    /// Sorts a command by its program. `services` are those of `docker-compose.yml`.
    fn add(&mut self, place: &str, command: &[String], services: &BTreeSet<String>) {
        let command = without_prefix(command);
        let Some(program) = command.first() else { return };
        let own = match program.as_str() {
            "usher" | "usher-ingest" | "usher-dispatcher" | "ingest" | "dispatcher" => command,
            // `cargo run ... -- WORDS` is `usher WORDS`, unless another package is named.
            "cargo" if command.get(1).is_some_and(|word| word == "run") && !command.iter().any(|word| word == "-p") => {
                let Some(at) = command.iter().position(|word| word == "--") else { return };
                let words = std::iter::once("usher".to_owned()).chain(command[at + 1..].iter().cloned()).collect();
                self.own.push(OwnCommand { place: place.to_owned(), words });
                return;
            }
            "docker" => {
                self.check_services(place, command, services);
                let inner =
                    command.iter().skip(1).position(|word| word.starts_with("usher") && !word.contains([':', '.']));
                match inner {
                    Some(at) => &command[at + 1..],
                    None => return,
                }
            }
            other if OTHERS.contains(&other) => return,
            other => {
                self.problems.push(format!("{place}: the program {other} is not known"));
                return;
            }
        };
        self.own.push(OwnCommand { place: place.to_owned(), words: own.to_vec() });
    }

    /// Checks the services that `docker compose exec SERVICE` and `--scale SERVICE=N` name.
    fn check_services(&mut self, place: &str, command: &[String], services: &BTreeSet<String>) {
        if command.get(1).is_none_or(|word| word != "compose") {
            return;
        }
        let after =
            |word: &str| command.iter().skip_while(move |it| *it != word).skip(1).find(|it| !it.starts_with('-'));
        let scaled = after("--scale").and_then(|it| it.split('=').next().map(str::to_owned));
        for service in [after("exec").cloned(), scaled].into_iter().flatten() {
            if !services.contains(&service) {
                self.problems.push(format!("{place}: docker-compose.yml has no service {service}"));
            }
        }
    }
}

/// Returns the services of `docker-compose.yml`.
fn compose_services() -> BTreeSet<String> {
    let text = std::fs::read_to_string(root().join("docker-compose.yml")).unwrap();
    let file: Value = serde_yaml_ng::from_str(&text).unwrap();
    file["services"].as_object().unwrap().keys().cloned().collect()
}

/// Returns the command lines of the blocks `console` and of the code spans.
fn found(pages: &[Page]) -> Found {
    let services = compose_services();
    let mut found = Found::default();
    for page in pages {
        for block in page.blocks().iter().filter(|block| block.info.split(' ').next() == Some("console")) {
            for (index, line) in block.lines.iter().enumerate() {
                let Some(line) = line.strip_prefix("$ ") else { continue };
                for command in commands(line) {
                    found.add(&format!("{}:{}", page.name(), block.line + index), &command, &services);
                }
            }
        }
        for (number, line) in page.prose() {
            for span in line.split('`').skip(1).step_by(2) {
                let is_ours = ["usher ", "usher-ingest ", "usher-dispatcher "].iter().any(|it| span.starts_with(it));
                if is_ours && !SYNOPSIS.iter().any(|it| span.contains(it)) {
                    for command in commands(span) {
                        found.add(&format!("{}:{number}", page.name()), &command, &services);
                    }
                }
            }
        }
    }
    found
}

#[test]
fn every_command_exists_with_its_options() {
    let folder = tempfile::tempdir().unwrap();
    let Found { own, mut problems } = found(&pages());
    assert!(own.len() > 60, "commands are found: {}", own.len());
    let mut asked = BTreeSet::new();
    for OwnCommand { place, words } in own {
        if !asked.insert(words.clone()) {
            continue;
        }
        let program = words[0].strip_prefix("usher-").unwrap_or(&words[0]);
        let given = |word: &String| {
            let stands_for = PLACEHOLDERS.iter().find(|(placeholder, _)| placeholder == word);
            stands_for.map_or_else(|| word.clone(), |(_, value)| (*value).to_owned())
        };
        let output = Command::new(programs().join(program))
            .args(words[1..].iter().map(given))
            .arg("--help")
            .env_clear()
            .current_dir(folder.path())
            .output()
            .unwrap();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            problems.push(format!("{place}: {}\n    {}", words.join(" "), said.lines().next().unwrap_or_default()));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Writes the template that an example names. Its content is not what the example is about.
fn write_template(folder: &Path, example: &[&str]) {
    let templates = folder.join("templates");
    std::fs::create_dir(&templates).unwrap();
    let named = |line: &&str| -> Option<String> { line.strip_prefix("template")?.split('"').nth(1).map(str::to_owned) };
    for name in example.iter().filter_map(named) {
        let is_marketing = example.iter().any(|line| line.starts_with("marketing"));
        let link = if is_marketing { "{{ unsubscribe_url }}" } else { "" };
        std::fs::write(templates.join(format!("{name}.html")), format!("<p>Hello {link}</p>\n")).unwrap();
    }
}

#[test]
fn every_flow_file_is_good() {
    let mut problems = Vec::new();
    let mut checked = 0;
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.info == "toml") {
            let text = block.lines.join("\n");
            if !text.contains("[[step]]") {
                continue;
            }
            checked += 1;
            let folder = tempfile::tempdir().unwrap();
            write_template(folder.path(), &block.lines);
            let name = block.lines[0].strip_prefix("# flows/").unwrap_or("example.toml");
            // A step alone is shown without the flow around it.
            let is_whole = block.lines.iter().any(|line| line.starts_with("on ") || line.starts_with("on="));
            let before = if is_whole { "" } else { "on = [\"clerk/user.created\"]\n" };
            std::fs::write(folder.path().join(name), format!("{before}{text}\n")).unwrap();
            let output = Command::new(programs().join("usher"))
                .args(["check", "."])
                .env_clear()
                .current_dir(folder.path())
                .output()
                .unwrap();
            if !output.status.success() {
                let said = [output.stdout, output.stderr].concat();
                problems.push(format!("{}:{}: {}", page.name(), block.line, String::from_utf8_lossy(&said)));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(checked > 8, "flow files are found: {checked}");
}

/// Returns the keys that a refusal of an unknown key lists.
fn listed_keys(flow: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keys.toml"), flow).unwrap();
    let output = Command::new(programs().join("usher"))
        .args(["check", "keys.toml"])
        .env_clear()
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let (_, list) = said.split_once("it may be one of: ").unwrap_or_else(|| panic!("the keys are listed: {said}"));
    list.lines().next().unwrap().split(", ").map(|key| key.trim().to_owned()).collect()
}

#[test]
fn every_key_of_a_flow_is_described() {
    let page = std::fs::read_to_string(root().join("docs/flows.md")).unwrap();
    let of_flow = listed_keys("on = [\"clerk/user.created\"]\nqqqqqqqq = 1\n[[step]]\nuse = \"database.sync_user\"\n");
    let of_step = listed_keys("on = [\"clerk/user.created\"]\n[[step]]\nqqqqqqqq = 1\nuse = \"database.sync_user\"\n");
    assert!(of_flow.len() >= 12 && of_step.len() >= 10, "{of_flow:?} {of_step:?}");
    for key in of_flow.iter().chain(&of_step) {
        assert!(page.contains(&format!("\n| `{key}` |")), "docs/flows.md has no row for {key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_pages_let_their_readers_do_can_be_done() {
    usher_service::telemetry::install_tls();
    let folder = tempfile::tempdir().unwrap();
    // Where the reader is, so that the commands find the data directory without being told.
    let data = folder.path().join("usher-data");
    let data_argument = data.display().to_string();
    let any_port = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--lab", "127.0.0.1:0"];
    let arguments = [&["up", "--data", &data_argument], &any_port[..]].concat();
    let program = Program::start("usher", &arguments, &[], folder.path());
    // Written when everything is ready.
    let addresses = eventually("usher up is ready", START_DEADLINE, || {
        let text = std::fs::read_to_string(data.join("addresses.json")).ok();
        async move { serde_json::from_str::<Value>(&text?).ok() }
    })
    .await;
    let lab = addresses["lab"].as_str().expect("an address").to_owned();

    let mut carried_out = Vec::new();
    for page in pages() {
        for block in page.blocks().iter().filter(|block| block.info == "console run") {
            for line in block.lines.iter().filter_map(|line| line.strip_prefix("$ ")) {
                for command in commands(line) {
                    carried_out.push(command[0].clone());
                    match command[0].as_str() {
                        "usher" => {
                            let output = Command::new(programs().join("usher"))
                                .args(&command[1..])
                                .env_clear()
                                .current_dir(folder.path())
                                .output()
                                .unwrap();
                            let said = String::from_utf8_lossy(&output.stderr);
                            assert!(output.status.success(), "{}: {line}: {said}", page.name());
                        }
                        "curl" => {
                            let address = command.iter().find(|word| word.starts_with("http://")).expect("an address");
                            let address = address.replace("127.0.0.1:8090", &lab);
                            let status = reqwest::get(&address).await.unwrap().status();
                            assert!(status.is_success(), "{}: {line}: {status}", page.name());
                        }
                        other => panic!("{}: {other} cannot be carried out here", page.name()),
                    }
                }
            }
        }
    }
    let flows = ["usher"; 5];
    let quickstart = ["usher", "usher", "curl"];
    assert_eq!(carried_out, [&flows[..], &quickstart].concat(), "the commands of both pages are found");
    program.kill().await;
}
