//! The mail server's port: connections, lines, and the end of a message.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::session::{Next, Session};
use crate::fake_server::FakeServer;

/// The longest line that is read: far beyond what RFC 5321 (4.5.3.1) allows.
const LONGEST_LINE: u64 = 64 * 1024;
/// The largest message.
const MOST_BYTES: usize = 40 * 1024 * 1024;
/// How long a client may say nothing.
const PATIENCE: Duration = Duration::from_secs(300);

/// Takes connections until `stop`.
pub(crate) async fn serve(listener: TcpListener, server: Arc<FakeServer>, stop: CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let (server, stop) = (server.clone(), stop.clone());
                tokio::spawn(async move {
                    // A client that vanishes is no matter of ours.
                    let _ = stop.run_until_cancelled(talk(stream, server)).await;
                });
            }
            // Out of file handles, say: others may be given back meanwhile.
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
            Next::Message => {
                writer.write_all(b"354 End with a dot on a line of its own\r\n").await?;
                let Some(message) = message(&mut lines).await? else { return Ok(()) };
                session.message(&message).await
            }
            next => next,
        };
        match next {
            Next::Reply(reply) => writer.write_all(format!("{reply}\r\n").as_bytes()).await?,
            Next::Quit => return writer.write_all(b"221 2.0.0 Bye\r\n").await,
            // Not even a reply.
            Next::Close | Next::Message => return Ok(()),
        }
    }
}

/// A line without its end; none where the client has left, or talks too much or too little.
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

/// The message up to the dot, with its dots unstuffed (RFC 5321, 4.5.2). None where its end never came: then it is
/// nobody's message.
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
