//! The identity of an open file, to detect that its path leads to another file. A process can still write to a file
//! that was moved, deleted or replaced, but no other process will read what it writes there.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Path, device and inode of a file at the time it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileIdentity {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// The path leads to another file, or to none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is no longer the file that was opened: it was moved, deleted or replaced; put it back, or restart", .0.display())]
pub struct FileMoved(PathBuf);

impl FileIdentity {
    /// Returns the identity of the file at `path`, which has just been opened.
    ///
    /// # Errors
    ///
    /// There is no such file, or its metadata cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Checks that the path still leads to the file. Costs one system call.
    ///
    /// # Errors
    ///
    /// The path leads to another file, to none, or cannot be read.
    pub fn check(&self) -> Result<(), FileMoved> {
        match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => Ok(()),
            Ok(_) | Err(_) => Err(FileMoved(self.path.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_moved_or_replaced_is_noticed_and_one_that_is_put_back_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        let away = folder.path().join("b");
        std::fs::write(&path, "x").expect("written");
        let identity = FileIdentity::of(&path).expect("there");
        identity.check().expect("untouched");
        std::fs::write(&path, "longer").expect("written");
        identity.check().expect("the same file with other contents");
        std::fs::rename(&path, &away).expect("moved");
        assert!(identity.check().expect_err("moved").to_string().contains("moved, deleted or replaced"));
        std::fs::write(&path, "x").expect("written");
        identity.check().expect_err("replaced");
        std::fs::rename(&away, &path).expect("moved back");
        identity.check().expect("put back");
    }
}
