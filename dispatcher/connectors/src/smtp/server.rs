//! Conversation with the server, one connection per mail. The commands are sent one by one, although lettre could send
//! a mail in one call, so that the stage of a failure is known. lettre is built without its own tracing, which would
//! log addresses and passwords.

use std::borrow::Cow;
use std::error::Error as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Quit, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use tokio::time::{Instant, timeout, timeout_at};
use usher_engine::{Cause, DestinationAnswer, Outcome};
use usher_proto::Reason;
use usher_service::ConfigError;

use super::classify::{Stage, classify};
use super::request::Mail;
use crate::{CallGate, stored};

/// Time limit for establishing a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Time limit for everything up to the dot. The rest of the step's `timeout` (30 s unless the flow sets another, up to
/// 5 minutes) is for the answer to the dot; RFC 5321 allows ten minutes for it.
const DOT_DEADLINE: Duration = Duration::from_secs(20);
/// Time limit for the answer to `QUIT`; the outcome does not wait for it.
const QUIT_DEADLINE: Duration = Duration::from_secs(5);

enum Tls {
    No,
    /// TLS from the first byte.
    Wrapped(TlsParameters),
    /// `STARTTLS` if the server offers it, else no TLS.
    Opportunistic(TlsParameters),
    /// `STARTTLS`; without it nothing is sent.
    Required(TlsParameters),
}

/// A mail server, with the credentials for it.
pub(super) struct MailServer {
    host: String,
    port: u16,
    tls: Tls,
    hello: ClientId,
    credentials: Option<Credentials>,
    /// Time limit for everything up to the dot.
    pub(super) dot_deadline: Duration,
}

impl MailServer {
    /// Parses `SMTP_URL`, in lettre's format: `smtps://` (port 465); `smtp://` (port 25) without TLS; `smtp://` with
    /// `?tls=required` or `?tls=opportunistic` (port 587) with `STARTTLS`. User and password are percent-encoded. The
    /// path, if there is one, is the name to send in `EHLO`.
    pub(super) fn from_url(text: &str) -> Result<Self, ConfigError> {
        let wrong = |why: &str| {
            let form = "it is smtps://user:password@host, or smtp://user:password@host?tls=required";
            ConfigError::new("SMTP_URL", format!("{why}; {form}"))
        };
        // The parser's error message may repeat the password.
        let url: Url = text.parse().map_err(|_| wrong("the address cannot be read"))?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it names no host"))?;
        let parameters = || TlsParameters::new(host.to_owned()).map_err(|error| ConfigError::new("SMTP_URL", error));
        let wanted = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
        let (tls, port) = match (url.scheme(), wanted.as_deref()) {
            ("smtps", None) => (Tls::Wrapped(parameters()?), 465),
            ("smtp", None) => (Tls::No, 25),
            ("smtp", Some("opportunistic")) => (Tls::Opportunistic(parameters()?), 587),
            ("smtp", Some("required")) => (Tls::Required(parameters()?), 587),
            _ => return Err(wrong("its scheme or tls is unknown")),
        };
        let credentials = match (url.username(), url.password()) {
            ("", None) => None,
            (user, Some(password)) if !user.is_empty() => {
                let decoded = |text| decode(text).ok_or_else(|| wrong("user or password is not percent-encoded UTF-8"));
                Some(Credentials::new(decoded(user)?, decoded(password)?))
            }
            _ => return Err(wrong("user and password belong together")),
        };
        let name = url.path().trim_matches('/');
        let hello = if name.is_empty() { ClientId::default() } else { ClientId::Domain(name.to_owned()) };
        let host = host.to_owned();
        let port = url.port().unwrap_or(port);
        Ok(Self { host, port, tls, hello, credentials, dot_deadline: DOT_DEADLINE })
    }

    /// Sends a mail. `Ok` means that the server has taken responsibility for it; `Err` is the outcome of the attempt.
    pub(super) async fn send(&self, mail: &Mail, id: &str, gate: &CallGate) -> Result<(), Outcome> {
        let deadline = Instant::now() + self.dot_deadline;
        let mut connection = match timeout_at(deadline, self.up_to_data(mail, gate)).await {
            Ok(reached) => reached?,
            Err(_) => return Err(Outcome::retry(Cause::Unreachable)),
        };
        let dot = AtomicBool::new(false);
        let id = format!("Message-ID: <{id}>\r\n");
        // lettre requests another part after it has written all earlier ones. It sends the dot next.
        let end = std::iter::from_fn(|| {
            dot.store(true, Ordering::Relaxed);
            None
        });
        let parts = [id.as_bytes(), mail.message.as_bytes()].into_iter().chain(end);
        let answer = {
            let mut sending = std::pin::pin!(connection.message_iter(parts));
            match timeout_at(deadline, &mut sending).await {
                Ok(answer) => answer,
                // The server discards a message that has no end.
                Err(_) if !dot.load(Ordering::Relaxed) => return Err(Outcome::retry(Cause::Unreachable)),
                Err(_) => sending.await,
            }
        };
        let stage = if dot.load(Ordering::Relaxed) { Stage::Dot } else { Stage::Data };
        let sent = answer.map(drop).map_err(|error| failed(stage, &error, gate));
        leave(connection);
        sent
    }

