//! Limits of open connections, and the choice of idle ones to close.
//!
//! A connection on which a request is being answered is never closed. Any other counts as idle, even if it sends data:
//! incomplete requests, requests to paths that need no key, and requests without the key. Idle connections may take a
//! share of all places. When that share is used up, or a client address has reached its limit, the connection that has
//! been idle for longest is closed to make room for the new one.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// The limited places of a server's connections.
#[derive(Debug)]
pub(super) struct Places {
    /// Maximum number of open connections.
    connections: usize,
    /// Maximum number of connections per client address.
    per_address: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    connections: HashMap<u64, Connection>,
    /// Counter for ids and for the order in which connections became idle.
    clock: u64,
}

#[derive(Debug)]
struct Connection {
    client: IpAddr,
    /// Number of requests on this connection that are being answered.
    answers: usize,
    idle_since: u64,
    task: Option<AbortHandle>,
}

/// Place of a connection, which is freed when the last copy is dropped.
#[derive(Clone, Debug)]
pub(super) struct Place(Arc<Held>);

#[derive(Debug)]
struct Held {
    places: Arc<Places>,
    id: u64,
}

/// Guard that keeps a connection open while a request on it is answered.
#[derive(Debug)]
pub(super) struct Answering(Place);

/// Reason why a connection is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The client address has reached its limit, and all its connections are answering requests.
    Client,
    /// All connections are answering requests.
    Server,
}

impl Places {
    pub(super) fn new(connections: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { connections, per_address, open: Mutex::default() })
    }

    /// Takes a place for a client, and closes an idle connection for it if necessary.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, Full> {
        let client = client(address);
        let mut open = self.open();
        let own = |connection: &Connection| connection.client == client;
        if open.connections.values().filter(|connection| own(connection)).count() >= self.per_address
            && !open.close_idle(own)
        {
            return Err(Full::Client);
        }
        let idle = open.connections.values().filter(|connection| connection.answers == 0).count();
        let is_full = open.connections.len() >= self.connections;
        if (is_full || idle >= self.connections.div_ceil(2)) && !open.close_idle(|_| true) {
            return Err(Full::Server);
        }
        let id = open.tick();
        open.connections.insert(id, Connection { client, answers: 0, idle_since: id, task: None });
        Ok(Place(Arc::new(Held { places: Arc::clone(self), id })))
    }

    /// Number of connections on which requests are being answered.
    pub(super) fn answering(&self) -> usize {
        self.open().connections.values().filter(|connection| connection.answers > 0).count()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Closes the connection that has been idle for longest among those that satisfy the predicate, and returns whether
    /// there was one.
    fn close_idle(&mut self, among: impl Fn(&Connection) -> bool) -> bool {
        let idle = self.connections.iter().filter(|(_, connection)| connection.answers == 0 && among(connection));
        let Some((&id, _)) = idle.min_by_key(|(_, connection)| connection.idle_since) else { return false };
        if let Some(task) = self.connections.remove(&id).and_then(|connection| connection.task) {
            task.abort();
        }
        true
    }
}

impl Place {
    /// Sets the task that is aborted when the place is needed.
    pub(super) fn ends_with(&self, task: AbortHandle) {
        if let Some(connection) = self.0.places.open().connections.get_mut(&self.0.id) {
            connection.task = Some(task);
        }
    }

    /// Keeps the connection open while a request is answered.
    pub(super) fn answer(&self) -> Answering {
        if let Some(connection) = self.0.places.open().connections.get_mut(&self.0.id) {
            connection.answers += 1;
        }
        Answering(self.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let Held { places, id } = &*self.0.0;
        let mut open = places.open();
        let now = open.tick();
        if let Some(connection) = open.connections.get_mut(id) {
            connection.answers -= 1;
            connection.idle_since = now;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.places.open().connections.remove(&self.id);
    }
}

/// Address or network that counts as one client: an IPv4 address, or an IPv6 network of the size that one customer
/// gets.
fn client(address: IpAddr) -> IpAddr {
    const NETWORK: u128 = !0 << 64;
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn is_open(place: &Place) -> bool {
        place.0.places.open().connections.contains_key(&place.0.id)
    }

    #[test]
    fn the_connection_that_was_idle_for_longest_gives_way_and_none_that_answers_does() {
        let places = Places::new(4, 9);
        let [one, two] = [1, 2].map(|last| places.take(address(last)).unwrap());
        let answer = one.answer();
        let three = places.take(address(3)).unwrap();
        assert!([&one, &two, &three].into_iter().all(is_open));
        // Two of four places are idle.
        let four = places.take(address(4)).unwrap();
        assert_eq!([&one, &two, &three, &four].map(is_open), [true, false, true, true]);
        drop(answer);
        // Now three are idle, and the first connection became idle last.
        let five = places.take(address(5)).unwrap();
        assert_eq!([&one, &three, &four, &five].map(is_open), [true, false, true, true]);
        let answers = [&one, &four, &five].map(Place::answer);
        let six = places.take(address(6)).unwrap();
        assert_eq!(places.answering(), 3);
        let last = six.answer();
        assert_eq!(places.take(address(7)).unwrap_err(), Full::Server);
        drop((answers, last));
        assert!(places.take(address(7)).is_ok());
    }

    #[test]
    fn a_client_has_its_own_budget_and_takes_no_place_of_others() {
        let places = Places::new(100, 2);
        let other = places.take(address(1)).unwrap();
        let [one, two, three] = [2; 3].map(|last| places.take(address(last)).unwrap());
        assert_eq!([&other, &one, &two, &three].map(is_open), [true, false, true, true]);
        let answers = [&two, &three].map(Place::answer);
        assert_eq!(places.take(address(2)).unwrap_err(), Full::Client);
        assert!(places.take(address(3)).is_ok());
        drop(answers);
        drop((two, three));
        assert!(is_open(&places.take(address(2)).unwrap()));
    }

    #[test]
    fn the_addresses_of_a_network_are_one_client_as_are_both_forms_of_one_address() {
        let of = |text: &str| client(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:2:ffff::4"));
        assert_ne!(of("2001:db8:1:2::3"), of("2001:db8:1:3::3"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
