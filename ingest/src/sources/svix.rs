//! Common code for senders whose webhooks are signed and delivered by Svix.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use usher_proto::event::MAX_ID;
use usher_proto::headers::TRACEPARENT;
use usher_proto::signature::{Signed, SigningSecret};
use usher_proto::{Instance, TraceParent};
use usher_service::ConfigError;
use usher_service::options::{Environment, instance_suffix};

use crate::error::Refusal;

/// Both families of header names: Svix's own, and those of Standard Webhooks. A request uses one family only.
pub(super) const SVIX: [&str; 3] = usher_proto::headers::SVIX;
pub(super) const STANDARD: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// Parses one or more secrets, separated by spaces. `variable` is named in the error.
pub(super) fn secrets(variable: &str, text: &str) -> Result<Vec<SigningSecret>, ConfigError> {
    SigningSecret::parse_list(text).map_err(|error| ConfigError::new(variable, error))
}

/// Returns the setting of an instance's secrets: `variable`, and for a named instance its name behind it.
pub(super) fn setting(variable: &str, instance: &Instance) -> String {
    match instance.is_default() {
        true => variable.to_owned(),
        false => format!("{variable}{}", instance_suffix(instance.as_str())),
    }
}

/// The signing secrets of a sender's instances.
#[derive(Clone)]
pub(super) struct InstanceSecrets(BTreeMap<Instance, Vec<SigningSecret>>);

impl InstanceSecrets {
    /// Reads `variable` for the default instance and `<variable>_<INSTANCE>` for each other instance. Each may hold
    /// several secrets, separated by spaces. `None` if no secret is set.
    ///
    /// # Errors
    ///
    /// A secret or the name of an instance is invalid.
    pub(super) fn from_environment(variable: &str, environment: &Environment) -> Result<Option<Self>, ConfigError> {
        let mut secrets = BTreeMap::new();
        if let Some(text) = environment.get(variable)? {
            secrets.insert(Instance::default(), self::secrets(variable, &text)?);
        }
        for (suffix, text) in environment.with_prefix(&format!("{variable}_"))? {
            let variable = format!("{variable}_{suffix}");
            let name = suffix.to_lowercase().replace('_', "-");
            let instance = name.parse().map_err(|error| ConfigError::new(&variable, error))?;
            secrets.insert(instance, self::secrets(&variable, &text)?);
        }
        Ok((!secrets.is_empty()).then_some(Self(secrets)))
    }

    /// Returns the setting of an instance's secrets, if it is not set.
    pub(super) fn unset(&self, variable: &str, instance: &Instance) -> Option<String> {
        (!self.0.contains_key(instance)).then(|| setting(variable, instance))
    }

    /// Returns the instance of this name and its secrets.
    ///
    /// # Errors
    ///
    /// No secret is configured for the instance.
    pub(super) fn of(&self, instance: &str) -> Result<(&Instance, &[SigningSecret]), Refusal> {
        self.0.get_key_value(instance).map(|(name, secrets)| (name, secrets.as_slice())).ok_or(Refusal::NoSuchInstance)
    }
}

/// Returns the headers of the signature, all from one family.
///
/// # Errors
///
/// A header is missing or cannot be read, or the id is too long or contains control characters.
pub(super) fn signed(headers: &HeaderMap) -> Result<Signed<'_>, Refusal> {
    let names = if headers.contains_key(SVIX[0]) || !headers.contains_key(STANDARD[0]) { SVIX } else { STANDARD };
    let value = |name: &'static str| {
        let value = headers.get(name).ok_or(Refusal::HeaderMissing(name))?;
        value.to_str().ok().filter(|text| !text.is_empty()).ok_or(Refusal::HeaderMalformed(name))
    };
    let signed = Signed { id: value(names[0])?, timestamp: value(names[1])?, signatures: value(names[2])? };
    if signed.id.len() > MAX_ID || signed.id.contains(char::is_control) {
        return Err(Refusal::HeaderMalformed(names[0]));
    }
    Ok(signed)
}

/// Returns the headers that are stored with the event: the parts of the signature, under Svix's own names, and
/// the trace context, if it is valid.
pub(super) fn provenance(signed: &Signed<'_>, headers: &HeaderMap) -> Vec<(String, String)> {
    let values = [signed.id, signed.timestamp, signed.signatures];
    let mut provenance: Vec<(String, String)> =
        SVIX.iter().zip(values).map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect();
    provenance.extend(trace_parent(headers).map(|parent| (TRACEPARENT.to_owned(), parent.to_string())));
    provenance
}

/// Returns the trace context of a request. `None` if there is none, or if it is not exactly one valid header: the
/// signature does not cover it, so a proxy that breaks it must not cost the webhook.
fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok()?.parse().ok()
}
