//! Writes lines on a thread of its own, so that a slow reader of the logs delays no request.
//!
//! A caller copies its line into a shared buffer; the thread writes what is in it. A single line is
//! written at once; under load one write carries many. When the reader stalls and the buffer is full, or a write
//! fails, lines are dropped and counted: no caller ever waits.
//!
//! Start reading in [`LineWriterHandle::to`].

use parking_lot::{Condvar, Mutex};
use std::io::{self, Write};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The most bytes that wait to be written. A very busy gateway fills them in half a second: a reader
/// slower than that does not catch up.
pub(super) const MAX_BUFFERED: usize = 8 * 1024 * 1024;
/// The time that lines are collected for after a write. Waking the thread for each line would cost more
/// than writing it.
const COLLECT_TIME: Duration = Duration::from_millis(20);
/// The longest time that dropping the [`LineWriterGuard`] waits for the last write.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// The most bytes of a buffer's capacity that are kept after a write.
const KEPT_CAPACITY: usize = 256 * 1024;

/// Passes lines to the thread that writes them. A clone passes them to the same one.
#[derive(Clone, Debug)]
pub(super) struct LineWriterHandle(Arc<LineBuffer>);

/// Ends the thread when it is dropped, after it has written what is buffered, within a second.
#[must_use = "dropped at once, nothing is written"]
#[derive(Debug)]
pub(super) struct LineWriterGuard(Arc<LineBuffer>);

#[derive(Default, Debug)]
struct LineBuffer {
    state: Mutex<LineBufferState>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Default, Debug)]
struct LineBufferState {
    buffered: Vec<u8>,
    /// The thread waits for a line, and must be woken for one.
    idle: bool,
    closing: bool,
    ended: bool,
}

impl LineWriterHandle {
    /// Lines to `sink`, written by a thread of their own until the [`LineWriterGuard`] is dropped.
    pub(super) fn to(sink: impl Write + Send + 'static) -> (Self, LineWriterGuard) {
        let buffer = Arc::new(LineBuffer::default());
        let writer = buffer.clone();
        let started = std::thread::Builder::new().name("tierway-log".to_owned()).spawn(move || writer.write(sink));
        // Without the thread every line is dropped and counted once the buffer is full.
        if started.is_err() {
            buffer.state.lock().ended = true;
        }
        (Self(buffer.clone()), LineWriterGuard(buffer))
    }

    /// Adds `line`, which ends with a line feed.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.0.state.lock();
        if state.buffered.len() + line.len() > MAX_BUFFERED {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.buffered.extend_from_slice(line);
        if mem::take(&mut state.idle) {
            drop(state);
            self.0.changed.notify_all();
        }
    }

    /// How many lines were dropped so far. Where a write failed, all that it carried count, also the part written.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

/// The formatter of `tracing_subscriber` writes one whole line per call.
impl Write for LineWriterHandle {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriterGuard {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.closing = true;
        self.0.changed.notify_all();
        self.0.changed.wait_while_for(&mut state, |state| !state.ended, LAST_WRITE_TIMEOUT);
    }
}

impl LineBuffer {
    /// The thread.
    fn write(&self, mut sink: impl Write) {
        let mut lines = Vec::new();
        while self.take(&mut lines) {
            // A failed write is only counted: the logs are what failed.
            if sink.write_all(&lines).and_then(|()| sink.flush()).is_err() {
                let lost = lines.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.fetch_add(lost as u64, Ordering::Relaxed);
            }
            lines.clear();
            lines.shrink_to(KEPT_CAPACITY);
            self.collect();
        }
        self.state.lock().ended = true;
        self.changed.notify_all();
    }

    /// Swaps what is buffered into `lines`, waiting for the first one; `false` at the end.
    fn take(&self, lines: &mut Vec<u8>) -> bool {
        let mut state = self.state.lock();
        while state.buffered.is_empty() && !state.closing {
            state.idle = true;
            self.changed.wait(&mut state);
        }
        mem::swap(lines, &mut state.buffered);
        !lines.is_empty()
    }

    fn collect(&self) {
        self.changed.wait_while_for(&mut self.state.lock(), |state| !state.closing, COLLECT_TIME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Reports what it was given, then waits until the test lets it go on.
    struct SlowSink {
        reported: Sender<Vec<u8>>,
        go_on: Receiver<()>,
    }

    impl Write for SlowSink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.reported.send(bytes.to_vec());
            let _ = self.go_on.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (SlowSink, Receiver<Vec<u8>>, Sender<()>) {
        let (reported, written) = channel();
        let (go_on_sender, go_on) = channel();
        (SlowSink { reported, go_on }, written, go_on_sender)
    }

    #[test]
    fn a_single_line_is_written_at_once_and_those_collected_meanwhile_together() {
        let (sink, written, go_on_sender) = slow();
        let (lines, guard) = LineWriterHandle::to(sink);
        lines.push(b"one\n");
        assert_eq!(written.recv().expect("the thread runs"), b"one\n");
        lines.push(b"two\n");
        lines.push(b"three\n");
        drop(go_on_sender);
        assert_eq!(written.recv().expect("the thread runs"), b"two\nthree\n");
        drop(guard);
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn dropping_the_guard_waits_for_what_is_buffered() {
        let (sink, written, go_on_sender) = slow();
        drop(go_on_sender);
        let (lines, guard) = LineWriterHandle::to(sink);
        for _ in 0..1000 {
            lines.push(b"line\n");
        }
        drop(guard);
        assert_eq!(written.try_iter().flatten().count(), 5000);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_later_ones_are_tried() {
        /// Takes nothing while the disk is full.
        struct FullDisk(Sender<()>, Arc<AtomicU64>);

        impl Write for FullDisk {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let full = self.1.load(Ordering::SeqCst) > 0;
                let _ = self.0.send(());
                if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let (tried, was_tried) = channel();
        let full = Arc::new(AtomicU64::new(1));
        let (lines, guard) = LineWriterHandle::to(FullDisk(tried, full.clone()));
        lines.push(b"one\ntwo\n");
        was_tried.recv().expect("the thread runs");
        full.store(0, Ordering::SeqCst);
        lines.push(b"three\n");
        drop(guard);
        assert_eq!((was_tried.iter().count(), lines.dropped()), (1, 2));
    }

    #[test]
    fn lines_are_dropped_when_the_reader_stalls() {
        let (sink, written, go_on_sender) = slow();
        let (lines, guard) = LineWriterHandle::to(sink);
        lines.push(b"first\n");
        written.recv().expect("the thread runs");
        // The thread is blocked on the first line; the buffer is full before the last 100 of these.
        let line = [b'x'; 1024];
        for _ in 0..MAX_BUFFERED / line.len() + 100 {
            lines.push(&line);
        }
        assert_eq!(lines.dropped(), 100);
        drop(go_on_sender);
        drop(guard);
        assert_eq!(written.try_iter().map(|bytes| bytes.len()).sum::<usize>(), MAX_BUFFERED);
    }
}
