//! Checks that a log filter is plausible. A filter that silences everything hides every error, and a misspelt level is
//! taken for the name of a crate.

/// The levels, quietest first.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
/// Names of Usher's crates in a filter. A filter applies to every name that begins with its target.
const OURS: [&str; 19] = [
    "usher",
    "ingest",
    "dispatcher",
    "usher_ingest",
    "usher_dispatcher",
    "usher_console",
    "usher_engine",
    "usher_eventlog",
    "usher_service",
    "usher_lab",
    "usher_proto",
    "usher_clerk",
    "usher_senders",
    "usher_quota",
    "usher_suppression",
    "usher_sql",
    "usher_connectors",
    "usher_flows",
    "usher_store",
];

/// Checks a filter such as `info` or `warn,usher_ingest=debug`. The parser of the filter checks its grammar.
///
/// # Errors
///
/// The filter silences everything, or contains a word that is neither a level nor a crate of Usher.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let mut speaks = false;
    for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        // Spans and fields only restrict a directive, so they are not checked.
        let (target, level) = match directive.rsplit_once('=') {
            Some((target, level)) if !target.contains('{') => (target, Some(level.trim())),
            _ => (directive, None),
        };
        let target = target.split('[').next().unwrap_or_default().trim();
        let silent = |level: &str| level.eq_ignore_ascii_case("off") || level == "0";
        match level {
            None if is_level(target) => speaks |= !silent(target),
            None if target.is_empty() || is_ours(target) => speaks = true,
            None => return Err(format!("{target:?} is no level: {}{}", LEVELS.join(", "), nearest(target))),
            Some(level) => speaks |= !silent(level) && (target.is_empty() || is_ours(target)),
        }
    }
    if speaks { Ok(()) } else { Err("it silences everything, errors too; for instance info".into()) }
}

fn is_level(word: &str) -> bool {
    let digit = word.len() == 1 && word.starts_with(|c: char| ('0'..='5').contains(&c));
    digit || word.eq_ignore_ascii_case("off") || LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level))
}

fn is_ours(target: &str) -> bool {
    let name = target.split("::").next().unwrap_or_default();
    OURS.contains(&name)
}

fn nearest(word: &str) -> String {
    let alike = LEVELS.map(|level| (strsim::jaro_winkler(&word.to_lowercase(), level), level));
    let best = alike.into_iter().max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(alike, _)| *alike > 0.75);
    best.map_or_else(String::new, |(_, level)| format!("; did you mean {level}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_has_its_name_here() {
        let workspace = include_str!("../../Cargo.toml");
        let crates = workspace.lines().filter(|line| line.starts_with("usher-") && line.contains("path ="));
        // What tests alone use is in no program.
        let crates = crates.filter(|line| !line.contains("\"tests"));
        let crates: Vec<String> = crates.filter_map(|line| Some(line.split_once(' ')?.0.replace('-', "_"))).collect();
        assert!(crates.len() > 10, "the crates are found: {crates:?}");
        for name in crates {
            assert!(OURS.contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn a_filter_that_says_something_of_ours_passes() {
        for filter in [
            "info",
            "WARN",
            "3",
            "warn,usher_ingest=debug",
            "usher_dispatcher",
            "usher_connectors=debug,usher_store=warn",
            "usher=debug",
            "usher_ingest::server=trace",
            "off,usher_eventlog=warn",
            "info,hyper=off",
            "info,sqlx=warn,",
            "[{flow=\"email\"}]=debug,error",
        ] {
            assert_eq!(check(filter), Ok(()), "{filter}");
        }
    }

    #[test]
    fn what_is_misspelt_or_silences_everything_is_told() {
        let levels = "error, warn, info, debug, trace";
        assert_eq!(check("inof"), Err(format!("\"inof\" is no level: {levels}; did you mean info?")));
        assert_eq!(check("warn,debg"), Err(format!("\"debg\" is no level: {levels}; did you mean debug?")));
        assert!(check("hyper").is_err());
        for filter in ["off", "OFF", "0", "", " , ", "hyper=debug", "usher=off", "usher_lab=off,sqlx=info"] {
            assert_eq!(
                check(filter),
                Err("it silences everything, errors too; for instance info".into()),
                "{filter:?}"
            );
        }
    }
}
