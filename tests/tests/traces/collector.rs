//! A double of a collector: takes spans by OTLP over HTTP, and keeps them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use prost::Message as _;

/// The behaviour of a collector.
#[derive(Clone, Copy)]
pub(crate) enum Answers {
    /// It takes every request.
    Taken,
    /// It accepts connections and never answers.
    Nothing,
}

/// A running collector. Its threads end with the process.
pub(crate) struct Collector {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// A span as it was exported. Ids are in hex; `parent` is empty for the root of a trace.
#[derive(Debug, Clone)]
pub(crate) struct ExportedSpan {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    /// The names of the events in it, which are the messages of log lines.
    pub(crate) events: Vec<String>,
    attributes: Vec<KeyValue>,
}

impl Collector {
    /// Starts a collector on a free port.
    pub(crate) fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let taken = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let taken = taken.clone();
                std::thread::spawn(move || serve(stream, answers, &taken));
            }
        });
        Self { address, requests }
    }

    /// The value of `USHER_OTLP_ENDPOINT`.
    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans so far.
    pub(crate) fn spans(&self) -> Vec<ExportedSpan> {
        let requests = self.requests.lock().unwrap().clone();
        requests.iter().flat_map(|body| spans(body)).collect()
    }

    /// True if a request contains these bytes anywhere.
    pub(crate) fn has_received(&self, text: &str) -> bool {
        let requests = self.requests.lock().unwrap();
        requests.iter().any(|body| body.windows(text.len()).any(|bytes| bytes == text.as_bytes()))
    }
}

impl ExportedSpan {
    fn value(&self, field: &str) -> Option<&Value> {
        value(&self.attributes, field)
    }

    /// A field that is a text.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        match self.value(field)? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }

    /// A field that is a number.
    pub(crate) fn number(&self, field: &str) -> Option<i64> {
        match self.value(field)? {
            Value::IntValue(number) => Some(*number),
            _ => None,
        }
    }
}

fn value<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    attributes.iter().find(|pair| pair.key == name)?.value.as_ref()?.value.as_ref()
}

fn spans(body: &[u8]) -> Vec<ExportedSpan> {
    let request = ExportTraceServiceRequest::decode(body).expect("a request of OTLP");
    let mut found = Vec::new();
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        let Some(Value::StringValue(service)) = value(&attributes, "service.name") else { panic!("{attributes:?}") };
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            found.push(ExportedSpan {
                service: service.clone(),
                name: span.name,
                trace: hex::encode(span.trace_id),
                id: hex::encode(span.span_id),
                parent: hex::encode(span.parent_span_id),
                events: span.events.into_iter().map(|event| event.name).collect(),
                attributes: span.attributes,
            });
        }
    }
    found
}

/// Serves one connection until the client closes it.
fn serve(stream: TcpStream, answers: Answers, taken: &Mutex<Vec<Vec<u8>>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(body) = read(&mut reader) {
        match answers {
            Answers::Nothing => {}
            Answers::Taken => {
                taken.lock().unwrap().push(body);
                // A client that has gone does not need the answer.
                let _ = writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        }
    }
}

/// Reads a request and returns its body. `None` at the end of the connection.
fn read(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    assert_eq!(line.trim_end(), "POST /v1/traces HTTP/1.1");
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        match line.trim_end().split_once(':') {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().expect("a length");
            }
            Some((name, value)) if name.eq_ignore_ascii_case("content-type") => {
                assert_eq!(value.trim(), "application/x-protobuf");
            }
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}
