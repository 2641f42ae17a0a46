//! Faults that depend on the connection or on a disconnect of the client.

use std::pin::pin;

use axum::http::Method;
use futures::poll;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::support::{LabBench, mail, read, until};
use crate::request::Request;
use crate::{Fault, Filter, Lab};

fn fault() -> Fault {
    Fault::default()
}

fn hang() -> Fault {
    Fault { hang: true, ..fault() }
}

#[tokio::test]
async fn a_status_is_answered_in_the_providers_words_without_effect() {
    let bench = LabBench::new().await;
    let outage = Fault { status: Some(503), retry_after: Some(2), ..fault() };
    for provider in ["resend", "stripe"] {
        bench.lab().set_fault(provider, outage.clone()).expect("a fault");
    }
    let mailed = bench.mail("", &mail("a@work.test")).await;
    assert_eq!((mailed.name(), mailed.header("retry-after")), ((503, "service_unavailable"), Some("2")));
    let posted = bench.post("/v1/customers", "", "name=Dana").await;
    assert_eq!((posted.error().1, posted.header("retry-after")), ("api_error", Some("2")));
    assert!(posted.header("request-id").is_some());
    assert!(bench.effects().is_empty());
    let statuses: Vec<_> = bench.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [Some(503), Some(503)]);
}

#[tokio::test]
async fn a_name_chooses_among_the_errors_of_a_status() {
    let bench = LabBench::new().await;
    for name in ["daily_quota_exceeded", "named_tomorrow"] {
        let named = Fault { status: Some(429), name: Some(name.into()), ..fault() };
        bench.lab().set_fault("resend", named).expect("a fault");
        assert_eq!(bench.mail("", &mail("a@work.test")).await.name(), (429, name));
    }
}

#[tokio::test]
async fn a_match_makes_one_users_mail_fail() {
    let bench = LabBench::new().await;
    let dana = Fault { status: Some(500), containing: Some("dana@work.test".into()), ..fault() };
    bench.lab().set_fault("resend", dana.clone()).expect("a fault");
    bench.lab().set_fault("stripe", dana).expect("a fault");
    assert_eq!(bench.mail("", &mail("dana@work.test")).await.status, 500);
    assert_eq!(bench.mail("", &mail("lee@work.test")).await.status, 200);
    assert_eq!(bench.post("/v1/customers", "", "email=dana%40work.test").await.status, 500);
    assert_eq!(bench.get("/v1/customers?email=dana%40work.test").await.status, 500);
    assert_eq!(bench.post("/v1/customers", "", "email=lee%40work.test").await.status, 200);
}

#[tokio::test]
async fn a_dropped_answer_leaves_its_effect_behind() {
    let bench = LabBench::new().await;
    let dropping = Fault { drop_after_effect: true, ..fault() };
    for provider in ["resend", "stripe"] {
        bench.lab().set_fault(provider, dropping.clone()).expect("a fault");
    }
    assert!(read(bench.mailing("k1", &mail("a@work.test"))).await.is_err());
    assert!(read(bench.posting("/v1/customers", "k1", "name=Dana")).await.is_err());
    let effects = bench.effects();
    assert_eq!(effects.iter().map(|effect| effect.status).collect::<Vec<_>>(), [Some(200); 2]);
    assert_eq!(bench.requests().iter().map(|request| request.status).collect::<Vec<_>>(), [None; 2]);

    for provider in ["resend", "stripe"] {
        bench.lab().end_fault(provider).expect("a provider");
    }
    let mailed = bench.mail("k1", &mail("a@work.test")).await;
    let posted = bench.post("/v1/customers", "k1", "name=Dana").await;
    assert_eq!(posted.header("idempotent-replayed"), Some("true"));
    assert_eq!([Some(&mailed.body), Some(&posted.body)], [effects[0].result.as_deref(), effects[1].result.as_deref()]);
    assert_eq!(bench.effects().iter().filter(|effect| !effect.replayed).count(), 2);
}

