//! A connection pooler in transaction mode before a Postgres server of one test.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::free_port;
use crate::postgres::{Postgres, is_root};

/// Server connections of each database. Fewer than the programs of a cluster have, so that they share them.
const POOL_SIZE: u16 = 10;

/// A running PgBouncer. Killed when dropped.
pub struct PgBouncer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts a pooler before this server. Panics if PgBouncer is not installed.
    pub fn start(postgres: &Postgres) -> Self {
        let folder = tempfile::Builder::new().prefix("usher-pgbouncer.").tempdir().expect("a folder");
        let port = free_port();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\nmax_client_conn = 1000\n\
             server_login_retry = 1\n",
            postgres.port()
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).expect("the settings are written");
        let mut command = Command::new("pgbouncer");
        // It refuses to be root, and changes to another user after it has read its settings.
        if is_root() {
            command.args(["-u", "postgres"]);
        }
        command.arg("-q").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("PgBouncer is installed (Debian: pgbouncer)");
        Self { child, port, _folder: folder }
    }

    /// URL of the `postgres` database by way of the pooler.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // One that has ended by itself is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
