//! A real mail server that demands TLS and a login: `aiosmtpd` again, with a certificate created here.
//!
//! The trusted certificates are read once per process, from the system or from `SSL_CERT_FILE`, as in a deployment with
//! its own certificate. The mail is therefore sent by a second process: this test program again, limited to one test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::aiosmtpd::read;
use super::*;
use crate::CallGate;

const SERVE: &str = r#"
import asyncio, ssl, sys
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

folder, certificate, key, wrapped = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)

def let_in(server, session, envelope, mechanism, data):
    known = isinstance(data, LoginPassword) and (data.login, data.password) == (b"me@acme.test", "p:ssé".encode())
    return AuthResult(success=known, handled=False)

def session():
    tls = {"auth_require_tls": False} if wrapped == "smtps" else {"tls_context": context, "require_starttls": True}
    return SMTP(Mailbox(folder), auth_required=True, authenticator=let_in, loop=loop, **tls)

async def serve():
    server = await loop.create_server(session, "127.0.0.1", 0, ssl=context if wrapped == "smtps" else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

loop.run_until_complete(serve())
"#;

const GOOD: &str = "p%3Ass%C3%A9";
/// Variable that gives the server's URL to the second process.
const URL: &str = "USHER_TEST_SMTP_TLS_URL";
/// Prefix of the outcome in the second process's output.
const SAYS: &str = "the outcome is ";

struct TlsServer {
    process: Child,
    /// Kept open, because the server would fail to write to a closed pipe.
    _said: BufReader<ChildStdout>,
    port: u16,
    scheme: &'static str,
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl TlsServer {
    fn start(python: &str, folder: &Path, scheme: &'static str) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let certificate = folder.join("certificate.pem");
        let key = folder.join("key.pem");
        std::fs::write(&certificate, made.cert.pem()).expect("written");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
        let mut process = Command::new(python)
            .args(["-c", SERVE])
            .args([folder.join("mail"), certificate, key])
            .arg(scheme)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // The server reports every client that does not trust it.
            .stderr(Stdio::null())
            .spawn()
            .expect("Python starts");
        let mut said = BufReader::new(process.stdout.take().expect("its output"));
        let mut line = String::new();
        said.read_line(&mut line).expect("its port");
        Self { process, _said: said, port: line.trim().parse().expect("a port"), scheme }
    }

    fn url(&self, password: &str) -> String {
        let tls = if self.scheme == "smtp" { "?tls=required" } else { "" };
        format!("{}://me%40acme.test:{password}@127.0.0.1:{}{tls}", self.scheme, self.port)
    }

    /// Sends a mail from a process that trusts the certificate, and returns the outcome.
    fn trusted(&self, folder: &Path, password: &str) -> String {
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args(["--ignored", "--exact", "smtp::tests::tls::the_second_process"])
            .env("SSL_CERT_FILE", folder.join("certificate.pem"))
            .env(URL, self.url(password))
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let outcome = text.lines().find_map(|line| line.split_once(SAYS));
        outcome.unwrap_or_else(|| panic!("no outcome: {text}")).1.to_owned()
    }
}

async fn send(url: &str) -> Outcome {
    let smtp = connector(url);
    smtp.attempt(&prepared(&smtp, &welcome(json!("a@b.test"))).expect("a mail"), KEY, &CallGate::open()).await
}

#[tokio::test]
#[ignore = "run by the others, in a process that trusts their server"]
#[expect(clippy::disallowed_methods, reason = "the first process names the server by a variable")]
async fn the_second_process() {
    let url = std::env::var(URL).expect("the other process's server");
    let outcome = send(&url).await;
    // The test harness captures the output of the print macros.
    writeln!(std::io::stdout(), "\n{SAYS}{outcome:?}").expect("written");
}

#[usher_needs::needs(aiosmtpd)]
#[tokio::test]
async fn a_mail_is_sent_through_tls_and_a_login_and_only_to_whom_is_trusted() {
    let python = crate::tests::real("USHER_TEST_SMTP");
    for scheme in ["smtps", "smtp"] {
        let folder = tempfile::tempdir().expect("a folder");
        let server = TlsServer::start(&python, folder.path(), scheme);
        let maildir = folder.path().join("mail");
        let wrong = server.trusted(folder.path(), "leaky");
        assert!(wrong.contains("Configuration") && wrong.contains("535 5.7.8 at AUTH"), "{scheme}: {wrong}");
        assert!(!wrong.contains("leaky"), "{scheme}: {wrong}");
        assert_outcome(&send(&server.url(GOOD)).await, Ok(Cause::Unreachable), "who it is cannot be known");
        assert_eq!(read(&python, &maildir).await, json!([]), "{scheme}: nothing has come yet");

        let sent = server.trusted(folder.path(), GOOD);
        assert!(sent.starts_with("Done(") && sent.contains("msg_1/0@acme.test"), "{scheme}: {sent}");
        let mails = read(&python, &maildir).await;
        assert_eq!(mails.as_array().map(Vec::len), Some(1), "{scheme}");
        assert_eq!(mails[0]["headers"]["subject"], "Grüße, 世界");
    }
}
