//! The environment that programs under test are given.

use std::collections::BTreeMap;
use std::path::Path;

use usher_dispatcher::flows::FlowSource;
use usher_lab::LabHandle;

use crate::world::SECRET;

/// What all programs need: secrets, free addresses, and the lab in place of every destination.
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

/// Puts these built-in flows, and the templates, into a folder below `folder`, and gives it for `USHER_FLOWS`.
pub(crate) fn built_in(folder: &Path, names: &[&str]) -> String {
    let built_in: Vec<FlowSource> =
        usher_dispatcher::flows::builtin().into_iter().filter(|source| names.contains(&source.name.as_str())).collect();
    assert_eq!(built_in.len(), names.len(), "{names:?}");
    let files: Vec<(&str, &str)> = built_in.iter().map(|source| (source.name.as_str(), source.toml.as_str())).collect();
    let flows = flows(folder, &files);
    let templates = Path::new(&flows).join("templates");
    std::fs::create_dir(&templates).expect("a folder");
    for (name, text) in built_in.iter().flat_map(|source| &source.templates) {
        std::fs::write(templates.join(name), text).expect("a template");
    }
    flows
}

/// Writes flow files (name and text) to a folder below `folder`, and gives it for `USHER_FLOWS`.
pub(crate) fn flows<T: AsRef<str>>(folder: &Path, files: &[(&str, T)]) -> String {
    let flows = folder.join("flows");
    std::fs::create_dir(&flows).expect("a folder");
    for (name, text) in files {
        std::fs::write(flows.join(format!("{name}.toml")), text.as_ref()).expect("a flow file");
    }
    flows.display().to_string()
}
