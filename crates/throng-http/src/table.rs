//! The open connections with their caps, in total and per address, and which connection is evicted
//! at a cap.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use throng_telemetry::metrics;
use tokio::time::Instant;

use super::activity::Connection;

/// How many connections may be open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In total.
    pub total: usize,
    /// From one address: an IPv4 address, or the /64 network of an IPv6 address. For loopback
    /// addresses only the total counts.
    pub per_address: usize,
}

/// The minimum time between two searches for an idle connection: each reads all connections.
const SEARCH_INTERVAL: Duration = Duration::from_millis(100);

/// The open connections.
pub(super) struct ConnectionTable {
    caps: ConnectionLimits,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    open: HashMap<u64, Arc<Connection>>,
    /// Connections without a complete request head yet. Older ones have smaller numbers.
    half_open: BTreeSet<u64>,
    addresses: HashMap<IpAddr, Address>,
    last_search: Option<Instant>,
}

#[derive(Default)]
struct Address {
    count: usize,
    half_open: BTreeSet<u64>,
}

/// The cap that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// `node.connections.total`, or the limit of open files.
    Total,
    /// `node.connections.per_address`.
    Address,
}

impl Full {
    /// Its name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Address => "per_address",
        }
    }
}

impl ConnectionTable {
    pub(super) fn new(caps: ConnectionLimits) -> Self {
        Self { caps, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Admits a connection. At a cap, the oldest connection without a request is evicted for it, or
    /// else the one that has been idle for longest. A connection with an open request is never
    /// evicted: a client that only opens connections must not shut out clients that use theirs.
    pub(super) fn admit(self: &Arc<Self>, peer: SocketAddr, now: Instant) -> Result<Entry, Full> {
        let address = address_group(peer.ip());
        let per_address = match peer.ip().to_canonical().is_loopback() {
            true => self.caps.total,
            false => self.caps.per_address,
        };
        let mut inner = self.lock();
        let count = inner.addresses.get(&address).map_or(0, |a| a.count);
        let before = inner.open.len();
        if count >= per_address && !inner.evict(Some(address), now) {
            return Err(Full::Address);
        }
        if inner.open.len() >= self.caps.total && !inner.evict(None, now) {
            return Err(Full::Total);
        }
        let evicted = inner.open.len() < before;
        let number = inner.next;
        inner.next += 1;
        let connection = Arc::new(Connection::new(peer, now));
        inner.open.insert(number, Arc::clone(&connection));
        inner.half_open.insert(number);
        let of_address = inner.addresses.entry(address).or_default();
        of_address.count += 1;
        of_address.half_open.insert(number);
        metrics::gauge!(metrics::CONNECTIONS).set(inner.open.len() as f64);
        drop(inner);
        Ok(Entry { table: Arc::clone(self), number, address, connection, evicted })
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.lock().open.len()
    }
}

impl Inner {
    /// Closes a connection without an open request, of this address or of any. Whether there was
    /// one.
    fn evict(&mut self, address: Option<IpAddr>, now: Instant) -> bool {
        let half_open = match address {
            Some(address) => self.addresses.get(&address).and_then(|a| a.half_open.first()),
            None => self.half_open.first(),
        };
        let candidate = half_open.copied().or_else(|| self.longest_idle(address, now));
        let Some(connection) = candidate.and_then(|number| self.remove(number)) else {
            return false;
        };
        connection.abort.cancel();
        metrics::counter!(metrics::CONNECTIONS_CLOSED_TOTAL, "reason" => "evicted").increment(1);
        true
    }

    /// The connection that has been idle for longest.
    fn longest_idle(&mut self, address: Option<IpAddr>, now: Instant) -> Option<u64> {
        if self.last_search.is_some_and(|at| now < at + SEARCH_INTERVAL) {
            return None;
        }
        self.last_search = Some(now);
        let of_address = |connection: &Connection| {
            address.is_none_or(|address| address_group(connection.peer.ip()) == address)
        };
        self.open
            .iter()
            .filter(|(_, connection)| of_address(connection))
            .filter_map(|(number, connection)| Some((connection.idle_since()?, *number)))
            .min()
            .map(|(_, number)| number)
    }

    /// Removes a connection from the counts, whether its task has ended or not.
    fn remove(&mut self, number: u64) -> Option<Arc<Connection>> {
        let connection = self.open.remove(&number)?;
        self.half_open.remove(&number);
        let address = address_group(connection.peer.ip());
        if let Some(of_address) = self.addresses.get_mut(&address) {
            of_address.count = of_address.count.saturating_sub(1);
            of_address.half_open.remove(&number);
            if of_address.count == 0 {
                self.addresses.remove(&address);
            }
        }
        metrics::gauge!(metrics::CONNECTIONS).set(self.open.len() as f64);
        Some(connection)
    }
}

/// The unit of the cap per address: whoever has one IPv6 address usually has its whole /64 network.
fn address_group(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) if v6.is_loopback() => IpAddr::V6(v6),
        IpAddr::V6(v6) => {
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::from(u64::MAX) << 64)))
        }
    }
}

