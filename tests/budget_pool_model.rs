//! Every interleaving of the purse's coins, tried one by one: `src/store/budget_pool/balance.rs` itself, over loom's atomics.
//!
//! Each model is two or three threads at one drawer and a bank that keeps its own books. Whatever the order,
//! all that was leased must be spent, held, free or given back, and nothing may stay where it must not be
//! spent. Mutants are atomics that misbehave, or a hand that does; each must make its model fail. loom takes
//! every order for acquire and release at most, so what passes here asks less of a processor than it is given.
//!
//! Start reading in [`MODELS`], then [`CliContext::closing`], which says what must hold.

use loom::thread;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tierway::domain::budget::grant;
use tierway::domain::money::NanoUsd;

#[path = "../src/store/budget_pool/balance.rs"]
mod balance;

use balance::WindowBalance;

/// How often a thread is interrupted where it need not be; `LOOM_MAX_PREEMPTIONS` says otherwise. With five, most
/// models pass too; the largest take too long for every run.
const PREEMPTIONS: usize = 3;

/// What is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mutant {
    /// Compare-and-swap does not compare.
    LoadsThenStores,
    /// Adding is reading and writing.
    AddsInTwoSteps,
    /// Whether the window has ended is looked at once: no second look after money came back.
    LooksOnceAtTheWindow,
    /// What is taken and the limit are looked at once.
    LooksOnceAtTheLimit,
    /// Nothing is ordered.
    OrdersNothing,
    /// What must go back to the bank is kept.
    KeepsWhatGoesBack,
    /// What was overrun is read when the bank has answered, not before it is asked.
    ForgetsOverruns,
}

