//! Unsubscribe links of marketing mail: their base URL and the secrets that sign them.

use usher_proto::unsubscribe::{PATH, SECRETS, Unsubscribe, UnsubscribeSecrets};
use usher_service::ConfigError;
use usher_service::options::Environment;

const PUBLIC_URL: &str = "USHER_PUBLIC_URL";
const EXAMPLE: &str = "the address at which ingest is reached from outside, such as https://hooks.acme.com";

/// Builds signed unsubscribe links.
#[derive(Debug, Clone)]
pub struct Links {
    secrets: UnsubscribeSecrets,
    base: String,
}

impl Links {
    /// Reads `USHER_UNSUBSCRIBE_SECRET` and `USHER_PUBLIC_URL`. Returns `None` if neither is set, and an error if only
    /// one is set or one is invalid.
    pub(super) fn from_environment(environment: &Environment) -> Result<Option<Self>, ConfigError> {
        let secrets = environment.get(SECRETS)?;
        let base = environment.get(PUBLIC_URL)?;
        let (secrets, base) = match (secrets, base) {
            (None, None) => return Ok(None),
            (Some(secrets), Some(base)) => (secrets, base),
            (Some(_), None) => {
                return Err(ConfigError::new(PUBLIC_URL, format!("not set, but {SECRETS} is: say {EXAMPLE}")));
            }
            (None, Some(_)) => {
                let why =
                    format!("not set, but {PUBLIC_URL} is: it signs the links that end marketing mail, in ingest too");
                return Err(ConfigError::new(SECRETS, why));
            }
        };
        let secrets = UnsubscribeSecrets::parse(&secrets).map_err(|error| ConfigError::new(SECRETS, error))?;
        let url: Option<url::Url> = base.parse().ok();
        let good = |url: &url::Url| {
            let plain = url.username().is_empty() && url.password().is_none();
            matches!(url.scheme(), "http" | "https") && plain && url.query().is_none() && url.fragment().is_none()
        };
        let url = url.filter(good).ok_or_else(|| ConfigError::new(PUBLIC_URL, format!("it is {EXAMPLE}")))?;
        Ok(Some(Self { secrets, base: url.as_str().trim_end_matches('/').to_owned() }))
    }

    pub(super) fn missing(flow: &str, step: &str) -> ConfigError {
        let why = format!(
            "not set, and step {step} of flow {flow} is marketing mail, which carries a signed link that ends it: set this \
             (at least 32 characters, in ingest too) and {PUBLIC_URL}, {EXAMPLE}"
        );
        ConfigError::new(SECRETS, why)
    }

    /// Returns the unsubscribe link for one recipient. The same input always results in the same link.
    pub fn url(&self, link: &Unsubscribe) -> String {
        format!("{}{PATH}/{}", self.base, self.secrets.sign(link))
    }
}

#[cfg(test)]
mod tests {
    use usher_proto::{AddressDigest, Instance, Key, Source, SubjectId};

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn links(secret: &str, base: &str) -> Result<Option<Links>, String> {
        let environment = Environment::from_vars([(SECRETS, secret), (PUBLIC_URL, base)]);
        Links::from_environment(&environment).map_err(|error| error.to_string())
    }

    #[test]
    fn a_link_leads_to_ingest_and_reads_back() {
        let links = links(SECRET, "https://acme.test/hooks/").expect("good").expect("both are set");
        let subject = SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_1"));
        let link = Unsubscribe::new(&subject, "news", AddressDigest::of("a@b.test"));
        let url = links.url(&link);
        let token = url.strip_prefix("https://acme.test/hooks/unsubscribe/").expect("its place");
        assert_eq!(UnsubscribeSecrets::parse(SECRET).expect("a secret").verify(token), Some(link));
    }

    #[test]
    fn half_of_the_settings_and_bad_ones_are_told() {
        assert!(matches!(links("", ""), Ok(None)));
        for (secret, base, expected) in [
            (SECRET, "", "USHER_PUBLIC_URL: not set"),
            ("", "https://a.test", "USHER_UNSUBSCRIBE_SECRET: not set"),
            ("short-one", "https://a.test", "USHER_UNSUBSCRIBE_SECRET: each secret has at least 32"),
            (SECRET, "acme.test", "USHER_PUBLIC_URL: it is the address"),
            (SECRET, "https://u:p@acme.test", "USHER_PUBLIC_URL: it is the address"),
            (SECRET, "https://acme.test/?a=b", "USHER_PUBLIC_URL: it is the address"),
        ] {
            let error = links(secret, base).expect_err(expected);
            assert!(error.starts_with(expected) && !error.contains("short-one"), "{error}");
        }
    }
}