/// A connection's entry in the table, which is removed on drop.
pub(super) struct Entry {
    table: Arc<ConnectionTable>,
    number: u64,
    address: IpAddr,
    pub(super) connection: Arc<Connection>,
    /// Whether another connection was evicted for it.
    pub(super) evicted: bool,
}

impl Entry {
    /// A request's head is complete: the connection is no longer half open.
    pub(super) fn mark_served(&self) {
        let mut inner = self.table.lock();
        inner.half_open.remove(&self.number);
        if let Some(address) = inner.addresses.get_mut(&self.address) {
            address.half_open.remove(&self.number);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.table.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(total: usize, per_address: usize) -> Arc<ConnectionTable> {
        Arc::new(ConnectionTable::new(ConnectionLimits { total, per_address }))
    }

    fn peer(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 40_000)
    }

    fn admit(table: &Arc<ConnectionTable>, address: &str) -> Result<Entry, Full> {
        table.admit(peer(address), Instant::now())
    }

    #[test]
    fn busy_connections_are_kept_and_others_refused() {
        let table = table(3, 2);
        let busy = |entry: &Entry| {
            entry.mark_served();
            entry.connection.begin_request(false)
        };
        let first = admit(&table, "192.0.2.1").unwrap();
        let second = admit(&table, "192.0.2.1").unwrap();
        let _requests = (busy(&first), busy(&second));
        assert_eq!(admit(&table, "192.0.2.1").err(), Some(Full::Address));
        let third = admit(&table, "192.0.2.2").unwrap();
        let _request = busy(&third);
        assert_eq!(admit(&table, "192.0.2.3").err(), Some(Full::Total));
        drop(first);
        assert!(admit(&table, "192.0.2.3").is_ok());
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn the_oldest_half_open_connection_is_evicted_first() {
        let table = table(3, 3);
        let entries: Vec<Entry> = (0..3).map(|_| admit(&table, "192.0.2.1").unwrap()).collect();
        entries[0].mark_served();
        let _request = entries[0].connection.begin_request(false);
        let _fourth = admit(&table, "192.0.2.2").unwrap();
        let dropped: Vec<bool> =
            entries.iter().map(|e| e.connection.abort.is_cancelled()).collect();
        assert_eq!(dropped, [false, true, false]);
        // The entry of the evicted one is dropped later, and is not counted twice.
        drop(entries);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn the_connection_that_is_idle_for_longest_is_evicted_next() {
        let table = table(2, 2);
        let entries = [admit(&table, "192.0.2.1").unwrap(), admit(&table, "192.0.2.1").unwrap()];
        for entry in entries.iter().rev() {
            entry.mark_served();
            drop(entry.connection.begin_request(true));
            let ended = Instant::now();
            while Instant::now() == ended {}
        }
        let _third = admit(&table, "192.0.2.2").unwrap();
        assert!(entries[1].connection.abort.is_cancelled());
        assert!(!entries[0].connection.abort.is_cancelled());
    }

    #[test]
    fn a_network_counts_as_one_address_and_loopback_is_not_limited() {
        let table = table(4, 1);
        let kept = admit(&table, "2001:db8::1").unwrap();
        kept.mark_served();
        let _request = kept.connection.begin_request(true);
        assert_eq!(admit(&table, "2001:db8::2").err(), Some(Full::Address));
        let other = admit(&table, "2001:db8:0:1::2").unwrap();
        let loopback =
            [admit(&table, "127.0.0.1").unwrap(), admit(&table, "::ffff:127.0.0.1").unwrap()];
        assert_eq!(table.len(), 4);
        assert!(!other.connection.abort.is_cancelled());
        drop(loopback);
    }
}
