//! Model check of `src/store/budget_pool/balance.rs`: every interleaving of its atomics, explored by loom.
//!
//! Each model is two or three threads that use one window, and a lease store that counts separately. In every order,
//! all leased money must end up spent, held, free or returned, and none may stay where it must not be spent.
//! Mutants are faulty atomics or faulty callers; each must make its model fail. loom treats every ordering as
//! acquire and release at most, so what passes here needs less than the code asks of a processor.
//!
//! Start reading in [`MODELS`], then [`ModelWindow::check_end`], which states what must hold.

use loom::thread;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tierway::domain::budget::grant;
use tierway::domain::money::NanoUsd;

#[path = "../src/store/budget_pool/balance.rs"]
mod balance;

use balance::WindowBalance;

/// The most preemptions per thread, unless `LOOM_MAX_PREEMPTIONS` is set. With five, most models pass too; the
/// largest take too long for every run.
const PREEMPTIONS: usize = 3;

/// A deliberate fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mutant {
    /// Compare-and-swap is a load and a store.
    LoadsThenStores,
    /// An addition is a load and a store.
    AddsInTwoSteps,
    /// Whether the window has ended is read once, and not again after money was returned.
    ReadsTheWindowOnce,
    /// What is taken and the limit are read only once.
    ReadsTheLimitOnce,
    /// All orderings are relaxed.
    OrdersNothing,
    /// What must go back to the lease store is kept.
    KeepsReturnedMoney,
    /// Overruns are read after the lease store has answered, not before it is asked.
    ForgetsOverruns,
}

std::thread_local! {
    /// All threads of a model run on the thread that explores it.
    static BROKEN: Cell<Option<Mutant>> = const { Cell::new(None) };
}

fn is_broken(mutant: Mutant) -> bool {
    BROKEN.get() == Some(mutant)
}

/// The atomics of `balance.rs`: loom's, or a mutant's.
mod sync {
    use super::{Mutant, is_broken};
    use loom::thread::ThreadId;
    use std::collections::HashMap;
    use std::sync::Mutex;
    pub use std::sync::atomic::Ordering;

    fn order(order: Ordering) -> Ordering {
        if is_broken(Mutant::OrdersNothing) { Ordering::Relaxed } else { order }
    }

    /// The value of each thread's first read.
    #[derive(Default)]
    struct FirstReads<T>(Mutex<HashMap<ThreadId, T>>);

    impl<T: Copy> FirstReads<T> {
        fn read_once(&self, mutant: Mutant, read_once: impl FnOnce() -> T) -> T {
            if !is_broken(mutant) {
                return read_once();
            }
            let me = loom::thread::current().id();
            let known = self.0.lock().expect("no thread panics").get(&me).copied();
            known.unwrap_or_else(|| {
                let seen = read_once();
                self.0.lock().expect("no thread panics").insert(me, seen);
                seen
            })
        }
    }

    pub struct AtomicBool(loom::sync::atomic::AtomicBool, FirstReads<bool>);

    impl AtomicBool {
        pub fn new(value: bool) -> Self {
            Self(loom::sync::atomic::AtomicBool::new(value), FirstReads::default())
        }

        pub fn load(&self, by: Ordering) -> bool {
            self.1.read_once(Mutant::ReadsTheWindowOnce, || self.0.load(order(by)))
        }

        pub fn store(&self, value: bool, by: Ordering) {
            self.0.store(value, order(by));
        }
    }

    pub struct AtomicI64(loom::sync::atomic::AtomicI64, FirstReads<i64>);

    impl AtomicI64 {
        pub fn new(value: i64) -> Self {
            Self(loom::sync::atomic::AtomicI64::new(value), FirstReads::default())
        }

        pub fn load(&self, by: Ordering) -> i64 {
            self.1.read_once(Mutant::ReadsTheLimitOnce, || self.0.load(order(by)))
        }

