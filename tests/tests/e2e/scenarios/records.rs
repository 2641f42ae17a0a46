//! The log's records, read by an independent client (kcat).

use std::process::Command;

use usher_tests::backend::{Backend, setting};
use usher_tests::events::User;
use usher_tests::needs;
use usher_tests::test_env::{SECRET, TestEnv};

#[needs(kafka, postgres, kcat)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_independent_client_reads_key_headers_and_the_exact_body() {
    let kafka = setting("USHER_TEST_KAFKA");
    let env = TestEnv::start(Backend::real()).await;
    let user = User::new();
    let mut webhook = user.created();
    webhook.body = format!("  {}\n", webhook.body);
    env.send(&webhook).await;

    let read = |format: &str| {
        let topic = env.topic("events");
        let output = Command::new("kcat")
            .args(["-C", "-q", "-b", &kafka, "-t", &topic, "-o", "beginning", "-c", "1", "-f", format])
            .output()
            .expect("kcat runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(read("%k"), user.id);
    assert_eq!(read("%s"), webhook.body, "byte for byte");
    let headers = read("%h");
    let header = |name: &str| {
        let found = headers.split(',').find_map(|header| header.strip_prefix(&format!("{name}=")));
        found.unwrap_or_else(|| panic!("no {name} in {headers}"))
    };
    assert_eq!(header("usher-event-id"), webhook.id);
    assert_eq!(header("usher-type"), "user.created");
    assert_eq!(header("usher-source"), "clerk");
    assert_eq!(header("usher-instance"), "default");
    assert_eq!(header("svix-id"), webhook.id);
    for name in ["usher-occurred-at", "usher-received-at"] {
        assert!(header(name).parse::<usher_proto::Timestamp>().is_ok(), "{name} is RFC 3339");
    }
    // The signature of the record can be verified again.
    let secret = usher_proto::signature::SigningSecret::parse(SECRET).expect("a secret");
    let signed = secret.sign(&webhook.id, header("svix-timestamp"), webhook.body.as_bytes());
    assert!(headers.contains(&signed), "{headers}");
    env.end().await;
}
