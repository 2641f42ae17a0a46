//! A served lab, and requests to it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Entry, Filter, Lab, LabHandle};

pub(crate) const RESEND_KEY: (&str, &str) = ("authorization", "Bearer re_test_123");
pub(crate) const STRIPE_KEY: (&str, &str) = ("authorization", "Bearer sk_test_123");
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");
pub(crate) const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Timeout of every wait in the tests. Only a hanging test takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A served lab that stops with the test.
pub(crate) struct LabBench {
    handle: Option<LabHandle>,
    lab: Lab,
    url: String,
    smtp: String,
    pub(crate) stop: CancellationToken,
    client: Client,
}

/// A response with its body, read to its end.
#[derive(Debug)]
pub(crate) struct LabReply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl LabReply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the status and Resend's error name.
    pub(crate) fn name(&self) -> (u16, &str) {
        assert_eq!(self.body["statusCode"], self.status);
        assert!(self.body["message"].is_string());
        (self.status, self.body["name"].as_str().expect("a name"))
    }

    /// Returns the status and Stripe's error: type, code and parameter.
    pub(crate) fn error(&self) -> (u16, &str, Option<&str>, Option<&str>) {
        let error = &self.body["error"];
        assert!(error["message"].is_string(), "{self:?}");
        (self.status, error["type"].as_str().expect("a type"), error["code"].as_str(), error["param"].as_str())
    }
}

impl LabBench {
    pub(crate) async fn new() -> Self {
        usher_service::telemetry::install_tls();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stop = CancellationToken::new();
        let handle = Lab::start(listener, stop.clone()).expect("a lab");
        let client = Client::builder().timeout(PATIENCE).build().expect("a client");
        Self {
            lab: handle.lab().clone(),
            url: handle.url(),
            smtp: handle.smtp_url(),
            handle: Some(handle),
            stop,
            client,
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the URL of the lab's mail server.
    pub(crate) fn smtp(&self) -> &str {
        &self.smtp
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(crate) fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url)).body(body.to_owned());
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))
    }

    pub(crate) async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> LabReply {
        read(self.request(method, path, headers, body)).await.expect("an answer")
    }

    /// Sends a mail, with an idempotency key unless `key` is empty.
    pub(crate) async fn mail(&self, key: &str, body: &Value) -> LabReply {
        read(self.mailing(key, body)).await.expect("an answer")
    }

    pub(crate) fn mailing(&self, key: &str, body: &Value) -> RequestBuilder {
        let request = self.request(Method::POST, "/resend/emails", &[RESEND_KEY, JSON], &body.to_string());
        if key.is_empty() { request } else { request.header("idempotency-key", key) }
    }

    /// Posts a form to Stripe, with an idempotency key unless `key` is empty.
    pub(crate) async fn post(&self, path: &str, key: &str, form: &str) -> LabReply {
        read(self.posting(path, key, form)).await.expect("an answer")
    }

    pub(crate) fn posting(&self, path: &str, key: &str, form: &str) -> RequestBuilder {
        let request = self.request(Method::POST, &format!("/stripe{path}"), &[STRIPE_KEY, FORM], form);
        if key.is_empty() { request } else { request.header("idempotency-key", key) }
    }

    pub(crate) async fn get(&self, path: &str) -> LabReply {
        self.ask(Method::GET, &format!("/stripe{path}"), &[STRIPE_KEY], "").await
    }

    pub(crate) async fn delete(&self, path: &str) -> LabReply {
        self.ask(Method::DELETE, &format!("/stripe{path}"), &[STRIPE_KEY], "").await
    }

    pub(crate) fn effects(&self) -> Vec<Arc<Entry>> {
        self.lab.effects(&Filter::default()).expect("effects")
    }

    pub(crate) fn requests(&self) -> Vec<Arc<Entry>> {
        self.lab.requests(&Filter::default()).expect("requests")
    }

    /// Waits until `expected` is true of the lab.
    pub(crate) async fn until(&self, expected: impl Fn(&Self) -> bool) {
        until(|| expected(self)).await;
    }

    /// Stops the lab and waits until it has stopped.
    pub(crate) async fn stopped(mut self) {
        self.stop.cancel();
        let handle = self.handle.take().expect("a running lab");
        tokio::time::timeout(PATIENCE, handle.stopped()).await.expect("the lab stops");
    }
}

impl Drop for LabBench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Sends a request and reads the response. Returns an error if there was none.
pub(crate) async fn read(request: RequestBuilder) -> Result<LabReply, reqwest::Error> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = response.bytes().await?;
    Ok(LabReply { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() })
}

/// Waits until `expected` is true.
pub(crate) async fn until(expected: impl Fn() -> bool) {
    let waited = async {
        while !expected() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.expect("it comes about in time");
}

/// Returns a mail that Resend accepts.
pub(crate) fn mail(to: &str) -> Value {
    serde_json::json!({ "from": "Bindery <hello@bindery.test>", "to": to, "subject": "Welcome", "text": "Hello" })
}
