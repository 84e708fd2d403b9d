//! Reverse names for events: which events wait for a lookup, in which order, and for how long.
//!
//! Pure: time is a parameter, and lookups run on another thread. A name comes from a remote name
//! server: only [`HostName`] lets it in, and it holds only the characters of a host name (RFC 952,
//! RFC 1123 2.1).

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::time::MonoTime;

/// How long events wait for a name after the lookup began; then they are logged without it, since a
/// late log is worth less than one without names. resolv.conf(5) waits 5 s for one server by
/// default; most answers come within a tenth of a second.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an unanswered lookup counts as running. Longer than a resolver works on it
/// (resolv.conf(5): 2 attempts of 5 s, 2 servers).
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Events that wait at most; one more releases the oldest without its name. A few hundred bytes
/// each, and no more than the lines that [`super::limit`] admits within [`ANSWER_TIMEOUT`], unless
/// there are watchers.
pub(crate) const WAITING_MAX: usize = 1024;

/// Lookups at the same time at most.
pub(crate) const ASKED_MAX: usize = 1024;

/// Longest name, in bytes (RFC 1035, 2.3.4, without the root's dot).
const NAME_MAX: usize = 253;

/// Longest label, in bytes (RFC 1035, 2.3.4).
const LABEL_MAX: usize = 63;

/// A host name that is safe to log: letters, digits, `-`, `_` and `.`, and not readable as an
/// address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostName(Box<str>);

impl HostName {
    /// The name without the root's dot at its end; `None` if it must not be logged.
    ///
    /// The last label must have a letter (RFC 3696, 2), so `10.0.0.1`, `0x7f.1` and other forms
    /// that inet_aton(3) takes for an address are refused.
    pub fn checked(text: &str) -> Option<Self> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let label = |label: &str| {
            (1..=LABEL_MAX).contains(&label.len())
                && !label.starts_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
            || last
                .strip_prefix("0x")
                .or_else(|| last.strip_prefix("0X"))
                .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        (name.len() <= NAME_MAX && !is_number && name.split('.').all(label))
            .then(|| Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Items in the order of their arrival, some of which wait for a name.
#[derive(Debug)]
pub(crate) struct NameQueue<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Running lookups, with their start.
    asked: HashMap<IpAddr, MonoTime>,
}

#[derive(Debug)]
struct Waiting<T> {
    thing: T,
    /// The host whose name it waits for, and until when.
    host: Option<(IpAddr, MonoTime)>,
    name: Option<HostName>,
}

impl<T> Default for NameQueue<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), asked: HashMap::new() }
    }
}

impl<T> NameQueue<T> {
    /// Whether the queue is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Until when an item waits for the name of `host`; `None`: it does not wait, because a lookup
    /// has timed out, too many are running, or none could be started. `ask` starts a lookup; it
    /// returns whether there will be an answer.
    pub(crate) fn wait_for(
        &mut self,
        host: IpAddr,
        now: MonoTime,
        ask: impl FnOnce() -> bool,
    ) -> Option<MonoTime> {
        if let Some(asked) = self.asked.get(&host) {
            let waited = now.since(*asked);
            if waited < LOOKUP_TIMEOUT {
                return (waited < ANSWER_TIMEOUT).then(|| asked.after(ANSWER_TIMEOUT));
            }
            self.asked.remove(&host);
        }
        if self.asked.len() >= ASKED_MAX {
            self.asked.retain(|_, asked| now.since(*asked) < LOOKUP_TIMEOUT);
        }
        if self.asked.len() >= ASKED_MAX || !ask() {
            return None;
        }
        self.asked.insert(host, now);
        Some(now.after(ANSWER_TIMEOUT))
    }

    /// Appends an item, which waits for `host`'s name until then, or only for its turn.
    pub(crate) fn push(&mut self, thing: T, host: Option<(IpAddr, MonoTime)>) {
        self.waiting.push_back(Waiting { thing, host, name: None });
    }

    /// Gives an answer to the items that wait for this name.
    pub(crate) fn answer(&mut self, host: IpAddr, name: Option<&HostName>) {
        self.asked.remove(&host);
        for waiting in &mut self.waiting {
            if waiting.host.is_some_and(|(whose, _)| whose == host) {
                waiting.host = None;
                waiting.name = name.cloned();
            }
        }
    }

    /// Takes the oldest item if it need not wait longer, with the name if it was found.
    pub(crate) fn next(&mut self, now: MonoTime) -> Option<(T, Option<HostName>)> {
        let ready = self.waiting.front()?.host.is_none_or(|(_, until)| until <= now);
        (ready || self.waiting.len() > WAITING_MAX).then(|| self.take())?
    }

    /// Takes the oldest item, even if it should wait longer.
    pub(crate) fn take(&mut self) -> Option<(T, Option<HostName>)> {
        self.waiting.pop_front().map(|waiting| (waiting.thing, waiting.name))
    }

