//! The one thread that writes to the database of a gateway, whichever it is.
//!
//! Receipts and other operations are queued, which costs no more than moving a pointer; the thread writes what has
//! been queued, many operations per commit. A commit that fails is retried, in order, until it succeeds. Receipts that
//! charge no account wait behind everything else, and give way to it: if the queue is full, they are dropped and
//! counted. It must never block a caller, never write anything twice, and never drop a charge
//! whose receipt has room.
//!
//! Start reading in [`WriterThread::run`]; what a database must do is [`WriterTarget`].

use super::{LedgerStatus, ReceiptRoom, WallClock};
use crate::domain::receipt::Receipt;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The maximum number of operations in one commit.
const BATCH: usize = 256;
/// The requests that a gateway ends in a second, as measured on one core: `docs/performance.md`.
const MEASURED_RATE: usize = 15_500;
/// The capacity of the queue: half a minute of a gateway at that rate whose disk cannot be written. An operation takes one
/// place, and a receipt as many as it has [`PLACE_BYTES`]: one, unless its client and providers made it large.
const QUEUE_CAPACITY: usize = 30 * MEASURED_RATE;
/// What one place holds: with all of them taken the queue has 476 MB.
const PLACE_BYTES: usize = 1 << 10;
/// How long operations are collected if none is urgent: the disk is synced at most 50 times per second. A commit makes some
/// 33 system calls and writes whole pages, however few receipts it holds.
const COLLECT: Duration = Duration::from_millis(20);
/// The first pause after a failed commit; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// The longest pause between retries.
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// How often the files are looked at while nothing is written to them.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long shutdown waits for queued operations.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// The least time between two log messages about dropped receipts.
const LOG_DROPS_EVERY_MS: i64 = 60_000;

/// What can be queued beside receipts.
pub trait WriterOperation: Send {
    /// What it is, for the log: it is named there if it can never be written.
    fn describe(&self) -> String;

    /// Called once, after the write is durable; never, if it was left out.
    fn committed(self);
}

/// An entry of the queue.
pub enum QueuedOperation<O> {
    /// A receipt with its charges.
    Receipt(Arc<Receipt>),
    /// Anything else.
    Operation(O),
}

/// A database that the thread writes to.
pub trait WriterTarget: Send + 'static {
    /// What is written beside receipts.
    type Operation: WriterOperation + 'static;
    /// Why nothing could be written.
    type Error: Display;

    /// Commits `batch`, or nothing of it. After a failure the caller passes the same batch again.
    ///
    /// # Errors
    /// Why nothing was written, or it is not known whether it was; trying again may help.
    fn commit(&mut self, batch: &[QueuedOperation<Self::Operation>]) -> Result<(), Self::Error>;

    /// Whether the operation at this index was left out of the last commit, because it can never be written.
    fn left_out(&self, at: usize) -> bool;

    /// Whether it could be written now. Called at least every second while there is nothing to write.
    ///
    /// # Errors
    /// Why it could not.
    fn check(&mut self) -> Result<(), Self::Error>;

    /// How long until there is something to do between commits, such as deleting what is too old; `None`: nothing ever.
    fn next_upkeep(&self, now_unix_ms: i64) -> Option<Duration>;

    /// Does some of that if it is due. Whatever fails is tried again later.
    fn upkeep(&mut self, now_unix_ms: i64);

    /// Called once, when nothing will be written any more.
    fn end(&mut self) {}
}

/// Queues operations; clones share one queue.
pub struct Writer<O>(Arc<WriterShared<O>>);

impl<O> Clone for Writer<O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Stops the writer thread when it is dropped, after waiting at most a second for queued operations.
#[must_use = "dropping it stops the writer thread"]
pub struct WriterGuard(Box<dyn StopWriting>);

/// Stops a writer thread, whatever it writes to.
trait StopWriting: Send + Sync {
    /// Asks it to end, waits, and returns how many operations are lost.
    fn stop(&self) -> usize;
}

