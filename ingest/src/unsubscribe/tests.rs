//! Tests of the unsubscribe pages, with a log that stores records or is unavailable.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use prometheus::Registry;
use usher_eventlog::{AppendError, Log, LogError, Position, Subscription, TopicSpec, Watermarks};
use usher_proto::unsubscribe::{LIST_UNSUBSCRIBE_POST, UnsubscribeSecrets};
use usher_proto::{AddressDigest, Instance, Key, Offset, Partition, Record, Source, SubjectId};
use usher_service::options::Environment;

use super::*;
use crate::IngestConfig;
use crate::config::IngestArguments;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A log that stores records in memory while it is available.
#[derive(Default)]
struct Notebook {
    away: AtomicBool,
    records: Mutex<Vec<Record>>,
}

fn away<T>() -> Result<T, LogError> {
    Err(LogError::Unavailable("nobody reads here".into()))
}

#[async_trait]
impl Log for Notebook {
    async fn ensure(&self, _: &[TopicSpec]) -> Result<(), LogError> {
        Ok(())
    }

    async fn append(&self, _: &TopicSpec, record: Record) -> Result<Position, AppendError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(AppendError::Unavailable("away".into()));
        }
        self.records.lock().expect("no panic while it is held").push(record);
        Ok(Position { partition: Partition(0), offset: Offset(0) })
    }

    async fn erase(&self, _: &TopicSpec, _: &Key) -> Result<Position, AppendError> {
        Err(AppendError::Unavailable("nothing is erased here".into()))
    }

    async fn subscribe(&self, _: &str, _: &str) -> Result<Subscription, LogError> {
        away()
    }

    async fn watermarks(&self, _: &str) -> Result<BTreeMap<Partition, Watermarks>, LogError> {
        away()
    }

    async fn offsets_at(&self, _: &str, _: usher_proto::Timestamp) -> Result<BTreeMap<Partition, Offset>, LogError> {
        unreachable!("ingest only appends")
    }

    async fn committed(&self, _: &str, _: &str) -> Result<BTreeMap<Partition, Offset>, LogError> {
        unreachable!("ingest only appends")
    }

    async fn read(&self, _: &str, _: Partition, _: Offset) -> Result<Option<Record>, LogError> {
        away()
    }

    async fn check(&self) -> Result<(), LogError> {
        Ok(())
    }

    async fn flush(&self) {}
}

struct Scene {
    ingest: Arc<Ingest>,
    log: Arc<Notebook>,
    token: String,
}

fn scene() -> Scene {
    use clap::Parser as _;
    let arguments = IngestArguments::parse_from(["ingest", "--log", "kafka://127.0.0.1:1"]);
    let known = [("CLERK_WEBHOOK_SIGNING_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")];
    let environment = Environment::from_vars(known).with("USHER_UNSUBSCRIBE_SECRET", SECRET);
    let config = IngestConfig::new(arguments, &environment).expect("a good configuration");
    let log = Arc::new(Notebook::default());
    let ingest = Arc::new(Ingest::new(&config, log.clone(), &Registry::new()).expect("metrics"));
    let subject = SubjectId::new(Source::Clerk, &Instance::default(), &Key::new("user_1"));
    let link = Unsubscribe::new(&subject, "news", AddressDigest::of("dana@work.test"));
    let token = UnsubscribeSecrets::parse(SECRET).expect("a secret").sign(&link);
    Scene { ingest, log, token }
}

impl Scene {
    async fn confirm_page(&self, token: &str) -> (StatusCode, String) {
        read(confirm_page(State(self.ingest.clone()), Path(token.to_owned())).await).await
    }

    async fn unsubscribe(&self, token: &str) -> (StatusCode, String) {
        let request = Request::builder().body(Body::from("List-Unsubscribe=One-Click")).expect("a request");
        read(unsubscribe(State(self.ingest.clone()), Path(token.to_owned()), request).await).await
    }

    fn events(&self) -> Vec<Event> {
        let records = self.log.records.lock().expect("no panic while it is held");
        records.iter().map(|record| Event::from_record(record).expect("an event")).collect()
    }
}

async fn read(response: Response) -> (StatusCode, String) {
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (head.status, String::from_utf8(body.to_vec()).expect("a text"))
}

#[tokio::test]
async fn looking_changes_nothing_and_one_click_is_kept_under_the_persons_key() {
    let scene = scene();
    let (status, page) = scene.confirm_page(&scene.token).await;
    assert!(status == StatusCode::OK && page.contains("<form method=\"post\">"), "{page}");
    let (name, value) = LIST_UNSUBSCRIBE_POST.1.split_once('=').expect("a name and a value");
    assert!(page.contains(&format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">")), "{page}");
    assert_eq!(scene.events(), []);

    assert_eq!(scene.unsubscribe(&scene.token).await.0, StatusCode::OK);
    assert_eq!(scene.unsubscribe(&scene.token).await.0, StatusCode::OK, "a second click does no harm");
    let events = scene.events();
    assert_eq!((events[0].subject.key(), &events[0].id), ("user_1", &events[1].id));
    let change = SuppressionChange::of(&events[0]).expect("it says who is not to be written to");
    assert_eq!((change.kind, change.scope.as_str()), (SuppressionKind::Unsubscribed, "news"));
    assert_eq!((change.address, change.reason.as_str()), (AddressDigest::of("dana@work.test"), "one_click"));
}

#[tokio::test]
async fn a_link_that_is_not_ours_does_nothing_and_is_not_repeated() {
    let scene = scene();
    let forged = format!("{}AAAA", scene.token);
    for token in ["x", &forged, "<script>"] {
        for (status, page) in [scene.confirm_page(token).await, scene.unsubscribe(token).await] {
            assert!(status == StatusCode::NOT_FOUND && !page.contains(token), "{status} {page}");
        }
    }
    assert_eq!(scene.events(), []);
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_said_to_be_done() {
    let scene = scene();
    scene.log.away.store(true, Ordering::SeqCst);
    let (status, page) = scene.unsubscribe(&scene.token).await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && page.contains("try again"), "{page}");
    scene.log.away.store(false, Ordering::SeqCst);
    assert_eq!((scene.unsubscribe(&scene.token).await.0, scene.events().len()), (StatusCode::OK, 1));
}
