//! An event from which others are made: its text, and the person it is about.

use bytes::Bytes;
use serde_json::Value;
use usher_clerk::samples;
use usher_proto::Source;

/// The built-in event that introduces the person of all built-in events.
const PERSON: &str = "user.created";

/// An event from which others are made.
#[derive(Debug, Clone)]
pub struct Template {
    kind: String,
    pub(super) source: Source,
    text: Bytes,
    pub(super) value: Value,
    pub(super) about: About,
}

/// The person that an event is about, as far as the event states it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct About {
    pub(super) user: Option<String>,
    pub(super) address: Option<String>,
    pub(super) first_name: Option<String>,
    pub(super) last_name: Option<String>,
}

/// The error of a text that is not an event.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTemplate {
    /// There is no built-in event of this type.
    #[error("there is no built-in event {name:?}: it may be {}, or a file", super::all_sample_names().join(", "))]
    UnknownSample {
        /// The requested name.
        name: String,
    },
    /// The text is not JSON.
    #[error("it is not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// The JSON is not an event: `type` is not a text, or `data` is not an object.
    #[error("it is no event: it needs an object with a text \"type\" and an object \"data\"")]
    NotAnEvent,
}

impl Template {
    /// Returns the built-in event of this name: see [`all_sample_names`](super::all_sample_names). Clerk's events may be
    /// named with or without their source.
    ///
    /// # Errors
    ///
    /// If there is no built-in event of this name.
    pub fn sample(name: &str) -> Result<Self, InvalidTemplate> {
        let unknown = || InvalidTemplate::UnknownSample { name: name.to_owned() };
        if let Some((source, kind)) = name.split_once('/')
            && source != Source::Clerk.label()
        {
            let source: Source = source.parse().map_err(|_| unknown())?;
            let sample = usher_senders::samples::of_type(source, kind).ok_or_else(unknown)?;
            let mut template = Self::of_source(source, sample.to_string())?;
            template.about = Self::sample(PERSON)?.about;
            return Ok(template);
        }
        let name = name.strip_prefix("clerk/").unwrap_or(name);
        let mut template = Self::from_text(samples::sample(name).ok_or_else(unknown)?)?;
        if template.about.user.is_some() && name != PERSON {
            // The person's address is that of `user.created`, even in an event in which another address has become
            // the primary one.
            template.about.address = Self::sample(PERSON)?.about.address;
        }
        Ok(template)
    }

    /// Creates a template from the text of an event, for instance from a file.
    ///
    /// # Errors
    ///
    /// If the text is not JSON, or the JSON is not an event.
    pub fn from_text(text: impl Into<Bytes>) -> Result<Self, InvalidTemplate> {
        Self::of_source(Source::Clerk, text)
    }

    /// Creates a template from the text of an event of this source.
    ///
    /// # Errors
    ///
    /// If the text is not JSON, or the JSON is not an event.
    pub fn of_source(source: Source, text: impl Into<Bytes>) -> Result<Self, InvalidTemplate> {
        let text = text.into();
        let value: Value = serde_json::from_slice(&text)?;
        let kind = value["type"].as_str().filter(|_| value["data"].is_object());
        let kind = kind.ok_or(InvalidTemplate::NotAnEvent)?.to_owned();
        let about = About::of(&kind, &value["data"]);
        Ok(Self { kind, source, text, value, about })
    }

    /// Returns the event type.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns the sender of such events.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Returns the text, byte for byte.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// Returns the id of the Clerk user that the event is about. Returns `None` if it is about no user.
    pub fn user(&self) -> Option<&str> {
        self.about.user.as_deref()
    }
}

impl About {
    fn of(kind: &str, data: &Value) -> Self {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let is_user = data["object"] == "user" || kind.starts_with("user.");
        let user = is_user
            .then(|| text(&data["id"]))
            .flatten()
            .or_else(|| text(&data["user_id"]))
            .or_else(|| text(&data["user"]["id"]))
            .or_else(|| text(&data["public_user_data"]["user_id"]))
            .or_else(|| text(&data["payer"]["user_id"]))
            .or_else(|| text(&data["created_by"]))
            .or_else(|| text(&data["object"]["metadata"]["clerk_user_id"]))
            .or_else(|| text(&data["tags"]["clerk_user_id"]));
        let address = primary_address(data)
            .or_else(|| primary_address(&data["user"]))
            .or_else(|| text(&data["to_email_address"]))
            .or_else(|| text(&data["public_user_data"]["identifier"]).filter(|identifier| identifier.contains('@')))
            .or_else(|| text(&data["payer"]["email"]))
            .or_else(|| text(&data["email_address"]));
        let named = |field: &str| {
            [data, &data["user"], &data["public_user_data"], &data["payer"]]
                .iter()
                .find_map(|owner| text(&owner[field]))
        };
        Self { user, address, first_name: named("first_name"), last_name: named("last_name") }
    }
}

/// Returns the address whose id is the user's `primary_email_address_id`. Its position in the list has no meaning.
fn primary_address(user: &Value) -> Option<String> {
    let primary = user["primary_email_address_id"].as_str()?;
    let entry = user["email_addresses"].as_array()?.iter().find(|entry| entry["id"] == primary)?;
    entry["email_address"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::sample_names;
    use super::*;

    #[test]
    fn every_built_in_event_is_what_it_is_called() {
        for name in sample_names() {
            let kind = name.split(':').next();
            assert_eq!(Some(Template::sample(name).expect("a sample").kind()), kind);
        }
    }

    #[test]
    fn the_primary_address_is_found_by_its_id_and_is_not_the_first() {
        let template = Template::sample("user.created").expect("a sample");
        let first = template.value["data"]["email_addresses"][0]["email_address"].as_str();
        assert!(template.about.address.is_some());
        assert_ne!(template.about.address.as_deref(), first);
    }

    #[test]
    fn the_built_in_events_are_about_one_person() {
        let person = Template::sample("user.created").expect("a sample").about;
        for name in sample_names() {
            let about = Template::sample(name).expect("a sample").about;
            assert!(about.user.is_none() || about.user == person.user, "{name}");
            assert!(about.first_name.is_none() || about.first_name == person.first_name, "{name}");
        }
    }

    #[test]
    fn what_is_no_event_is_refused() {
        assert!(matches!(Template::from_text("{"), Err(InvalidTemplate::NotJson(_))));
        for text in ["[]", "{}", r#"{"type":"user.created"}"#, r#"{"type":1,"data":{}}"#] {
            assert!(matches!(Template::from_text(text), Err(InvalidTemplate::NotAnEvent)), "{text}");
        }
        let error = Template::sample("user.create").expect_err("no such sample").to_string();
        assert!(error.contains("user.created"), "{error}");
    }
}
