//! Definitions for the chaos test: its flows, the results expected of them, and the faults of their destinations.

use usher_lab::Fault;

use crate::checker::Expected;

/// Timeout of one attempt of a step, as written in the flow files. `None` leaves the timeout out of them.
const STEP_TIMEOUT: Option<&str> = Some("3s");

/// Time, in seconds, after which a hanging destination closes the connection. Used only without `STEP_TIMEOUT`.
const HANG_SECONDS: f64 = 3.0;

/// Expected results of each flow.
pub const EXPECTED: [Expected; 3] = [
    Expected { flow: "mail", on: &["user.created", "user.updated"], steps: &["mail"], keeps_rows: false },
    Expected { flow: "trial", on: &["user.created"], steps: &["customer", "subscription"], keeps_rows: false },
    Expected { flow: "db-sync", on: &["user.created", "user.updated"], steps: &[], keeps_rows: true },
];

/// Returns the flow files (name and text). Their requests carry the flow, the step, and the event that caused them.
pub fn flows() -> [(&'static str, String); 3] {
    let timeout = STEP_TIMEOUT.map(|timeout| format!("timeout = \"{timeout}\"")).unwrap_or_default();
    let retry = r#"retry = { attempts = 1000, first = "50ms", max = "2s" }"#;
    let marks = |flow: &str, step: &str| {
        format!(
            "{{ clerk_user_id = \"{{{{ user.id }}}}\", flow = \"{flow}\", step = \"{step}\", \
             event = \"{{{{ event.id }}}}\", seq = \"{{{{ event.data.public_metadata.seq }}}}\" }}"
        )
    };
    let mail = format!(
        r#"
        on = ["clerk/user.created", "clerk/user.updated"]
        {retry}
        [[step]]
        name = "mail"
        use = "resend.send"
        to = "{{{{ user.email }}}}"
        subject = "Change {{{{ event.data.public_metadata.seq }}}}"
        text = "hello"
        tags = {marks}
        {timeout}
        "#,
        marks = marks("mail", "mail")
    );
    let trial = format!(
        r#"
        on = ["clerk/user.created"]
        {retry}
        [[step]]
        name = "customer"
        use = "stripe.create_customer"
        email = "{{{{ user.email }}}}"
        metadata = {customer}
        {timeout}
        [[step]]
        name = "subscription"
        use = "stripe.create_subscription"
        customer = "{{{{ steps.customer.id }}}}"
        trial_days = 14
        metadata = {subscription}
        {timeout}
        "#,
        customer = marks("trial", "customer"),
        subscription = marks("trial", "subscription")
    );
    let rows = include_str!("../../flows/db-sync.toml").to_owned();
    [("mail", mail), ("trial", trial), ("db-sync", rows)]
}

/// Faults of every destination: 20% of requests fail with 503, 2% hang, and 2% take effect without an answer.
pub fn faults() -> Vec<Fault> {
    let usual = Fault::default;
    let hang_seconds = STEP_TIMEOUT.is_none().then_some(HANG_SECONDS);
    vec![
        Fault { status: Some(503), share: 0.2, ..usual() },
        Fault { hang: true, hang_seconds, share: 0.02, ..usual() },
        Fault { drop_after_effect: true, share: 0.02, ..usual() },
    ]
}
