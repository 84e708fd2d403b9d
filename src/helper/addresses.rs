//! Addresses of the DNS names in `allow`: lookups by a few threads that wait for the system's
//! resolver (getaddrinfo(3)) and end when no name is queued.
//!
//! It keeps no answer and no time: the daemon decides when a name is looked up, and how long its last
//! addresses stay. A lookup that hangs holds one thread, and its name is not looked up again until
//! it returns.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dns_lookup::{AddrInfoHints, LookupErrorKind, getaddrinfo};

use super::protocol::{ADDRESSES_MAX, Addresses};
use crate::config::ALLOW_NAMES_MAX;
use crate::sys::confine;
use crate::sys::reach::Reach;

/// Lookups at once: a resolver that answers takes milliseconds, and one that does not is asked for
/// nothing else meanwhile.
const WORKERS: usize = 4;

/// What a resolver says of one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// These addresses; none if the name has others, or none at all.
    Addresses(Vec<IpAddr>),
    /// The name does not exist.
    NoName,
    /// It could not be found out, and why.
    Failed(String),
}

/// Looks up the addresses of a name: IPv4, or IPv6.
pub(super) type Lookup = Box<dyn Fn(&str, bool) -> Found + Send + Sync>;

/// Takes an answer.
pub(super) type Answer = Box<dyn Fn(Addresses) + Send + Sync>;

#[derive(Default)]
struct State {
    queue: VecDeque<String>,
    /// Names that are queued or being looked up.
    asked: BTreeSet<String>,
    working: usize,
}

struct Shared {
    state: Mutex<State>,
    lookup: Lookup,
    answer: Answer,
}

/// The lookups; clones share them.
#[derive(Clone)]
pub(super) struct Forward(Arc<Shared>);

impl Forward {
    /// With the system's resolver.
    pub(super) fn new(answer: Answer) -> Self {
        Self::with(Box::new(system), answer)
    }

    fn with(lookup: Lookup, answer: Answer) -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), lookup, answer }))
    }

    /// Looks up a name, which is answered once, unless an earlier lookup of it is under way.
    pub(super) fn ask(&self, name: String) {
        let mut state = self.0.lock();
        // The daemon asks for no more names than a configuration has.
        if state.asked.len() < 2 * ALLOW_NAMES_MAX && state.asked.insert(name.clone()) {
            state.queue.push_back(name);
        }
        if state.queue.is_empty() || state.working >= WORKERS {
            return;
        }
        let own = Arc::clone(&self.0);
        let worker = std::thread::Builder::new().name("addresses".to_owned());
        // Without a thread the name waits for the next question.
        if worker
            .spawn(move || {
                confine::no_exec(Reach::Servers);
                own.work();
            })
            .is_ok()
        {
            state.working += 1;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut done: Option<String> = None;
        loop {
            let mut state = self.lock();
            if let Some(done) = done.take() {
                state.asked.remove(&done);
            }
            let Some(name) = state.queue.pop_front() else {
                state.working -= 1;
                return;
            };
            drop(state);
            (self.answer)(addresses(&self.lookup, &name));
            done = Some(name);
        }
    }
}

/// Looks up a name with the system's resolver, which may take long.
pub(crate) fn look_up(name: &str) -> Addresses {
    addresses(&(Box::new(system) as Lookup), name)
}

/// What is known of a name now. Each family is asked for by itself: getaddrinfo(3) hides that one of
/// the two could not be found out.
fn addresses(lookup: &Lookup, name: &str) -> Addresses {
    let (v4, v6) = (lookup(name, true), lookup(name, false));
    let mut found = BTreeSet::new();
    let (mut failed, mut is_named) = ([None, None], false);
    for (of, failed) in [v4, v6].into_iter().zip(&mut failed) {
        match of {
            Found::Addresses(addresses) => {
                is_named = true;
                let usable = addresses.into_iter().map(|address| address.to_canonical());
                found.extend(usable.filter(is_a_hosts));
            }
            Found::NoName => {}
            Found::Failed(why) => *failed = Some(why),
        }
    }
    let [ipv4_failed, ipv6_failed] = failed;
    let is_cut = found.len() > ADDRESSES_MAX;
    let error = match (&ipv4_failed, &ipv6_failed) {
        (Some(why), _) | (None, Some(why)) => Some(why.clone()),
        (None, None) if !is_named => Some("there is no such name".to_owned()),
        (None, None) if found.is_empty() => Some("it has no address".to_owned()),
        (None, None) => None,
    };
    Addresses {
        name: name.to_owned(),
        addresses: found.into_iter().take(ADDRESSES_MAX).collect(),
        is_cut,
        ipv4_failed: ipv4_failed.is_some(),
        ipv6_failed: ipv6_failed.is_some(),
        error,
    }
}

