//! The attribute [`needs`](macro@needs), for tests of what is not on every machine: services, and programs of others.
//!
//! The test harness decides when a test is compiled whether it is ignored. The attribute therefore looks at the
//! environment of the compiler, and registers the variables with Cargo, which compiles the test again when one of them
//! has changed. A build script would do the same, but Cargo would then also rebuild the crate and all that depend on
//! it; this rebuilds only the tests that have a need.

use std::path::{Path, PathBuf};

use proc_macro::{Delimiter, TokenStream, TokenTree};

/// Way to find out if something is there.
enum Presence {
    /// An environment variable names it.
    Variable(&'static str),
    /// As `Variable`, but CI cannot provide it: the test is ignored there too.
    VariableEvenInCi(&'static str),
    /// This function finds it on the machine. Cargo does not notice a change.
    Machine(fn() -> bool),
}

/// Something that a test may need.
struct Need {
    /// Name in the attribute.
    name: &'static str,
    /// Name in the reason for which a test is ignored.
    display: &'static str,
    presence: Presence,
}

/// All needs. `docs/testing.md` describes the variables.
const NEEDS: [Need; 15] = [
    Need { name: "kafka", display: "Kafka", presence: Presence::Variable("USHER_TEST_KAFKA") },
    Need { name: "kafka_libs", display: "Kafka's jars", presence: Presence::Variable("USHER_TEST_KAFKA_LIBS") },
    Need { name: "postgres", display: "Postgres", presence: Presence::Variable("USHER_TEST_POSTGRES") },
    Need { name: "pgbouncer", display: "PgBouncer", presence: Presence::Variable("USHER_TEST_PGBOUNCER") },
    Need { name: "stripe_mock", display: "stripe-mock", presence: Presence::Variable("USHER_TEST_STRIPE_MOCK") },
    Need { name: "aiosmtpd", display: "aiosmtpd", presence: Presence::Variable("USHER_TEST_SMTP") },
    Need { name: "sdks", display: "the destinations' SDKs", presence: Presence::Variable("USHER_TEST_SDKS") },
    Need { name: "browser", display: "Chromium and Node", presence: Presence::Variable("USHER_TEST_BROWSER") },
    Need { name: "faketime", display: "libfaketime", presence: Presence::Variable("USHER_TEST_FAKETIME") },
    Need {
        name: "specs",
        display: "the providers' OpenAPI documents",
        presence: Presence::VariableEvenInCi("USHER_TEST_SPECS"),
    },
    Need { name: "kcat", display: "kcat", presence: Presence::Machine(|| is_in_path("kcat")) },
    Need { name: "valgrind", display: "valgrind", presence: Presence::Machine(|| is_in_path("valgrind")) },
    Need {
        name: "prometheus",
        display: "Prometheus and Alertmanager",
        presence: Presence::Machine(|| ["prometheus", "promtool", "amtool"].into_iter().all(is_in_path)),
    },
    Need {
        name: "postgres_programs",
        display: "the programs of Postgres",
        presence: Presence::Machine(has_postgres_programs),
    },
    Need { name: "mount", display: "the right to mount a file system", presence: Presence::Machine(may_mount) },
];

/// Marks a test that needs something from outside, such as `#[needs(kafka, postgres)]`. Stands above the test
/// attribute. The test is ignored, with the reason, if something of it is missing. With `CI` set it runs nevertheless,
/// so that its own look at the variable fails.
#[proc_macro_attribute]
#[expect(clippy::missing_panics_doc, reason = "what is parsed here is written here")]
pub fn needs(names: TokenStream, test: TokenStream) -> TokenStream {
    expand(names, test).unwrap_or_else(|problem| {
        let error = format!("::core::compile_error!({problem:?});");
        error.parse().expect("a macro call with a string")
    })
}

fn expand(names: TokenStream, test: TokenStream) -> Result<TokenStream, String> {
    let needs = named(names)?;
    let (attributes, rest) = attributes(test);
    if !attributes.iter().any(|attribute| last_word(attribute).is_some_and(|word| word == "test")) {
        return Err("`needs` stands above the test attribute of a test".to_owned());
    }
    let missing: Vec<String> = needs.iter().filter_map(|need| missing(need)).collect();
    let mut output = TokenStream::new();
    for name in needs.iter().filter_map(|need| variable(need)).chain(["CI"]) {
        let tracked = format!("const _: ::core::option::Option<&str> = ::core::option_env!({name:?});");
        output.extend(tracked.parse::<TokenStream>().expect("an item"));
    }
    if !missing.is_empty() {
        let ignored = format!("#[ignore = {:?}]", missing.join("; "));
        output.extend(ignored.parse::<TokenStream>().expect("an attribute"));
    }
    for attribute in attributes {
        // A second reason would be a warning. The one given here is the nearer one.
        if missing.is_empty() || last_word(&attribute).is_none_or(|word| word != "ignore") {
            output.extend(attribute);
        }
    }
    output.extend(rest);
    Ok(output)
}

/// Returns the needs with these names.
fn named(names: TokenStream) -> Result<Vec<&'static Need>, String> {
    let mut found = Vec::new();
    for token in names {
        match token {
            TokenTree::Ident(name) => {
                let name = name.to_string();
                let need = NEEDS.iter().find(|need| need.name == name);
                found.push(need.ok_or_else(|| {
                    let all: Vec<&str> = NEEDS.iter().map(|need| need.name).collect();
                    format!("no test can need {name}, only: {}", all.join(", "))
                })?);
            }
            TokenTree::Punct(comma) if comma.as_char() == ',' => {}
            other => return Err(format!("`needs` takes names with commas, not {other}")),
        }
    }
    if found.is_empty() { Err("`needs` takes the names of what the test needs".to_owned()) } else { Ok(found) }
}

/// Splits an item into its attributes and the rest.
fn attributes(item: TokenStream) -> (Vec<TokenStream>, TokenStream) {
    let mut attributes = Vec::new();
    let mut tokens = item.into_iter().peekable();
    while matches!(tokens.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == '#') {
        attributes.push(tokens.by_ref().take(2).collect());
    }
    (attributes, tokens.collect())
}

/// Returns the last part of an attribute's path: `test` of `#[tokio::test(flavor = "multi_thread")]`.
fn last_word(attribute: &TokenStream) -> Option<String> {
    let brackets = attribute.clone().into_iter().nth(1)?;
    let TokenTree::Group(inside) = brackets else { return None };
    let path = inside.stream().into_iter().take_while(|token| match token {
        TokenTree::Ident(_) => true,
        TokenTree::Punct(punct) => punct.as_char() == ':',
        TokenTree::Group(group) => group.delimiter() == Delimiter::None,
        TokenTree::Literal(_) => false,
    });
    // A macro hands over its `$crate` and its `$(#[$attribute:meta])*` in groups without delimiters.
    path.last().map(|token| match token {
        TokenTree::Group(group) => group.stream().to_string(),
        other => other.to_string(),
    })
}

fn variable(need: &Need) -> Option<&'static str> {
    match need.presence {
        Presence::Variable(name) | Presence::VariableEvenInCi(name) => Some(name),
        Presence::Machine(_) => None,
    }
}

/// Returns the reason to ignore a test with this need, or `None` if it runs.
fn missing(need: &Need) -> Option<String> {
    let in_ci = std::env::var_os("CI").is_some();
    let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
    let reason = match need.presence {
        Presence::Variable(name) => (!in_ci && unset(name)).then(|| format!("{name} is not set")),
        Presence::VariableEvenInCi(name) => unset(name).then(|| format!("{name} is not set")),
        Presence::Machine(is_there) => {
            (!in_ci && !is_there()).then(|| "not there when the test was compiled".to_owned())
        }
    };
    reason.map(|reason| format!("needs {}: {reason}", need.display))
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Debian keeps the programs in one directory per version.
fn has_postgres_programs() -> bool {
    let versions = std::fs::read_dir(Path::new("/usr/lib/postgresql"));
    let programs = |folder: PathBuf| folder.join("bin/initdb").is_file();
    versions.is_ok_and(|versions| versions.flatten().any(|version| programs(version.path())))
}

/// True if this process has `CAP_SYS_ADMIN`, which mount(2) demands.
fn may_mount() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    effective.is_some_and(|bits| bits & (1 << CAP_SYS_ADMIN) != 0)
}
