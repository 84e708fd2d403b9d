//! What the enforcer needs of the kernel: our table, read and written, and word of what others do
//! to it.
//!
//! A trait, so that the enforcer runs over nf_tables, and in tests over a model of it that refuses,
//! forgets and is written to by others.

use std::os::fd::{AsFd, BorrowedFd};
use std::thread::JoinHandle;

use super::change::Change;
use super::element::HOSTS;
use super::networks::Family;
use crate::errors::error_chain;
use crate::nft::{
    Connection, Element, ElementInfo, Error, Installed, Key, Monitor, Notification, Order,
    Received, Ruleset, Set,
};
use crate::ruleset::{SCHEMA, SetId};

/// Datagrams of notifications that are read before packets are looked at again. About eighteen
/// elements are in one.
const DATAGRAMS_PER_WAKE: usize = 256;

/// The process that changed the table, as the kernel names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Author {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub program: String,
}

impl std::fmt::Display for Author {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pid, program } = self;
        if program.is_empty() {
            f.write_str("an unknown program")
        } else {
            write!(f, "{program} (process {pid})")
        }
    }
}

/// What other programs did since the last call.
#[derive(Debug, Default)]
pub struct News {
    /// Their transactions, each with its author.
    pub changes: Vec<(Change, Author)>,
    /// Notifications were lost.
    pub lost: bool,
    /// There may be more.
    pub more: bool,
}

/// Which sets are read aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The sets of hosts.
    pub hosts: bool,
    /// The sets of networks.
    pub networks: bool,
    /// The sets of exempt addresses.
    pub exemptions: bool,
}

impl Wanted {
    pub(crate) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.hosts |= other.hosts;
        self.networks |= other.networks;
        self.exemptions |= other.exemptions;
    }
}

/// The contents of sets that were read aside.
#[derive(Debug, Default)]
pub struct Dump {
    /// The keys of the host sets.
    pub hosts: Vec<(SetId, Key)>,
    /// The intervals of the network sets, sorted.
    pub networks: Option<[Vec<ElementInfo>; 2]>,
    /// The elements of the sets of exempt addresses that there are.
    pub exemptions: Option<Vec<(SetId, Vec<ElementInfo>)>>,
}

/// The sets of exempt addresses.
pub(crate) const EXEMPTIONS: [SetId; 4] =
    [SetId::Allowed4, SetId::Allowed6, SetId::Spared4, SetId::Spared6];

