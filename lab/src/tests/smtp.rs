//! The mail server's rules, tested with hand-written commands.

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::support::LabBench;
use crate::{Fault, Limit};

struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects and sends `EHLO`.
    async fn greeted(bench: &LabBench) -> Self {
        let address = bench.smtp().strip_prefix("smtp://").expect("an address").to_owned();
        let mut client = Self(BufReader::new(TcpStream::connect(address).await.expect("a connection")));
        assert_eq!(client.reply().await, "220");
        assert_eq!(client.say("EHLO test").await, "250");
        client
    }

    /// Reads the code of the reply. Returns an empty text if the connection was closed.
    async fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.expect("a reply");
            if line.get(3..4).is_none_or(|next| next != "-") {
                return line.chars().take(3).collect();
            }
        }
    }

    async fn say(&mut self, text: &str) -> String {
        self.0.get_mut().write_all(format!("{text}\r\n").as_bytes()).await.expect("it listens");
        self.reply().await
    }

    /// Sends a complete mail and returns the reply to it.
    async fn mail(&mut self, to: &str) -> String {
        assert_eq!(self.say("MAIL FROM:<hello@acme.test> BODY=8BITMIME").await, "250");
        assert_eq!(self.say(&format!("RCPT TO:<{to}>")).await, "250");
        assert_eq!(self.say("DATA").await, "354");
        let message =
            "Message-ID: <k1@acme.test>\r\nX-Clerk-User-Id: user_1\r\nSubject: Hi\r\n there\r\n\r\n..dots\r\n.";
        self.say(message).await
    }
}

#[tokio::test]
async fn a_mail_is_taken_and_shown_as_it_was_sent() {
    let bench = LabBench::new().await;
    let mut client = Client::greeted(&bench).await;
    assert_eq!(client.mail("dana@work.test").await, "250");
    assert_eq!(client.say("QUIT").await, "221");
    let effect = bench.effects().pop().expect("an effect");
    assert_eq!((effect.provider, effect.operation.as_ref()), ("smtp", "messages.send"));
    assert_eq!((effect.user.as_deref(), effect.to.as_deref()), (Some("user_1"), Some("dana@work.test")));
    assert_eq!(effect.idempotency_key.as_deref(), Some("k1@acme.test"));
    assert_eq!((&effect.body["from"], &effect.body["to"]), (&json!("hello@acme.test"), &json!(["dana@work.test"])));
    assert_eq!(effect.body["headers"]["subject"], "Hi there");
    assert!(
        effect.body["message"].as_str().is_some_and(|text| text.ends_with("\r\n\r\n.dots\r\n")),
        "{:?}",
        effect.body
    );
}

#[tokio::test]
async fn commands_have_their_order() {
    let bench = LabBench::new().await;
    let mut client = Client::greeted(&bench).await;
    for (said, expected) in [
        ("RCPT TO:<a@b.test>", "503"),
        ("DATA", "503"),
        ("MAIL FROM:hello", "501"),
        ("MAIL FROM:<>", "250"),
        ("RCPT TO:<nobody>", "501"),
        ("RCPT TO:<a@b.test>", "250"),
        ("RSET", "250"),
        ("DATA", "503"),
        ("NOOP", "250"),
        ("STARTTLS", "502"),
    ] {
        assert_eq!(client.say(said).await, expected, "{said}");
    }
    assert!(bench.effects().is_empty());
}

#[tokio::test]
async fn faults_refuse_the_message_or_what_they_match() {
    let bench = LabBench::new().await;
    let fault = |fault: Fault| bench.lab().set_fault("smtp", fault).expect("a fault");
    fault(Fault { status: Some(451), ..Fault::default() });
    assert_eq!(Client::greeted(&bench).await.mail("a@b.test").await, "451");
    fault(Fault { status: Some(550), containing: Some("RCPT TO:<ghost@".into()), ..Fault::default() });
    let mut client = Client::greeted(&bench).await;
    client.say("MAIL FROM:<hello@acme.test>").await;
    assert_eq!(client.say("RCPT TO:<ghost@b.test>").await, "550");
    assert_eq!(client.mail("a@b.test").await, "250");
    assert_eq!(bench.effects().len(), 1);
    fault(Fault { drop_after_effect: true, ..Fault::default() });
    assert_eq!(client.mail("a@b.test").await, "", "no reply, but the mail is taken");
    assert_eq!(bench.effects().len(), 2);
    bench.lab().end_fault("smtp").expect("smtp");
    bench.lab().set_limit("smtp", Limit { per_second: 1 }).expect("a limit");
    let mut client = Client::greeted(&bench).await;
    assert_eq!((client.mail("a@b.test").await, client.mail("a@b.test").await), ("250".into(), "421".into()));
}

#[tokio::test]
async fn addresses_are_as_smtp_has_them() {
    let bench = LabBench::new().await;
    let mut client = Client::greeted(&bench).await;
    let long = format!("RCPT TO:<{}@b.test>", "a".repeat(250));
    for (said, expected) in [
        ("MAIL FROM:<\u{e4}@acme.test>", "553"),
        ("MAIL FROM:<hello@acme.test>", "250"),
        ("RCPT TO:<dana@m\u{fc}nchen.test>", "553"),
        ("RCPT TO:<dana@xn--mnchen-3ya.test>", "250"),
        ("RCPT TO:<a..b.@docomo.test>", "501"),
        ("RCPT TO:<\"a..b.\"@docomo.test>", "250"),
        (long.as_str(), "501"),
        ("MAIL FROM:<hello@acme.test> SMTPUTF8", "250"),
        ("RCPT TO:<\u{e4}@b.test>", "250"),
    ] {
        assert_eq!(client.say(said).await, expected, "{said}");
    }
}
