//! Addresses of the DNS names in `allow`: when each name is looked up, which addresses it has, and how
//! long they stay.
//!
//! The helper does the lookups. Addresses stay while DNS fails, and over a restart: they are kept in a
//! file of the state directory. An address that an answer leaves out stays until the next answer leaves
//! it out too: a name server may hand out its addresses in turns, and during a change another one may
//! still have the old zone.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{Config, Loaded};
use crate::helper::addresses::look_up;
use crate::helper::protocol::{ADDRESSES_MAX, Addresses};
use crate::sys::{files, replace};

/// How soon a name is looked up again that could not be: the network may come up after the daemon.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// The C library gives up after some seconds for each name server. A later answer counts all the same.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of the file that are read: 64 names with 16 addresses each take some 50 kB.
const FILE_MAX: u64 = 1 << 20;

/// The file is written at least this often while names are resolved, for the time of the last answer.
const WRITE_EVERY: Duration = Duration::from_secs(3600);

/// How long a check waits for all names: a person waits for it.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The names and their addresses.
#[derive(Debug)]
pub(super) struct AllowedNames {
    path: PathBuf,
    names: BTreeMap<String, Known>,
    /// What was read at the start, of names that the configuration may have.
    stored: BTreeMap<String, Stored>,
    /// Why the file could not be read or written.
    fault: Option<String>,
    written: Option<Instant>,
}

/// What is known of a name.
#[derive(Debug, Default)]
struct Known {
    /// Its addresses, and whether the last answer left them out.
    addresses: BTreeMap<IpAddr, bool>,
    /// The last answer with an address.
    resolved: Option<Timestamp>,
    is_cut: bool,
    /// Why the last lookup failed, as a whole or in part.
    error: Option<String>,
    asked: Option<Instant>,
    is_awaited: bool,
}

/// What the file has of a name.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    addresses: Vec<IpAddr>,
    /// Seconds since 1970.
    resolved: i64,
}

/// A name as the status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NameView {
    /// The name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The last answer with an address; `None`: there was none yet.
    pub resolved: Option<Timestamp>,
    /// Why the last lookup failed.
    pub error: Option<String>,
}

/// Addresses that joined a name, and that left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changed {
    /// Exempt now.
    pub added: Vec<IpAddr>,
    /// Not exempt any more by this name.
    pub removed: Vec<IpAddr>,
}

/// Adds which DNS names of `allow` do not resolve now, for a check: the daemon has the helper look
/// them up.
pub(crate) fn check(loaded: &mut Loaded) {
    let names: Vec<String> = loaded.config.allowed_names().into_iter().map(str::to_owned).collect();
    let (sender, answers) = mpsc::channel();
    for name in names.clone() {
        let sender = sender.clone();
        // Without a thread there is no answer.
        let _ = std::thread::Builder::new()
            .name("addresses".to_owned())
            .spawn(move || sender.send(look_up(&name)));
    }
    drop(sender);
    let deadline = Instant::now() + CHECK_TIMEOUT;
    let mut found = BTreeMap::new();
    while let Ok(answer) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        found.insert(answer.name.clone(), answer);
    }
    for name in names {
        let why = match found.remove(&name) {
            Some(answer) if !answer.addresses.is_empty() => continue,
            Some(answer) => answer.error.unwrap_or_default(),
            None => format!("no answer within {} s", CHECK_TIMEOUT.as_secs()),
        };
        loaded.warn(
            format!("`allow`: the name {name} does not resolve now: {why}"),
            "it exempts no host until it does; `portsentryctl status` shows what the daemon has of it"
                .to_owned(),
        );
    }
}

