//! Waits inside a script: a length of time, or a gate the test opens.
//!
//! A gate is how a test stops time without sleeping: the provider stands at it until the test, having
//! looked around, opens it.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::soon;

/// A door in a script that only the test opens; clones are the same door.
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

    /// Lets everyone through, those who wait and those who come later.
    pub fn open(&self) {
        self.opened.send_replace(true);
    }

    /// Returns once `count` exchanges in all have come to the gate.
    pub async fn reached(&self, count: usize) {
        let mut arrivals = self.arrivals.subscribe();
        let arrived = arrivals.wait_for(|arrived| *arrived >= count);
        soon("the provider to come to the gate", arrived).await.expect("this gate holds the sender");
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
    /// So much of tokio's time.
    Pause(Duration),
    /// The test.
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
