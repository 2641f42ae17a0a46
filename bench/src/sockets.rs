//! The process that listens on a port, read from `/proc`.

use std::path::PathBuf;

use anyhow::Context as _;

/// State of a listening socket in `/proc/net/tcp` (proc(5)).
const LISTENS: &str = "0A";

/// Returns the id of the process that listens on a TCP port of this machine.
///
/// # Errors
///
/// No process does, or it belongs to somebody else.
pub(crate) fn listener(port: u16) -> anyhow::Result<u32> {
    let sockets: Vec<PathBuf> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(|line| socket(line, port)).collect::<Vec<_>>())
        .collect();
    anyhow::ensure!(!sockets.is_empty(), "nobody listens on port {port}");
    for process in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let links = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
        if links.into_iter().any(|link| sockets.contains(&link)) {
            return Ok(pid);
        }
    }
    None.with_context(|| format!("the process on port {port} cannot be seen"))
}

/// Returns the name under which a line's socket stands among the files of its process, if it listens on this port.
fn socket(line: &str, port: u16) -> Option<PathBuf> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let listens = *fields.get(3)? == LISTENS && u16::from_str_radix(local_port, 16).ok()? == port;
    listens.then(|| PathBuf::from(format!("socket:[{}]", fields.get(9).copied().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_listens_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("an address").port();
        assert_eq!(listener(port).expect("it is this one"), std::process::id());
        drop(socket);
        assert!(listener(port).is_err(), "nobody listens any more");
    }
}
