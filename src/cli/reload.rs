//! Applies a changed configuration file to a running gateway: each second, and at once on SIGHUP.
//!
//! A bad file changes nothing and is reported in the log and in `tierway_config_reloads_total`.

use crate::config::{Change, Problems, Process, Watcher};
use crate::domain::secret::Secret;
use crate::http::App;
use crate::http::ops::OpsAccess;
use crate::telemetry::log::Logs;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::Signal;

/// How often the file's content is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches for as long as the process lives. `made` is the admin token made at start, for when the file names none.
pub(super) async fn watch(
    mut watcher: Watcher<Process>,
    mut hangups: Signal,
    app: Arc<App>,
    logs: Arc<Logs>,
    made: Option<Secret>,
) {
    loop {
        let asked = tokio::select! {
            () = app.clock.sleep(LOOK_EVERY) => false,
            _ = hangups.recv() => true,
        };
        // A mounted file system may block; it must not block a worker.
        let looked = tokio::task::spawn_blocking(move || {
            let found = if asked { Some(watcher.reload()) } else { watcher.check() };
            (watcher, found)
        });
        let Ok((back, found)) = looked.await else { return };
        watcher = back;
        if let Some(found) = found {
            apply(found, &app, made.as_ref());
            if let Err(error) = logs.set_level(&app.relay.live().snapshot.telemetry.log) {
                tracing::error!(%error, "the log level stays as it was");
            }
        }
    }
}

/// Serves what was found from now on, or reports what is wrong with it. `made` is the admin token made at start.
pub fn apply(found: Result<Change, Problems>, app: &App, made: Option<&Secret>) {
    let applied = match found {
        Err(problems) => Err(problems.render(false)),
        Ok(change) => {
            for setting in &change.needs_restart {
                tracing::warn!(setting, "this setting keeps its old value until a restart");
            }
            let ops = OpsAccess {
                metrics_token: change.snapshot.telemetry.metrics_token.clone(),
                admin_token: change.snapshot.server.admin_token.clone().or_else(|| made.cloned()),
            };
            app.relay.reload(change.snapshot).map(|()| app.ops.store(Arc::new(ops))).map_err(|error| error.to_string())
        }
    };
    app.telemetry.metrics.config_reload(applied.is_ok());
    match applied {
        Ok(()) => tracing::info!("the configuration was reloaded"),
        Err(problems) => tracing::error!(%problems, "the configuration was not reloaded; the old one stays"),
    }
}
