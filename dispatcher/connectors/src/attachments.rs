//! Files that mails carry: those of one folder, by name. A stored request has the name, size and digest of each; the
//! content is read when the request is sent, and has to be the same then, because a repeated request is sent byte for
//! byte. So a store holds no files.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use usher_engine::Outcome;
use usher_proto::Reason;
use usher_service::ConfigError;
use usher_service::options::Environment;

use super::{PrepareError, StepInput, StepUse, is_template};

/// Parameter with the names of files.
pub(super) const ATTACHMENTS: &str = "attachments";
/// Setting with the folder of the files.
const FOLDER: &str = "USHER_ATTACHMENTS";
/// Length of a file's name in bytes, at most: that of file systems.
const LONGEST_NAME: usize = 255;

/// The folder of the files that mails carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AttachmentFolder {
    /// There is none, so a mail cannot carry files.
    None,
    /// Its path, without links.
    At(PathBuf),
    /// That of a rehearsal, in which nothing is read: every file counts as there.
    Rehearsal,
}

/// A file of a stored request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredFile {
    pub(super) filename: String,
    /// Size in bytes.
    size: u64,
    /// SHA-256 of the content, in hex.
    sha256: String,
}

impl AttachmentFolder {
    /// Reads the setting.
    pub(super) fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let Some(folder) = environment.get(FOLDER)? else { return Ok(Self::None) };
        let path = fs::canonicalize(&folder).map_err(|error| ConfigError::new(FOLDER, format!("{folder}: {error}")))?;
        if !path.is_dir() {
            return Err(ConfigError::new(FOLDER, format!("{folder} is no folder")));
        }
        Ok(Self::At(path))
    }

    /// Checks the files that steps name, at the start. A name that comes with an event is not known yet.
    pub(super) fn check(&self, uses: &[StepUse<'_>]) -> Result<(), ConfigError> {
        for step in uses {
            let Some(given) = step.params.get(ATTACHMENTS) else { continue };
            if *self == Self::None {
                return Err(step.wrong(ATTACHMENTS, &format!("{FOLDER} is not set: the folder with the files")));
            }
            for name in names(given).filter(|name| !is_template(name)) {
                self.find(name).map_err(|why| step.wrong(ATTACHMENTS, &format!("{name:?} {why}")))?;
            }
        }
        Ok(())
    }

    /// Returns the files that the parameter names, `most` bytes together at most. Errors tell a file by its place in
    /// the list: a name may come with an event.
    pub(super) fn prepare(&self, inputs: &StepInput<'_>, most: u64) -> Result<Vec<StoredFile>, PrepareError> {
        let given = inputs.params.get(ATTACHMENTS).unwrap_or(&Value::Null);
        let mut files = Vec::new();
        let mut size = 0;
        for (index, name) in names(given).enumerate() {
            let wrong = |why: &str| PrepareError(format!("{ATTACHMENTS}: file {} {why}", index + 1));
            let path = self.find(name).map_err(&wrong)?;
            let file = match path {
                Some(path) => {
                    size += fs::metadata(&path).map_err(|_| wrong(UNREADABLE))?.len();
                    if size > most {
                        let megabytes = most / 1024 / 1024;
                        return Err(PrepareError(format!(
                            "{ATTACHMENTS}: the files have more than {megabytes} MB together"
                        )));
                    }
                    StoredFile::of(name, &fs::read(&path).map_err(|_| wrong(UNREADABLE))?)
                }
                None => StoredFile::of(name, b""),
            };
            files.push(file);
        }
        Ok(files)
    }

    /// Reads a file of a stored request, the one at this place of its list.
    pub(super) async fn read(&self, index: usize, file: &StoredFile) -> Result<Vec<u8>, Outcome> {
        let wrong = |why: &str| {
            let why = format!("{ATTACHMENTS}: file {} {why}", index + 1);
            Outcome::reject(Reason::Configuration, why)
        };
        let path = self.find(&file.filename).map_err(&wrong)?;
        let path = path.ok_or_else(|| wrong(UNREADABLE))?;
        let content = tokio::fs::read(&path).await.map_err(|_| wrong(UNREADABLE))?;
        if StoredFile::of(&file.filename, &content) == *file {
            Ok(content)
        } else {
            Err(wrong("has changed since the mail was made, and a repeated mail has to be the same"))
        }
    }

    /// Returns the path of a file; `None` in a rehearsal. The error says why there is no such file.
    fn find(&self, name: &str) -> Result<Option<PathBuf>, &'static str> {
        let is_odd = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':');
        if name.is_empty() || name.len() > LONGEST_NAME || name.starts_with('.') || name.contains(is_odd) {
            return Err(
                "is no name of a file: it has no slash, colon or control character, and does not begin with a dot",
            );
        }
        let folder: &Path = match self {
            Self::None => return Err("cannot be read: USHER_ATTACHMENTS is not set"),
            Self::Rehearsal => return Ok(None),
            Self::At(folder) => folder,
        };
        // A link may lead out of the folder.
        let path = fs::canonicalize(folder.join(name)).map_err(|_| NOT_THERE)?;
        if path.parent() == Some(folder) && path.is_file() { Ok(Some(path)) } else { Err(NOT_THERE) }
    }
}

const NOT_THERE: &str = "is not in the folder of USHER_ATTACHMENTS";
const UNREADABLE: &str = "cannot be read";

impl StoredFile {
    fn of(name: &str, content: &[u8]) -> Self {
        let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
        Self { filename: name.to_owned(), size, sha256: hex::encode(Sha256::digest(content)) }
    }
}

fn names(given: &Value) -> impl Iterator<Item = &str> {
    let items = given.as_array().map_or_else(|| std::slice::from_ref(given), Vec::as_slice);
    items.iter().filter_map(Value::as_str)
}
