//! The one thread that writes to the database.
//!
//! Receipts and other operations are queued, which costs no more than moving a pointer; the thread writes what has
//! been queued, many operations per commit. A commit that fails is retried, in order, until it succeeds. If the
//! queue is full, receipts are dropped and counted. It must never block a caller, and never write anything twice.
//!
//! Start reading in [`WriterThread::run`]; other operations than receipts implement [`WriteOperation`].

use super::WallClock;
use super::database_file::DatabaseFile;
use super::operation::{QueuedOperation, WriteOperation};
use super::retention::Retention;
use crate::domain::receipt::Receipt;
use crate::store::LedgerStatus;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// The maximum number of operations in one commit.
pub(super) const BATCH: usize = 256;
/// The capacity of the queue: a minute of a busy gateway whose disk is full, some tens of megabytes.
pub(super) const QUEUE_CAPACITY: usize = 65_536;
/// How long operations are collected if none is urgent: the disk is synced at most 200 times per second.
const COLLECT: Duration = Duration::from_millis(5);
/// The first pause after a failed commit; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// The longest pause between retries.
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// How long shutdown waits for queued operations.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// The least time between two log messages about dropped receipts.
const LOG_DROPS_EVERY_MS: i64 = 60_000;

/// Queues operations; clones share one queue.
#[derive(Clone)]
pub struct Writer(Arc<WriterShared>);

/// Stops the writer thread when it is dropped, after waiting at most a second for queued operations.
#[must_use = "dropping it stops the writer thread"]
pub struct WriterGuard(Arc<WriterShared>);

struct WriterShared {
    queue: Mutex<WriteQueue>,
    changed: Condvar,
    healthy: AtomicBool,
    dropped: AtomicU64,
    /// When dropped receipts were last logged.
    logged_unix_ms: AtomicI64,
    unix_ms: WallClock,
}

#[derive(Default)]
struct WriteQueue {
    waiting: VecDeque<QueuedOperation>,
    /// Operations taken by the thread and not committed yet.
    in_commit: usize,
    /// The thread waits for the first operation, and must be woken for it.
    idle: bool,
    /// Somebody waits for one of the queued operations.
    urgent: bool,
    closing: bool,
    ended: bool,
}

impl Writer {
    /// Starts a thread that writes to `database` until the [`WriterGuard`] is dropped.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(
        database: DatabaseFile,
        retention: Option<Retention>,
        unix_ms: WallClock,
    ) -> std::io::Result<(Self, WriterGuard)> {
        let shared = Arc::new(WriterShared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            healthy: AtomicBool::new(true),
            dropped: AtomicU64::new(0),
            logged_unix_ms: AtomicI64::new(i64::MIN),
            unix_ms,
        });
        let thread = WriterThread { shared: shared.clone(), database, retention };
        std::thread::Builder::new().name("tierway-store".to_owned()).spawn(move || thread.run())?;
        Ok((Self(shared.clone()), WriterGuard(shared)))
    }

    /// Queues a receipt, or drops it if the queue is full.
    pub(super) fn push(&self, receipt: Arc<Receipt>) {
        let mut queue = self.0.queue();
        if queue.is_full() {
            drop(queue);
            return self.0.count_drop();
        }
        queue.waiting.push_back(QueuedOperation::Receipt(receipt));
        // The thread is woken for the first operation and for a full batch, not for each operation.
        if std::mem::take(&mut queue.idle) || queue.waiting.len() == BATCH {
            drop(queue);
            self.0.changed.notify_all();
        }
    }

    /// Queues an operation that somebody waits for: the queue is written without further delay.
    ///
    /// # Errors
    /// Returns the operation if the queue is full, or the writer has stopped.
    pub fn submit(&self, operation: Box<dyn WriteOperation>) -> Result<(), Box<dyn WriteOperation>> {
        let mut queue = self.0.queue();
        if queue.is_full() || queue.closing || queue.ended {
            return Err(operation);
        }
        queue.waiting.push_back(QueuedOperation::Operation(operation));
        queue.urgent = true;
        queue.idle = false;
        drop(queue);
        self.0.changed.notify_all();
        Ok(())
    }

    /// Health and backlog of the writer.
    pub(super) fn status(&self) -> LedgerStatus {
        let queue = self.0.queue();
        LedgerStatus {
            healthy: self.0.healthy.load(Ordering::Relaxed) && !queue.ended,
            waiting: (queue.waiting.len() + queue.in_commit) as u64,
            dropped: self.0.dropped.load(Ordering::Relaxed),
        }
    }
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closing = true;
        self.0.changed.notify_all();
        self.0.changed.wait_while_for(&mut queue, |queue| !queue.ended, SHUTDOWN_TIMEOUT);
        let lost = queue.waiting.len() + queue.in_commit;
        if lost > 0 {
            tracing::error!(operations = lost, "the store could not be written before the end; these are lost");
        }
    }
}

