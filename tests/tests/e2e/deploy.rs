//! The promises of `docker-compose.yml` and the units of systemd about every service.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};
use usher_flows::Flow;
use usher_tests::program::programs;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// Returns a YAML file with its merge keys resolved.
fn yaml(path: &str) -> Value {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let mut file: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).unwrap();
    // Each pass resolves the merges of one level.
    for _ in 0..4 {
        file.apply_merge().unwrap();
    }
    serde_json::to_value(file).unwrap()
}

fn services(path: &str) -> Map<String, Value> {
    yaml(path)["services"].as_object().unwrap().clone()
}

#[test]
fn every_container_is_confined_and_limited() {
    let services = services("docker-compose.yml");
    assert!(services.len() > 10, "{}", services.len());
    for (name, service) in &services {
        assert_eq!(service["read_only"], true, "{name}: the root is read-only");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name} has no capabilities");
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]), "{name}");
        assert!(service["mem_limit"].is_string() && service["cpus"].is_number(), "{name} is limited");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        assert!(service["healthcheck"]["test"].is_array(), "{name}: its health is known");
        assert!(service.get("privileged").is_none() && service.get("cap_add").is_none(), "{name}");
        let image = service["image"].as_str().unwrap();
        assert!(image.contains(':') && !image.ends_with(":latest"), "{name}: {image} has a version");
    }
}

/// A process that is killed for its memory starts with the same backlog, and is killed again.
#[test]
fn a_backlog_fits_into_the_memory_of_every_dispatcher() {
    // What a flow may hold of a backlog (docs/guarantees.md), with what the allocator keeps, and the process itself.
    const OF_A_FLOW: usize = 140;
    const OF_THE_PROCESS: usize = 160;
    let mut checked = 0;
    for (name, service) in services("docker-compose.yml") {
        let Some(command) = service["command"].as_array().filter(|command| command[0] == "usher-dispatcher") else {
            continue;
        };
        let flows = command.last().and_then(Value::as_str).unwrap().split(',').count();
        let limit = service["mem_limit"].as_str().and_then(|limit| limit.strip_suffix('m')?.parse::<usize>().ok());
        let limit = limit.unwrap_or_else(|| panic!("{name}: {}", service["mem_limit"]));
        assert!(limit >= OF_THE_PROCESS + flows * OF_A_FLOW, "{name}: {limit} MB for {flows} flows");
        checked += 1;
    }
    assert!(checked > 8, "{checked} dispatchers");
}

#[test]
fn nothing_but_ingest_is_published_beyond_this_machine() {
    for (name, service) in services("docker-compose.yml") {
        for port in service["ports"].as_array().into_iter().flatten() {
            let port = port.as_str().unwrap();
            assert!(name == "ingest" || port.starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
    }
}

#[test]
fn engines_and_composes_of_years_ago_can_read_the_files() {
    for path in ["docker-compose.yml", "deploy/compose/real.yml"] {
        let file = yaml(path);
        // Compose 1.29 refuses it.
        assert!(file.get("name").is_none(), "{path}");
        for (name, service) in file["services"].as_object().unwrap() {
            // Engines before 25 do not have it.
            assert!(service["healthcheck"].get("start_interval").is_none(), "{path}: {name}");
            let wants = service["depends_on"].as_object();
            // Compose before 2.20 does not have it.
            let is_optional = wants.is_some_and(|wants| wants.values().any(|it| it.get("required").is_some()));
            assert!(!is_optional, "{path}: {name}");
        }
    }
}

#[test]
fn every_built_in_flow_is_run_and_can_be_scaled() {
    let services = services("docker-compose.yml");
    let command = services["flows"]["command"].as_array().unwrap().last().unwrap().as_str().unwrap();
    let listed = command.strip_prefix("${FLOWS:-").and_then(|rest| rest.strip_suffix('}')).unwrap();
    let mut listed: Vec<&str> = listed.split(',').collect();
    listed.sort_unstable();
    // A flow that is off until it is named is named in FLOWS, by whoever wants it.
    let flows = usher_flows::builtin().into_iter().map(|source| Flow::check(source).expect("a good flow"));
    let mut names: Vec<String> = flows.filter(|flow| flow.enabled).map(|flow| flow.name).collect();
    names.sort();
    assert_eq!(listed, names, "flows");
    let real = self::services("deploy/compose/real.yml");
    for name in names {
        assert_eq!(services[&name]["command"], json!(["usher-dispatcher", "--flow", name]));
        assert_eq!(services[&name]["scale"], 0, "{name}: none, unless they are asked for");
        assert_eq!(real[&name], real["flows"], "{name}: the same settings");
    }
}

#[test]
fn every_unit_is_confined_and_names_a_program_that_there_is() {
    for name in ["usher", "usher-ingest", "usher-dispatcher"] {
        let unit = std::fs::read_to_string(root().join(format!("deploy/systemd/{name}.service"))).unwrap();
        for line in [
            "User=usher",
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=",
            "ProtectSystem=strict",
            "ProtectHome=yes",
            "PrivateTmp=yes",
            "RestartPreventExitStatus=64",
            "EnvironmentFile=/etc/usher/usher.env",
        ] {
            assert!(unit.lines().any(|it| it == line), "{name} lacks {line}");
        }
        assert!(unit.lines().any(|line| line.starts_with(&format!("ExecStart=/usr/bin/{name}"))), "{name}");
    }
}

/// One file is all programs: the package and the image have the others as links to it.
#[test]
fn the_program_is_the_services_if_it_is_called_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    for (link, expected) in
        [("usher", "usher "), ("usher-ingest", "ingest "), ("usher-dispatcher", "dispatcher "), ("other", "usher ")]
    {
        let path = folder.path().join(link);
        std::os::unix::fs::symlink(programs().join("usher"), &path).unwrap();
        let output = Command::new(&path).arg("--version").env_clear().output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.starts_with(expected), "{link}: {said}");
    }
}
