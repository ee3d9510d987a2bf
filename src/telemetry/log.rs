//! The logs: JSON to stderr, or plain lines when stderr is a terminal.
//!
//! One thread writes these lines and those of the access log, so their order is kept. A reader that
//! stalls delays no request: lines are dropped and counted instead.
//!
//! Start reading in [`LogWriter::start`].

use super::access::AccessLog;
use super::line_writer::{LineWriterGuard, LineWriterHandle};
use std::io::{self, IsTerminal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// The process's logs. Dropping it writes what is buffered and ends them.
#[must_use = "dropped at once, the logs end"]
pub struct LogWriter {
    filter: Handle<EnvFilter, Registry>,
    lines: LineWriterHandle,
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
    /// Starts the process's logs at `level`: `info`, `debug`, `warn,tierway::relay=debug`, …
    ///
    /// # Errors
    /// [`LogError`]; nothing was started then.
    pub fn start(level: &str) -> Result<Self, LogError> {
        let (filter, handle) = reload::Layer::new(parse(level)?);
        let (lines, guard) = LineWriterHandle::to(io::stderr());
        let writer = lines.clone();
        let layer = fmt::layer().with_writer(move || writer.clone());
        let layer = if io::stderr().is_terminal() {
            layer.compact().boxed()
        } else {
            layer.json().flatten_event(true).with_span_list(false).boxed()
        };
        tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|_| LogError::Twice)?;
        Ok(Self { filter: handle, lines, _guard: guard })
    }

    /// An access log whose lines go to the same stream.
    pub fn access(&self) -> AccessLog {
        AccessLog::to_sender(self.lines.clone())
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
