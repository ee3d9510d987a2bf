//! Who runs a command, as the audit names them: the user of the system, on a host.

use crate::config::{Environment, ProcessEnvironment};
use crate::domain::audit::Operator;
use rustix::process::getuid;
use rustix::system::uname;

/// Whoever runs `command` here. Names come from the environment and can be anything; the numbers are the system's.
pub(super) fn operator(command: &str) -> Operator {
    let named = |name: Option<String>, uid: &str| match name {
        Some(name) => format!("{name} (uid {uid})"),
        None => format!("uid {uid}"),
    };
    let mut who = named(variable("USER").or_else(|| variable("LOGNAME")), &getuid().as_raw().to_string());
    if let Some(uid) = variable("SUDO_UID") {
        who.push_str(&format!(", sudo by {}", named(variable("SUDO_USER"), &uid)));
    }
    let origin = format!("host {}", uname().nodename().to_string_lossy());
    Operator { who: who.into(), origin: origin.into(), command: command.into(), request_id: None }
}

/// A variable of the environment, if it is set: its beginning, where somebody set it to a long text.
fn variable(name: &str) -> Option<String> {
    const MOST: usize = 100;
    let value = ProcessEnvironment.variable(name).filter(|value| !value.is_empty())?;
    Some(value.chars().take(MOST).collect())
}
