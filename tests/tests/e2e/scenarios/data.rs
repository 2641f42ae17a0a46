//! The data directory of `usher up`: its files are complete and accessible only to their owner.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use usher_tests::disk::Disk;
use usher_tests::eventually;
use usher_tests::needs;
use usher_tests::program::Program;
use usher_tests::test_env::SOON;

fn up(data: &Path, environment: &[(&str, String)], folder: &Path) -> Program {
    let path = data.display().to_string();
    let anywhere = "127.0.0.1:0";
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let arguments = ["up", "--data", &path, "--listen", anywhere, "--admin", anywhere, "--lab", anywhere];
    Program::start("usher", &arguments, &environment, folder)
}

async fn stop(mut program: Program) {
    program.terminate();
    assert!(program.ended(SOON).await.success(), "{}", program.output());
}

#[needs(mount)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_on_a_full_disk_spoils_no_later_one() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mount(folder.path(), 4096);
    // Free space in KiB, from none to enough for some of the files.
    for room in [0, 4, 8, 40, 120] {
        let data = disk.path().join(format!("data-{room}"));
        let ballast = disk.path().join("ballast");
        fs::create_dir(&data).unwrap();
        let free = 4096 - used(disk.path()) - room;
        // Fills the disk as far as possible; the write may fail.
        let _ = fs::write(&ballast, vec![1; free * 1024]);
        // The program exits or waits for space.
        let mut program = up(&data, &[], folder.path());
        eventually(&format!("it notices, with room for {room} KiB"), SOON, || {
            let noticed = ["is full", "No space left"].iter().any(|words| program.output().contains(words));
            let ended = program.has_ended();
            assert!(ended.is_none_or(|status| !status.success() && status.code() != Some(101)), "{}", program.output());
            async move { (noticed || ended.is_some()).then_some(()) }
        })
        .await;
        program.kill().await;
        fs::remove_file(&ballast).unwrap();
        assert!(
            !fs::read_dir(&data).unwrap().any(|file| file.unwrap().file_name().to_string_lossy().ends_with(".new"))
        );
        let mut program = up(&data, &[], folder.path());
        program.says("usher is ready: webhooks on http://").await;
        stop(program).await;
        fs::remove_dir_all(&data).unwrap();
    }
}

/// Returns the space used below `path` in KiB, counted in whole blocks.
fn used(path: &Path) -> usize {
    let sizes = fs::read_dir(path).unwrap().map(|entry| {
        let path = entry.as_ref().unwrap().path();
        let found = entry.as_ref().unwrap().metadata().unwrap();
        if found.is_dir() { used(&path) } else { usize::try_from(found.len()).unwrap().div_ceil(4096) * 4 }
    });
    sizes.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_secret_is_noticed_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [("signing-secret", ""), ("signing-secret", "whsec_c2hvcn"), ("unsubscribe-secret", "\0\0")]
    {
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
        let file = data.join(name);
        fs::write(&file, content).unwrap();
        let mut program = up(&data, &[], folder.path());
        assert_eq!(program.ended(SOON).await.code(), Some(64), "{}", program.output());
        let output = program.output();
        assert!(
            output.contains(name) && output.contains("empty or damaged") && output.contains("remove it"),
            "{output}"
        );
        assert!(content.is_empty() || !output.contains(content), "{output}");
        fs::remove_dir_all(&data).unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Asserts that a folder holds at least this many files and that all are accessible only to their owner.
fn assert_private(folder: &Path, at_least: usize) {
    let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= at_least, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_directory_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut program = up(&data, &[], folder.path());
    program.says("usher is ready: webhooks on http://").await;
    assert_eq!(mode(&data), 0o700);
    assert_private(&data, 8);
    stop(program).await;

    // A directory and files with wider permissions are closed to others; so are databases outside the directory.
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let [log, store] = ["log.db", "store.db"].map(|name| other.join(name));
    fs::write(&store, "").unwrap();
    fs::set_permissions(&store, Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    for file in fs::read_dir(&data).unwrap() {
        fs::set_permissions(file.unwrap().path(), Permissions::from_mode(0o644)).unwrap();
    }
    let [at_log, at_store] = [&log, &store].map(|path| format!("sqlite:{}", path.display()));
    let mut program = up(&data, &[("USHER_LOG", at_log), ("USHER_STORE", at_store)], folder.path());
    program.says("usher is ready: webhooks on http://").await;
    assert_eq!(mode(&data), 0o700);
    assert_private(&data, 5);
    assert_private(&other, 6);
    assert!(program.output().contains("closed the data directory to others"), "{}", program.output());
    stop(program).await;

    // Permissions of a folder with unrelated files are not changed.
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("of-somebody-else"), "").unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o755)).unwrap();
    let mut program = up(&shared, &[], folder.path());
    assert_eq!(program.ended(SOON).await.code(), Some(64), "{}", program.output());
    assert!(program.output().contains("USHER_DATA"), "{}", program.output());
    assert_eq!(mode(&shared), 0o755);
}