/// Whether another host can have it.
fn is_a_hosts(address: &IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || is_broadcast)
}

/// The addresses of a name by getaddrinfo(3), as nsswitch.conf(5) says.
fn system(name: &str, is_v4: bool) -> Found {
    let address = if is_v4 { libc::AF_INET } else { libc::AF_INET6 };
    let hints = AddrInfoHints { socktype: libc::SOCK_STREAM, address, ..AddrInfoHints::default() };
    match getaddrinfo(Some(name), None, Some(hints)) {
        Ok(found) => Found::Addresses(found.flatten().map(|found| found.sockaddr.ip()).collect()),
        Err(error) => match error.kind() {
            // The name has addresses of the other family, or none.
            LookupErrorKind::NoData => Found::Addresses(Vec::new()),
            LookupErrorKind::NoName => Found::NoName,
            LookupErrorKind::Again => Found::Failed("no name server answers".to_owned()),
            _ => Found::Failed(format!("the resolver failed: {error:?}")),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::*;

    fn forward(
        lookup: impl Fn(&str, bool) -> Found + Send + Sync + 'static,
    ) -> (Forward, Receiver<Addresses>) {
        let (sender, receiver) = channel();
        let answer = Box::new(move |found| drop(sender.send(found)));
        (Forward::with(Box::new(lookup), answer), receiver)
    }

    fn ask(v4: Found, v6: Found) -> Addresses {
        let lookup: Lookup = Box::new(move |_, is_v4| if is_v4 { v4.clone() } else { v6.clone() });
        addresses(&lookup, "office.example")
    }

    fn have(addresses: &[&str]) -> Found {
        Found::Addresses(addresses.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn each_family_counts_by_itself() {
        let found = ask(have(&["192.0.2.7"]), have(&["2001:db8::7"]));
        assert_eq!((found.addresses.len(), found.error), (2, None));
        let found = ask(have(&["192.0.2.7"]), Found::Failed("no answer".to_owned()));
        assert_eq!((found.addresses.len(), found.ipv4_failed, found.ipv6_failed), (1, false, true));
        assert_eq!(found.error.as_deref(), Some("no answer"));
        let found = ask(have(&["192.0.2.7"]), have(&[]));
        assert_eq!((found.ipv6_failed, found.error), (false, None));
        assert_eq!(
            ask(Found::NoName, Found::NoName).error.as_deref(),
            Some("there is no such name")
        );
        assert_eq!(ask(have(&[]), have(&[])).error.as_deref(), Some("it has no address"));
    }

    #[test]
    fn only_addresses_of_hosts_count_and_not_too_many() {
        let found =
            ask(have(&["0.0.0.0", "127.0.0.1", "224.0.0.1", "192.0.2.1"]), have(&["::", "::1"]));
        assert_eq!(found.addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        let many: Vec<_> = (0..40).map(|n| format!("192.0.2.{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let found = ask(have(&many), Found::NoName);
        assert_eq!((found.addresses.len(), found.is_cut), (ADDRESSES_MAX, true));
        assert_eq!(ask(Found::NoName, have(&["::ffff:192.0.2.9"])).addresses.len(), 1);
    }

    #[test]
    fn a_lookup_that_hangs_is_not_started_again_and_others_go_on() {
        let (release, gate) = channel::<()>();
        let (gate, started) = (Mutex::new(gate), Arc::new(Mutex::new(Vec::new())));
        let seen = Arc::clone(&started);
        let (forward, answers) = forward(move |name, is_v4| {
            seen.lock().unwrap().push(name.to_owned());
            if name == "hangs.example" && is_v4 {
                let _ = gate.lock().unwrap().recv();
            }
            have(&["192.0.2.7"])
        });
        for _ in 0..50 {
            forward.ask("hangs.example".to_owned());
        }
        forward.ask("other.example".to_owned());
        let first = answers.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(first.name, "other.example");
        drop(release);
        assert_eq!(answers.recv_timeout(Duration::from_secs(20)).unwrap().name, "hangs.example");
        let hung = |name: &&String| name.as_str() == "hangs.example";
        assert_eq!(started.lock().unwrap().iter().filter(hung).count(), 2);
        // It can be asked for again.
        let again = crate::helper::tests::eventually(|| {
            forward.ask("hangs.example".to_owned());
            answers.try_recv().is_ok()
        });
        assert!(again);
    }
}
