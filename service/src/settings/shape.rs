//! Detection of invalid values by their form. A key of the right form may still be wrong.
//!
//! Sources: the prefixes of keys and ids come from the services' own documentation (Stripe's API keys and object ids,
//! Resend's and Nylas's API keys, Svix's signing secrets). For a service without such a prefix, every value passes that
//! does not have the prefix of another service.

/// Prefixes that identify the kind of a key or an id.
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

/// Settings that hold a key or an id: the allowed prefixes, and a description of a valid value.
const KEYS: &[(&str, &[&str], &str)] = &[
    ("CLERK_SECRET_KEY", &["sk_"], "the secret key of Clerk begins with sk_live_ or sk_test_"),
    ("RESEND_API_KEY", &["re_"], "an API key of Resend begins with re_"),
    ("STRIPE_SECRET_KEY", &["sk_", "rk_"], "the secret key begins with sk_"),
    ("STRIPE_PRICE_ID", &["price_"], "a price begins with price_"),
    ("NYLAS_API_KEY", &["nyk_"], "an API key of Nylas begins with nyk_"),
    ("NYLAS_GRANT_ID", &[], "a grant's id is a UUID"),
    ("MAILCHIMP_API_KEY", &[], "an API key of Mailchimp ends in its data center, such as -us21"),
    ("ALGOLIA_API_KEY", &[], "an API key of Algolia has no such beginning"),
    ("NOVU_SECRET_KEY", &["sk_"], "the secret key of Novu has no such beginning"),
];

/// Checks that the value of a setting is plausible.
///
/// # Errors
///
/// The value has quotes around it, contains white space, or has the prefix of another kind of key or id. The error does
/// not repeat the value.
pub(super) fn check(setting: &str, value: &str) -> Result<(), String> {
    if ['"', '\'', '`'].iter().any(|quote| value.len() > 1 && value.starts_with(*quote) && value.ends_with(*quote)) {
        return Err("it has quotes around it: write the value alone".into());
    }
    let Some((_, beginnings, right)) = KEYS.iter().find(|(name, ..)| *name == setting) else { return Ok(()) };
    // The setting may contain several grants.
    if setting != "NYLAS_GRANT_ID" && value.contains(char::is_whitespace) {
        return Err("it has a blank or a line break in it: copy it again".into());
    }
    let other = BEGINNINGS.iter().find(|(begin, _)| value.starts_with(begin) && !beginnings.contains(begin));
    other.map_or(Ok(()), |(_, what)| Err(format!("this is {what}: {right}")))
}
