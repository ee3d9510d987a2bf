//! Every interleaving of the purse's coins, tried one by one: `src/store/purse/coins.rs` itself, over loom's atomics.
//!
//! Each model is two or three threads at one drawer and a bank that keeps its own books. Whatever the order,
//! all that was leased must be spent, held, free or given back, and nothing may stay where it must not be
//! spent. Mutants are atomics that misbehave, or a hand that does; each must make its model fail. loom takes
//! every order for acquire and release at most, so what passes here asks less of a processor than it is given.
//!
//! Start reading in [`MODELS`], then [`Desk::closing`], which says what must hold.

use loom::thread;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tierway::domain::budget::grant;
use tierway::domain::money::NanoUsd;

#[path = "../src/store/purse/coins.rs"]
mod coins;

use coins::Coins;

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

/// The atomics of `coins.rs`: loom's, or a mutant's.
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
struct Desk {
    coins: Coins,
    books: loom::sync::Mutex<Books>,
}

impl Desk {
    /// A window of `limit` of which `leased` is leased already.
    fn open(limit: i64, leased: i64) -> Arc<Self> {
        let desk =
            Self { coins: Coins::new(limit), books: loom::sync::Mutex::new(Books { limit, ..Books::default() }) };
        desk.lease(leased);
        Arc::new(desk)
    }

    fn book(&self, entry: impl FnOnce(&mut Books)) {
        let mut books = self.books.lock().expect("no thread panics with it");
        entry(&mut books);
        let Books { leased, held, .. } = *books;
        drop(books);
        assert!(held <= leased, "{held} is held of {leased} that are leased");
    }

    fn lease(&self, need: i64) {
        self.answer(need, self.coins.overrun());
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
        let overrun = if is_broken(Mutant::ForgetsOverruns) { self.coins.overrun() } else { overrun };
        self.give_back(self.coins.lease(amount, taken, overrun));
    }

    fn give_back(&self, back: i64) {
        if !is_broken(Mutant::KeepsWhatGoesBack) {
            self.book(|books| books.leased -= back);
        }
    }

    fn take_part(&self, amount: i64) -> i64 {
        let part = self.coins.take_part(amount);
        self.book(|books| books.held += part);
        part
    }

    fn take(&self, amount: i64) -> bool {
        let taken = self.coins.take(amount);
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
        let settled = self.coins.settle(held, actual);
        self.book(|books| {
            books.leased -= settled.leased;
            books.spent += actual;
        });
        self.give_back(settled.back);
    }

    fn release(&self, held: i64) {
        self.book(|books| books.held -= held);
        self.give_back(self.coins.release(held));
    }

    fn set_limit(&self, limit: i64) {
        self.book(|books| books.limit = limit);
        self.give_back(self.coins.set_limit(limit));
    }

    fn close(&self) {
        self.give_back(self.coins.close());
    }

    fn tidy(&self) {
        self.give_back(self.coins.drain());
    }

    /// What must hold when every thread has done its part.
    fn closing(&self) {
        let (is_closed, taken_now) = (self.coins.is_closed(), self.coins.limit() - self.coins.left());
        let free = self.coins.drain();
        let books = self.books.lock().expect("no thread panics with it");
        assert_eq!(self.coins.held(), books.held, "what is held is what the requests hold");
        assert_eq!(books.leased, free + books.held, "what is leased is free or held");
        assert_eq!(self.coins.is_low(1), self.coins.left() > 0, "nothing is free now, and the bank may have more");
        assert!(!is_closed || free == 0, "{free} is left in a drawer that was closed");
        let over = books.spent + books.leased - books.limit;
        assert!(over <= 0 || free == 0, "{free} can be spent, and {over} too much is taken");
        let taken = books.spent + books.leased - free;
        assert!(taken_now >= taken, "{taken_now} is thought to be taken, and it is {taken}");
    }
}

