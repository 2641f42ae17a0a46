//! The data directory of `usher up`: the log, the store, the generated secrets and the addresses of the process.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use usher_dispatcher::config::STORE_SCHEMA;
use usher_eventlog::LogAddress;
use usher_proto::SubjectId;
use usher_proto::signature::SigningSecret;
use usher_service::ConfigError;
use usher_service::files;
use usher_sql::{Database, DatabaseAddress};
use usher_store::SqlStore;

/// Locations of the data that the operator's commands read.
#[derive(Debug, clap::Args)]
pub(crate) struct StoreLocation {
    /// The data directory of `usher up`.
    #[arg(long, env = "USHER_DATA", default_value = "./usher-data")]
    pub(crate) data: PathBuf,
    /// Address of the store, if it is not in the data directory: postgres://... or sqlite:PATH.
    #[arg(long, env = "USHER_STORE")]
    pub(crate) store: Option<String>,
    /// The Postgres schema that holds the tables of the store.
    #[arg(long, env = "USHER_STORE_SCHEMA")]
    pub(crate) store_schema: Option<String>,
}

impl StoreLocation {
    /// Returns the address of the log in the data directory.
    pub(crate) fn log(&self) -> anyhow::Result<LogAddress> {
        let path = self.data.join(LOG);
        if !path.exists() {
            let why = format!("there is no log in {}: say --data or --log", self.data.display());
            return Err(ConfigError::new("USHER_DATA", why).into());
        }
        Ok(LogAddress::Sqlite { path })
    }

