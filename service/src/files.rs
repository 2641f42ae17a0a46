//! Files that contain secrets or personal data. Only their owner may read them, and [`write_whole`] never leaves
//! an incomplete file.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

/// The permission bits of group and others.
const OTHERS: u32 = 0o077;

/// Restricts all files and folders that this process creates from now on to their owner, including those that a library
/// creates, such as SQLite's files beside a database. Call it first in `main`.
pub fn private_by_default() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Removes all permissions of group and others from a file or folder. Returns true if there were any; false for a path
/// that does not exist.
///
/// # Errors
///
/// The metadata of the file cannot be read, or it belongs to another user, so that its permissions cannot be changed.
pub fn tighten(path: &Path) -> io::Result<bool> {
    let mode = match fs::metadata(path) {
        Ok(found) => found.permissions().mode(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if mode & OTHERS == 0 {
        return Ok(false);
    }
    let why = |error: io::Error| {
        let text = format!("{} is open to others than its owner, and cannot be closed: {error}", path.display());
        io::Error::new(error.kind(), text)
    };
    fs::set_permissions(path, Permissions::from_mode(mode & 0o7777 & !OTHERS)).map_err(why)?;
    Ok(true)
}

/// Calls [`tighten`] for a SQLite database and the files beside it, which get their permissions from it.
///
/// # Errors
///
/// As [`tighten`].
pub fn tighten_database(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        if tighten(&beside(path, suffix))? {
            tracing::warn!(path = %path.display(), "closed a database to others than its owner");
        }
    }
    Ok(())
}

/// Writes a file that only its owner can read. The content goes to a new file beside it, which then replaces it. A full
/// disk or a crash leaves the previous content.
///
/// # Errors
///
/// The new file cannot be created or written, cannot replace the old one, or the folder cannot be synced.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    // Removes a file that a crash left. If that fails, creating the new file fails and reports the reason.
    let _ = fs::remove_file(&new);
    let written = write_new(&new, content).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // The first error is returned, so an error of the removal is ignored.
        let _ = fs::remove_file(&new);
        return written;
    }
    // Syncs the folder, because the file's new name must be on the disk too.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_is_replaced_whole_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::write(beside(&path, ".new"), "left by a crash").unwrap();
        write_whole(&path, b"new").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("new", 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(write_whole(&path, b"new").is_err());
        assert!(path.is_dir() && fs::read_dir(folder.path()).unwrap().count() == 1);
    }

    #[test]
    fn databases_are_closed_to_others_with_what_is_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        for file in [path.clone(), beside(&path, "-wal")] {
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o664)).unwrap();
        }
        tighten_database(&path).unwrap();
        assert_eq!((mode(&path), mode(&beside(&path, "-wal"))), (0o600, 0o600));
        assert!(!tighten(&path).unwrap(), "there is nothing more to do");
        assert!(!tighten(&folder.path().join("none")).unwrap());
    }
}