/// Sends a mail over a separate connection.
async fn send_mail(bench: &LabBench) -> TcpStream {
    let address = bench.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let body = mail("a@work.test").to_string();
    let request = format!(
        "POST /resend/emails HTTP/1.1\r\nhost: lab\r\nauthorization: Bearer re_1\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    stream
}

#[tokio::test]
async fn a_dropped_connection_carries_not_one_byte() {
    let bench = LabBench::new().await;
    bench.lab().set_fault("resend", Fault { drop_after_effect: true, ..fault() }).expect("a fault");
    let mut stream = send_mail(&bench).await;
    let mut received = Vec::new();
    // The connection may end with a reset or a close.
    let _ = stream.read_to_end(&mut received).await;
    assert_eq!(String::from_utf8_lossy(&received), "");
    assert_eq!(bench.effects().len(), 1);
}

#[tokio::test]
async fn a_hanging_request_is_served_when_the_fault_is_over() {
    let bench = LabBench::new().await;
    bench.lab().set_fault("resend", hang()).expect("a fault");
    let body = mail("a@work.test");
    let ending = async {
        bench.until(|bench| bench.requests().len() == 1).await;
        assert_eq!((bench.requests()[0].status, bench.effects().len()), (None, 0));
        bench.lab().end_fault("resend").expect("resend");
    };
    let (reply, ()) = tokio::join!(bench.mail("", &body), ending);
    assert_eq!((reply.status, bench.effects().len()), (200, 1));
}

#[tokio::test]
async fn a_hanging_fault_ends_by_itself_too() {
    let bench = LabBench::new().await;
    bench.lab().set_fault("resend", Fault { for_seconds: Some(0.05), ..hang() }).expect("a fault");
    assert_eq!(bench.mail("", &mail("a@work.test")).await.status, 200);
    assert_eq!(bench.lab().faults("resend"), Ok(vec![]));
}

#[tokio::test]
async fn a_hanging_request_whose_time_is_over_is_cut_off_without_effect() {
    let bench = LabBench::new().await;
    bench.lab().set_fault("resend", Fault { hang_seconds: Some(0.02), ..hang() }).expect("a fault");
    assert!(read(bench.mailing("k1", &mail("a@work.test"))).await.is_err());
    bench.lab().end_fault("resend").expect("resend");
    assert_eq!((bench.effects().len(), bench.mail("k1", &mail("a@work.test")).await.status), (0, 200));
}

#[tokio::test]
async fn a_hanging_request_whose_client_has_gone_has_no_effect_when_the_fault_is_over() {
    let bench = LabBench::new().await;
    bench.lab().set_fault("resend", hang()).expect("a fault");
    let mut stream = send_mail(&bench).await;
    bench.until(|bench| bench.requests().len() == 1).await;
    stream.shutdown().await.expect("the client goes");
    // The connection ends once the lab has noticed the disconnect.
    let _ = stream.read_to_end(&mut Vec::new()).await;
    bench.lab().end_fault("resend").expect("resend");
    assert_eq!(bench.mail("", &mail("b@work.test")).await.status, 200);
    assert_eq!(bench.effects().iter().map(|effect| effect.to.as_deref()).collect::<Vec<_>>(), [Some("b@work.test")]);
}

#[tokio::test]
async fn a_stop_cuts_hanging_requests_off() {
    let bench = LabBench::new().await;
    bench.lab().set_fault("resend", hang()).expect("a fault");
    let hanging = tokio::spawn(read(bench.mailing("", &mail("a@work.test"))));
    bench.until(|bench| bench.requests().len() == 1).await;
    let lab = bench.lab().clone();
    bench.stopped().await;
    assert!(hanging.await.expect("the task ends").is_err());
    assert_eq!(lab.effects(&Filter::default()), Ok(vec![]));
}

/// Creates a lab without a network server. The test drops the future itself, as hyper does if a client disconnects.
fn desk_with(fault: Fault) -> (Lab, Request) {
    let lab = Lab::new(crate::KEEP, &CancellationToken::new());
    lab.set_fault("stripe", fault).expect("a fault");
    let form = "application/x-www-form-urlencoded";
    let mut request = Request::of(Method::POST, "/v1/customers", form, "name=Dana");
    request.headers.insert("authorization", "Bearer sk_test_1".parse().expect("a header"));
    (lab, request)
}

#[tokio::test]
async fn a_hanging_request_is_forgotten_when_the_client_leaves() {
    let (lab, request) = desk_with(hang());
    {
        let mut answer = pin!(lab.server("stripe").expect("stripe").clone().answer(request));
        assert!(poll!(&mut answer).is_pending());
    }
    lab.end_fault("stripe").expect("stripe");
    tokio::task::yield_now().await;
    assert_eq!(lab.effects(&Filter::default()), Ok(vec![]));
    assert_eq!(lab.requests(&Filter::default()).expect("requests").len(), 1);
}

#[tokio::test]
async fn a_slow_request_is_carried_out_though_the_client_leaves() {
    let (lab, request) = desk_with(Fault { latency_ms: 20, ..fault() });
    {
        let mut answer = pin!(lab.server("stripe").expect("stripe").clone().answer(request));
        assert!(poll!(&mut answer).is_pending());
    }
    until(|| lab.effects(&Filter::default()).is_ok_and(|effects| effects.len() == 1)).await;
    assert_eq!(lab.requests(&Filter::default()).expect("requests")[0].status, None);
}
