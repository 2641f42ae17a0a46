//! Builds the body and chooses the address and the secret. Pure.

use std::borrow::Cow;

use reqwest::Url;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use usher_proto::Json;

use super::address::{PlainHttp, is_address};
use super::secrets::NamedSecrets;
use crate::{PrepareError, StepInput};

/// A request as it is stored. The signature is computed again for each attempt, because it covers the attempt's time.
#[derive(Serialize, Deserialize)]
pub(super) struct Post {
    pub(super) url: String,
    pub(super) secret: Option<String>,
    pub(super) body: String,
}

/// Builds the request for these inputs. Fails if its secret is not set or its address not allowed.
pub(super) fn prepare(
    inputs: &StepInput<'_>,
    secrets: &NamedSecrets,
    plain_http: PlainHttp,
) -> Result<Post, PrepareError> {
    let text = |name: &str| inputs.params.get(name).and_then(Value::as_str);
    let url = text("url").filter(|url| is_address(url));
    let url = url.and_then(|url| Url::parse(url).ok()).ok_or_else(|| PrepareError("url is no address".into()))?;
    plain_http.check_scheme(&url)?;
    let secret = text("secret");
    secrets.get(secret)?;
    let body = match inputs.json("body") {
        Some(body) => body.to_owned(),
        // The payload that the specification recommends.
        None => {
            let event = inputs.event;
            let timestamp = event.occurred_at.to_string();
            // The data are passed on as they were sent, except for characters that strict parsers refuse.
            let data = inputs.sent().map_or(Cow::Borrowed("null"), Json::well_formed);
            let kind = Value::from(event.kind.as_str());
            format!(r#"{{"data":{data},"timestamp":"{timestamp}","type":{kind}}}"#)
        }
    };
    Ok(Post { url: url.into(), secret: secret.map(str::to_owned), body })
}
