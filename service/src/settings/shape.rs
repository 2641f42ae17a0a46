//! Values that cannot be right, by what they look like. Says nothing of what a key opens.
//!
//! Facts: the beginnings of keys and ids, from the services' own documentation (Stripe's API keys and object ids,
//! Resend's and Nylas's API keys, Svix's signing secrets). Where a service has no such beginning, anything that is no
//! other's passes.

/// Beginnings that tell whose a key or an id is.
const BEGINNINGS: &[(&str, &str)] = &[
    ("sk_", "a secret key of Stripe or Clerk"),
    ("rk_", "a restricted key of Stripe"),
    ("pk_", "the publishable key"),
    ("whsec_", "a signing secret"),
    ("re_", "an API key of Resend"),
    ("nyk_", "an API key of Nylas"),
    ("price_", "the id of a price"),
    ("prod_", "the id of a product"),
    ("cus_", "the id of a customer"),
    ("sub_", "the id of a subscription"),
];

/// A setting whose value is a key or an id: the beginnings that it may have, and what is right.
const KEYS: &[(&str, &[&str], &str)] = &[
    ("RESEND_API_KEY", &["re_"], "an API key of Resend begins with re_"),
    ("STRIPE_SECRET_KEY", &["sk_", "rk_"], "the secret key begins with sk_"),
    ("STRIPE_PRICE_ID", &["price_"], "a price begins with price_"),
    ("NYLAS_API_KEY", &["nyk_"], "an API key of Nylas begins with nyk_"),
    ("NYLAS_GRANT_ID", &[], "a grant's id is a UUID"),
    ("MAILCHIMP_API_KEY", &[], "an API key of Mailchimp ends in its data center, such as -us21"),
    ("ALGOLIA_API_KEY", &[], "an API key of Algolia has no such beginning"),
    ("NOVU_SECRET_KEY", &["sk_"], "the secret key of Novu has no such beginning"),
];

/// True if the value of a setting can be right.
///
/// # Errors
///
/// The reason, without the value.
pub(super) fn check(setting: &str, value: &str) -> Result<(), String> {
    if ['"', '\'', '`'].iter().any(|quote| value.len() > 1 && value.starts_with(*quote) && value.ends_with(*quote)) {
        return Err("it has quotes around it: write the value alone".into());
    }
    let Some((_, beginnings, right)) = KEYS.iter().find(|(name, ..)| *name == setting) else { return Ok(()) };
    // Several grants may be named.
    if setting != "NYLAS_GRANT_ID" && value.contains(char::is_whitespace) {
        return Err("it has a blank or a line break in it: copy it again".into());
    }
    let other = BEGINNINGS.iter().find(|(begin, _)| value.starts_with(begin) && !beginnings.contains(begin));
    other.map_or(Ok(()), |(_, what)| Err(format!("this is {what}: {right}")))
}