struct WriterShared<O> {
    queue: Mutex<WriteQueue<O>>,
    /// Room for receipts of requests that have not ended. Raised only while the queue is locked.
    reserved: Arc<AtomicUsize>,
    changed: Condvar,
    healthy: AtomicBool,
    dropped: AtomicU64,
    /// When dropped receipts were last logged.
    logged_unix_ms: AtomicI64,
    unix_ms: WallClock,
}

struct WriteQueue<O> {
    /// Receipts that charge an account, and operations, in order: a lease depends on what was charged before it.
    waiting: VecDeque<QueuedOperation<O>>,
    /// Receipts that charge no account, so that neither their order nor their delay matters to money.
    uncharged: VecDeque<Arc<Receipt>>,
    /// Operations taken by the thread and not committed yet.
    in_commit: usize,
    /// The places of everything that waits or is in the commit.
    places: usize,
    /// The thread waits for the first operation, and must be woken for it.
    idle: bool,
    /// Somebody waits for one of the queued operations.
    urgent: bool,
    closing: bool,
    ended: bool,
}

impl<O> Default for WriteQueue<O> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            uncharged: VecDeque::new(),
            in_commit: 0,
            places: 0,
            idle: false,
            urgent: false,
            closing: false,
            ended: false,
        }
    }
}

impl<O: WriterOperation + 'static> Writer<O> {
    /// Starts a thread that writes to `database` until the [`WriterGuard`] is dropped.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start<D: WriterTarget<Operation = O>>(
        database: D,
        unix_ms: WallClock,
    ) -> std::io::Result<(Self, WriterGuard)> {
        let shared = Arc::new(WriterShared {
            queue: Mutex::default(),
            reserved: Arc::default(),
            changed: Condvar::new(),
            healthy: AtomicBool::new(true),
            dropped: AtomicU64::new(0),
            logged_unix_ms: AtomicI64::new(i64::MIN),
            unix_ms,
        });
        let thread = WriterThread { shared: shared.clone(), database };
        std::thread::Builder::new().name("tierway-store".to_owned()).spawn(move || thread.run())?;
        Ok((Self(shared.clone()), WriterGuard(Box::new(shared))))
    }

    /// Reserves room for one receipt, if there is any.
    pub(super) fn reserve(&self) -> Option<ReceiptRoom> {
        let mut queue = self.0.queue();
        if queue.ended || !self.0.make_place(&mut queue) {
            return None;
        }
        Some(ReceiptRoom::counted_in(&self.0.reserved))
    }

    /// Queues a receipt; drops it if the queue is full, unless it has `room` and charges an account.
    pub(super) fn push(&self, receipt: Arc<Receipt>, room: Option<ReceiptRoom>) {
        let (charges, places) = (!receipt.charges.is_empty(), places_of(&receipt));
        // What is reserved counts as queued, so it is given back before an uncharged receipt asks for a place.
        let room = room.filter(|_| charges);
        let mut queue = self.0.queue();
        let has_place = match charges {
            true => room.is_some() || self.0.make_place(&mut queue),
            false => self.0.has_room(&queue, places),
        };
        if !has_place {
            drop(queue);
            return self.0.count_drop();
        }
        queue.places += places;
        if charges {
            queue.waiting.push_back(QueuedOperation::Receipt(receipt));
        } else {
            queue.uncharged.push_back(receipt);
        }
        self.wake_for(queue);
    }

    /// Queues an operation that somebody waits for: the queue is written without further delay.
    ///
    /// # Errors
    /// Returns the operation if the queue is full, or the writer has stopped.
    pub fn submit(&self, operation: O) -> Result<(), O> {
        let mut queue = self.0.queue();
        if queue.closing || queue.ended || !self.0.make_place(&mut queue) {
            return Err(operation);
        }
        queue.push(operation);
        queue.urgent = true;
        queue.idle = false;
        drop(queue);
        self.0.changed.notify_all();
        Ok(())
    }

    /// Queues an operation that nobody waits for; `false` if the queue is full, or the writer has stopped.
    pub(super) fn submit_unhurried(&self, operation: O) -> bool {
        let mut queue = self.0.queue();
        if queue.closing || queue.ended || !self.0.make_place(&mut queue) {
            return false;
        }
        queue.push(operation);
        self.wake_for(queue);
        true
    }

    /// The thread is woken for the first operation and for a full batch, not for each operation.
    fn wake_for(&self, mut queue: MutexGuard<'_, WriteQueue<O>>) {
        if std::mem::take(&mut queue.idle) || queue.len() == BATCH {
            drop(queue);
            self.0.changed.notify_all();
        }
    }

    /// Health and backlog of the writer.
    pub(super) fn status(&self) -> LedgerStatus {
        let queue = self.0.queue();
        LedgerStatus {
            healthy: self.0.healthy.load(Ordering::Relaxed) && !queue.ended,
            waiting: (queue.len() + queue.in_commit) as u64,
            dropped: self.0.dropped.load(Ordering::Relaxed),
        }
    }
}