        pub fn swap(&self, value: i64, by: Ordering) -> i64 {
            self.0.swap(value, order(by))
        }

        pub fn store(&self, value: i64, by: Ordering) {
            self.0.store(value, order(by));
        }

        pub fn fetch_add(&self, more: i64, by: Ordering) -> i64 {
            if is_broken(Mutant::AddsInTwoSteps) {
                let old = self.0.load(Ordering::Acquire);
                self.0.store(old + more, Ordering::Release);
                return old;
            }
            self.0.fetch_add(more, order(by))
        }

        pub fn fetch_sub(&self, less: i64, by: Ordering) -> i64 {
            self.fetch_add(-less, by)
        }

        pub fn fetch_update(
            &self,
            set: Ordering,
            fetch: Ordering,
            mut to: impl FnMut(i64) -> Option<i64>,
        ) -> Result<i64, i64> {
            if is_broken(Mutant::LoadsThenStores) {
                let old = self.0.load(Ordering::Acquire);
                let new = to(old).ok_or(old)?;
                self.0.store(new, Ordering::Release);
                return Ok(old);
            }
            self.0.fetch_update(order(set), order(fetch), to)
        }
    }
}

/// The lease store's totals of one window, and what requests hold; counted separately from the balance.
#[derive(Default)]
struct LeaseTotals {
    limit: i64,
    spent: i64,
    leased: i64,
    held: i64,
}

/// One window and its lease store, which is notified of everything after the balance has changed.
struct ModelWindow {
    balance: WindowBalance,
    totals: loom::sync::Mutex<LeaseTotals>,
}

impl ModelWindow {
    /// A window of `limit` of which `leased` is leased already.
    fn open(limit: i64, leased: i64) -> Arc<Self> {
        let window = Self {
            balance: WindowBalance::new(limit),
            totals: loom::sync::Mutex::new(LeaseTotals { limit, ..LeaseTotals::default() }),
        };
        window.lease(leased);
        Arc::new(window)
    }

    fn record(&self, change: impl FnOnce(&mut LeaseTotals)) {
        let mut totals = self.totals.lock().expect("no thread panics with it");
        change(&mut totals);
        let LeaseTotals { leased, held, .. } = *totals;
        drop(totals);
        assert!(held <= leased, "{held} is held of {leased} that are leased");
    }

    fn lease(&self, need: i64) {
        self.answer(need, self.balance.overrun());
    }

    /// The lease store answers a request for `need`, sent when the overrun was `overrun`.
    fn answer(&self, need: i64, overrun: i64) {
        let (mut amount, mut taken) = (0, 0);
        self.record(|totals| {
            let [limit, before, need] = [totals.limit, totals.spent + totals.leased, need].map(NanoUsd);
            amount = grant(limit, before, need, NanoUsd::ZERO).0;
            totals.leased += amount;
            taken = totals.spent + totals.leased;
        });
        let overrun = if is_broken(Mutant::ForgetsOverruns) { self.balance.overrun() } else { overrun };
        self.give_back(self.balance.lease(amount, taken, overrun));
    }

    fn give_back(&self, back: i64) {
        if !is_broken(Mutant::KeepsReturnedMoney) {
            self.record(|totals| totals.leased -= back);
        }
    }

    fn take_part(&self, amount: i64) -> i64 {
        let part = self.balance.take_part(amount);
        self.record(|totals| totals.held += part);
        part
    }

    fn take(&self, amount: i64) -> bool {
        let taken = self.balance.take(amount);
        if taken {
            self.record(|totals| totals.held += amount);
        }
        taken
    }

    /// A hold that must fit: no other thread runs yet.
    fn hold(&self, amount: i64) {
        assert!(self.take(amount), "it fits");
    }

    fn settle(&self, held: i64, actual: i64) {
        self.record(|totals| totals.held -= held);
        let settled = self.balance.settle(held, actual);
        self.record(|totals| {
            totals.leased -= settled.leased;
            totals.spent += actual;
        });
        self.give_back(settled.back);
    }

