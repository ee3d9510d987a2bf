//! Lines on their way to a reader that may be slow.
//!
//! Whoever has a line leaves it in a shared buffer, which takes no longer than copying it; a thread
//! writes what has gathered. A lone line is written at once, under load one write takes many. When
//! the reader stalls and the buffer is full, lines are dropped and counted: nobody is ever held up.
//!
//! Start reading in [`Lines::to`].

use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may wait to be written. Half a second of a very busy gateway: a reader slower than
/// that is slower for good.
pub(super) const ROOM: usize = 8 * 1024 * 1024;
/// How long lines gather after a write. Waking the writer for each would cost more than writing it.
const GATHER: Duration = Duration::from_millis(20);
/// How long the end waits for what has gathered to be written.
const LAST_WRITE: Duration = Duration::from_secs(1);
/// A buffer that had to grow beyond this is not kept.
const KEPT: usize = 256 * 1024;

/// Where lines are left; a clone leaves them at the same place.
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<Shared>);

/// Ends the writing when it is dropped: waits, for a second at most, for what has gathered.
#[must_use = "dropped at once, nothing is written"]
#[derive(Debug)]
pub(super) struct Writing(Arc<Shared>);

#[derive(Default, Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Default, Debug)]
struct State {
    gathered: Vec<u8>,
    /// The writer waits for a line, and must be told of one.
    idle: bool,
    closing: bool,
    ended: bool,
}

impl Lines {
    /// Lines written to `sink` by a thread of their own, until the [`Writing`] is dropped.
    pub(super) fn to(sink: impl Write + Send + 'static) -> (Self, Writing) {
        let shared = Arc::new(Shared::default());
        let writer = shared.clone();
        let started = std::thread::Builder::new().name("tierway-log".to_owned()).spawn(move || writer.write(sink));
        // Without the thread every line is dropped and counted once the buffer is full.
        if started.is_err() {
            shared.state().ended = true;
        }
        (Self(shared.clone()), Writing(shared))
    }

    /// Leaves `line`, its line feed included.
    pub(super) fn permit(&self, line: &[u8]) {
        let mut state = self.0.state();
        if state.gathered.len() + line.len() > ROOM {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.gathered.extend_from_slice(line);
        if mem::take(&mut state.idle) {
            drop(state);
            self.0.changed.notify_all();
        }
    }

    /// How many lines found no room until now.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

/// One write is one line, as the logs' formatter hands them over.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.permit(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closing = true;
        self.0.changed.notify_all();
        drop(self.0.changed.wait_timeout_while(state, LAST_WRITE, |state| !state.ended));
    }
}

impl Shared {
    /// The writer's thread.
    fn write(&self, mut sink: impl Write) {
        let mut lines = Vec::new();
        while self.take(&mut lines) {
            // Who cannot read them cannot be told so either.
            let _ = sink.write_all(&lines).and_then(|()| sink.flush());
            lines.clear();
            lines.shrink_to(KEPT);
            self.gather();
        }
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// Swaps what has gathered into `lines`, waiting for the first; `false` at the end.
    fn take(&self, lines: &mut Vec<u8>) -> bool {
        let mut state = self.state();
        while state.gathered.is_empty() && !state.closing {
            state.idle = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(lines, &mut state.gathered);
        !lines.is_empty()
    }

    fn gather(&self) {
        drop(self.changed.wait_timeout_while(self.state(), GATHER, |state| !state.closing));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Tells what it was handed, then waits until it may go on.
    struct Slow {
        reported: Sender<Vec<u8>>,
        go_on: Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.reported.send(bytes.to_vec());
            let _ = self.go_on.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Slow, Receiver<Vec<u8>>, Sender<()>) {
        let (reported, written) = channel();
        let (let_go, go_on) = channel();
        (Slow { reported, go_on }, written, let_go)
    }

    #[test]
    fn a_lone_line_is_written_at_once_and_what_gathers_meanwhile_as_one() {
        let (sink, written, let_go) = slow();
        let (lines, writing) = Lines::to(sink);
        lines.permit(b"one\n");
        assert_eq!(written.recv().expect("the writer lives"), b"one\n");
        lines.permit(b"two\n");
        lines.permit(b"three\n");
        drop(let_go);
        assert_eq!(written.recv().expect("the writer lives"), b"two\nthree\n");
        drop(writing);
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn the_end_waits_for_what_has_gathered() {
        let (sink, written, let_go) = slow();
        drop(let_go);
        let (lines, writing) = Lines::to(sink);
        for _ in 0..1000 {
            lines.permit(b"line\n");
        }
        drop(writing);
        assert_eq!(written.try_iter().flatten().count(), 5000);
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_not_time() {
        let (sink, written, let_go) = slow();
        let (lines, writing) = Lines::to(sink);
        lines.permit(b"first\n");
        written.recv().expect("the writer lives");
        // The writer is stuck with the first line; so many of these have room.
        let line = [b'x'; 1024];
        for _ in 0..ROOM / line.len() + 100 {
            lines.permit(&line);
        }
        assert_eq!(lines.dropped(), 100);
        drop(let_go);
        drop(writing);
        assert_eq!(written.try_iter().map(|bytes| bytes.len()).sum::<usize>(), ROOM);
    }
}