impl<O: Send> StopWriting for Arc<WriterShared<O>> {
    fn stop(&self) -> usize {
        let mut queue = self.queue();
        queue.closing = true;
        self.changed.notify_all();
        self.changed.wait_while_for(&mut queue, |queue| !queue.ended, SHUTDOWN_TIMEOUT);
        queue.len() + queue.in_commit
    }
}

impl Drop for WriterGuard {
    fn drop(&mut self) {
        let lost = self.0.stop();
        if lost > 0 {
            tracing::error!(operations = lost, "the store could not be written before the end; these are lost");
        }
    }
}

impl<O> WriterShared<O> {
    fn queue(&self) -> MutexGuard<'_, WriteQueue<O>> {
        self.queue.lock()
    }

    /// Whether so many places are free.
    fn has_room(&self, queue: &WriteQueue<O>, places: usize) -> bool {
        queue.places + self.reserved.load(Ordering::Relaxed) + places <= QUEUE_CAPACITY
    }

    /// Makes place for what must not be lost; a receipt that charges no account gives way to it. `false` if it cannot.
    fn make_place(&self, queue: &mut WriteQueue<O>) -> bool {
        while !self.has_room(queue, 1) {
            let Some(gives_way) = queue.uncharged.pop_back() else { return false };
            queue.places -= places_of(&gives_way);
            self.count_drop();
        }
        true
    }

    fn count_drop(&self) {
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        let (now, last) = ((self.unix_ms)(), self.logged_unix_ms.load(Ordering::Relaxed));
        // A clock that was set back logs once more, and then at the usual rate.
        let logged_recently = (0..LOG_DROPS_EVERY_MS).contains(&now.saturating_sub(last));
        if !logged_recently
            && self.logged_unix_ms.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            tracing::error!(
                dropped,
                "the store is not written fast enough and its queue is full: receipts that charge no budget are dropped"
            );
        }
    }
}

impl<O> WriteQueue<O> {
    /// How many operations wait.
    fn len(&self) -> usize {
        self.waiting.len() + self.uncharged.len()
    }

    /// Adds an operation, for which there is a place.
    fn push(&mut self, operation: O) {
        let operation = QueuedOperation::Operation(operation);
        self.places += operation.places();
        self.waiting.push_back(operation);
    }

    /// Moves what belongs in the next commit into `batch`.
    fn take(&mut self, batch: &mut Vec<QueuedOperation<O>>) {
        let first = self.waiting.len().min(BATCH);
        batch.extend(self.waiting.drain(..first));
        let more = self.uncharged.len().min(BATCH - first);
        batch.extend(self.uncharged.drain(..more).map(QueuedOperation::Receipt));
        self.in_commit = batch.len();
        self.urgent &= !self.waiting.is_empty();
    }
}

impl<O: WriterOperation> QueuedOperation<O> {
    /// What it is, for the log.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Receipt(receipt) => format!("the receipt of {}", receipt.id),
            Self::Operation(operation) => operation.describe(),
        }
    }
}

