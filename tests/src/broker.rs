//! A Kafka broker for one test, for operations that the shared broker must not suffer. `USHER_TEST_KAFKA_LIBS` is the
//! folder of its jars and of the base settings (`broker.properties`) of every test broker.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use usher_eventlog::LogAddress;

use crate::backend::setting;
use crate::{eventually, free_port};

const START_DEADLINE: Duration = Duration::from_secs(90);

/// A broker process. Killed when dropped.
pub struct Broker {
    libs: PathBuf,
    properties: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Broker {
    /// Prepares a broker that stores its log in `data` and its settings in `folder`. Panics if `USHER_TEST_KAFKA_LIBS`
    /// is not set.
    pub fn prepare(folder: &Path, data: &Path) -> Self {
        let libs = PathBuf::from(setting("USHER_TEST_KAFKA_LIBS"));
        let port = free_port();
        let controller = free_port();
        let mut properties = std::fs::read_to_string(libs.join("broker.properties")).expect("the broker's settings");
        properties.push_str(&format!(
            "\nlisteners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.quorum.bootstrap.servers=127.0.0.1:{controller}\nlog.dirs={}\n",
            data.display()
        ));
        let file = folder.join("broker.properties");
        std::fs::write(&file, properties).expect("the settings are written");
        let broker = Self { libs, properties: file, port, child: None };
        let cluster = ["format", "--standalone", "--cluster-id", "dXNoZXItdGVzdC1rYWZrYQ", "--config"];
        let formatted =
            broker.java("kafka.tools.StorageTool").args(cluster).arg(&broker.properties).output().expect("java runs");
        assert!(formatted.status.success(), "the storage is formatted: {}", String::from_utf8_lossy(&formatted.stderr));
        broker
    }

    fn java(&self, class: &str) -> Command {
        let mut java = Command::new("java");
        java.arg(format!("-Dlog4j2.configurationFile={}", self.libs.join("log4j2.properties").display()))
            .args(["-Xmx384m", "-cp", &format!("{}/*", self.libs.display()), class])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        java
    }

    /// Bootstrap address (`host:port`).
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts the broker, on its existing data after a restart, and waits until it answers.
    pub async fn start(&mut self) {
        let child = self.java("kafka.Kafka").arg(&self.properties).spawn().expect("java runs");
        self.child = Some(child);
        let address = LogAddress::Kafka { brokers: self.address() };
        let log = usher_eventlog::open(&address, &[]).await.expect("a client");
        eventually("the broker answers", START_DEADLINE, || async { log.check().await.ok() }).await;
    }

    /// Returns true if the process has exited by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("its state").is_some())
    }

    /// Kills the process with SIGKILL (`kill -9`) and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // The process may have exited already.
            let _ = child.kill();
            child.wait().expect("its state");
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Deletes a topic of a cluster, as a third party might.
pub async fn delete_topic(brokers: &str, topic: &str) {
    let admin: AdminClient<_> = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
    let results = admin.delete_topics(&[topic], &AdminOptions::new()).await.expect("the cluster answers");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}
