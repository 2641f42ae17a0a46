//! The settings with which a connector reaches its double.

use crate::{discord, slack, teams, webhook};

/// Returns environment variables and values for the doubles of a lab at `url`: addresses, keys of the right format that
/// open no real account, ids that must be set, and the secrets of the flows in `flows/examples`. The addresses and keys of Resend and Stripe are not included; the
/// caller that starts the lab sets them.
pub fn settings(url: &str) -> Vec<(&'static str, String)> {
    let at = |name: &str| format!("{url}/{name}");
    vec![
        // The doubles have no rate limit unless one is set, and then their responses announce it.
        ("RESEND_QUOTA", "none".into()),
        ("STRIPE_QUOTA", "none".into()),
        ("NOVU_QUOTA", "none".into()),
        ("MAILCHIMP_QUOTA", "none".into()),
        ("HTTP_BASE_URL", at("http")),
        ("HTTP_SIGNING_SECRET", webhook::SECRET.into()),
        ("SLACK_URL", slack::SLACK_URL.into()),
        ("DISCORD_URL", discord::DISCORD_URL.into()),
        ("TEAMS_URL", teams::TEAMS_URL.into()),
        ("LOOPS_API_KEY", "labKeyOfLoops".into()),
        ("HUBSPOT_TOKEN", "labTokenOfHubspot".into()),
        ("CUSTOMER_IO_SITE_ID", "labSiteOfCustomerIo".into()),
        ("CUSTOMER_IO_API_KEY", "labKeyOfCustomerIo".into()),
        ("SEGMENT_WRITE_KEY", "labKeyOfSegment".into()),
        ("POSTHOG_API_KEY", "phc_labKeyOfPosthog".into()),
        ("MAILCHIMP_BASE_URL", at("mailchimp")),
        ("MAILCHIMP_API_KEY", "0123456789abcdef0123456789abcdef-us1".into()),
        ("MAILCHIMP_LIST_ID", "1ab0000000".into()),
        ("NOVU_BASE_URL", at("novu")),
        ("NOVU_SECRET_KEY", "0123456789abcdef0123456789abcdef".into()),
        ("ALGOLIA_BASE_URL", at("algolia")),
        ("ALGOLIA_APP_ID", "LABLABLAB0".into()),
        ("ALGOLIA_API_KEY", "0123456789abcdef0123456789abcdef".into()),
        ("ALGOLIA_INDEX", "users".into()),
        ("CLERK_QUOTA", "none".into()),
        ("CLERK_BASE_URL", at("clerk")),
        ("CLERK_SECRET_KEY", "sk_test_lab".into()),
        ("NYLAS_BASE_URL", at("nylas")),
        ("NYLAS_API_KEY", "nyk_lab".into()),
        ("NYLAS_GRANT_ID", "41009df5-bf11-4c97-aa18-b285b5f2e386".into()),
    ]
}