    /// Time until the oldest item need not wait longer; `None` if the queue is empty.
    pub(crate) fn next_due(&self, now: MonoTime) -> Option<Duration> {
        self.waiting
            .front()
            .map(|waiting| waiting.host.map_or(Duration::ZERO, |(_, until)| until.since(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn at(millis: u64) -> MonoTime {
        MonoTime::from_millis(millis)
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from(n))
    }

    fn asked_again() -> bool {
        panic!("a lookup is running or too many are")
    }

    /// Whether a lookup would be started.
    fn asks(waiting: &mut NameQueue<usize>, host: IpAddr, millis: u64) -> bool {
        let mut asked = false;
        let ask = || {
            asked = true;
            false
        };
        assert_eq!(waiting.wait_for(host, at(millis), ask), None);
        asked
    }

    #[test]
    fn host_names_lose_the_roots_dot() {
        for name in [
            "scanner.example.net",
            "a",
            "7.example",
            "x_1.example",
            "xn--bcher-kva.example",
            "1-2-3-4.dyn.example.",
            "0x.example",
            "4.in-addr.arpa",
        ] {
            assert_eq!(HostName::checked(name).unwrap().as_str(), name.trim_end_matches('.'));
        }
    }

    // P20
    #[test]
    fn invalid_names_and_addresses_are_refused() {
        let long = [&"a".repeat(63)[..]; 4].join(".");
        assert!(HostName::checked(&long[2..]).is_some(), "253 bytes");
        for name in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a/b",
            "a\n",
            "a\x1b[2J",
            "ä.example",
            "-o.example",
            "a:b",
            "::1",
            "2001:db8::1",
            "10.0.0.1",
            "10.0.0.1.",
            "127.1",
            "1",
            "0x7f000001",
            "0x7f.0x1",
            "a.0X",
            "%s",
            "$(id)",
            "a;b",
            "a\"b",
            "a\0",
            &"a".repeat(64),
            &long,
        ] {
            assert_eq!(HostName::checked(name), None, "{name:?}");
        }
    }

    proptest! {
        // P13
        #[test]
        fn an_accepted_name_is_plain_and_not_an_address(text in any::<String>(), plain in "[a-z0-9x.:/-]{0,20}") {
            for text in [text, plain] {
                if let Some(name) = HostName::checked(&text) {
                    prop_assert!(name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
                    prop_assert!(!name.as_str().is_empty() && name.as_str().len() <= NAME_MAX);
                    prop_assert!(name.as_str().parse::<IpAddr>().is_err());
                }
            }
        }

        #[test]
        fn items_come_out_in_order_once_and_in_time(
            steps in proptest::collection::vec((0u8..4, 0u32..6, 0u64..900), 1..200),
        ) {
            let mut waiting = NameQueue::default();
            let (mut now, mut told, mut out) = (1000, Vec::new(), Vec::new());
            let mut open = std::collections::HashSet::new();
            for (what, host, pause) in steps {
                now += pause;
                let host = address(host);
                match what {
                    0 | 1 => {
                        let mut once = true;
                        let until = waiting.wait_for(host, at(now), || {
                            once = open.insert(host) || now > 30_000;
                            true
                        });
                        prop_assert!(once, "asked twice");
                        waiting.push((told.len(), now), until.map(|until| (host, until)));
                        told.push(now);
                    }
                    2 => {
                        waiting.answer(host, HostName::checked("a.example").as_ref());
                        open.remove(&host);
                    }
                    _ => {}
                }
                while let Some(((number, _), _)) = waiting.next(at(now)) {
                    out.push(number);
                }
                if let Some(Waiting { thing: (_, since), .. }) = waiting.waiting.front() {
                    prop_assert!(now - since < 2000);
                }
            }
            while let Some(((number, _), _)) = waiting.take() {
                out.push(number);
            }
            prop_assert_eq!(out, (0..told.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_name_is_looked_up_once_for_all_that_wait() {
        let mut waiting = NameQueue::default();
        let until = waiting.wait_for(HOST, at(0), || true).unwrap();
        waiting.push(1, Some((HOST, until)));
        assert_eq!(waiting.wait_for(HOST, at(500), asked_again), Some(until));
        waiting.push(2, Some((HOST, until)));
        waiting.push(3, None);
        assert_eq!(waiting.next(at(1999)), None);
        assert_eq!(waiting.next_due(at(1500)), Some(Duration::from_millis(500)));
        let name = HostName::checked("scanner.example");
        waiting.answer(HOST, name.as_ref());
        assert_eq!(waiting.next(at(1999)), Some((1, name.clone())));
        assert_eq!(waiting.next(at(1999)), Some((2, name)));
        assert_eq!(waiting.next(at(1999)), Some((3, None)));
        assert!(
            asks(&mut waiting, HOST, 1999),
            "names change: the asker's cache knows for how long one is good"
        );
    }

    #[test]
    fn a_missing_answer_delays_no_further_items() {
        let mut waiting = NameQueue::default();
        let until = waiting.wait_for(HOST, at(0), || true).unwrap();
        waiting.push(1, Some((HOST, until)));
        assert_eq!(waiting.next(at(2000)), Some((1, None)));
        assert_eq!(waiting.wait_for(HOST, at(2000), asked_again), None);
        assert!(asks(&mut waiting, HOST, 30_000));
    }

    #[test]
    fn queue_and_lookups_are_bounded_and_the_oldest_goes_first() {
        let mut waiting = NameQueue::default();
        for n in 0..2000 {
            waiting.wait_for(address(n), at(0), || true);
        }
        assert_eq!(waiting.asked.len(), ASKED_MAX);
        assert_eq!(waiting.wait_for(address(1), at(0), asked_again), Some(at(2000)));
        assert_eq!(waiting.wait_for(address(1999), at(0), asked_again), None);
        assert!(asks(&mut waiting, address(1999), 30_000), "what was forgotten makes room");
        for n in 0..=WAITING_MAX {
            waiting.push(n, Some((HOST, at(2000))));
        }
        assert_eq!(waiting.next(at(0)), Some((0, None)));
        assert_eq!(waiting.next(at(0)), None);
    }
}
