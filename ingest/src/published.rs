//! Published signing secrets, from examples and from the development setup. Anybody can sign with such a secret, so
//! they are allowed only with the lab.

use axum::http::Uri;
use usher_service::ConfigError;
use usher_service::options::Environment;

/// Svix's examples, the first of which is the default in `docker-compose.yml`, and the lab's own secret.
const PUBLISHED: [&str; 3] = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "whsec_dXNoZXItbGFiLXVzaGVyLWxhYi11c2hlci1sYWI=",
];

/// Settings that hold signing secrets of senders. Those of named instances begin with the same names.
const SIGNING: [&str; 5] = [
    "CLERK_WEBHOOK_SIGNING_SECRET",
    "RESEND_WEBHOOK_SECRET",
    "STRIPE_WEBHOOK_SECRET",
    "NYLAS_WEBHOOK_SECRET",
    usher_proto::source::SENDER_SETTINGS,
];

/// The destinations: the setting of the key, the setting of the base URL, and the key that the lab
/// and `docker-compose.yml` use.
const DESTINATIONS: [(&str, &str, &str); 8] = [
    ("RESEND_API_KEY", "RESEND_BASE_URL", "re_lab"),
    ("STRIPE_SECRET_KEY", "STRIPE_BASE_URL", "sk_test_lab"),
    ("MAILCHIMP_API_KEY", "MAILCHIMP_BASE_URL", "0123456789abcdef0123456789abcdef-us1"),
    ("ALGOLIA_API_KEY", "ALGOLIA_BASE_URL", "0123456789abcdef0123456789abcdef"),
    ("NOVU_SECRET_KEY", "NOVU_BASE_URL", "0123456789abcdef0123456789abcdef"),
    ("NYLAS_API_KEY", "NYLAS_BASE_URL", "nyk_lab"),
    ("CLERK_SECRET_KEY", "CLERK_BASE_URL", "sk_test_lab"),
    ("HTTP_SIGNING_SECRET", "HTTP_BASE_URL", PUBLISHED[2]),
];

/// Refuses a published secret together with a real destination.
///
/// # Errors
///
/// A setting holds a published secret while another one points to a real destination, or a setting cannot be read.
pub(crate) fn refuse_beside_real_destinations(environment: &Environment) -> Result<(), ConfigError> {
    let Some(secret) = published(environment)? else { return Ok(()) };
    let Some(destination) = real_destination(environment)? else { return Ok(()) };
    let why = format!(
        "it is a secret that is published, with which anybody can sign, and {destination} is a real destination's: set \
         the signing secret of your own endpoint, from its page at the sender"
    );
    Err(ConfigError::new(&secret, why))
}

/// Returns the setting that holds a published secret. `None` if there is none.
fn published(environment: &Environment) -> Result<Option<String>, ConfigError> {
    for variable in SIGNING {
        for (suffix, text) in environment.with_prefix(variable)? {
            if text.split_whitespace().any(|secret| PUBLISHED.contains(&secret)) {
                return Ok(Some(format!("{variable}{suffix}")));
            }
        }
    }
    Ok(None)
}

/// Returns a setting that points to a real destination: a key that is not the lab's and whose base URL does not lead
/// to this machine or the lab, or a base URL that leads elsewhere. `ingest` as a process of its own receives only
/// the base URLs.
fn real_destination(environment: &Environment) -> Result<Option<String>, ConfigError> {
    for (key, base_url, lab_key) in DESTINATIONS {
        let keys = environment.with_prefix(key)?;
        for (suffix, text) in &keys {
            let address = match environment.get(&format!("{base_url}{suffix}"))? {
                Some(own) => Some(own),
                None => environment.get(base_url)?,
            };
            if text != lab_key && !address.is_some_and(|address| is_near(&address)) {
                return Ok(Some(format!("{key}{suffix}")));
            }
        }
        let away = environment.with_prefix(base_url)?.into_iter().find(|(_, address)| !is_near(address));
        if let (Some((suffix, _)), true) = (away, keys.is_empty()) {
            return Ok(Some(format!("{base_url}{suffix}")));
        }
    }
    let mail = environment.with_prefix("SMTP_URL")?.into_iter().find(|(_, address)| !is_near(address));
    Ok(mail.map(|(suffix, _)| format!("SMTP_URL{suffix}")))
}

