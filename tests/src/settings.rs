//! Environment variables of the programs under test.

use std::collections::BTreeMap;
use std::path::Path;

use usher_lab::LabHandle;

use crate::test_env::SECRET;

/// Returns the variables that all programs need: secrets, free addresses, and the lab as every destination.
pub(crate) fn of(lab: &LabHandle, prefix: &str) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> = [
        ("RUST_LOG", "info"),
        ("USHER_LOG_FORMAT", "json"),
        ("CLERK_WEBHOOK_SIGNING_SECRET", SECRET),
        ("USHER_FROM", "Acme <hello@acme.test>"),
        ("RESEND_API_KEY", "re_lab"),
        ("STRIPE_SECRET_KEY", "sk_test_lab"),
        ("STRIPE_PRICE_ID", "price_lab"),
        ("USHER_LISTEN", "127.0.0.1:0"),
        ("USHER_ADMIN", "127.0.0.1:0"),
        ("USHER_TOPIC_PREFIX", prefix),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    for (name, provider) in [("RESEND_BASE_URL", "resend"), ("STRIPE_BASE_URL", "stripe")] {
        environment.insert(name.into(), lab.base_url(provider).expect("a provider"));
    }
    environment.insert("SMTP_URL".into(), lab.smtp_url());
    environment.extend(usher_lab::settings(&lab.url()).into_iter().map(|(name, value)| (name.to_owned(), value)));
    environment
}

/// Writes built-in flows, the templates, and flow files (name and text) into a folder below `folder`. Returns the
/// folder, for `USHER_FLOWS`.
pub(crate) fn flows<T: AsRef<str>>(folder: &Path, built_in: &[&str], files: &[(&str, T)]) -> String {
    let mut sources = usher_flows::builtin();
    sources.retain(|source| built_in.contains(&source.name.as_str()));
    assert_eq!(sources.len(), built_in.len(), "{built_in:?}");
    let flows = folder.join("flows");
    let templates = flows.join("templates");
    std::fs::create_dir_all(&templates).expect("a folder");
    let write = |name: &str, text: &str| {
        std::fs::write(flows.join(format!("{name}.toml")), text).expect("a flow file");
    };
    for source in &sources {
        write(&source.name, &source.toml);
        for (name, text) in &source.templates {
            std::fs::write(templates.join(name), text).expect("a template");
        }
    }
    files.iter().for_each(|(name, text)| write(name, text.as_ref()));
    flows.display().to_string()
}

/// Number of entries that the lab retains: all of them, because tests judge by them.
pub(crate) const EVERYTHING: usize = usize::MAX;