impl<O> QueuedOperation<O> {
    fn places(&self) -> usize {
        match self {
            Self::Receipt(receipt) => places_of(receipt),
            Self::Operation(_) => 1,
        }
    }
}

fn places_of(receipt: &Receipt) -> usize {
    receipt.size().div_ceil(PLACE_BYTES)
}

/// The state of the writer thread.
struct WriterThread<D: WriterTarget> {
    shared: Arc<WriterShared<D::Operation>>,
    database: D,
}

impl<D: WriterTarget> WriterThread<D> {
    fn run(self) {
        // Also after a panic: nobody must wait for the end for ever.
        let _end = WriterEnd(self.shared.clone());
        // Dropped before `_end`: once the end is signalled, the file is closed and unlocked.
        let mut thread = self;
        let mut batch = Vec::with_capacity(BATCH);
        while thread.take(&mut batch) {
            if batch.is_empty() {
                let found = thread.database.check();
                thread.report(&found);
            } else if !thread.commit(&batch) {
                break;
            }
            let mut places = 0;
            for (at, work) in batch.drain(..).enumerate() {
                places += work.places();
                match (work, thread.database.left_out(at)) {
                    (QueuedOperation::Operation(operation), false) => operation.committed(),
                    (QueuedOperation::Receipt(_), true) => {
                        thread.shared.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => {}
                }
            }
            let mut queue = thread.shared.queue();
            queue.in_commit = 0;
            queue.places -= places;
            drop(queue);
            thread.database.upkeep((thread.shared.unix_ms)());
        }
        thread.database.end();
    }

    /// Waits for an operation, collects more, and takes those of one commit; takes nothing if only the files are to be
    /// looked at, or there is upkeep to do. `false` at the end.
    fn take(&self, batch: &mut Vec<QueuedOperation<D::Operation>>) -> bool {
        let (shared, mut queue) = (&self.shared, self.shared.queue());
        let until_upkeep = self.database.next_upkeep((shared.unix_ms)());
        let pause = until_upkeep.map_or(LOOK_EVERY, |until| until.min(LOOK_EVERY));
        while queue.len() == 0 && !queue.closing {
            queue.idle = true;
            let waited = shared.changed.wait_for(&mut queue, pause);
            if waited.timed_out() && queue.len() == 0 {
                queue.idle = false;
                return !queue.closing;
            }
        }
        queue.idle = false;
        let collecting = |queue: &mut WriteQueue<D::Operation>| queue.len() < BATCH && !queue.urgent && !queue.closing;
        shared.changed.wait_while_for(&mut queue, collecting, COLLECT);
        queue.take(batch);
        !batch.is_empty()
    }

    /// Commits `batch`, retrying until it succeeds; `false` if the end came first.
    fn commit(&mut self, batch: &[QueuedOperation<D::Operation>]) -> bool {
        let mut pause = FIRST_RETRY;
        loop {
            let last_try = self.shared.queue().closing;
            let done = self.database.commit(batch);
            self.report(&done);
            if done.is_ok() {
                return true;
            }
            if last_try {
                return false;
            }
            self.shared.changed.wait_while_for(&mut self.shared.queue(), |queue| !queue.closing, pause);
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }

    /// Says whether the store can be written, where that has changed.
    fn report(&self, done: &Result<(), D::Error>) {
        let was_healthy = self.shared.healthy.swap(done.is_ok(), Ordering::Relaxed);
        match done {
            Ok(()) if !was_healthy => tracing::info!("the store can be written again"),
            Err(error) if was_healthy => {
                tracing::error!(%error, "the store cannot be written; it is tried again until it can");
            }
            _ => {}
        }
    }
}

/// Signals the end of the thread when it is dropped.
struct WriterEnd<O>(Arc<WriterShared<O>>);

impl<O> Drop for WriterEnd<O> {
    fn drop(&mut self) {
        self.0.queue().ended = true;
        self.0.changed.notify_all();
    }
}
