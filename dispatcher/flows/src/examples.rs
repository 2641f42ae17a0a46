//! The examples: the files in `flows/examples/`, flows for services that few use, most of them without a connector of their own.
//! Nothing runs them unless they are copied into a folder of flows.

use std::collections::BTreeMap;

use super::FlowSource;

/// Includes an example's file by its name.
macro_rules! example {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../flows/examples/", $name, ".toml")))
    };
}

const EXAMPLES: &[(&str, &str)] = &[
    example!("slack"),
    example!("discord"),
    example!("teams"),
    example!("loops"),
    example!("hubspot"),
    example!("customer-io"),
    example!("segment"),
    example!("posthog"),
    example!("newsletter-resend"),
];

/// Returns the sources of all examples. They use no templates.
pub fn examples() -> Vec<FlowSource> {
    let source = |(name, toml): (&str, &str)| FlowSource {
        name: name.to_owned(),
        file: format!("flows/examples/{name}.toml"),
        toml: toml.to_owned(),
        templates: BTreeMap::new(),
    };
    EXAMPLES.iter().copied().map(source).collect()
}

#[cfg(test)]
mod tests;