std::thread_local! {
    /// All threads of a model run on the thread that tries it.
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

    /// What each thread saw at its first look.
    #[derive(Default)]
    struct FirstLooks<T>(Mutex<HashMap<ThreadId, T>>);

    impl<T: Copy> FirstLooks<T> {
        fn look(&self, mutant: Mutant, look: impl FnOnce() -> T) -> T {
            if !is_broken(mutant) {
                return look();
            }
            let me = loom::thread::current().id();
            let known = self.0.lock().expect("no thread panics").get(&me).copied();
            known.unwrap_or_else(|| {
                let seen = look();
                self.0.lock().expect("no thread panics").insert(me, seen);
                seen
            })
        }
    }

    pub struct AtomicBool(loom::sync::atomic::AtomicBool, FirstLooks<bool>);

    impl AtomicBool {
        pub fn new(value: bool) -> Self {
            Self(loom::sync::atomic::AtomicBool::new(value), FirstLooks::default())
        }

        pub fn load(&self, by: Ordering) -> bool {
            self.1.look(Mutant::LooksOnceAtTheWindow, || self.0.load(order(by)))
        }

        pub fn store(&self, value: bool, by: Ordering) {
            self.0.store(value, order(by));
        }
    }

    pub struct AtomicI64(loom::sync::atomic::AtomicI64, FirstLooks<i64>);

    impl AtomicI64 {
        pub fn new(value: i64) -> Self {
            Self(loom::sync::atomic::AtomicI64::new(value), FirstLooks::default())
        }

        pub fn load(&self, by: Ordering) -> i64 {
            self.1.look(Mutant::LooksOnceAtTheLimit, || self.0.load(order(by)))
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

/// The bank's side of one window, and what the requests at its desk hold; counted apart from the coins.
#[derive(Default)]
struct Books {
    limit: i64,
    spent: i64,
    leased: i64,
    held: i64,
}

/// One drawer and its bank. The bank hears of everything after the coins have moved.
struct CliContext {
    balance: WindowBalance,
    books: loom::sync::Mutex<Books>,
}

impl CliContext {
    /// A window of `limit` of which `leased` is leased already.
    fn open(limit: i64, leased: i64) -> Arc<Self> {
        let context = Self {
            balance: WindowBalance::new(limit),
            books: loom::sync::Mutex::new(Books { limit, ..Books::default() }),
        };
        context.lease(leased);
        Arc::new(context)
    }

    fn book(&self, entry: impl FnOnce(&mut Books)) {
        let mut books = self.books.lock().expect("no thread panics with it");
        entry(&mut books);
        let Books { leased, held, .. } = *books;
        drop(books);
        assert!(held <= leased, "{held} is held of {leased} that are leased");
    }

    fn lease(&self, need: i64) {
        self.answer(need, self.balance.overrun());
    }

    /// The bank answers an ask for `need`, sent when `overrun` was overrun.
    fn answer(&self, need: i64, overrun: i64) {
        let (mut amount, mut taken) = (0, 0);
        self.book(|books| {
            let [limit, before, need] = [books.limit, books.spent + books.leased, need].map(NanoUsd);
            amount = grant(limit, before, need, NanoUsd::ZERO).0;
            books.leased += amount;
            taken = books.spent + books.leased;
        });
        let overrun = if is_broken(Mutant::ForgetsOverruns) { self.balance.overrun() } else { overrun };
        self.give_back(self.balance.lease(amount, taken, overrun));
    }

    fn give_back(&self, back: i64) {
        if !is_broken(Mutant::KeepsWhatGoesBack) {
            self.book(|books| books.leased -= back);
        }
    }

    fn take_part(&self, amount: i64) -> i64 {
        let part = self.balance.take_part(amount);
        self.book(|books| books.held += part);
        part
    }

    fn take(&self, amount: i64) -> bool {
        let taken = self.balance.take(amount);
        if taken {
            self.book(|books| books.held += amount);
        }
        taken
    }

    /// A hold that must fit: there is nobody else yet.
    fn hold(&self, amount: i64) {
        assert!(self.take(amount), "it fits");
    }

    fn settle(&self, held: i64, actual: i64) {
        self.book(|books| books.held -= held);
        let settled = self.balance.settle(held, actual);
        self.book(|books| {
            books.leased -= settled.leased;
            books.spent += actual;
        });
        self.give_back(settled.back);
    }

    fn release(&self, held: i64) {
        self.book(|books| books.held -= held);
        self.give_back(self.balance.release(held));
    }

    fn set_limit(&self, limit: i64) {
        self.book(|books| books.limit = limit);
        self.give_back(self.balance.set_limit(limit));
    }

    fn close(&self) {
        self.give_back(self.balance.close());
    }

    fn tidy(&self) {
        self.give_back(self.balance.drain());
    }

    /// What must hold when every thread has done its part.
    fn closing(&self) {
        let (is_closed, taken_now) = (self.balance.is_closed(), self.balance.limit() - self.balance.left());
        let free = self.balance.drain();
        let books = self.books.lock().expect("no thread panics with it");
        assert_eq!(self.balance.held(), books.held, "what is held is what the requests hold");
        assert_eq!(books.leased, free + books.held, "what is leased is free or held");
        assert_eq!(self.balance.is_low(1), self.balance.left() > 0, "nothing is free now, and the bank may have more");
        assert!(!is_closed || free == 0, "{free} is left in a drawer that was closed");
        let over = books.spent + books.leased - books.limit;
        assert!(over <= 0 || free == 0, "{free} can be spent, and {over} too much is taken");
        let taken = books.spent + books.leased - free;
        assert!(taken_now >= taken, "{taken_now} is thought to be taken, and it is {taken}");
    }
}

type Part = fn(&CliContext);

/// What happens at once, after what happened before, in a window of 10 of which 10 are leased.
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
            |context| take_and_keep(context, 6),
            |context| take_and_keep(context, 6),
            |context| take_and_keep(context, 4),
        ],
    },
    Model {
        name: "three share the last money in parts",
        before: |context| context.hold(3),
        threads: &[
            |context| part_and_settle(context, 6, 2),
            |context| part_and_settle(context, 4, 4),
            |context| context.release(3),
        ],
    },
    Model {
        name: "the window ends while one takes a part",
        before: |context| context.hold(7),
        threads: &[|context| context.close(), |context| part_and_settle(context, 5, 5)],
    },
    Model {
        name: "one takes what another gives back",
        before: |context| context.hold(8),
        threads: &[
            |context| context.settle(8, 3),
            |context| take_and_keep(context, 5),
            |context| take_and_release(context, 2),
        ],
    },
    Model {
        name: "the window ends while one takes",
        before: |_| {},
        threads: &[|context| context.close(), |context| take_and_settle(context, 6, 2)],
    },
    Model {
        name: "the window ends while holds end",
        before: |context| (context.hold(6), context.hold(3)).0,
        threads: &[|context| context.close(), |context| context.settle(6, 2), |context| context.release(3)],
    },
    Model {
        name: "the window ends while a lease arrives",
        before: |context| context.settle(0, 0),
        threads: &[|context| context.close(), |context| context.lease(5)],
    },
    Model {
        name: "the limit is lowered while a hold ends",
        before: |context| context.hold(8),
        threads: &[|context| context.set_limit(3), |context| context.settle(8, 1)],
    },
    Model {
        name: "the limit is lowered while two holds end",
        before: |context| (context.hold(5), context.hold(4)).0,
        threads: &[|context| context.set_limit(3), |context| context.settle(5, 1), |context| context.release(4)],
    },
    Model {
        name: "the limit is lowered while a lease arrives",
        before: |context| (context.hold(8), context.tidy()).0,
        threads: &[|context| context.set_limit(3), |context| context.lease(2)],
    },
    Model {
        name: "one costs more than it held while another takes",
        before: |context| context.hold(4),
        threads: &[|context| context.settle(4, 12), |context| take_and_settle(context, 5, 2)],
    },
    Model {
        name: "one costs more than it held while another ends",
        before: |context| (context.hold(4), context.hold(6)).0,
        threads: &[|context| context.settle(4, 12), |context| context.release(6)],
    },
    Model {
        name: "one costs more than it held while a lease is on its way",
        before: |context| (context.hold(4), context.tidy()).0,
        threads: &[|context| context.settle(4, 12), |context| context.answer(3, 0)],
    },
    Model {
        name: "what is idle goes back while one takes",
        before: |_| {},
        threads: &[
            |context| context.tidy(),
            |context| take_and_settle(context, 6, 2),
            |context| take_and_release(context, 3),
        ],
    },
    Model {
        name: "what is idle goes back while a lease arrives",
        before: |context| (context.hold(6), context.tidy()).0,
        threads: &[|context| context.tidy(), |context| context.lease(3), |context| context.settle(6, 2)],
    },
];