impl AllowedNames {
    /// Reads the addresses of an earlier run from the file `allowed-names` in `state_dir`.
    pub(super) fn read(state_dir: &Path) -> Self {
        let path = state_dir.join("allowed-names");
        let (stored, fault) = match stored(&path) {
            Ok(stored) => (stored, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Default::default(),
            Err(error) => {
                let fault = format!(
                    "{}: {error}; names of `allow` exempt nothing until they are resolved",
                    path.display()
                );
                (BTreeMap::new(), Some(fault))
            }
        };
        Self { path, names: BTreeMap::new(), stored, fault, written: None }
    }

    /// Takes the names of a configuration. One that is new is looked up at once.
    pub(super) fn want(&mut self, config: &Config) {
        let wanted = config.allowed_names();
        self.names.retain(|name, _| wanted.contains(name.as_str()));
        for name in wanted.into_iter().filter(|name| !name.is_empty()) {
            if !self.names.contains_key(name) {
                let known = self.stored.remove(name).map_or_else(Known::default, Known::from);
                self.names.insert(name.to_owned(), known);
            }
        }
    }

    /// The names to look up now, and whether one was not answered in time.
    pub(super) fn due(&mut self, now: Instant, refresh: Duration) -> (Vec<String>, bool) {
        let (mut due, mut is_news) = (Vec::new(), false);
        for (name, known) in &mut self.names {
            if known.is_overdue(now) {
                let seconds = ANSWER_TIMEOUT.as_secs();
                known.error = Some(format!("no answer within {seconds} s"));
                (known.is_awaited, is_news) = (false, true);
            }
            if known.next_at(now, refresh) <= now {
                (known.asked, known.is_awaited) = (Some(now), true);
                due.push(name.clone());
            }
        }
        (due, is_news)
    }

    /// When [`AllowedNames::due`] is to be called next; `None`: there are no names.
    pub(super) fn next_at(&self, now: Instant, refresh: Duration) -> Option<Instant> {
        self.names.values().map(|known| known.next_at(now, refresh)).min()
    }

    /// Has all names looked up again, as after a reload.
    pub(super) fn ask_again(&mut self) {
        for known in self.names.values_mut().filter(|known| !known.is_awaited) {
            known.asked = None;
        }
    }

    /// The helper takes no order.
    pub(super) fn not_asked(&mut self, name: &str) {
        if let Some(known) = self.names.get_mut(name) {
            known.is_awaited = false;
            known.error = Some("the helper process does not run".to_owned());
        }
    }

    /// Takes an answer. Returns what it changes, if it changes anything.
    pub(super) fn answered(&mut self, found: Addresses, at: Timestamp) -> Option<Changed> {
        let known = self.names.get_mut(&found.name)?;
        known.is_awaited = false;
        known.error = found.error;
        if found.addresses.is_empty() {
            return None;
        }
        (known.resolved, known.is_cut) = (Some(at), found.is_cut);
        let mut changed = Changed { added: Vec::new(), removed: Vec::new() };
        known.addresses.retain(|address, is_left| {
            let has_failed = if address.is_ipv4() { found.ipv4_failed } else { found.ipv6_failed };
            let is_there = found.addresses.contains(address);
            let had_left = *is_left;
            *is_left = !is_there && (had_left || !has_failed);
            let stays = is_there || has_failed || !had_left;
            if !stays {
                changed.removed.push(*address);
            }
            stays
        });
        for address in found.addresses.into_iter().take(ADDRESSES_MAX) {
            if known.addresses.insert(address, false).is_none() {
                changed.added.push(address);
            }
        }
        let is_changed = !changed.added.is_empty() || !changed.removed.is_empty();
        if is_changed || self.written.is_none_or(|at| at.elapsed() >= WRITE_EVERY) {
            self.write();
        }
        is_changed.then_some(changed)
    }

    /// The addresses of all names.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.names.values().flat_map(|known| known.addresses.keys()).copied()
    }

