//! Tests of the unsubscribe pages, with a log that stores records or is unavailable.

use std::sync::atomic::Ordering;

use http_body_util::BodyExt as _;
use prometheus::Registry;
use usher_proto::unsubscribe::{LIST_UNSUBSCRIBE_POST, UnsubscribeSecrets};
use usher_proto::{AddressDigest, Instance, Key, Source, SubjectId};
use usher_service::options::Environment;

use super::*;
use crate::testing::{Notebook, SIGNING_SECRET, config};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

struct Scene {
    ingest: Arc<Ingest>,
    log: Arc<Notebook>,
    token: String,
}

fn scene() -> Scene {
    let known = [("CLERK_WEBHOOK_SIGNING_SECRET", SIGNING_SECRET)];
    let config = config(&Environment::from_vars(known).with("USHER_UNSUBSCRIBE_SECRET", SECRET));
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
        self.log.events()
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
