//! The logs: JSON to stderr, or plain lines when stderr is a terminal.
//!
//! Lines are written by a thread of their own, the access log's among them, so that order is kept
//! and a reader that stalls holds up nobody: lines are dropped and counted instead.
//!
//! Start reading in [`Logs::start`].

use super::access::AccessLog;
use super::lines::{Lines, Writing};
use std::io::{self, IsTerminal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// Running logs. Keep it until the end: dropping it writes what still waits.
#[must_use = "dropped at once, the logs end"]
pub struct Logs {
    filter: Handle<EnvFilter, Registry>,
    lines: Lines,
    _writing: Writing,
}

/// Why there are no logs.
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

impl Logs {
    /// Starts the process's logs at `level`: `info`, `debug`, `warn,tierway::relay=debug`, …
    ///
    /// # Errors
    /// [`LogError`]; nothing was started then.
    pub fn start(level: &str) -> Result<Self, LogError> {
        let (filter, handle) = reload::Layer::new(parse(level)?);
        let (lines, writing) = Lines::to(io::stderr());
        let writer = lines.clone();
        let layer = fmt::layer().with_writer(move || writer.clone());
        let layer = if io::stderr().is_terminal() {
            layer.compact().boxed()
        } else {
            layer.json().flatten_event(true).with_span_list(false).boxed()
        };
        tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|_| LogError::Twice)?;
        Ok(Self { filter: handle, lines, _writing: writing })
    }

    /// An access log whose lines go where these do.
    pub fn access(&self) -> AccessLog {
        AccessLog::beside(self.lines.clone())
    }

    /// Another level from now on, as after a reload.
    ///
    /// # Errors
    /// [`LogError::Level`]; the old level stays.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let filter = parse(level)?;
        // It fails only once the subscriber is gone, which lives as long as the process.
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
    fn a_level_is_read_or_named() {
        for level in ["info", "WARN", "off", "warn,tierway::relay=debug"] {
            assert!(parse(level).is_ok(), "{level}");
        }
        let error = parse("tierway=loud").expect_err("there is no such level");
        assert!(error.to_string().starts_with("`tierway=loud` is not a log level"), "{error}");
    }
}