    /// Opens a connection and sends all commands that precede the message.
    async fn up_to_data(&self, mail: &Mail, gate: &CallGate) -> Result<AsyncSmtpConnection, Outcome> {
        let mut connection = self.connect().await.map_err(|error| failed(Stage::Connect, &error, gate))?;
        let said = self.say(&mut connection, mail, gate).await;
        match said {
            Ok(()) => Ok(connection),
            Err(outcome) => {
                leave(connection);
                Err(outcome)
            }
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Error> {
        let wrapped = match &self.tls {
            Tls::Wrapped(parameters) => Some(parameters.clone()),
            Tls::No | Tls::Opportunistic(_) | Tls::Required(_) => None,
        };
        let server = (self.host.trim_matches(['[', ']']), self.port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, Some(CONNECT_DEADLINE), &self.hello, wrapped, None).await?;
        match &self.tls {
            Tls::Opportunistic(parameters) if connection.can_starttls() => {
                connection.starttls(parameters.clone(), &self.hello).await?;
            }
            Tls::Required(parameters) => connection.starttls(parameters.clone(), &self.hello).await?,
            Tls::No | Tls::Wrapped(_) | Tls::Opportunistic(_) => {}
        }
        Ok(connection)
    }

    async fn say(&self, connection: &mut AsyncSmtpConnection, mail: &Mail, gate: &CallGate) -> Result<(), Outcome> {
        if let Some(credentials) = &self.credentials {
            let login = connection.auth(&[Mechanism::Plain, Mechanism::Login], credentials).await;
            login.map_err(|error| failed(Stage::Login, &error, gate))?;
        }
        let beyond_ascii = !mail.message.is_ascii() || mail.to.iter().chain([&mail.from]).any(|text| !text.is_ascii());
        let mut parameters = Vec::new();
        if beyond_ascii {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                // Domains are A-labels at this point, so the non-ASCII letters are in a local part.
                let error =
                    "an address has other letters than ASCII's before its @, and the server takes none (SMTPUTF8)";
                return Err(Outcome::reject(Reason::InvalidAddress, error));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        let from = connection.command(MailFrom::new(Some(address(&mail.from)?), parameters)).await;
        from.map_err(|error| failed(Stage::Sender, &error, gate))?;
        // One refused recipient fails the whole mail: a partly delivered mail would have no clear outcome.
        for to in &mail.to {
            let to = connection.command(Rcpt::new(address(to)?, Vec::new())).await;
            to.map_err(|error| failed(Stage::Recipient, &error, gate))?;
        }
        connection.command(Data).await.map(drop).map_err(|error| failed(Stage::Data, &error, gate))
    }
}

/// Records the server's words for operators, and returns the outcome of an attempt that failed at this stage.
fn failed(stage: Stage, error: &Error, gate: &CallGate) -> Outcome {
    let words = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    gate.refused(DestinationAnswer::new(error.status().map(u16::from), None, Some(&words)));
    classify(stage, error)
}

fn address(text: &str) -> Result<Address, Outcome> {
    text.parse().map_err(|_| stored::unreadable())
}

/// Sends `QUIT` without waiting for the answer: the outcome is already known.
fn leave(mut connection: AsyncSmtpConnection) {
    tokio::spawn(async move {
        // A failure makes no difference.
        let _ = timeout(QUIT_DEADLINE, connection.command(Quit)).await;
    });
}

/// Decodes percent-encoding. Returns `None` if a `%` begins no escape, which the crate would leave unchanged, or if the
/// result is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let is_escape = |rest: &str| matches!(rest.as_bytes(), [a, b, ..] if [a, b].iter().all(|b| b.is_ascii_hexdigit()));
    if !text.split('%').skip(1).all(is_escape) {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_how_to_reach_the_server_and_a_wrong_one_hides_the_password() {
        usher_service::telemetry::install_tls();
        for (url, port, user) in [
            ("smtp://mail.test", 25, false),
            ("smtp://mail.test:2525/usher.test", 2525, false),
            ("smtps://me%40mail.test:p%3Ass@mail.test", 465, true),
            ("smtp://me:secret@mail.test?tls=required", 587, true),
            ("smtp://mail.test?tls=opportunistic", 587, false),
        ] {
            let server = MailServer::from_url(url).expect(url);
            assert_eq!((server.port, server.credentials.is_some()), (port, user), "{url}");
        }
        let hello = MailServer::from_url("smtp://mail.test/usher.test").expect("an address").hello;
        assert_eq!(hello, ClientId::Domain("usher.test".into()));
        for url in
            ["mail.test", "http://me:secret@mail.test", "smtp://secret@mail.test", "smtp://me:secret@mail.test?tls=no"]
        {
            let Err(error) = MailServer::from_url(url) else { panic!("{url} is no address") };
            assert!(error.to_string().contains("SMTP_URL") && !error.to_string().contains("secret@"), "{error}");
        }
        assert_eq!(decode("p%3Ass%C3%A9").as_deref(), Some("p:ssé"));
        assert_eq!(decode("%4").or_else(|| decode("%zz")), None);
        assert_eq!(decode("100%25%2541").as_deref(), Some("100%%41"));
        for text in ["%", "a%", "%41%", "%%41", "%+f", "%ff", "%4\u{e9}"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
