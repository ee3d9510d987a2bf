//! The one thread that writes.
//!
//! Whoever has something leaves it in a queue, which takes no longer than moving a pointer; the
//! thread writes what has gathered, many operations to a commit. What could not be committed is kept
//! and tried again, in order, until it can. When the queue is full, receipts are dropped and counted:
//! nobody is ever held up, and nothing is ever written twice.
//!
//! Start reading in [`WriterThread::run`], the thread; [`WriteOperation`] is what it writes beside receipts.

use super::WallClock;
use super::disk::Disk;
use super::retention::Retention;
use crate::domain::receipt::Receipt;
use crate::store::LedgerStatus;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rusqlite::Transaction;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Operations in one commit, at most.
pub(super) const BATCH: usize = 256;
/// What may wait. A minute of a busy gateway whose disk is full, some tens of megabytes.
pub(super) const ROOM: usize = 65_536;
/// How long operations gather that nobody waits for: a disk is asked to be sure 200 times a second at most.
const GATHER: Duration = Duration::from_millis(5);
/// The first pause after a failed commit; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest: how late a disk that is well again is noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long the end waits for what has gathered.
const LAST_COMMIT: Duration = Duration::from_secs(1);
/// How often it is said that receipts are dropped.
const SAY_EVERY_MS: i64 = 60_000;

/// Something to be written.
pub trait WriteOperation: Send {
    /// Writes it; again, from the start, when the transaction it stood in was not committed.
    ///
    /// # Errors
    /// What SQLite says. A fault of the disk has the whole transaction tried again; a row that breaks
    /// a rule of the schema is this operation's own fault, and it alone is left out, whole.
    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()>;

    /// Told once, when what was written is durable; never, when it was left out.
    fn committed(self: Box<Self>);
}

/// Where operations are left; a clone leaves them at the same place.
#[derive(Clone)]
pub struct Writer(Arc<WriterShared>);

/// Ends the writing when it is dropped: waits, for a second at most, for what has gathered.
#[must_use = "dropped at once, nothing is written"]
pub struct WriterGuard(Arc<WriterShared>);

/// What waits to be written.
pub(super) enum QueuedWrite {
    Receipt(Arc<Receipt>),
    Operation(Box<dyn WriteOperation>),
}

struct WriterShared {
    queue: Mutex<WriteQueue>,
    changed: Condvar,
    healthy: AtomicBool,
    dropped: AtomicU64,
    /// When it was last said that receipts are dropped.
    said_unix_ms: AtomicI64,
    unix_ms: WallClock,
}

#[derive(Default)]
struct WriteQueue {
    waiting: VecDeque<QueuedWrite>,
    /// Taken by the writer and not committed yet.
    in_hand: usize,
    /// The writer waits for the first operation, and must be told of it.
    idle: bool,
    /// Somebody waits for one of those waiting.
    urgent: bool,
    closing: bool,
    ended: bool,
}

impl Writer {
    /// Writes to `disk` by a thread of its own, until the [`WriterGuard`] is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        disk: Disk,
        retention: Option<Retention>,
        unix_ms: WallClock,
    ) -> std::io::Result<(Self, WriterGuard)> {
        let shared = Arc::new(WriterShared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            healthy: AtomicBool::new(true),
            dropped: AtomicU64::new(0),
            said_unix_ms: AtomicI64::new(i64::MIN),
            unix_ms,
        });
        let thread = WriterThread { shared: shared.clone(), disk, retention };
        std::thread::Builder::new().name("tierway-store".to_owned()).spawn(move || thread.run())?;
        Ok((Self(shared.clone()), WriterGuard(shared)))
    }

    /// Leaves a receipt, or drops it where there is no room.
    pub(super) fn push(&self, receipt: Arc<Receipt>) {
        let mut queue = self.0.queue();
        if queue.is_full() {
            drop(queue);
            return self.0.drop_one();
        }
        queue.waiting.push_back(QueuedWrite::Receipt(receipt));
        // The writer is woken for the first and for a full batch, never for each.
        if std::mem::take(&mut queue.idle) || queue.waiting.len() == BATCH {
            drop(queue);
            self.0.changed.notify_all();
        }
    }

    /// Leaves an operation that somebody waits for: what has gathered is written at once.
    ///
    /// # Errors
    /// Gives it back where there is no room, or the writing has ended.
    pub fn submit(&self, operation: Box<dyn WriteOperation>) -> Result<(), Box<dyn WriteOperation>> {
        let mut queue = self.0.queue();
        if queue.is_full() || queue.closing || queue.ended {
            return Err(operation);
        }
        queue.waiting.push_back(QueuedWrite::Operation(operation));
        queue.urgent = true;
        queue.idle = false;
        drop(queue);
        self.0.changed.notify_all();
        Ok(())
    }

    /// How it stands.
    pub(super) fn status(&self) -> LedgerStatus {
        let queue = self.0.queue();
        LedgerStatus {
            healthy: self.0.healthy.load(Ordering::Relaxed) && !queue.ended,
            waiting: (queue.waiting.len() + queue.in_hand) as u64,
            dropped: self.0.dropped.load(Ordering::Relaxed),
        }
    }
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closing = true;
        self.0.changed.notify_all();
        self.0.changed.wait_while_for(&mut queue, |queue| !queue.ended, LAST_COMMIT);
        let lost = queue.waiting.len() + queue.in_hand;
        if lost > 0 {
            tracing::error!(operations = lost, "the store could not be written before the end; these are lost");
        }
    }
}

