//! Metrics, the access log and the logs.
//!
//! Most of what they show comes from receipts. Nothing here decides anything, waits for a reader, or
//! fails a request, and no label holds text from a client.
//!
//! Start reading in [`Telemetry::record`].

pub mod access;
mod labelled;
mod labels;
mod line_writer;
pub mod log;
pub mod metrics;
mod registry;
pub mod rfc3339;
#[cfg(test)]
mod samples;
mod terminal_line;

use crate::domain::receipt::Receipt;
use access::AccessLog;
pub use metrics::InFlight;
use metrics::{BuildMetadata, Metrics};

/// What every finished request is reported to.
pub struct Telemetry {
    /// The metrics.
    pub metrics: Metrics,
    access: AccessLog,
}

impl Telemetry {
    /// With nothing counted and no line written.
    pub fn new(access: AccessLog, build: BuildMetadata) -> Self {
        Self { metrics: Metrics::new(build, access.dropped()), access }
    }

    /// Counts a finished request and writes its line.
    pub fn record(&self, receipt: &Receipt) {
        self.metrics.record(receipt);
        self.access.write(receipt);
    }
}