/// The kernel's side of our table. Errors are those of [`Connection`].
pub trait Kernel {
    /// Makes the table what the ruleset says. `many`: so many elements go with it that no
    /// notifications of our own are wanted; whether others wrote meanwhile is returned beside the
    /// result.
    fn install(
        &mut self,
        ruleset: &Ruleset,
        order: Order<'_>,
        many: bool,
    ) -> (Result<Installed, Error>, bool);
    /// Adds an element that is not there.
    fn add(&mut self, set: SetId, element: &Element<'_>) -> Result<(), Error>;
    /// Adds elements; those that are there stay as they are.
    fn add_many(&mut self, set: SetId, elements: &[Element<'_>]) -> Result<(), Error>;
    /// Gives an element another end and comment; adds it if it is not there, and says whether it
    /// was.
    fn renew(&mut self, set: SetId, element: &Element<'_>) -> Result<bool, Error>;
    /// Deletes those that are there.
    fn delete(&mut self, set: SetId, elements: &[Element<'_>]) -> Result<(), Error>;
    /// The elements with these keys.
    fn get(&mut self, set: SetId, keys: &[Key]) -> Result<Vec<Option<ElementInfo>>, Error>;
    /// All elements of a set.
    fn dump(&mut self, set: SetId) -> Result<Vec<ElementInfo>, Error>;
    /// All of a host set of which these may be members, without a dump if it is large.
    fn contents(
        &mut self,
        set: SetId,
        count: Option<u32>,
        known: &dyn Fn() -> Vec<Key>,
    ) -> Result<Vec<ElementInfo>, Error>;
    /// How many elements each of our sets has, where the kernel counts them (Linux 6.16).
    fn counts(&mut self) -> Result<Vec<(SetId, Option<u32>)>, Error>;
    /// Adds elements with what is left of their time; those that are there stay as they are.
    fn restore(&mut self, set: &Set, elements: &[ElementInfo]) -> Result<(), Error>;
    /// Deletes intervals and adds others in one transaction.
    fn replace_intervals(
        &mut self,
        set: &Set,
        delete: &[ElementInfo],
        add: &[ElementInfo],
    ) -> Result<(), Error>;
    /// Deletes all elements of a set.
    fn flush(&mut self, set: SetId) -> Result<(), Error>;
    /// What others did.
    fn news(&mut self) -> News;
    /// Begins to read sets on a thread of its own: a large one takes seconds. One at a time.
    fn begin_dump(&mut self, wanted: Wanted);
    /// Whether one is under way or waits to be taken.
    fn is_dumping(&self) -> bool;
    /// The result, when it is there.
    fn take_dump(&mut self) -> Option<Result<Dump, Error>>;
}

/// nf_tables over netlink.
pub struct Nftables {
    connection: Connection,
    monitor: Monitor,
    /// The transaction whose notifications are being received.
    current: Change,
    reader: Option<JoinHandle<Result<Dump, Error>>>,
}

impl Nftables {
    /// Opens the connection and subscribes to what others do.
    ///
    /// # Errors
    /// When the kernel refuses a socket.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            connection: Connection::open(SCHEMA)?,
            monitor: Monitor::open(SCHEMA)?,
            current: Change::default(),
            reader: None,
        })
    }

    /// The connection, for what the enforcer has no part in.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

impl AsFd for Nftables {
    /// Readable when others did something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

impl Kernel for Nftables {
    fn install(
        &mut self,
        ruleset: &Ruleset,
        order: Order<'_>,
        many: bool,
    ) -> (Result<Installed, Error>, bool) {
        let before = if many { self.connection.generation().ok() } else { None };
        let quiet = before.is_some() && self.monitor.listen(false).is_ok();
        let result = self.connection.install_with(ruleset, order);
        if !quiet {
            return (result, false);
        }
        if let Err(error) = self.monitor.listen(true) {
            return (Err(error), true);
        }
        // A transaction of another program meanwhile sent no notification.
        let after = self.connection.generation().ok();
        let is_only_ours = |installed: &Installed| {
            (before, after) == (Some(installed.before), Some(installed.generation))
        };
        let others = !result.as_ref().is_ok_and(is_only_ours);
        (result, others)
    }

    fn add(&mut self, set: SetId, element: &Element<'_>) -> Result<(), Error> {
        self.connection.add_element(set, element)
    }

    fn add_many(&mut self, set: SetId, elements: &[Element<'_>]) -> Result<(), Error> {
        self.connection.add_elements(set, elements)
    }

    fn renew(&mut self, set: SetId, element: &Element<'_>) -> Result<bool, Error> {
        self.connection.renew_element(set, element)
    }

    fn delete(&mut self, set: SetId, elements: &[Element<'_>]) -> Result<(), Error> {
        absent_is_fine(match elements {
            [] => Ok(()),
            // Without a look at the set if it is not there.
            [one] => self.connection.delete_element(set, one),
            many => self.connection.delete_elements(set, many).map(drop),
        })
    }

    fn get(&mut self, set: SetId, keys: &[Key]) -> Result<Vec<Option<ElementInfo>>, Error> {
        match keys {
            [key] => self.connection.get_element(set, *key).map(|found| vec![found]),
            keys => self.connection.get_elements(set, keys),
        }
    }

    fn dump(&mut self, set: SetId) -> Result<Vec<ElementInfo>, Error> {
        self.connection.dump_set(set)
    }

    fn contents(
        &mut self,
        set: SetId,
        count: Option<u32>,
        known: &dyn Fn() -> Vec<Key>,
    ) -> Result<Vec<ElementInfo>, Error> {
        self.connection.contents(set, count, known)
    }

    fn counts(&mut self) -> Result<Vec<(SetId, Option<u32>)>, Error> {
        let sets = self.connection.sets()?;
        Ok(sets
            .into_iter()
            .filter_map(|set| Some((SetId::from_name(&set.name)?, set.count)))
            .collect())
    }

    fn restore(&mut self, set: &Set, elements: &[ElementInfo]) -> Result<(), Error> {
        self.connection.restore(set, elements)
    }

    fn replace_intervals(
        &mut self,
        set: &Set,
        delete: &[ElementInfo],
        add: &[ElementInfo],
    ) -> Result<(), Error> {
        self.connection.replace_intervals(set, delete, add)
    }

    fn flush(&mut self, set: SetId) -> Result<(), Error> {
        self.connection.replace_elements(set, &[])
    }

    fn news(&mut self) -> News {
        let Self { connection, monitor, current, .. } = self;
        let own = connection.portid();
        let mut news = News { more: true, ..News::default() };
        for _ in 0..DATAGRAMS_PER_WAKE {
            let received = monitor.receive(Some(own), |notification| {
                if let Notification::Generation(event) = notification {
                    let change = std::mem::take(current);
                    if !change.is_nothing() {
                        news.changes
                            .push((change, Author { pid: event.pid, program: event.program }));
                    }
                } else {
                    current.take(notification);
                }
            });
            match received {
                Ok(Received::Datagram) => {}
                Ok(Received::Nothing) => {
                    news.more = false;
                    break;
                }
                Ok(Received::Lost) => {
                    *current = Change::default();
                    news.lost = true;
                }
                Err(error) => {
                    log::warn!("{}", error_chain(&error));
                    news.more = false;
                    break;
                }
            }
        }
        news
    }

    fn begin_dump(&mut self, wanted: Wanted) {
        match std::thread::Builder::new().name("resync".to_owned()).spawn(move || dump(wanted)) {
            Ok(reader) => self.reader = Some(reader),
            Err(error) => log::warn!("the sets cannot be read again: {error}"),
        }
    }

    fn is_dumping(&self) -> bool {
        self.reader.is_some()
    }

    fn take_dump(&mut self) -> Option<Result<Dump, Error>> {
        // A thread that panicked has nothing to tell, and its panic is in the log.
        self.reader.take_if(|reader| reader.is_finished())?.join().ok()
    }
}

/// What is not there is empty, and need not be taken out.
pub(super) fn absent_is_fine<T: Default>(result: Result<T, Error>) -> Result<T, Error> {
    result.or_else(|error| if error.is_not_found() { Ok(T::default()) } else { Err(error) })
}

fn dump(wanted: Wanted) -> Result<Dump, Error> {
    let mut connection = Connection::open(SCHEMA)?;
    let mut dump = Dump::default();
    if wanted.hosts {
        for set in HOSTS {
            dump.hosts.extend(connection.dump_keys(set)?.into_iter().map(|key| (set, key)));
        }
    }
    if wanted.networks {
        let [v4, v6] = Family::ALL.map(|family| connection.dump_set(family.set()));
        dump.networks = Some([v4?, v6?]);
    }
    if wanted.exemptions {
        let mut all = Vec::new();
        for set in EXEMPTIONS {
            match connection.dump_set(set) {
                Ok(elements) => all.push((set, elements)),
                // These rules have no such set.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        dump.exemptions = Some(all);
    }
    Ok(dump)
}
