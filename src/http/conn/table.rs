//! All open connections of one listener, and which of them give way when there is no room for another.
//!
//! What strangers hold (a connection on which no key was accepted) must not be what others lack. Idle connections give
//! way, the oldest first, those without a key before those with one; one address has only so many without a key. A
//! connection on which a request is open is never closed here.
//!
//! Start reading in [`ConnectionTable::make_room`].

use super::connection::{Connection, IdleConnection};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All connections are looked at to find those that give way; so that each new one does not cost as much, so many give
/// way at once: one of this many.
const BATCH: usize = 64;
/// How long a client may take to connect and to ask: a connection that is idle for less than this does not give way to
/// another one, or a flood would close those whose requests are on their way.
const GRACE: Duration = Duration::from_secs(1);

/// The open connections of one listener.
pub(super) struct ConnectionTable {
    open: Mutex<OpenConnections>,
    /// How many connections without a key each address has. Of local addresses and trusted proxies none is counted.
    keyless: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// The most of them that one address may have.
    most_keyless: usize,
}

#[derive(Default)]
struct OpenConnections {
    next: u64,
    by_number: HashMap<u64, Arc<Connection>>,
}

/// Keeps a connection in its table.
pub(super) struct ListedConnection<'a> {
    table: &'a ConnectionTable,
    number: u64,
}

/// Counts one connection without a key for its address until it is dropped.
pub(super) struct PeerSlot {
    keyless: Arc<Mutex<HashMap<IpAddr, usize>>>,
    network: IpAddr,
}

impl ConnectionTable {
    /// Without connections, for at most `most_keyless` without a key from each address.
    pub fn new(most_keyless: usize) -> Self {
        Self { open: Mutex::default(), keyless: Arc::default(), most_keyless }
    }

    /// Adds `connection` until the entry is dropped.
    pub fn enter(&self, connection: &Arc<Connection>) -> ListedConnection<'_> {
        let mut open = self.open.lock();
        let number = open.next;
        open.next += 1;
        open.by_number.insert(number, connection.clone());
        ListedConnection { table: self, number }
    }

    /// Counts a connection without a key for `peer`. Where that is one too many, the oldest idle ones of the address give
    /// way; `None` where none of them is idle.
    pub fn count_keyless(&self, peer: IpAddr) -> Option<PeerSlot> {
        let network = network(peer);
        let count = {
            let mut keyless = self.keyless.lock();
            let count = keyless.entry(network).or_default();
            *count += 1;
            *count
        };
        let slot = PeerSlot { keyless: self.keyless.clone(), network };
        let over = count.saturating_sub(self.most_keyless);
        let of_peer = |idle: &IdleConnection| !idle.has_key && idle.peer.map(self::network) == Some(network);
        (over == 0 || self.give_way(over.max(self.most_keyless / BATCH), None, of_peer) > 0).then_some(slot)
    }

    /// Makes room for another connection at `now`: idle ones give way, first of those without a key.
    pub fn make_room(&self, now: Instant) {
        let batch = self.open.lock().by_number.len().div_ceil(BATCH);
        if self.give_way(batch, Some(now), |idle| !idle.has_key) == 0 {
            self.give_way(batch, Some(now), |_| true);
        }
    }

    /// The oldest idle ones for which `may` holds give way, up to `most`; with `now`, once they had their [`GRACE`].
    /// Returns for how many `may` holds.
    fn give_way(&self, most: usize, now: Option<Instant>, may: impl Fn(&IdleConnection) -> bool) -> usize {
        let open: Vec<Arc<Connection>> = self.open.lock().by_number.values().cloned().collect();
        let idle = open.iter().filter_map(|connection| Some((connection.idle()?, connection)));
        let mut idle: Vec<_> = idle.filter(|(idle, _)| may(idle)).collect();
        idle.sort_unstable_by_key(|(idle, _)| idle.since);
        let had_its_time = |since: Instant| now.is_none_or(|now| now.saturating_duration_since(since) >= GRACE);
        let oldest = idle.iter().take(most).take_while(|(idle, _)| had_its_time(idle.since));
        oldest.for_each(|(_, connection)| connection.give_way());
        idle.len()
    }
}

impl Drop for ListedConnection<'_> {
    fn drop(&mut self) {
        self.table.open.lock().by_number.remove(&self.number);
    }
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        let mut keyless = self.keyless.lock();
        if let Some(count) = keyless.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                keyless.remove(&self.network);
            }
        }
    }
}

/// What counts as one address: of IPv6 a network of 64 bits, of which one client may have every address.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    async fn connection(table: &ConnectionTable, peer: IpAddr) -> (Arc<Connection>, ListedConnection<'_>) {
        tokio::time::advance(Duration::from_millis(1)).await;
        let connection = Arc::new(Connection::new(Clock).of_peer(Some(peer)));
        let entry = table.enter(&connection);
        (connection, entry)
    }

    fn gave_way(connections: &[(Arc<Connection>, ListedConnection<'_>)]) -> Vec<usize> {
        let asked = connections.iter().enumerate().filter(|(_, (connection, _))| connection.is_to_give_way());
        asked.map(|(index, _)| index).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_idle_one_without_a_key_gives_way_first() {
        let table = ConnectionTable::new(100);
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(connection(&table, STRANGER).await);
        }
        let (keyed, busy) = (open[0].0.clone(), open[1].0.open_request(false));
        keyed.key_accepted();
        table.make_room(Clock.now());
        assert_eq!(gave_way(&open), [] as [usize; 0], "their requests may be on their way");
        tokio::time::advance(GRACE).await;
        table.make_room(Clock.now());
        assert_eq!(gave_way(&open), [2], "one has a key, and on the next a request is open");
        table.make_room(Clock.now());
        assert_eq!(gave_way(&open), [2], "it is asked once more, as long as it is there");
        open.truncate(2);
        table.make_room(Clock.now());
        assert_eq!(gave_way(&open), [0], "then the idle one with a key");
        drop((busy, open));
        assert!(table.open.lock().by_number.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_only_so_many_without_a_key() {
        let table = ConnectionTable::new(2);
        let mut open = Vec::new();
        for _ in 0..2 {
            let one = connection(&table, STRANGER).await;
            one.0.count_as_keyless(table.count_keyless(STRANGER));
            open.push(one);
        }
        let other = connection(&table, "192.0.2.2".parse().unwrap()).await;
        assert!(table.count_keyless("192.0.2.2".parse().unwrap()).is_some());
        let third = table.count_keyless(STRANGER);
        assert!(third.is_some());
        assert_eq!(gave_way(&open), [0]);
        assert!(!other.0.is_to_give_way());
        let requests: Vec<_> = open.iter().map(|(connection, _)| connection.open_request(false)).collect();
        assert!(table.count_keyless(STRANGER).is_none(), "none of them is idle");
        open.iter().for_each(|(connection, _)| connection.key_accepted());
        assert!(table.count_keyless(STRANGER).is_some(), "those with a key do not count");
        drop((requests, third, open));
        assert!(table.keyless.lock().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let same = |one: &str, other: &str| network(one.parse().unwrap()) == network(other.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1") && !same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1") && !same("192.0.2.1", "192.0.2.2"));
    }
}