    fn release(&self, held: i64) {
        self.record(|totals| totals.held -= held);
        self.give_back(self.balance.release(held));
    }

    fn set_limit(&self, limit: i64) {
        self.record(|totals| totals.limit = limit);
        self.give_back(self.balance.set_limit(limit));
    }

    fn close(&self) {
        self.give_back(self.balance.close());
    }

    fn return_idle(&self) {
        self.give_back(self.balance.drain());
    }

    /// What must hold after every thread has ended.
    fn check_end(&self) {
        let (is_closed, taken_now) = (self.balance.is_closed(), self.balance.limit() - self.balance.left());
        let free = self.balance.drain();
        let totals = self.totals.lock().expect("no thread panics with it");
        assert_eq!(self.balance.held(), totals.held, "what is held is what the requests hold");
        assert_eq!(totals.leased, free + totals.held, "what is leased is free or held");
        assert_eq!(
            self.balance.is_low(1),
            self.balance.left() > 0,
            "nothing is free now, and the lease store may have more"
        );
        assert!(!is_closed || free == 0, "{free} is left in a window that has ended");
        let over = totals.spent + totals.leased - totals.limit;
        assert!(over <= 0 || free == 0, "{free} can be spent, and {over} too much is taken");
        let taken = totals.spent + totals.leased - free;
        assert!(taken_now >= taken, "{taken_now} is thought to be taken, and it is {taken}");
    }
}

type Part = fn(&ModelWindow);

/// A setup and the threads that run concurrently after it, in a window of 10 of which 10 are leased.
struct Model {
    name: &'static str,
    before: Part,
    threads: &'static [Part],
}

const MODELS: &[Model] = &[
    Model {
        name: "three take the last money",
        before: |_| {},
        threads: &[
            |window| take_and_keep(window, 6),
            |window| take_and_keep(window, 6),
            |window| take_and_keep(window, 4),
        ],
    },
    Model {
        name: "three share the last money in parts",
        before: |window| window.hold(3),
        threads: &[
            |window| part_and_settle(window, 6, 2),
            |window| part_and_settle(window, 4, 4),
            |window| window.release(3),
        ],
    },
    Model {
        name: "the window ends while one takes a part",
        before: |window| window.hold(7),
        threads: &[|window| window.close(), |window| part_and_settle(window, 5, 5)],
    },
    Model {
        name: "one takes what another gives back",
        before: |window| window.hold(8),
        threads: &[
            |window| window.settle(8, 3),
            |window| take_and_keep(window, 5),
            |window| take_and_release(window, 2),
        ],
    },
    Model {
        name: "the window ends while one takes",
        before: |_| {},
        threads: &[|window| window.close(), |window| take_and_settle(window, 6, 2)],
    },
    Model {
        name: "the window ends while holds end",
        before: |window| (window.hold(6), window.hold(3)).0,
        threads: &[|window| window.close(), |window| window.settle(6, 2), |window| window.release(3)],
    },
    Model {
        name: "the window ends while a lease arrives",
        before: |window| window.settle(0, 0),
        threads: &[|window| window.close(), |window| window.lease(5)],
    },
    Model {
        name: "the limit is lowered while a hold ends",
        before: |window| window.hold(8),
        threads: &[|window| window.set_limit(3), |window| window.settle(8, 1)],
    },
    Model {
        name: "the limit is lowered while two holds end",
        before: |window| (window.hold(5), window.hold(4)).0,
        threads: &[|window| window.set_limit(3), |window| window.settle(5, 1), |window| window.release(4)],
    },
    Model {
        name: "the limit is lowered while a lease arrives",
        before: |window| (window.hold(8), window.return_idle()).0,
        threads: &[|window| window.set_limit(3), |window| window.lease(2)],
    },
    Model {
        name: "one costs more than it held while another takes",
        before: |window| window.hold(4),
        threads: &[|window| window.settle(4, 12), |window| take_and_settle(window, 5, 2)],
    },
    Model {
        name: "one costs more than it held while another ends",
        before: |window| (window.hold(4), window.hold(6)).0,
        threads: &[|window| window.settle(4, 12), |window| window.release(6)],
    },
    Model {
        name: "one costs more than it held while a lease is on its way",
        before: |window| (window.hold(4), window.return_idle()).0,
        threads: &[|window| window.settle(4, 12), |window| window.answer(3, 0)],
    },
    Model {
        name: "what is idle goes back while one takes",
        before: |_| {},
        threads: &[
            |window| window.return_idle(),
            |window| take_and_settle(window, 6, 2),
            |window| take_and_release(window, 3),
        ],
    },
    Model {
        name: "what is idle goes back while a lease arrives",
        before: |window| (window.hold(6), window.return_idle()).0,
        threads: &[|window| window.return_idle(), |window| window.lease(3), |window| window.settle(6, 2)],
    },
];

