//! Compares the steps of flows with the settings, at the start.

use std::collections::BTreeSet;

use serde_json::Value;
use usher_service::ConfigError;

use super::HttpConnector;
use super::address_text::{AddressPart, PlacePart, address_parts, place};
use super::secrets::variable;
use crate::StepUse;
use crate::placeholder::{named_in, secret_name};

impl HttpConnector {
    /// Checks that each step's secrets are set and its address allowed, and records where the steps send requests to.
    pub(super) fn check_steps(&self, uses: &[StepUse<'_>]) -> Result<(), ConfigError> {
        let mut places = BTreeSet::new();
        for used in uses {
            let StepUse { flow, step, .. } = used;
            let secret = used.text("secret");
            let is_signed = used.operation == super::POST
                || secret.is_some()
                || used.params.get("sign") == Some(&Value::Bool(true));
            if is_signed && self.signing.get(secret).is_err() {
                let variable = variable(secret);
                let why = format!("not set, and step {step} of flow {flow} signs with it: it is whsec_ and base64");
                return Err(ConfigError::new(&variable, why));
            }
            let named = used.params.values().flat_map(named_in).collect::<BTreeSet<_>>();
            let secrets = self
                .secrets
                .all(named.iter().map(String::as_str))
                .map_err(|error| ConfigError(format!("{error}; step {step} of flow {flow} uses it as a secret")))?;
            let Some(parts) = used.text("url").and_then(address_parts) else { continue };
            if let Some(Err(error)) =
                filled(&parts, &secrets).parse().ok().map(|url| self.plain_http.check_scheme(&url))
            {
                return Err(used.wrong("url", &error.0));
            }
            places.insert(place_of(&parts));
        }
        // A second check of the same connector would be a second start; the first one counts.
        let _ = self.places.set(places);
        Ok(())
    }
}

/// Returns an address with its secrets, and with a letter in place of each expression on the event.
fn filled(parts: &[AddressPart<'_>], secrets: &crate::placeholder::SecretValues) -> String {
    let part = |part: &AddressPart<'_>| match part {
        AddressPart::Literal(text) => (*text).to_owned(),
        AddressPart::Fixed(expression) => {
            secret_name(expression).and_then(|name| secrets.get(name)).cloned().unwrap_or_else(|| "x".to_owned())
        }
        AddressPart::Data(_) => "x".to_owned(),
    };
    parts.iter().map(part).collect()
}

fn place_of(parts: &[AddressPart<'_>]) -> String {
    place(parts.iter().map(|part| match part {
        AddressPart::Literal(text) => PlacePart::Text(text),
        AddressPart::Fixed(expression) => PlacePart::Secret(secret_name(expression).unwrap_or(expression)),
        AddressPart::Data(expression) => PlacePart::Text(expression),
    }))
}
