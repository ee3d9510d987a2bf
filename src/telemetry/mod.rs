//! What can be seen from outside: metrics, the access log, the logs.
//!
//! All of it is told, mostly by receipts, and none of it is ever asked: nothing here decides, waits
//! for a reader, or fails a request. A label never holds what a client wrote.
//!
//! Start reading in [`Telemetry::record`].

pub mod access;
mod book;
mod family;
mod labels;
mod lines;
pub mod log;
pub mod metrics;
pub mod rfc3339;
#[cfg(test)]
mod samples;

use crate::domain::receipt::Receipt;
use access::AccessLog;
pub use metrics::InFlight;
use metrics::{Build, Metrics};

/// Everything that listens.
pub struct Telemetry {
    /// What was counted.
    pub metrics: Metrics,
    access: AccessLog,
}

impl Telemetry {
    /// Nothing seen yet.
    pub fn new(access: AccessLog, build: Build) -> Self {
        Self { metrics: Metrics::new(build, access.dropped()), access }
    }

    /// Counts one request's end and writes its line.
    pub fn record(&self, receipt: &Receipt) {
        self.metrics.record(receipt);
        self.access.write(receipt);
    }
}
