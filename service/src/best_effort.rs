//! Output that must not interrupt the work: log lines, notices, the last error. If it cannot be written, it is lost and
//! the work continues. That happens with a full disk, or with a pipe whose reader has ended or no longer reads.

use std::io::{self, StderrLock, StdoutLock, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

/// Number of bytes that a writable pipe accepts without blocking (POSIX, `PIPE_BUF` on Linux).
const PART: usize = 4096;
/// Longest wait for a full pipe. A reader that works takes less time than this to read from it.
const PATIENCE: Duration = Duration::from_millis(100);

/// A stream whose writes never fail and wait only briefly for a slow reader.
#[derive(Debug)]
pub struct Unfailing<'a, W> {
    /// The locked stream. Without the lock, another writer could fill it between the poll and the write.
    stream: W,
    /// True if the last wait for the reader was in vain: the next write does not wait again.
    is_stalled: &'a AtomicBool,
    /// Longest wait for a slow reader.
    patience: Duration,
}

/// Returns standard error as a stream that never fails.
pub fn stderr() -> Unfailing<'static, StderrLock<'static>> {
    static IS_STALLED: AtomicBool = AtomicBool::new(false);
    Unfailing { stream: io::stderr().lock(), is_stalled: &IS_STALLED, patience: PATIENCE }
}

/// Returns standard output as a stream that never fails.
pub fn stdout() -> Unfailing<'static, StdoutLock<'static>> {
    static IS_STALLED: AtomicBool = AtomicBool::new(false);
    Unfailing { stream: io::stdout().lock(), is_stalled: &IS_STALLED, patience: PATIENCE }
}

impl<W: Write + AsFd> Unfailing<'_, W> {
    /// Writes one line, or loses it if it cannot be written.
    pub fn line(&mut self, text: &str) {
        let _ = self.write(format!("{text}\n").as_bytes());
    }

    /// Waits until a write does not block. Returns false if the reader does not read. An error counts as true, because
    /// a write that fails does not block either.
    fn takes_a_part(&self) -> bool {
        let patience = if self.is_stalled.load(Ordering::Relaxed) { Duration::ZERO } else { self.patience };
        let ready = retry_on_intr(|| {
            let timeout = Timespec::try_from(patience).ok();
            poll(&mut [PollFd::new(&self.stream, PollFlags::OUT)], timeout.as_ref())
        });
        // If the poll fails, the write itself reports the error.
        let takes = ready.is_err() || ready.is_ok_and(|ready| ready > 0);
        self.is_stalled.store(!takes, Ordering::Relaxed);
        takes
    }
}

impl<W: Write + AsFd> Write for Unfailing<'_, W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        for part in text.chunks(PART) {
            if !self.takes_a_part() || self.stream.write_all(part).is_err() {
                break;
            }
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.stream.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read as _, pipe};
    use std::time::Instant;

    use super::*;

    /// Returns a pipe that is full.
    fn full() -> (PipeReader, PipeWriter) {
        let (reader, mut writer) = pipe().expect("a pipe");
        while poll(&mut [PollFd::new(&writer, PollFlags::OUT)], Some(&Timespec::default())).expect("a poll") > 0 {
            writer.write_all(&[b'x'; PART]).expect("room for it");
        }
        (reader, writer)
    }

    #[test]
    fn a_line_that_cannot_be_written_is_no_error() {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let mut full = Unfailing { stream: full, is_stalled: &AtomicBool::new(false), patience: PATIENCE };
        assert!(full.write_all(b"line").is_ok() && full.flush().is_ok());
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        Unfailing { stream: writer, is_stalled: &AtomicBool::new(false), patience: PATIENCE }.line("line");
    }

    #[test]
    fn a_reader_that_does_not_read_is_not_waited_for_and_one_that_reads_again_gets_what_comes_then() {
        let (mut reader, writer) = full();
        let is_stalled = AtomicBool::new(false);
        let mut stream = Unfailing { stream: writer, is_stalled: &is_stalled, patience: PATIENCE };
        let started = Instant::now();
        for _ in 0..100 {
            stream.line("lost");
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        let mut read = vec![0; 16 * PART];
        reader.read_exact(&mut read).expect("what had filled it");
        stream.line("found");
        drop(stream);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        assert_eq!(text, "found\n");
    }

    #[test]
    fn a_long_line_is_written_whole_to_who_reads() {
        let (mut reader, writer) = pipe().expect("a pipe");
        let long = "x".repeat(10 * 64 * 1024);
        let writing = std::thread::spawn({
            let long = long.clone();
            move || {
                Unfailing { stream: writer, is_stalled: &AtomicBool::new(false), patience: Duration::from_secs(60) }
                    .line(&long)
            }
        });
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        writing.join().expect("it ended");
        assert_eq!(text, format!("{long}\n"));
    }
}