fn take_and_keep(context: &CliContext, amount: i64) {
    context.take(amount);
}

fn take_and_release(context: &CliContext, amount: i64) {
    if context.take(amount) {
        context.release(amount);
    }
}

fn take_and_settle(context: &CliContext, amount: i64, actual: i64) {
    if context.take(amount) {
        context.settle(amount, actual);
    }
}

/// Takes as much of `amount` as there is, and spends up to `actual` of it.
fn part_and_settle(context: &CliContext, amount: i64, actual: i64) {
    let part = context.take_part(amount);
    context.settle(part, actual.min(part));
}

/// Tries `model` in every order; how many there were, or what went wrong.
fn explore(model: &'static Model, mutant: Option<Mutant>) -> Result<usize, String> {
    let orders = Arc::new(AtomicUsize::new(0));
    let count = orders.clone();
    let tried = std::thread::spawn(move || {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
        builder.check(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let context = CliContext::open(10, 10);
            (model.before)(&context);
            BROKEN.set(mutant);
            let part = |part: Part| {
                let context = context.clone();
                thread::spawn(move || part(&context))
            };
            let [first, others @ ..] = model.threads else { panic!("a model has threads") };
            let others: Vec<_> = others.iter().map(|one| part(*one)).collect();
            first(&context);
            others.into_iter().for_each(|other| other.join().expect("it does not panic"));
            BROKEN.set(None);
            context.closing();
        });
    });
    let reported = tried.join().map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default());
    reported.map(|()| orders.load(std::sync::atomic::Ordering::Relaxed))
}

#[test]
fn money_is_kept_in_every_order() {
    for model in MODELS {
        let orders = explore(model, None).unwrap_or_else(|reported| panic!("{}: {reported}", model.name));
        println!("{orders:>6} orders: {}", model.name);
        assert!(orders > 10, "{}: threads that never meet prove nothing", model.name);
    }
}

#[test]
fn each_mutant_loses_or_makes_money() {
    for (mutant, name) in [
        (Mutant::LoadsThenStores, "three take the last money"),
        (Mutant::AddsInTwoSteps, "one takes what another gives back"),
        (Mutant::LooksOnceAtTheWindow, "the window ends while holds end"),
        (Mutant::LooksOnceAtTheLimit, "the limit is lowered while a hold ends"),
        (Mutant::OrdersNothing, "the window ends while holds end"),
        (Mutant::KeepsWhatGoesBack, "the window ends while one takes"),
        (Mutant::ForgetsOverruns, "one costs more than it held while a lease is on its way"),
    ] {
        let model = MODELS.iter().find(|model| model.name == name).expect("it is one of them");
        let reported = explore(model, Some(mutant)).expect_err(&format!("{mutant:?} is not noticed"));
        println!("{mutant:?} is noticed: {reported}");
    }
}
