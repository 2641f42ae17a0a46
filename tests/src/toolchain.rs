//! The Rust version that is promised is the one that the tests run on.

use std::path::Path;
use std::process::Command;

#[test]
fn the_promised_rust_is_the_tested_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let promised = env!("CARGO_PKG_RUST_VERSION");
    for (file, promise) in [
        ("Cargo.toml", format!("\nrust-version = \"{promised}\"\n")),
        ("fuzz/Cargo.toml", format!("\nrust-version = \"{promised}\"\n")),
        ("deploy/Dockerfile", format!("\nFROM rust:{promised}-")),
        ("README.md", format!("Rust ({promised} or later)")),
    ] {
        let text = std::fs::read_to_string(root.join(file)).expect(file);
        assert!(text.contains(&promise), "{file} must say {promise:?}");
    }
    // A newer compiler is fine for everybody, but does not prove that the oldest one suffices.
    if std::env::var_os("CI").is_some() {
        let rustc = Command::new("rustc").arg("--version").current_dir(root).output().expect("rustc runs");
        let version = String::from_utf8(rustc.stdout).expect("text");
        assert!(
            version.starts_with(&format!("rustc {promised}.")),
            "rust-version is {promised}, but CI runs on {}: raise it to what CI tests",
            version.trim()
        );
    }
}
