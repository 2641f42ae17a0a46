//! The network side of the mail server: connections, lines, and the end of a message.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::session::{Session, SessionReply};
use crate::fake_server::FakeServer;

/// Maximum length of a line, in bytes. Far more than RFC 5321 (4.5.3.1) allows.
const LONGEST_LINE: u64 = 64 * 1024;
/// Maximum size of a message, in bytes.
const MOST_BYTES: usize = 40 * 1024 * 1024;
/// Timeout for a line from the client.
const PATIENCE: Duration = Duration::from_secs(300);

/// Accepts connections until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, server: Arc<FakeServer>, stop: CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let server = server.clone();
                let stop = stop.clone();
                tokio::spawn(async move {
                    // An error means that the client has disconnected, which needs no handling.
                    let _ = stop.run_until_cancelled(talk(stream, server)).await;
                });
            }
            // For instance out of file handles: others may be released meanwhile.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn talk(stream: TcpStream, server: Arc<FakeServer>) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader);
    let mut session = Session::new(server);
    writer.write_all(b"220 lab.usher.test ESMTP\r\n").await?;
    loop {
        let Some(line) = line(&mut lines).await? else { return Ok(()) };
        let next = match session.command(&String::from_utf8_lossy(&line)).await {
            SessionReply::Message => {
                writer.write_all(b"354 End with a dot on a line of its own\r\n").await?;
                let Some(message) = message(&mut lines).await? else { return Ok(()) };
                session.message(&message).await
            }
            next => next,
        };
        match next {
            SessionReply::Reply(reply) => writer.write_all(format!("{reply}\r\n").as_bytes()).await?,
            SessionReply::Quit => return writer.write_all(b"221 2.0.0 Bye\r\n").await,
            // Closed without a reply.
            SessionReply::Close | SessionReply::Message => return Ok(()),
        }
    }
}

/// Reads a line and removes its line end. Returns `None` if the client has disconnected, timed out, or sent too
/// long a line.
async fn line(lines: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut limited = lines.take(LONGEST_LINE);
    let read = tokio::time::timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await;
    let Ok(Ok(1..)) = read else { return Ok(None) };
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(line))
}

/// Reads a message up to the final dot and removes the dot-stuffing (RFC 5321, 4.5.2). Returns `None` if the end never
/// came or the message is too large; it is then discarded.
async fn message(lines: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    let mut message = Vec::new();
    while let Some(line) = line(lines).await? {
        if line == b"." {
            return Ok(Some(message));
        }
        message.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        message.extend_from_slice(b"\r\n");
        if message.len() > MOST_BYTES {
            return Ok(None);
        }
    }
    Ok(None)
}