impl WriterShared {
    fn queue(&self) -> MutexGuard<'_, WriteQueue> {
        self.queue.lock()
    }

    fn count_drop(&self) {
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        let (now, last) = ((self.unix_ms)(), self.logged_unix_ms.load(Ordering::Relaxed));
        // A clock that was set back logs once more, and then at the usual rate.
        let logged_recently = (0..LOG_DROPS_EVERY_MS).contains(&now.saturating_sub(last));
        if !logged_recently
            && self.logged_unix_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            tracing::error!(dropped, "the store cannot be written and its queue is full: receipts are dropped");
        }
    }
}

impl WriteQueue {
    fn is_full(&self) -> bool {
        self.waiting.len() + self.in_commit >= QUEUE_CAPACITY
    }
}

/// The state of the writer thread.
struct WriterThread {
    shared: Arc<WriterShared>,
    database: DatabaseFile,
    retention: Option<Retention>,
}

impl WriterThread {
    fn run(self) {
        // Also after a panic: nobody must wait for the end for ever.
        let _end = WriterEnd(self.shared.clone());
        // Dropped before `_end`: once the end is signalled, the file is closed and unlocked.
        let mut thread = self;
        let mut batch = Vec::with_capacity(BATCH);
        while thread.take(&mut batch) {
            if !batch.is_empty() && !thread.commit(&batch) {
                return;
            }
            for (at, work) in batch.drain(..).enumerate() {
                match work {
                    QueuedOperation::Operation(operation) if !thread.database.left_out(at) => operation.committed(),
                    _ => {}
                }
            }
            thread.shared.queue().in_commit = 0;
            thread.delete_expired();
        }
    }

    /// Waits for an operation, collects more, and takes those of one commit; takes nothing if only expired receipts
    /// are due to be deleted. `false` at the end.
    fn take(&self, batch: &mut Vec<QueuedOperation>) -> bool {
        let (shared, mut queue) = (&self.shared, self.shared.queue());
        let until_deletion = self.retention.as_ref().map(|retention| retention.pause((shared.unix_ms)()));
        while queue.waiting.is_empty() && !queue.closing {
            queue.idle = true;
            let Some(pause) = until_deletion else {
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
        let collecting = |queue: &mut WriteQueue| queue.waiting.len() < BATCH && !queue.urgent && !queue.closing;
        shared.changed.wait_while_for(&mut queue, collecting, COLLECT);
        let taken = queue.waiting.len().min(BATCH);
        batch.extend(queue.waiting.drain(..taken));
        queue.in_commit = batch.len();
        queue.urgent &= !queue.waiting.is_empty();
        !batch.is_empty()
    }

    /// Commits `batch`, retrying until it succeeds; `false` if the end came first.
    fn commit(&mut self, batch: &[QueuedOperation]) -> bool {
        let mut pause = FIRST_RETRY;
        loop {
            let last_try = self.shared.queue().closing;
            let Err(error) = self.database.commit(batch) else {
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
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }

    /// Deletes some expired receipts. An error is not logged: the next commit fails as well, and logs it.
    fn delete_expired(&mut self) {
        let now = (self.shared.unix_ms)();
        if let (Some(retention), Some(connection)) = (&mut self.retention, self.database.connection()) {
            retention.delete_expired(connection, now);
        }
    }
}

/// Signals the end of the thread when it is dropped.
struct WriterEnd(Arc<WriterShared>);

impl Drop for WriterEnd {
    fn drop(&mut self) {
        self.0.queue().ended = true;
        self.0.changed.notify_all();
    }
}
