//! Keys and operators' tokens that were refused, by the peer they came from: counted, logged, and answered later the
//! more often a peer guesses.
//!
//! A secret that is valid never comes here, whoever else shares its peer's address: only refusals wait. Memory is
//! bounded, and so is how many answers wait at once. It must never say why a secret was refused to a client.
//!
//! Start reading at [`PeerRefusals::note`].

use crate::clock::Clock;
use crate::domain::random::{FNV_BASIS, RandomValue, fnv1a};
use crate::domain::refusal::{KeyRefusal, SecretTarget};
use crate::domain::secret::KeyHash;
use crate::telemetry::metrics::Metrics;
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many peers are remembered. Where two share a slot, the later one takes it.
const SLOTS: usize = 1024;
/// Refused secrets of one peer that are remembered: presented again, they are no further guesses but a client that
/// has a wrong key.
const REMEMBERED: usize = 8;
/// Guesses that are answered at once. One is forgiven each second.
const FREE_GUESSES: u32 = 20;
/// More than these are not counted: a peer that stops is forgiven all of them within a minute.
const MOST_GUESSES: u32 = 60;
/// The first delay, and after how many more guesses it doubles.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const GUESSES_PER_DOUBLING: u32 = 4;
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// The most answers that wait at once; any more are given at once, so that waiting cannot be used to hold memory.
const MOST_DELAYED: usize = 1024;
/// The least time between two lines of the log.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// What peers were refused.
pub struct PeerRefusals {
    seed: RandomValue,
    table: Mutex<PeerTable>,
    delayed: AtomicUsize,
}

struct PeerTable {
    slots: Box<[PeerRecord]>,
    /// When the log was last written to.
    logged: Option<Instant>,
    /// Refusals that had no line since then.
    unlogged: u64,
}

/// One peer.
#[derive(Clone, Copy)]
struct PeerRecord {
    peer: Option<IpAddr>,
    /// Refusals since the peer has its slot.
    refused: u64,
    guesses: u32,
    /// Up to when guesses were forgiven.
    forgiven: Instant,
    /// Fingerprints of what it guessed last, and where the next one is written.
    seen: [u64; REMEMBERED],
    next: usize,
}

impl PeerRecord {
    fn new(peer: Option<IpAddr>, now: Instant) -> Self {
        Self { peer, refused: 0, guesses: 0, forgiven: now, seen: [0; REMEMBERED], next: 0 }
    }

    /// Counts a refusal; returns how long its answer waits.
    fn refuse(&mut self, fingerprint: Option<u64>, now: Instant) -> Duration {
        self.refused += 1;
        let seconds = now.saturating_duration_since(self.forgiven).as_secs();
        self.forgiven += Duration::from_secs(seconds);
        self.guesses = self.guesses.saturating_sub(u32::try_from(seconds).unwrap_or(u32::MAX));
        let Some(fingerprint) = fingerprint.filter(|fingerprint| !self.seen.contains(fingerprint)) else {
            return Duration::ZERO;
        };
        self.seen[self.next] = fingerprint;
        self.next = (self.next + 1) % REMEMBERED;
        self.guesses = (self.guesses + 1).min(MOST_GUESSES);
        match self.guesses.checked_sub(FREE_GUESSES + 1) {
            None => Duration::ZERO,
            Some(beyond) => (FIRST_DELAY * (1 << (beyond / GUESSES_PER_DOUBLING))).min(LONGEST_DELAY),
        }
    }
}

impl PeerRefusals {
    /// Nothing was refused before `now`. With another `seed`, other peers share a slot.
    pub fn new(seed: RandomValue, now: Instant) -> Self {
        let slots = vec![PeerRecord::new(None, now); SLOTS].into();
        let table = PeerTable { slots, logged: None, unlogged: 0 };
        Self { seed, table: Mutex::new(table), delayed: AtomicUsize::new(0) }
    }

    /// Counts a secret that `peer` (`None`: a local socket) presented for `target` and that was refused for `why`, and
    /// writes a line to the log, at most one a second for all peers. Returns how long the answer is to wait.
    pub fn note(
        &self,
        peer: Option<IpAddr>,
        target: SecretTarget,
        why: &KeyRefusal,
        metrics: &Metrics,
        now: Instant,
    ) -> Duration {
        metrics.secret_refused(target, why);
        let peer = peer.map(network);
        let mut table = self.table.lock();
        let slot = &mut table.slots[self.slot_of(peer)];
        if slot.peer != peer {
            *slot = PeerRecord::new(peer, now);
        }
        let delay = slot.refuse(why.presented().map(|hash| self.fingerprint(hash)), now);
        let (refused, guesses) = (slot.refused, slot.guesses);
        // A request without a secret is no attempt to sign in.
        if *why == KeyRefusal::Missing {
            return delay;
        }
        if table.logged.is_some_and(|logged| now.saturating_duration_since(logged) < LOG_EVERY) {
            table.unlogged += 1;
            return delay;
        }
        table.logged = Some(now);
        let unlogged = std::mem::take(&mut table.unlogged);
        drop(table);
        let peer = peer.map(|peer| peer.to_string());
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let (presented_for, why) = (target.label(), why.label());
        tracing::warn!(peer, presented_for, why, refused, guesses, delay_ms, unlogged, "a key or token was refused");
        delay
    }

