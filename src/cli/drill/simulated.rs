//! A configuration whose providers are simulated.
//!
//! Start reading at [`load`].

use crate::config::{
    ConfigSource, Environment, Problems, ProcessEnvironment, ProviderTransport, SimSettings, Snapshot,
};
use std::io;
use std::path::Path;
use std::time::Duration;

/// What begins the names of variables that override settings.
const OVERRIDES: &str = "TIERWAY__";

/// How a provider answers that is simulated for a drill: as a fast one does. Nothing is known of the real one.
pub(super) const SIMULATED: SimSettings =
    SimSettings { first_token: Duration::from_millis(60), tokens_per_second: 100, error_rate_bp: 0 };

/// Compiles `source` and replaces its providers. Those that are simulated already stay as they are, but for their error
/// rate. A credential that is not set here is not needed: nothing is sent anywhere.
///
/// # Errors
/// Every problem of the configuration.
pub(super) fn load(source: &ConfigSource) -> Result<Snapshot, Problems> {
    let mut snapshot = crate::config::load(source, &DrillEnvironment, &[])?;
    for provider in &mut snapshot.providers {
        let own = match &provider.kind {
            ProviderTransport::Sim(own) => SimSettings { error_rate_bp: 0, ..*own },
            ProviderTransport::Network(_) => SIMULATED,
        };
        provider.kind = ProviderTransport::Sim(own);
    }
    // It is asked on loopback, by this process alone.
    snapshot.server.tls = None;
    Ok(snapshot)
}

/// The environment of this process, in which every variable is set that a secret may be read from.
struct DrillEnvironment;

impl Environment for DrillEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        let made_up = || (!name.starts_with(OVERRIDES)).then(|| format!("drill-{name}"));
        ProcessEnvironment.variable(name).or_else(made_up)
    }

    fn variables(&self) -> Vec<(String, String)> {
        ProcessEnvironment.variables()
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        ProcessEnvironment.read(path)
    }
}
