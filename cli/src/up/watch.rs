//! Changes of the files in a folder, found by looking at it a few times a second. Notices of the kernel would need less, but
//! they do not come from shared folders of containers and virtual machines, and editors replace files in many ways.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Interval between looks. Files count as written completely if two looks in a row find the same.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The size and the times of a file, and its number: one of them differs after every change.
type Stamp = (u64, u64, i64, i64, i64, i64);

/// Folder whose changes are waited for.
pub(super) struct FolderWatch {
    folder: PathBuf,
    seen: BTreeMap<PathBuf, Stamp>,
}

impl FolderWatch {
    /// Creates a watch of a folder and its subfolders. Changes from now on count.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), seen: look(folder) }
    }

    /// Waits until a file has changed, is new or is gone, and no file has changed since the last look. Cancelling loses no
    /// change.
    pub(super) async fn changed(&mut self) {
        let mut last: Option<BTreeMap<PathBuf, Stamp>> = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let folder = self.folder.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || look(&folder)).await else { continue };
            if now != self.seen && last.as_ref() == Some(&now) {
                self.seen = now;
                return;
            }
            last = Some(now);
        }
    }
}

/// Returns the stamps of all files below a folder. What cannot be read counts as missing; reading the flows reports it.
fn look(folder: &Path) -> BTreeMap<PathBuf, Stamp> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            // Follows links, as reading the flows does.
            let Ok(file) = std::fs::metadata(&path) else { continue };
            let is_link = path.is_symlink();
            if file.is_dir() && !is_link {
                folders.push(path);
            } else {
                let stamp = (file.len(), file.ino(), file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec());
                found.insert(path, stamp);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_written_renamed_added_or_removed_is_noticed_and_nothing_else_is() {
        let folder = std::env::temp_dir().join(format!("usher-watch-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("templates")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("a.toml", "one");
        let mut watch = FolderWatch::new(&folder);
        assert!(tokio::time::timeout(4 * LOOK_EVERY, watch.changed()).await.is_err(), "nothing has changed");
        let change: [(&str, &dyn Fn()); 5] = [
            ("written", &|| write("a.toml", "two")),
            ("added", &|| write("templates/b.html", "new")),
            ("written beside and renamed", &|| {
                write("a.tmp", "2nd");
                std::fs::rename(folder.join("a.tmp"), folder.join("a.toml")).unwrap();
            }),
            ("renamed", &|| std::fs::rename(folder.join("a.toml"), folder.join("c.toml")).unwrap()),
            ("removed", &|| std::fs::remove_file(folder.join("c.toml")).unwrap()),
        ];
        for (name, change) in change {
            change();
            let noticed = tokio::time::timeout(Duration::from_secs(20), watch.changed()).await;
            assert!(noticed.is_ok(), "{name}");
        }
        assert!(tokio::time::timeout(4 * LOOK_EVERY, watch.changed()).await.is_err(), "each is told once");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
