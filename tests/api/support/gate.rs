//! Waits inside a script: a duration, or a gate that the test opens.
//!
//! A gate lets a test inspect the state in the middle of an exchange without sleeping: the provider waits
//! at the gate until the test opens it.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::soon;

/// A point in a script at which the provider waits for the test; clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    opened: Arc<watch::Sender<bool>>,
    arrivals: Arc<watch::Sender<usize>>,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self { opened: Arc::new(watch::Sender::new(false)), arrivals: Arc::new(watch::Sender::new(0)) }
    }

    /// Lets every exchange pass, those that wait and those that arrive later.
    pub fn open(&self) {
        self.opened.send_replace(true);
    }

    /// Returns once `count` exchanges in total have arrived at the gate.
    pub async fn reached(&self, count: usize) {
        let mut arrivals = self.arrivals.subscribe();
        let arrived = arrivals.wait_for(|arrived| *arrived >= count);
        soon("the provider to reach the gate", arrived).await.expect("this gate holds the sender");
    }

    async fn pass(&self) {
        self.arrivals.send_modify(|arrived| *arrived += 1);
        let mut opened = self.opened.subscribe();
        opened.wait_for(|opened| *opened).await.expect("this gate holds the sender");
    }
}

/// What a script waits for before it goes on.
#[derive(Clone, Debug)]
pub enum Wait {
    /// This long by tokio's clock.
    Pause(Duration),
    /// Until the test opens the gate.
    Gate(Gate),
}

impl Wait {
    pub(super) async fn over(&self) {
        match self {
            Wait::Pause(pause) => tokio::time::sleep(*pause).await,
            Wait::Gate(gate) => gate.pass().await,
        }
    }
}

impl From<Duration> for Wait {
    fn from(pause: Duration) -> Self {
        Wait::Pause(pause)
    }
}

impl From<&Gate> for Wait {
    fn from(gate: &Gate) -> Self {
        Wait::Gate(gate.clone())
    }
}
