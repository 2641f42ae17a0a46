//! The flows that come with Usher: the files in `flows/`, which a user copies and edits.

use super::FlowSource;

const FLOWS: [(&str, &str); 3] = [
    ("email", include_str!("../../../flows/email.toml")),
    ("trial", include_str!("../../../flows/trial.toml")),
    ("db-sync", include_str!("../../../flows/db-sync.toml")),
];

const TEMPLATES: [(&str, &str); 2] = [
    ("welcome.html", include_str!("../../../flows/templates/welcome.html")),
    ("welcome.txt", include_str!("../../../flows/templates/welcome.txt")),
];

/// All built-in flows.
pub fn builtin() -> Vec<FlowSource> {
    let templates = || TEMPLATES.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
    FLOWS
        .into_iter()
        .map(|(name, toml)| FlowSource {
            name: name.to_owned(),
            file: format!("flows/{name}.toml"),
            toml: toml.to_owned(),
            templates: templates(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::Flow;

    #[test]
    fn the_built_in_flows_pass_their_own_check() {
        for source in builtin() {
            let name = source.name.clone();
            if let Err(problems) = Flow::check(source) {
                panic!("{name}: {problems:?}");
            }
        }
    }
}
