//! The built-in flows: the files in `flows/`, which users copy and edit.

use super::FlowSource;

/// Includes a flow's file by its name.
macro_rules! flow {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../flows/", $name, ".toml")))
    };
}

/// Includes a template by the name of its file.
macro_rules! template {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../flows/templates/", $name)))
    };
}

const FLOWS: &[(&str, &str)] = &[
    flow!("email"),
    flow!("onboarding"),
    flow!("trial"),
    flow!("trial-mail"),
    flow!("db-sync"),
    flow!("auth-email"),
    flow!("account-security"),
    flow!("newsletter"),
    flow!("search"),
    flow!("notify"),
    flow!("replies"),
    flow!("digest"),
];

const TEMPLATES: &[(&str, &str)] = &[
    template!("welcome.html"),
    template!("welcome.txt"),
    template!("trial-offer.html"),
    template!("trial-offer.txt"),
    template!("trial-mail.html"),
    template!("trial-mail.txt"),
    template!("check-in.html"),
    template!("check-in.txt"),
    template!("address-changed.html"),
    template!("address-changed.txt"),
    template!("security-changed.html"),
    template!("security-changed.txt"),
    template!("digest.html"),
    template!("digest.txt"),
];

/// Returns the sources of all built-in flows.
pub fn builtin() -> Vec<FlowSource> {
    let templates = || TEMPLATES.iter().copied().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
    FLOWS
        .iter()
        .copied()
        .map(|(name, toml)| FlowSource {
            name: name.to_owned(),
            file: format!("flows/{name}.toml"),
            toml: toml.to_owned(),
            templates: templates(),
        })
        .collect()
}

#[cfg(test)]
mod tests;
