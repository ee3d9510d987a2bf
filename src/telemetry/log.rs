//! The logs: JSON to stderr, or lines for people when stderr is a terminal.
//!
//! One thread writes these lines and those of the access log, so their order is kept. A reader that
//! stalls delays no request: lines are dropped and counted instead. So are they where the logs are a file, before they
//! fill its disk: what is left there is for the store, without which no budget can be spent.
//!
//! Start reading in [`LogWriter::start`].

use super::access::AccessLog;
use super::line_writer::{LineWriterGuard, LineWriterHandle};
use super::terminal_line::{ClockText, TerminalWriter};
use anstream::{AutoStream, ColorChoice};
use rustix::fs::FileType;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// The bytes of its disk that a log file leaves free: the store's, and those of whoever makes room again.
const SPARED_BYTES: u64 = 64 * 1024 * 1024;
/// Of a small disk it leaves one part in so many instead.
const SPARED_PART: u64 = 4;

/// The process's logs. Dropping it writes what is buffered and ends them.
#[must_use = "dropped at once, the logs end"]
pub struct LogWriter {
    filter: Handle<EnvFilter, Registry>,
    lines: LineWriterHandle,
    /// How lines are written for a terminal; `None` where stderr is none.
    terminal: Option<TerminalWriter>,
    _guard: LineWriterGuard,
}

/// Why logs cannot be written as configured.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is neither a level nor a list of targets with levels.
    #[error("`{level}` is not a log level: {source}")]
    Level {
        /// As configured.
        level: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logs were started twice in one process.
    #[error("the logs are set up already")]
    Twice,
}

impl LogWriter {
    /// Starts the process's logs at `level`: `info`, `debug`, `warn,tierway::relay=debug`, … `unix_ms` tells the
    /// time of lines in a terminal.
    ///
    /// # Errors
    /// [`LogError`]; nothing was started then.
    pub fn start(level: &str, unix_ms: fn() -> i64) -> Result<Self, LogError> {
        let (filter, handle) = reload::Layer::new(parse(level)?);
        let (lines, guard) = LineWriterHandle::to(SparingWriter(io::stderr()));
        let writer = lines.clone();
        let terminal = io::stderr().is_terminal().then(|| TerminalWriter {
            // Also where NO_COLOR or CLICOLOR says so.
            colours: AutoStream::choice(&io::stderr()) != ColorChoice::Never,
        });
        let layer = fmt::layer().with_writer(move || writer.clone());
        let layer = match terminal {
            Some(TerminalWriter { colours }) => {
                layer.compact().with_timer(TimeOfDay(unix_ms)).with_target(false).with_ansi(colours).boxed()
            }
            None => layer.json().flatten_event(true).with_span_list(false).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|_| LogError::Twice)?;
        // The usual hook writes to stderr itself: where nobody reads that, whatever panicked would wait for ever.
        std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
        Ok(Self { filter: handle, lines, terminal, _guard: guard })
    }

    /// An access log whose lines go to the same stream.
    pub fn access(&self) -> AccessLog {
        AccessLog::to_sender(self.lines.clone(), self.terminal)
    }

    /// Logs at `level` from now on.
    ///
    /// # Errors
    /// [`LogError::Level`]; the old level stays.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let filter = parse(level)?;
        // It fails only when the subscriber was dropped; that one lives as long as the process.
        let _ = self.filter.reload(filter);
        Ok(())
    }
}

/// The time of a line in a terminal, as those of the access log have it: from a clock in Unix milliseconds.
struct TimeOfDay(fn() -> i64);

impl FormatTime for TimeOfDay {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        write!(out, "{}", ClockText((self.0)()))
    }
}

/// Writes to a file only while its disk has room to spare; to a pipe or a terminal always.
struct SparingWriter<W>(W);

impl<W: Write + AsFd> Write for SparingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !has_room_to_spare(self.0.as_fd()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Whether `file` is none, or its disk has more room than it must leave. A system that does not tell is believed.
fn has_room_to_spare(file: BorrowedFd<'_>) -> bool {
    let is_file = rustix::fs::fstat(file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
    let disk = if is_file { rustix::fs::fstatvfs(file).ok() } else { None };
    disk.is_none_or(|disk| {
        let spared = SPARED_BYTES.min(disk.f_blocks.saturating_mul(disk.f_frsize) / SPARED_PART);
        disk.f_bavail.saturating_mul(disk.f_frsize) > spared
    })
}

fn parse(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(level).map_err(|source| LogError::Level { level: level.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_level_is_named_in_the_error() {
        for level in ["info", "WARN", "off", "warn,tierway::relay=debug"] {
            assert!(parse(level).is_ok(), "{level}");
        }
        let error = parse("tierway=loud").expect_err("there is no such level");
        assert!(error.to_string().starts_with("`tierway=loud` is not a log level"), "{error}");
    }
}