impl WriterShared {
    fn queue(&self) -> MutexGuard<'_, WriteQueue> {
        self.queue.lock()
    }

    fn drop_one(&self) {
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        let (now, last) = ((self.unix_ms)(), self.said_unix_ms.load(Ordering::Relaxed));
        // A clock that was set back says it once more, and then keeps to the minute again.
        let quiet = (0..SAY_EVERY_MS).contains(&now.saturating_sub(last));
        if !quiet && self.said_unix_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::error!(dropped, "the store cannot be written and its queue is full: receipts are dropped");
        }
    }
}

impl WriteQueue {
    fn is_full(&self) -> bool {
        self.waiting.len() + self.in_hand >= ROOM
    }
}

/// The writer's thread.
struct WriterThread {
    shared: Arc<WriterShared>,
    disk: Disk,
    retention: Option<Retention>,
}

impl WriterThread {
    fn run(self) {
        // Also after a panic: whoever waits for the end must not wait for ever.
        let _ending = WriterEnd(self.shared.clone());
        // Dropped before that: whoever is told of the end finds the file let go.
        let mut thread = self;
        let mut batch = Vec::with_capacity(BATCH);
        while thread.take(&mut batch) {
            if !batch.is_empty() && !thread.commit(&batch) {
                return;
            }
            for (at, work) in batch.drain(..).enumerate() {
                match work {
                    QueuedWrite::Operation(operation) if !thread.disk.left_out(at) => operation.committed(),
                    _ => {}
                }
            }
            thread.shared.queue().in_hand = 0;
            thread.tidy();
        }
    }

    /// Waits for something to write, lets it gather, and takes what one commit holds. Nothing is
    /// taken when it is only time to tidy; `false` at the end.
    fn take(&self, batch: &mut Vec<QueuedWrite>) -> bool {
        let (shared, mut queue) = (&self.shared, self.shared.queue());
        let until_tidy = self.retention.as_ref().map(|retention| retention.pause((shared.unix_ms)()));
        while queue.waiting.is_empty() && !queue.closing {
            queue.idle = true;
            let Some(pause) = until_tidy else {
                shared.changed.wait(&mut queue);
                continue;
            };
            let waited = shared.changed.wait_for(&mut queue, pause);
            if waited.timed_out() && queue.waiting.is_empty() {
                queue.idle = false;
                return !queue.closing;
            }
        }
        queue.idle = false;
        let gathers = |queue: &mut WriteQueue| queue.waiting.len() < BATCH && !queue.urgent && !queue.closing;
        shared.changed.wait_while_for(&mut queue, gathers, GATHER);
        let taken = queue.waiting.len().min(BATCH);
        batch.extend(queue.waiting.drain(..taken));
        queue.in_hand = batch.len();
        queue.urgent &= !queue.waiting.is_empty();
        !batch.is_empty()
    }

    /// Commits `batch`, however often it takes; `false` when the end came first.
    fn commit(&mut self, batch: &[QueuedWrite]) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            let last_try = self.shared.queue().closing;
            let Err(error) = self.disk.commit(batch) else {
                if !self.shared.healthy.swap(true, Ordering::Relaxed) {
                    tracing::info!("the store can be written again");
                }
                return true;
            };
            if self.shared.healthy.swap(false, Ordering::Relaxed) {
                tracing::error!(%error, "the store cannot be written; it is tried again until it can");
            }
            if last_try {
                return false;
            }
            self.shared.changed.wait_while_for(&mut self.shared.queue(), |queue| !queue.closing, pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Deletes a little of what is too old. A failure is not told: the next commit tells it.
    fn tidy(&mut self) {
        let now = (self.shared.unix_ms)();
        if let (Some(retention), Some(connection)) = (&mut self.retention, self.disk.connection()) {
            retention.tidy(connection, now);
        }
    }
}

struct WriterEnd(Arc<WriterShared>);

impl Drop for WriterEnd {
    fn drop(&mut self) {
        self.0.queue().ended = true;
        self.0.changed.notify_all();
    }
}