    /// What the administrator has to know.
    pub(super) fn complaints(&self) -> Vec<String> {
        let of_name = |(name, known): (&String, &Known)| match (&known.error, known.resolved) {
            (Some(why), None) => Some(format!(
                "`allow`: the name {name} has never been resolved, and exempts no host: {why}"
            )),
            (Some(why), Some(_)) => Some(format!(
                "`allow`: the name {name} cannot be resolved now, and the addresses that it had stay exempt: {why}"
            )),
            (None, _) if known.is_cut => Some(format!(
                "`allow`: the name {name} has more than {ADDRESSES_MAX} addresses, and only the first of them are exempt"
            )),
            (None, _) => None,
        };
        self.names.iter().filter_map(of_name).chain(self.fault.clone()).collect()
    }

    /// The names as the status shows them.
    pub(super) fn view(&self) -> Vec<NameView> {
        let view = |(name, known): (&String, &Known)| NameView {
            name: name.clone(),
            addresses: known.addresses.keys().copied().collect(),
            resolved: known.resolved,
            error: known.error.clone(),
        };
        self.names.iter().map(view).collect()
    }

    fn write(&mut self) {
        let stored = |known: &Known| {
            let resolved = known.resolved?.as_second();
            Some(Stored { addresses: known.addresses.keys().copied().collect(), resolved })
        };
        let names: BTreeMap<_, _> =
            self.names.iter().filter_map(|(name, known)| Some((name, stored(known)?))).collect();
        let written = serde_json::to_vec(&names)
            .map_err(io::Error::other)
            // The daemon is its only writer: the state store beside it is locked against a second one.
            .and_then(|text| replace::write(&self.path, &text, 0o600));
        self.fault = written.err().map(|error| {
            format!(
                "cannot write {}: {error}; after a restart names of `allow` exempt nothing until they are resolved",
                self.path.display()
            )
        });
        self.written = Some(Instant::now());
    }
}

impl Known {
    fn is_overdue(&self, now: Instant) -> bool {
        let waits = |asked| now.saturating_duration_since(asked) >= ANSWER_TIMEOUT;
        self.is_awaited && self.asked.is_some_and(waits)
    }

    fn next_at(&self, now: Instant, refresh: Duration) -> Instant {
        let Some(asked) = self.asked else { return now };
        asked
            + match (self.is_awaited, &self.error) {
                (true, _) => ANSWER_TIMEOUT,
                (false, Some(_)) => refresh.min(RETRY_AFTER),
                (false, None) => refresh,
            }
    }
}

impl From<Stored> for Known {
    fn from(stored: Stored) -> Self {
        let addresses = stored.addresses.into_iter().take(ADDRESSES_MAX);
        Self {
            addresses: addresses.map(|address| (address, false)).collect(),
            resolved: Timestamp::from_second(stored.resolved).ok(),
            ..Self::default()
        }
    }
}

