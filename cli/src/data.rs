//! The data directory of `usher up`: the log, the store, the signing secret it made, and where it can be reached.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use usher_dispatcher::config::STORE_SCHEMA;
use usher_dispatcher::sql::{Database, DatabaseAddress};
use usher_dispatcher::store::SqlStore;
use usher_log::LogAddress;
use usher_proto::signature::SigningSecret;
use usher_service::exit::BadSetting;

/// Where the operator's commands find what they read.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The data directory of `usher up`.
    #[arg(long, env = "USHER_DATA", default_value = "./usher-data")]
    pub(crate) data: PathBuf,
    /// Where the store is, if not in the data directory: postgres://... or sqlite:PATH.
    #[arg(long, env = "USHER_STORE")]
    pub(crate) store: Option<String>,
    /// The schema of Postgres that holds the store's tables.
    #[arg(long, env = "USHER_STORE_SCHEMA")]
    pub(crate) store_schema: Option<String>,
}

impl Place {
    /// The log in the data directory.
    pub(crate) fn log(&self) -> anyhow::Result<LogAddress> {
        let path = self.data.join(LOG);
        if !path.exists() {
            let why = format!("there is no log in {}: say --data or --log", self.data.display());
            return Err(BadSetting::new("USHER_DATA", why).into());
        }
        Ok(LogAddress::Sqlite { path })
    }

    /// Opens the store to look into it.
    pub(crate) async fn store(&self) -> anyhow::Result<SqlStore> {
        let text = match &self.store {
            Some(text) => text.clone(),
            None => {
                let path = self.data.join(STORE);
                if !path.exists() {
                    let why = format!("there is no store in {}: say --data or --store", self.data.display());
                    return Err(BadSetting::new("USHER_DATA", why).into());
                }
                format!("sqlite:{}", path.display())
            }
        };
        let address = DatabaseAddress::parse("USHER_STORE", &text)?;
        let address = match &self.store_schema {
            Some(schema) => address.in_schema(STORE_SCHEMA, schema)?,
            None => address,
        };
        let database = Database::open(&address.existing())?;
        database.reach().await.map_err(|error| address.complaint(&error))?;
        Ok(SqlStore::reader(database))
    }
}

const STORE: &str = "store.db";
const LOG: &str = "log.db";
const LOCK: &str = "lock";
const SECRET: &str = "signing-secret";
const UNSUBSCRIBE_SECRET: &str = "unsubscribe-secret";
const ADDRESSES: &str = "addresses.json";

/// Where a running `usher up` can be reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// Ingest.
    pub(crate) listen: SocketAddr,
    /// The dispatcher's pages.
    pub(crate) admin: SocketAddr,
    /// The lab, unless it is off.
    pub(crate) lab: Option<SocketAddr>,
}

/// A data directory that is ours until this is dropped.
pub(crate) struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Makes it if it is missing, and takes it for this process alone.
    pub(crate) fn take(path: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make the data directory {}", path.display()))?;
        let lock = File::create(path.join(LOCK)).with_context(|| format!("cannot write to {}", path.display()))?;
        if lock.try_lock().is_err() {
            let why = format!("{} is in use by another process: stop that one, or say --data", path.display());
            return Err(BadSetting::new("USHER_DATA", why).into());
        }
        Ok(Self { path: path.canonicalize()?, _lock: lock })
    }

    /// The address of the log in it.
    pub(crate) fn log(&self) -> String {
        format!("sqlite:{}", self.path.join(LOG).display())
    }

    /// The address of the store in it.
    pub(crate) fn store(&self) -> String {
        format!("sqlite:{}", self.path.join(STORE).display())
    }

    /// The signing secret, made at the first start.
    pub(crate) fn signing_secret(&self) -> anyhow::Result<String> {
        self.secret(SECRET)
    }

    /// The secret that links in marketing mail are signed with, made at the first start.
    pub(crate) fn unsubscribe_secret(&self) -> anyhow::Result<String> {
        self.secret(UNSUBSCRIBE_SECRET)
    }

    fn secret(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path.join(name);
        if let Some(secret) = read(&path)? {
            return Ok(secret);
        }
        let secret = SigningSecret::encode(&rand::random::<[u8; 24]>());
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(file, "{secret}")?;
        Ok(secret)
    }

    /// Leaves word where this process can be reached.
    pub(crate) fn announce(&self, addresses: &Addresses) -> anyhow::Result<()> {
        Ok(fs::write(self.path.join(ADDRESSES), serde_json::to_vec_pretty(addresses)?)?)
    }
}

/// The secret that `usher up` made in this directory, if there is one.
pub(crate) fn read_secret(data: &Path) -> anyhow::Result<Option<String>> {
    read(&data.join(SECRET))
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(text.trim().to_owned()))
}

/// Where the `usher up` of this directory can be reached, if it ever ran.
pub(crate) fn read_addresses(data: &Path) -> anyhow::Result<Option<Addresses>> {
    let path = data.join(ADDRESSES);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))?))
}
