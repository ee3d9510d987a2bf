//! A thread on which everything is sent to one server and received from it.
//!
//! A connection belongs to the runtime that made it. Requests are served by many runtimes, commands by their own, and the
//! writer thread by none: so a store on a server has one that lives as long as it does, and all of them ask it.

use std::io;
use std::thread;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A runtime on a thread of its own, until it is dropped.
pub(super) struct ConnectionRuntime {
    handle: Handle,
    /// Dropped, it ends the thread.
    _stop: oneshot::Sender<()>,
}

impl ConnectionRuntime {
    /// Starts the thread, which is called `name`.
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, (_stop, stopped)) = (runtime.handle().clone(), oneshot::channel::<()>());
        let run = move || {
            let _ = runtime.block_on(stopped);
        };
        thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { handle, _stop })
    }

    /// Where tasks are spawned.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}
