//! Stalled clients and unread answers must not block other senders.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use usher_service::clock;
use usher_tests::backend::Backend;
use usher_tests::events::{User, Webhook};
use usher_tests::eventually;
use usher_tests::test_env::{Options, SOON, TestEnv};

usher_tests::on_both_backends!(clients_that_stall_keep_nobody_out, answers_that_nobody_reads_hold_up_nothing);

/// Number of stalled connections. More than the permits for concurrent requests.
const STALLED: usize = 600;
/// Number of posts that must succeed meanwhile, and the maximum time for each. A post takes milliseconds on
/// an idle machine.
const POSTS: usize = 100;
const PROMPT: Duration = Duration::from_secs(1);

/// Returns request headers that pass every check that is made before the body arrives.
fn head(path: &str, more: &str) -> Vec<u8> {
    let now = clock::now().seconds();
    format!(
        "POST {path} HTTP/1.1\r\nhost: usher\r\nsvix-id: msg_stalled\r\nsvix-timestamp: {now}\r\n\
         svix-signature: v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=\r\n{more}\r\n"
    )
    .into_bytes()
}

/// Opens connections that begin with these bytes. The server may close any of them early.
async fn stall(address: &str, begin: &[u8]) -> Vec<TcpStream> {
    let open = |_| async move {
        let mut stream = TcpStream::connect(address).await.expect("the kernel takes connections");
        let _ = tokio::time::timeout(SOON, stream.write_all(begin)).await;
        stream
    };
    futures::stream::iter(0..STALLED).map(open).buffer_unordered(64).collect().await
}

/// Sends one byte per second on each connection until the future is dropped.
async fn drip(streams: &mut [TcpStream]) {
    loop {
        for stream in &mut *streams {
            let _ = stream.try_write(b" ");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Returns true if the connection is closed. Does not read: a closed connection answers further writes with a reset.
fn is_closed(stream: &TcpStream) -> bool {
    matches!(stream.try_write(b" "), Err(error) if error.kind() != ErrorKind::WouldBlock)
}

/// Asserts that posts from the same address are acknowledged quickly while other connections stall.
async fn posts_pass(env: &TestEnv, meanwhile: &str) {
    let webhooks: Vec<Webhook> = (0..POSTS).map(|_| User::new().created()).collect();
    let took = futures::stream::iter(&webhooks)
        .map(|webhook| async move {
            let started = Instant::now();
            (env.send_once(webhook).await, started.elapsed())
        })
        .buffer_unordered(4);
    let took: Vec<(Option<u16>, Duration)> = took.collect().await;
    let kept = took.iter().filter(|(status, _)| *status == Some(204)).count();
    assert_eq!(kept, POSTS, "{meanwhile}: {took:?}");
    let slowest = took.iter().map(|(_, took)| *took).max().unwrap_or_default();
    assert!(slowest < PROMPT, "{meanwhile}: {slowest:?}");
}

async fn clients_that_stall_keep_nobody_out(backend: Backend) {
    // No flow starts on these events: only ingest is tested.
    let flow = "on = [\"clerk/user.deleted\"]\n[[step]]\nuse = \"stripe.delete_customer\"\n";
    let links =
        [("USHER_UNSUBSCRIBE_SECRET", "0123456789abcdef0123456789abcdef"), ("USHER_PUBLIC_URL", "https://a.test")];
    let settings = links.map(|(name, value)| (name, value.to_owned())).into();
    let options = Options { flows: vec![("quiet", flow)], settings, ..Options::default() };
    let mut env = TestEnv::with(backend, options).await;
    posts_pass(&env, "nobody stalls").await;
    let address = env.address().to_owned();
    let clerk = |more: &str| head("/webhooks/clerk", more);
    let unfinished = b"POST /webhooks/clerk HTTP/1.1\r\nhost: usher\r\nsvix-id: m".to_vec();
    let half = [clerk("content-length: 1048576\r\n"), vec![b' '; 256 * 1024]].concat();
    let expecting = clerk("content-length: 1000\r\nexpect: 100-continue\r\n");
    for (case, begin) in [
        ("bodies of one byte", [clerk("content-length: 1000\r\n"), b"{".to_vec()].concat()),
        ("chunked bodies", [clerk("transfer-encoding: chunked\r\n"), b"1\r\n{\r\n".to_vec()].concat()),
        ("heads that do not end", unfinished),
        ("bodies that stop half way", half),
        ("bodies that wait for a 100", expecting),
        ("bodies for nobody", [head("/webhooks/paypal", "content-length: 9\r\n"), b"{".to_vec()].concat()),
        ("forms for nobody", [head("/unsubscribe/x", "content-length: 9\r\n"), b"{".to_vec()].concat()),
    ] {
        let stalled = stall(&address, &begin).await;
        posts_pass(&env, case).await;
        drop(stalled);
    }
    let mut dripping = stall(&address, &clerk("content-length: 1000\r\n")).await;
    tokio::select! {
        () = drip(&mut dripping) => {}
        () = posts_pass(&env, "a byte a second") => {}
    }
    // The server closes a connection whose body does not end.
    eventually("the slow ones are gone", SOON, || {
        let gone = dripping.iter().all(is_closed);
        async move { gone.then_some(()) }
    })
    .await;
    let peak = env.ingest().peak_memory() / (1024 * 1024);
    assert!(peak < 500, "{peak} MiB");
    env.end().await;
}

/// Opens connections that send requests and read no answers, until nothing more can be written to them.
async fn deaf(address: &str, count: usize) -> Vec<TcpStream> {
    let open = |_| async move {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let mut stream = socket.connect(address.parse().expect("an address")).await.expect("a connection");
        let asked = b"GET /nowhere HTTP/1.1\r\nhost: usher\r\n\r\n".repeat(1000);
        while tokio::time::timeout(Duration::from_secs(1), stream.write_all(&asked))
            .await
            .is_ok_and(|done| done.is_ok())
        {}
        stream
    };
    futures::stream::iter(0..count).map(open).buffer_unordered(count).collect().await
}

async fn answers_that_nobody_reads_hold_up_nothing(backend: Backend) {
    let mut env = TestEnv::start(backend).await;
    // The operators' pages are served only on the admin address.
    for page in ["/metrics", "/readyz", "/healthz"] {
        assert_eq!(env.get(page).await.0, 404, "{page}");
        let shown = reqwest::get(format!("http://{}{page}", env.admin())).await.unwrap();
        assert_eq!(shown.status(), 200, "{page}");
        let text = shown.text().await.unwrap();
        assert!(page != "/metrics" || text.contains("usher_ingest_requests_in_flight"), "{text}");
    }
    let address = env.address().to_owned();
    let streams = deaf(&address, 50).await;
    eventually("all of them are closed", Duration::from_secs(30), || {
        let gone = streams.iter().all(is_closed);
        async move { gone.then_some(()) }
    })
    .await;

    let mut reading = TcpStream::connect(&address).await.unwrap();
    let _streams = deaf(&address, 50).await;
    let started = Instant::now();
    env.ingest().terminate();
    let ended = env.ingest().ended(SOON).await;
    assert!(ended.success(), "{}", env.ingest().output());
    assert!(started.elapsed() < Duration::from_secs(7), "the stop took {:?}", started.elapsed());
    assert!(!env.ingest().output().contains("at the deadline"), "{}", env.ingest().output());
    // Idle connections are closed as well.
    assert_eq!(reading.read(&mut [0; 16]).await.unwrap_or(0), 0);
    env.end().await;
}