fn take_and_keep(window: &ModelWindow, amount: i64) {
    window.take(amount);
}

fn take_and_release(window: &ModelWindow, amount: i64) {
    if window.take(amount) {
        window.release(amount);
    }
}

fn take_and_settle(window: &ModelWindow, amount: i64, actual: i64) {
    if window.take(amount) {
        window.settle(amount, actual);
    }
}

/// Holds as much of `amount` as there is, and spends up to `actual` of it.
fn part_and_settle(window: &ModelWindow, amount: i64, actual: i64) {
    let part = window.take_part(amount);
    window.settle(part, actual.min(part));
}

/// Explores `model` in every order; returns the number of orders, or what failed.
fn explore(model: &'static Model, mutant: Option<Mutant>) -> Result<usize, String> {
    let orders = Arc::new(AtomicUsize::new(0));
    let count = orders.clone();
    let tried = std::thread::spawn(move || {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
        builder.check(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let window = ModelWindow::open(10, 10);
            (model.before)(&window);
            BROKEN.set(mutant);
            let part = |part: Part| {
                let window = window.clone();
                thread::spawn(move || part(&window))
            };
            let [first, others @ ..] = model.threads else { panic!("a model has threads") };
            let others: Vec<_> = others.iter().map(|one| part(*one)).collect();
            first(&window);
            others.into_iter().for_each(|other| other.join().expect("it does not panic"));
            BROKEN.set(None);
            window.check_end();
        });
    });
    let failure = tried.join().map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default());
    failure.map(|()| orders.load(std::sync::atomic::Ordering::Relaxed))
}

#[test]
fn money_is_kept_in_every_order() {
    for model in MODELS {
        let orders = explore(model, None).unwrap_or_else(|failure| panic!("{}: {failure}", model.name));
        println!("{orders:>6} orders: {}", model.name);
        assert!(orders > 10, "{}: threads that never meet prove nothing", model.name);
    }
}

#[test]
fn each_mutant_loses_or_makes_money() {
    for (mutant, name) in [
        (Mutant::LoadsThenStores, "three take the last money"),
        (Mutant::AddsInTwoSteps, "one takes what another gives back"),
        (Mutant::ReadsTheWindowOnce, "the window ends while holds end"),
        (Mutant::ReadsTheLimitOnce, "the limit is lowered while a hold ends"),
        (Mutant::OrdersNothing, "the window ends while holds end"),
        (Mutant::KeepsReturnedMoney, "the window ends while one takes"),
        (Mutant::ForgetsOverruns, "one costs more than it held while a lease is on its way"),
    ] {
        let model = MODELS.iter().find(|model| model.name == name).expect("it is one of them");
        let failure = explore(model, Some(mutant)).expect_err(&format!("{mutant:?} is not noticed"));
        println!("{mutant:?} is noticed: {failure}");
    }
}
