//! Applies a changed configuration to a running gateway: each second, and at once on SIGHUP.
//!
//! An invalid one changes nothing; it is reported in the log, in `tierway_config_reloads_total` and in
//! `tierway_config_last_reload_successful`.

use super::environment::CommandEnvironment;
use super::operator::operator;
use crate::config::{ConfigChange, ConfigWatcher, Problems, RefusedConfig, Snapshot};
use crate::domain::secret::Secret;
use crate::domain::traffic::{TrafficEvent, TrafficEventKind};
use crate::http::AppState;
use crate::http::ops::OperatorTokens;
use crate::telemetry::log::LogWriter;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::Signal;

/// How often the content of the files is compared.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches until the process ends. `generated_token` is the admin token generated at start, used if the file names none.
pub(super) async fn watch(
    mut watcher: ConfigWatcher<CommandEnvironment>,
    mut hangups: Signal,
    app: Arc<AppState>,
    logs: Arc<LogWriter>,
    generated_token: Option<Secret>,
) {
    note(&app, None).await;
    loop {
        let asked = tokio::select! {
            () = app.clock.sleep(LOOK_EVERY) => false,
            _ = hangups.recv() => true,
        };
        // A mounted file system may block; it must not block a worker thread.
        let looked = tokio::task::spawn_blocking(move || {
            let found = if asked { Some(watcher.reload()) } else { watcher.check() };
            (watcher, found)
        });
        let Ok((back, found)) = looked.await else { return };
        watcher = back;
        if let Some(found) = found {
            let before = app.relay.active_config().snapshot.clone();
            apply(found, &app, generated_token.as_ref());
            note(&app, Some(&before)).await;
            if let Err(error) = logs.set_level(&app.relay.active_config().snapshot.telemetry.log) {
                tracing::error!(%error, "the log level stays as it was");
            }
        }
    }
}

/// Writes to the audit which configuration is active, where another one was before; `before` is that one, if this process
/// had it.
async fn note(app: &AppState, before: Option<&Arc<Snapshot>>) {
    let active = app.relay.active_config().snapshot.clone();
    if before.is_some_and(|before| Arc::ptr_eq(before, &active)) {
        return;
    }
    let command = if before.is_some() { "reload" } else { "serve" };
    if app.admin.by(operator(command)).note_configuration(before.map(|before| &**before), &active).await.is_err() {
        tracing::warn!("which configuration is active could not be written to the audit");
    }
}

/// Applies the change that was found, or reports its problems. `generated_token` is the admin token generated at start.
pub fn apply(found: Result<ConfigChange, Problems>, app: &AppState, generated_token: Option<&Secret>) {
    let applied = match found {
        Err(problems) => Err(problems.render(false)),
        Ok(change) => match app.admin.clashes(&change.snapshot).as_slice() {
            [] => activate(change, app, generated_token),
            clashes => Err(clashes.join("\n")),
        },
    };
    match applied {
        Ok(()) => {
            let (now, expires) = (unix_s(app), look_at_certificate(app));
            app.telemetry.metrics.config_reloaded(now, expires);
            app.refused_config.store(None);
            note_event(app, TrafficEventKind::Reload, "the configuration was reloaded");
            tracing::info!("the configuration was reloaded");
        }
        Err(problems) => {
            app.telemetry.metrics.config_refused();
            app.refused_config.store(Some(Arc::new(RefusedConfig::new(app.clock.unix_ms(), &problems))));
            note_event(app, TrafficEventKind::ReloadRefused, "the changed configuration is refused; see the log");
            tracing::error!(%problems, "the configuration was not reloaded; the old one stays");
        }
    }
}

fn note_event(app: &AppState, kind: TrafficEventKind, detail: &str) {
    let at_unix_ms = app.clock.unix_ms();
    app.telemetry.live.note(TrafficEvent { at_unix_ms, kind, subject: "".into(), detail: detail.into() });
}

fn activate(change: ConfigChange, app: &AppState, generated_token: Option<&Secret>) -> Result<(), String> {
    for setting in &change.needs_restart {
        tracing::warn!(setting, "this setting keeps its old value until a restart");
    }
    let ops = access(&change.snapshot, generated_token);
    app.relay.reload(change.snapshot).map(|()| app.ops.store(Arc::new(ops))).map_err(|error| error.to_string())
}

/// The tokens of operators under `snapshot`; `generated_token` is the admin token if it names none.
pub(super) fn access(snapshot: &Snapshot, generated_token: Option<&Secret>) -> OperatorTokens {
    OperatorTokens {
        metrics: snapshot.telemetry.metrics,
        metrics_token: snapshot.telemetry.metrics_token.clone(),
        admin_token: snapshot.server.admin_token.clone().or_else(|| generated_token.cloned()),
        viewer_token: snapshot.server.viewer_token.clone(),
    }
}

/// Publishes the metrics of the configuration a gateway starts with.
pub(super) fn publish_start(app: &AppState) {
    let expires = look_at_certificate(app);
    app.telemetry.metrics.config_activated(unix_s(app), expires);
}

/// When the active certificate expires; a warning is logged if that is soon.
fn look_at_certificate(app: &AppState) -> Option<i64> {
    let active = app.relay.active_config();
    let tls = active.snapshot.server.tls.as_ref()?;
    if let Some(warning) = tls.warning(unix_s(app)) {
        tracing::warn!(setting = "server.tls.cert", "{warning}");
    }
    Some(tls.expires_unix_s)
}

fn unix_s(app: &AppState) -> i64 {
    app.clock.unix_ms() / 1000
}