fn stored(path: &Path) -> io::Result<BTreeMap<String, Stored>> {
    let mut file = files::open_itself(path)?;
    let bytes = files::read_up_to(&mut file, FILE_MAX)?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(300);
    const NAME: &str = "office.example";

    fn config(names: &str) -> Config {
        crate::config::parse(&format!("allow: [{names}]\n"), "x").unwrap().config
    }

    fn names(directory: &Path) -> AllowedNames {
        let mut names = AllowedNames::read(directory);
        names.want(&config(NAME));
        names
    }

    fn found(addresses: &[&str]) -> Addresses {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Addresses { name: NAME.to_owned(), addresses, ..Addresses::default() }
    }

    fn failed(why: &str) -> Addresses {
        let error = Some(why.to_owned());
        Addresses { error, ipv4_failed: true, ipv6_failed: true, ..found(&[]) }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn addresses(names: &AllowedNames) -> Vec<String> {
        names.addresses().map(|address| address.to_string()).collect()
    }

    #[test]
    fn an_address_that_leaves_stays_for_one_more_answer() {
        let directory = tempfile::tempdir().unwrap();
        let mut names = names(directory.path());
        let added = |added: &[&str], removed: &[&str]| {
            let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
            Some(Changed { added: parse(added), removed: parse(removed) })
        };
        let old = ["192.0.2.7", "2001:db8::7"];
        assert_eq!(names.answered(found(&old), at(1)), added(&old, &[]));
        assert_eq!(names.answered(found(&["192.0.2.9"]), at(2)), added(&["192.0.2.9"], &[]));
        assert_eq!(addresses(&names), ["192.0.2.7", "192.0.2.9", "2001:db8::7"]);
        // A failure confirms nothing.
        assert_eq!(names.answered(failed("x"), at(3)), None);
        let half = Addresses { ipv6_failed: true, ..found(&["192.0.2.9"]) };
        assert_eq!(names.answered(half, at(4)), added(&[], &["192.0.2.7"]));
        assert_eq!(names.answered(found(&["192.0.2.9"]), at(5)), added(&[], &["2001:db8::7"]));
        assert_eq!(addresses(&names), ["192.0.2.9"]);
        // One that comes back in time has not left.
        names.answered(found(&["192.0.2.1"]), at(6));
        names.answered(found(&["192.0.2.9"]), at(7));
        names.answered(found(&["192.0.2.1"]), at(8));
        assert_eq!(addresses(&names), ["192.0.2.1", "192.0.2.9"]);
    }

    #[test]
    fn addresses_stay_while_dns_fails_and_over_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut before = names(directory.path());
        before.answered(found(&["192.0.2.7"]), at(1_700_000_000));
        let mut after = names(directory.path());
        assert_eq!(addresses(&after), ["192.0.2.7"]);
        assert_eq!(after.view()[0].resolved, Some(at(1_700_000_000)));
        assert_eq!(after.complaints(), [""; 0]);
        for _ in 0..3 {
            assert_eq!(after.answered(failed("no name server answers"), at(9)), None);
        }
        assert_eq!(addresses(&after), ["192.0.2.7"]);
        assert!(after.complaints()[0].contains("cannot be resolved now"));
        after.want(&config("192.0.2.1"));
        assert_eq!(addresses(&after), [""; 0]);
    }

    #[test]
    fn a_name_that_never_resolved_is_reported_and_a_damaged_file_too() {
        let directory = tempfile::tempdir().unwrap();
        let mut names = names(directory.path());
        assert_eq!(names.complaints(), [""; 0], "nothing was looked up yet");
        let missing = Addresses { error: Some("there is no such name".to_owned()), ..found(&[]) };
        assert_eq!(names.answered(missing, at(1)), None);
        assert!(names.complaints()[0].contains("has never been resolved"));
        std::fs::write(directory.path().join("allowed-names"), "{\"a\": 7").unwrap();
        let names = AllowedNames::read(directory.path());
        assert!(names.complaints()[0].contains("exempt nothing until they are resolved"));
    }

    #[test]
    fn names_are_due_by_the_interval_sooner_after_a_failure_and_never_twice_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut names = names(directory.path());
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        assert_eq!(names.due(start, REFRESH), (vec![NAME.to_owned()], false));
        assert_eq!(names.due(start + second, REFRESH), (vec![], false));
        assert_eq!(names.next_at(start, REFRESH), Some(start + ANSWER_TIMEOUT));
        // Without an answer it is a failure, and it is looked up again.
        let late = start + ANSWER_TIMEOUT;
        assert_eq!(names.due(late, REFRESH), (vec![NAME.to_owned()], true));
        assert!(names.complaints()[0].contains("no answer within 30 s"));
        names.answered(found(&["192.0.2.7"]), at(1));
        assert_eq!(names.next_at(late, REFRESH), Some(late + REFRESH));
        assert_eq!(names.due(late + REFRESH, REFRESH).0.len(), 1);
        names.answered(failed("x"), at(2));
        assert_eq!(names.next_at(late, REFRESH), Some(late + REFRESH + RETRY_AFTER));
        names.not_asked(NAME);
        assert!(names.complaints()[0].contains("helper"));
        names.ask_again();
        assert_eq!(names.due(late, REFRESH).0.len(), 1);
        names.ask_again();
        assert_eq!(names.due(late, REFRESH).0.len(), 0, "its answer is on its way");
    }
}
