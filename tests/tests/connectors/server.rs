//! A server that answers every connection in the same, possibly invalid, way.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Behaviour after a request has been read.
#[derive(Debug, Clone)]
pub(crate) enum Script {
    /// Writes these bytes and closes the connection.
    Write(Vec<u8>),
    /// Writes these bytes, then keeps the connection open without writing.
    Stall(Vec<u8>),
    /// Writes these bytes, then writes without end.
    Flood(Vec<u8>),
}

/// Returns a complete answer.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Script {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    Script::Write(format!("{head}{headers}\r\n{body}").into_bytes())
}

/// A running server.
pub(crate) struct TestServer {
    pub(crate) port: u16,
    /// Every request as received.
    pub(crate) requests: Arc<Mutex<Vec<String>>>,
    /// Notified when a script has written its bytes.
    pub(crate) written: Arc<Notify>,
    /// Number of bytes written by a flood.
    pub(crate) flooded: Arc<Mutex<usize>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestServer {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::default();
        let written = Arc::new(Notify::new());
        let flooded = Arc::default();
        let seen = Arc::clone(&requests);
        let told = Arc::clone(&written);
        let counted = Arc::clone(&flooded);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that disconnects early is no error of the server.
                let _ = serve(stream, &script, &seen, &told, &counted).await;
            }
        });
        Self { port, requests, written, flooded, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    script: &Script,
    requests: &Mutex<Vec<String>>,
    written: &Notify,
    flooded: &Mutex<usize>,
) -> std::io::Result<()> {
    let request = read(&mut stream).await?;
    requests.lock().unwrap().push(request);
    let (Script::Write(bytes) | Script::Stall(bytes) | Script::Flood(bytes)) = script;
    stream.write_all(bytes).await?;
    stream.flush().await?;
    written.notify_one();
    match script {
        Script::Write(_) => stream.shutdown().await,
        Script::Stall(_) => std::future::pending().await,
        Script::Flood(_) => loop {
            stream.write_all(&[b' '; 8192]).await?;
            *flooded.lock().unwrap() += 8192;
        },
    }
}

/// Reads a complete request, according to its `Content-Length`.
async fn read(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await?;
        bytes.extend_from_slice(&chunk[..count]);
        // First byte of TLS, which this server does not speak. The client detects that the answer is not TLS.
        if bytes.first() == Some(&0x16) {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            if body.len() >= length.unwrap_or(0_usize) {
                return Ok(text.into_owned());
            }
        }
        if count == 0 {
            return Ok(text.into_owned());
        }
    }
}
