//! Variables that flow files name, and flows that are off until they are named.

use usher_tests::backend::Backend;
use usher_tests::events::User;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(a_mail_goes_where_a_variable_says,);

const TOLD: &str = r#"
on = ["clerk/user.created"]
[[step]]
name = "tell"
use = "resend.send"
to = "{{ setting.TEAM_INBOX }}"
subject = "Somebody is new"
text = "{{ user.id }}"
"#;

const QUIET: &str = r#"
enabled = false
on = ["clerk/user.created"]
[[step]]
use = "database.sync_user"
"#;

async fn a_mail_goes_where_a_variable_says(backend: Backend) {
    let settings = vec![("TEAM_INBOX", "team@workplace.test".to_owned())];
    let flows = vec![("told", TOLD)];
    let env = TestEnv::with(backend, Options { flows, settings, ..Options::default() }).await;
    env.send(&User::new().created()).await;
    env.all_ended(1, SOON).await;
    let to: Vec<Option<String>> = env.effects("resend").iter().map(|effect| effect.to.clone()).collect();
    assert_eq!(to, [Some("team@workplace.test".to_owned())]);
    env.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_that_is_off_runs_only_where_it_is_named() {
    for (named, expected) in [(None, "told"), (Some("quiet"), "quiet")] {
        let mut settings = vec![("TEAM_INBOX", "team@workplace.test".to_owned())];
        settings.extend(named.map(|name| ("USHER_FLOW", name.to_owned())));
        let flows = vec![("told", TOLD), ("quiet", QUIET)];
        let env = TestEnv::with(Backend::Embedded, Options { flows, settings, ..Options::default() }).await;
        env.send(&User::new().created()).await;
        env.all_ended(1, SOON).await;
        let runs = env.runs(&usher_store::RunFilter::default()).await;
        assert_eq!(runs.iter().map(|run| run.flow.as_str()).collect::<Vec<_>>(), [expected]);
        env.end().await;
    }
}