type Part = fn(&Desk);

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
        threads: &[|desk| take_and_keep(desk, 6), |desk| take_and_keep(desk, 6), |desk| take_and_keep(desk, 4)],
    },
    Model {
        name: "three share the last money in parts",
        before: |desk| desk.hold(3),
        threads: &[|desk| part_and_settle(desk, 6, 2), |desk| part_and_settle(desk, 4, 4), |desk| desk.release(3)],
    },
    Model {
        name: "the window ends while one takes a part",
        before: |desk| desk.hold(7),
        threads: &[|desk| desk.close(), |desk| part_and_settle(desk, 5, 5)],
    },
    Model {
        name: "one takes what another gives back",
        before: |desk| desk.hold(8),
        threads: &[|desk| desk.settle(8, 3), |desk| take_and_keep(desk, 5), |desk| take_and_release(desk, 2)],
    },
    Model {
        name: "the window ends while one takes",
        before: |_| {},
        threads: &[|desk| desk.close(), |desk| take_and_settle(desk, 6, 2)],
    },
    Model {
        name: "the window ends while holds end",
        before: |desk| (desk.hold(6), desk.hold(3)).0,
        threads: &[|desk| desk.close(), |desk| desk.settle(6, 2), |desk| desk.release(3)],
    },
    Model {
        name: "the window ends while a lease arrives",
        before: |desk| desk.settle(0, 0),
        threads: &[|desk| desk.close(), |desk| desk.lease(5)],
    },
    Model {
        name: "the limit is lowered while a hold ends",
        before: |desk| desk.hold(8),
        threads: &[|desk| desk.set_limit(3), |desk| desk.settle(8, 1)],
    },
    Model {
        name: "the limit is lowered while two holds end",
        before: |desk| (desk.hold(5), desk.hold(4)).0,
        threads: &[|desk| desk.set_limit(3), |desk| desk.settle(5, 1), |desk| desk.release(4)],
    },
    Model {
        name: "the limit is lowered while a lease arrives",
        before: |desk| (desk.hold(8), desk.tidy()).0,
        threads: &[|desk| desk.set_limit(3), |desk| desk.lease(2)],
    },
    Model {
        name: "one costs more than it held while another takes",
        before: |desk| desk.hold(4),
        threads: &[|desk| desk.settle(4, 12), |desk| take_and_settle(desk, 5, 2)],
    },
    Model {
        name: "one costs more than it held while another ends",
        before: |desk| (desk.hold(4), desk.hold(6)).0,
        threads: &[|desk| desk.settle(4, 12), |desk| desk.release(6)],
    },
    Model {
        name: "one costs more than it held while a lease is on its way",
        before: |desk| (desk.hold(4), desk.tidy()).0,
        threads: &[|desk| desk.settle(4, 12), |desk| desk.answer(3, 0)],
    },
    Model {
        name: "what is idle goes back while one takes",
        before: |_| {},
        threads: &[|desk| desk.tidy(), |desk| take_and_settle(desk, 6, 2), |desk| take_and_release(desk, 3)],
    },
    Model {
        name: "what is idle goes back while a lease arrives",
        before: |desk| (desk.hold(6), desk.tidy()).0,
        threads: &[|desk| desk.tidy(), |desk| desk.lease(3), |desk| desk.settle(6, 2)],
    },
];

fn take_and_keep(desk: &Desk, amount: i64) {
    desk.take(amount);
}

fn take_and_release(desk: &Desk, amount: i64) {
    if desk.take(amount) {
        desk.release(amount);
    }
}

fn take_and_settle(desk: &Desk, amount: i64, actual: i64) {
    if desk.take(amount) {
        desk.settle(amount, actual);
    }
}

/// Takes as much of `amount` as there is, and spends up to `actual` of it.
fn part_and_settle(desk: &Desk, amount: i64, actual: i64) {
    let part = desk.take_part(amount);
    desk.settle(part, actual.min(part));
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
            let desk = Desk::open(10, 10);
            (model.before)(&desk);
            BROKEN.set(mutant);
            let part = |part: Part| {
                let desk = desk.clone();
                thread::spawn(move || part(&desk))
            };
            let [first, others @ ..] = model.threads else { panic!("a model has threads") };
            let others: Vec<_> = others.iter().map(|one| part(*one)).collect();
            first(&desk);
            others.into_iter().for_each(|other| other.join().expect("it does not panic"));
            BROKEN.set(None);
            desk.closing();
        });
    });
    let told = tried.join().map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default());
    told.map(|()| orders.load(std::sync::atomic::Ordering::Relaxed))
}

#[test]
fn money_is_kept_in_every_order() {
    for model in MODELS {
        let orders = explore(model, None).unwrap_or_else(|told| panic!("{}: {told}", model.name));
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
        let told = explore(model, Some(mutant)).expect_err(&format!("{mutant:?} is not noticed"));
        println!("{mutant:?} is noticed: {told}");
    }
}