    /// Opens the store for reading.
    pub(crate) async fn store(&self) -> anyhow::Result<SqlStore> {
        let text = match &self.store {
            Some(text) => text.clone(),
            None => {
                let path = self.data.join(STORE);
                if !path.exists() {
                    let why = format!("there is no store in {}: say --data or --store", self.data.display());
                    return Err(ConfigError::new("USHER_DATA", why).into());
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

/// Refuses the name of a flow that the store does not know.
///
/// # Errors
///
/// No such flow has run, or the store does not answer.
pub(crate) async fn known_flow(store: &SqlStore, flow: &str) -> anyhow::Result<()> {
    let known = store.flow_names().await?;
    if known.iter().any(|name| name == flow) {
        return Ok(());
    }
    let known =
        if known.is_empty() { "none has run here".to_owned() } else { format!("there are {}", known.join(", ")) };
    Err(ConfigError(format!("there is no flow {flow:?}; {known}")).into())
}

/// Returns the subjects that a user's id, a primary address or any other key stands for; `None` without one.
///
/// # Errors
///
/// Nobody is known by it, or the store does not answer.
pub(crate) async fn subjects(store: &SqlStore, user: Option<&str>) -> anyhow::Result<Option<Vec<SubjectId>>> {
    let Some(user) = user else { return Ok(None) };
    let found = store.find_subjects(user).await?;
    if found.is_empty() {
        // The text is not repeated: it may be an address.
        let why = "--user: nobody is known here by that id or address: a user is named by the id (user_...), or by the \
                   primary address, as long as the user is not deleted";
        return Err(ConfigError(why.to_owned()).into());
    }
    Ok(Some(found))
}

const STORE: &str = "store.db";
const LOG: &str = "log.db";
const LOCK: &str = "lock";
const SECRET: &str = "signing-secret";
const UNSUBSCRIBE_SECRET: &str = "unsubscribe-secret";
const ADDRESSES: &str = "addresses.json";

/// Addresses on which a running `usher up` can be reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// Address of ingest.
    pub(crate) listen: SocketAddr,
    /// Address of the dispatcher's pages.
    pub(crate) admin: SocketAddr,
    /// Address of the lab. `None` if the lab is off.
    pub(crate) lab: Option<SocketAddr>,
}

/// A data directory that this process holds exclusively until the value is dropped.
pub(crate) struct DataDirectory {
    path: PathBuf,
    /// The directory itself and a file in it, both locked. The lock on the directory still holds if the file is
    /// removed; earlier versions lock only the file.
    _locks: [File; 2],
}

impl DataDirectory {
    /// Creates the directory if it is missing, and locks it for this process.
    pub(crate) fn take(path: &Path) -> anyhow::Result<Self> {
        if path.exists() && !path.is_dir() {
            let why = format!("{} is a file: a folder is wanted, or a name that is free", path.display());
            return Err(ConfigError::new("USHER_DATA", why).into());
        }
        fs::create_dir_all(path).with_context(|| format!("cannot make the data directory {}", path.display()))?;
        make_private(path)?;
        let directory = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let lock = File::create(path.join(LOCK)).with_context(|| format!("cannot write to {}", path.display()))?;
        if directory.try_lock().is_err() || lock.try_lock().is_err() {
            let why = format!("{} is in use by another process: stop that one, or say --data", path.display());
            return Err(ConfigError::new("USHER_DATA", why).into());
        }
        Ok(Self { path: path.canonicalize()?, _locks: [directory, lock] })
    }

    /// Returns the address of the log in the directory.
    pub(crate) fn log(&self) -> String {
        format!("sqlite:{}", self.path.join(LOG).display())
    }

    /// Returns the address of the store in the directory.
    pub(crate) fn store(&self) -> String {
        format!("sqlite:{}", self.path.join(STORE).display())
    }

    /// Returns the signing secret, which is generated at the first start.
    pub(crate) fn signing_secret(&self) -> anyhow::Result<String> {
        self.secret(SECRET)
    }

    /// Returns the secret that signs links in marketing mail. It is generated at the first start.
    pub(crate) fn unsubscribe_secret(&self) -> anyhow::Result<String> {
        self.secret(UNSUBSCRIBE_SECRET)
    }

    fn secret(&self, name: &str) -> anyhow::Result<String> {
        let path = self.path.join(name);
        if let Some(secret) = read(&path)? {
            return Ok(secret);
        }
        let secret = SigningSecret::encode(&rand::random::<[u8; 24]>());
        files::write_whole(&path, format!("{secret}\n").as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(secret)
    }

    /// Writes the addresses on which this process can be reached into the directory.
    pub(crate) fn announce(&self, addresses: &Addresses) -> anyhow::Result<()> {
        let path = self.path.join(ADDRESSES);
        files::write_whole(&path, &serde_json::to_vec_pretty(addresses)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Returns the signing secret that `usher up` generated in this directory, if there is one.
pub(crate) fn read_secret(data: &Path) -> anyhow::Result<Option<String>> {
    read(&data.join(SECRET))
}

/// Removes the permissions of group and others from the folder and every file in it. A folder that others use too is
/// refused instead: otherwise they would lose access to their own files.
fn make_private(path: &Path) -> anyhow::Result<()> {
    const STICKY: u32 = 0o1000;
    let mut names = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        names.push(entry?.file_name());
    }
    let mode = fs::metadata(path)?.permissions().mode();
    let ours = names.iter().any(|name| name == LOCK) || names.iter().all(|name| name == "lost+found");
    if mode & 0o077 != 0 && (!ours || mode & STICKY != 0) {
        let why = format!(
            "{} is open to others, and holds files that are not Usher's: say a folder of its own, or close this one (chmod \
             700)",
            path.display()
        );
        return Err(ConfigError::new("USHER_DATA", why).into());
    }
    let cannot = |error: std::io::Error| ConfigError::new("USHER_DATA", error);
    let folder = files::tighten(path).map_err(cannot)?;
    let mut closed = 0;
    for file in names.iter().map(|name| path.join(name)) {
        if file.symlink_metadata().is_ok_and(|found| found.is_file()) && files::tighten(&file).map_err(cannot)? {
            closed += 1;
        }
    }
    if folder || closed > 0 {
        tracing::warn!(path = %path.display(), files = closed, "closed the data directory to others than its owner");
    }
    Ok(())
}

/// Reads a secret that was generated here. `None` if there is no such file.
fn read(path: &Path) -> anyhow::Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&text);
    let secret = text.trim();
    if SigningSecret::parse(secret).is_err() {
        let why = format!(
            "{} is empty or damaged: put its former content back, or remove it, and the next start makes a new secret \
             (whoever uses the former one has to be given that)",
            path.display()
        );
        return Err(ConfigError::new("USHER_DATA", why).into());
    }
    Ok(Some(secret.to_owned()))
}

/// Returns the addresses that `usher up` wrote into this directory. `None` if it never ran.
pub(crate) fn read_addresses(data: &Path) -> anyhow::Result<Option<Addresses>> {
    let path = data.join(ADDRESSES);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Some(serde_json::from_slice(&text).with_context(|| {
        format!("{} is damaged: the next start of `usher up` writes it again; until then say --to", path.display())
    })?))
}
