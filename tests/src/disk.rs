//! A disk that can fill up: a small `tmpfs` file system. Mounting it requires root.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::backend::log_once;

/// A mounted file system. Unmounted when dropped.
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts a file system of this size in `folder`. Panics if mounting is not allowed.
    pub fn mount(folder: &Path, kilobytes: u32) -> Self {
        let path = folder.join("disk");
        std::fs::create_dir(&path).expect("a folder");
        assert!(mount(&format!("size={kilobytes}k"), &path), "a small file system is mounted, which takes root");
        Self { path }
    }

    /// Mount point.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Grows the file system to this many kilobytes.
    pub fn grow(&self, kilobytes: u32) {
        assert!(mount(&format!("remount,size={kilobytes}k"), &self.path), "it can be made larger");
    }
}

fn mount(options: &str, path: &Path) -> bool {
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).status();
    mount.is_ok_and(|status| status.success())
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazy unmount, because a program that is being killed may still hold a file open.
        let unmounted = Command::new("umount").arg("-l").arg(&self.path).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            log_once(&format!("{} stays mounted", self.path.display()));
        }
    }
}
