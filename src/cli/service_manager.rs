//! What a service manager such as systemd passes to the process and is notified of.
//!
//! Without one, nothing is passed and nobody is notified. A socket that was passed and is not used is an error: its
//! clients would wait for ever. Start reading at [`passed_listeners`].

use crate::http::conn::listener::{InheritError, InheritedListeners, ListenerKind};
use listenfd::ListenFd;
use sd_notify::NotifyState;
use std::os::fd::OwnedFd;

/// The names by which a socket is for clients or for operators, whatever its place in the list.
const NAMES: [(&str, ListenerKind); 2] = [("tierway", ListenerKind::Public), ("tierway-admin", ListenerKind::Ops)];

/// Takes the sockets that `LISTEN_FDS` announces (sd_listen_fds(3)). To be called once, before there are other threads:
/// it changes the environment, so that processes started from here do not take the sockets for theirs.
///
/// # Errors
/// If one of them is neither a TCP nor a Unix socket that listens.
pub(super) fn passed_listeners() -> Result<InheritedListeners, InheritError> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut listeners = InheritedListeners::default();
    for at in 0..passed.len() {
        let name = names.next().unwrap_or_default();
        let described = format!("socket {} of LISTEN_FDS ({name})", at + 1).replace(" ()", "");
        // One that is not of the first kind is left where it is for the second.
        let socket: Result<Option<OwnedFd>, _> = match passed.take_tcp_listener(at) {
            Ok(socket) => Ok(socket.map(Into::into)),
            Err(_) => passed.take_unix_listener(at).map(|socket| socket.map(Into::into)),
        };
        let socket = socket.map_err(|source| InheritError { name: described.clone(), source: Some(source) })?;
        let kind = NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        // There is one for each place below the length.
        if let Some(socket) = socket {
            listeners.add(&described, kind, socket)?;
        }
    }
    Ok(listeners)
}

/// Notifies the service manager that requests are served.
pub(super) fn notify_ready() {
    notify(&NotifyState::Ready);
}

/// Notifies the service manager that the process is about to end.
pub(super) fn notify_stopping() {
    notify(&NotifyState::Stopping);
}

fn notify(state: &NotifyState<'_>) {
    // Without NOTIFY_SOCKET it does nothing.
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "the service manager could not be notified");
    }
}