/// True for an address of this machine, or of the lab by its name in `docker-compose.yml`.
fn is_near(address: &str) -> bool {
    let Ok(address) = address.parse::<Uri>() else { return false };
    let host = address.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    let loopback = host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    loopback || host == "lab" || host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "whsec_b3duIHNlY3JldCBvZiBzb21lYm9keSBlbHNl";
    const LAB: &str = "http://lab:8090/resend";

    #[test]
    fn a_published_secret_is_for_the_lab_alone() {
        let clerk = "CLERK_WEBHOOK_SIGNING_SECRET";
        let known = (clerk, PUBLISHED[0]);
        for (settings, refused) in [
            (vec![known], None),
            (vec![(clerk, OWN), ("RESEND_API_KEY", "re_live")], None),
            (vec![known, ("RESEND_API_KEY", "re_live")], Some("RESEND_API_KEY")),
            (vec![known, ("RESEND_API_KEY", "re_lab")], None),
            (vec![known, ("RESEND_API_KEY", "re_live"), ("RESEND_BASE_URL", LAB)], None),
            (vec![known, ("RESEND_API_KEY", "re_live"), ("RESEND_BASE_URL", "http://[::1]:1/x")], None),
            (
                vec![known, ("RESEND_API_KEY", "re_live"), ("RESEND_BASE_URL", "https://api.resend.com")],
                Some("RESEND_API_KEY"),
            ),
            (
                vec![known, ("RESEND_API_KEY", "re_live"), ("RESEND_BASE_URL", "http://localhost.evil.test")],
                Some("RESEND_API_KEY"),
            ),
            (
                vec![known, ("RESEND_API_KEY", "re_live"), ("RESEND_BASE_URL", "http://localhost@real.test")],
                Some("RESEND_API_KEY"),
            ),
            (vec![known, ("STRIPE_BASE_URL", "https://api.stripe.com")], Some("STRIPE_BASE_URL")),
            (vec![known, ("STRIPE_BASE_URL", "https://api.stripe.com"), ("STRIPE_SECRET_KEY", "sk_test_lab")], None),
            (vec![known, ("STRIPE_SECRET_KEY_STAGING", "sk_test_1")], Some("STRIPE_SECRET_KEY_STAGING")),
            (vec![known, ("STRIPE_SECRET_KEY_STAGING", "sk_test_1"), ("STRIPE_BASE_URL", "http://127.0.0.1:9")], None),
            (vec![known, ("SMTP_URL", "smtps://u:p@mail.test")], Some("SMTP_URL")),
            (vec![known, ("SMTP_URL", "smtp://u:p@127.0.0.1:25")], None),
            (vec![known, ("HTTP_SIGNING_SECRET_BILLING", OWN)], Some("HTTP_SIGNING_SECRET_BILLING")),
            (vec![known, ("NOVU_SECRET_KEY", "9f8e7d"), ("NYLAS_API_KEY", "nyk_lab")], Some("NOVU_SECRET_KEY")),
        ] {
            let environment =
                settings.iter().fold(Environment::from_vars([]), |all, (name, value)| all.with(name, *value));
            let said = refuse_beside_real_destinations(&environment).err().map(|error| error.to_string());
            match (refused, said) {
                (None, None) => {}
                (Some(destination), Some(said)) => {
                    assert!(said.starts_with(&format!("{clerk}: ")) && said.contains(destination), "{said}");
                    assert!(
                        settings.iter().all(|(_, value)| !said.contains(value)),
                        "nothing secret is repeated: {said}"
                    );
                }
                (expected, said) => panic!("{settings:?}: {expected:?}, but {said:?}"),
            }
        }
    }

    #[test]
    fn every_setting_that_holds_a_signing_secret_is_looked_at() {
        let real = Environment::from_vars([("RESEND_API_KEY", "re_live")]);
        for variable in [
            "CLERK_WEBHOOK_SIGNING_SECRET_STAGING",
            "RESEND_WEBHOOK_SECRET",
            "CLERK_WEBHOOK_SIGNING_SECRET",
            "STRIPE_WEBHOOK_SECRET",
            "NYLAS_WEBHOOK_SECRET_STAGING",
            "USHER_SOURCE_ACME_SECRET",
        ] {
            for secret in PUBLISHED {
                let error = refuse_beside_real_destinations(&real.clone().with(variable, format!("{OWN} {secret}")));
                assert!(error.expect_err("refused").to_string().starts_with(&format!("{variable}: ")));
            }
        }
    }
}