    /// Waits for `delay`, unless too many answers wait already.
    pub async fn wait(&self, delay: Duration, clock: Clock) {
        if delay.is_zero() {
            return;
        }
        let waiting = WaitingReply(&self.delayed);
        if self.delayed.fetch_add(1, Ordering::Relaxed) < MOST_DELAYED {
            clock.sleep(delay).await;
        }
        drop(waiting);
    }

    fn slot_of(&self, peer: Option<IpAddr>) -> usize {
        let octets = match peer {
            None => [0; 16],
            Some(IpAddr::V4(address)) => address.to_ipv6_mapped().octets(),
            Some(IpAddr::V6(address)) => address.octets(),
        };
        let mixed = self.seed.salted(fnv1a(FNV_BASIS, &octets));
        usize::try_from(mixed.below(SLOTS as u64)).unwrap_or(0)
    }

    /// What tells the last few guesses of a peer apart; never 0, which stands for none.
    fn fingerprint(&self, hash: &KeyHash) -> u64 {
        fnv1a(self.seed.0, &hash.0) | 1
    }
}

/// One reply that waits; dropped, also with its request, it does not any more.
struct WaitingReply<'a>(&'a AtomicUsize);

impl Drop for WaitingReply<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The address whose refusals count together: whoever has an IPv6 address has its whole /64.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::BuildMetadata;

    const HOME: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

    struct Fixture {
        refusals: PeerRefusals,
        metrics: Metrics,
        start: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let metrics = Metrics::new(BuildMetadata { version: "0", revision: None }, || 0);
            let start = Clock.now();
            Self { refusals: PeerRefusals::new(RandomValue(7), start), metrics, start }
        }

        fn guess(&self, peer: Option<IpAddr>, secret: &str, at_ms: u64) -> Duration {
            let why = KeyRefusal::Unknown(KeyHash::of(secret));
            let now = self.start + Duration::from_millis(at_ms);
            self.refusals.note(peer, SecretTarget::Admin, &why, &self.metrics, now)
        }
    }

    #[test]
    fn whoever_guesses_waits_longer_each_time_and_is_forgiven() {
        let fixture = Fixture::new();
        let delays: Vec<u128> =
            (0..60).map(|number| fixture.guess(HOME, &format!("guess-{number}"), 0).as_millis()).collect();
        assert!(delays[..20].iter().all(|delay| *delay == 0), "{delays:?}");
        assert!(delays.is_sorted() && delays[20] == 50 && delays[24] == 100 && delays[59] == 2_000, "{delays:?}");
        let elsewhere = "198.51.100.7".parse().ok();
        assert_eq!(fixture.guess(elsewhere, "guess-0", 0), Duration::ZERO, "another peer does not wait");
        assert_eq!(fixture.guess(HOME, "late", 20_000).as_millis(), 1_600, "40 guesses are left");
        assert_eq!(fixture.guess(HOME, "later", 61_000), Duration::ZERO);
    }

    #[test]
    fn a_client_with_a_wrong_key_does_not_wait() {
        let fixture = Fixture::new();
        for round in 0..1_000 {
            assert_eq!(fixture.guess(HOME, &format!("stale-{}", round % REMEMBERED), 0), Duration::ZERO);
        }
        let none =
            fixture.refusals.note(HOME, SecretTarget::Clients, &KeyRefusal::Missing, &fixture.metrics, fixture.start);
        assert_eq!(none, Duration::ZERO);
        let rendered = fixture.metrics.render();
        for line in [
            r#"tierway_secrets_refused_total{target="admin",why="unknown"} 1000"#,
            r#"tierway_secrets_refused_total{target="clients",why="missing"} 1"#,
        ] {
            assert!(rendered.contains(line), "{line} in {rendered}");
        }
    }

    #[test]
    fn a_network_is_one_peer_and_any_number_of_them_takes_the_same_memory() {
        let of = |text: &str| network(text.parse().expect("an address")).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        let fixture = Fixture::new();
        for number in 0..100_000_u128 {
            let peer = IpAddr::V6(Ipv6Addr::from(number << 64));
            fixture.guess(Some(peer), "x", 0);
        }
        assert_eq!(fixture.refusals.table.lock().slots.len(), SLOTS);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_answers_wait() {
        let fixture = Fixture::new();
        let begun = Clock.now();
        fixture.refusals.wait(LONGEST_DELAY, Clock).await;
        assert_eq!(Clock.now() - begun, LONGEST_DELAY);
        fixture.refusals.delayed.store(MOST_DELAYED, Ordering::Relaxed);
        fixture.refusals.wait(LONGEST_DELAY, Clock).await;
        assert_eq!(Clock.now() - begun, LONGEST_DELAY, "answered at once");
        // A client that leaves while it waits is not counted any more.
        fixture.refusals.delayed.store(0, Ordering::Relaxed);
        let left = tokio::time::timeout(Duration::from_millis(1), fixture.refusals.wait(LONGEST_DELAY, Clock)).await;
        assert!(left.is_err() && fixture.refusals.delayed.load(Ordering::Relaxed) == 0);
    }
}
