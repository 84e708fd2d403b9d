//! A model of the kernel's table, of other programs that change it, and of what must be dropped;
//! any sequence of steps over the enforcer, and what must hold after each: shared by the property
//! test and the fuzz target.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may stop where it fails"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use ipnet::IpNet;
use portsentry::config::{Config, Ipv6Accounts, OwnTable, UnprovenAction};
use portsentry::enforce::{
    Author, BLOCKED, BlockError, Change, Drift, Dump, Earlier, Enforcer, HOSTS, Hold, InForce,
    Kernel, News, Observer, Services, Wanted,
};
use portsentry::engine::{Action, AllowList, Engine, MonoTime, Policy, Refusal, Report, Source};
use portsentry::journal::Notice;
use portsentry::nft::decode::{RuleInfo, SetInfo, TableInfo};
use portsentry::nft::lower::lower;
use portsentry::nft::model::Owner;
use portsentry::nft::plan::Found;
use portsentry::nft::{
    self, Chain, Element, ElementInfo, Elements, Error, Fallback, FallbackLevel, Installed, Key,
    Notification, Order, Ruleset, Set,
};
use portsentry::probe::{Port, Probe, ScanKind, Signature, Transport};
use portsentry::ruleset::{SetId, for_config};
use portsentry::store::{Block, Content, Stored};

const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENFILE: i32 = 23;

const ALLOWED: [SetId; 2] = [SetId::Allowed4, SetId::Allowed6];

/// Clocks and the moments between an order and its answer: so near an end an address may be dropped
/// or not.
const NEAR_AN_END: u64 = 3000;
/// What another program takes out so near its end counts as expired.
const EXPIRED_WITHIN: u64 = 6000;

// ---- the kernel

#[derive(Debug, Clone)]
struct Item {
    last: Key,
    timeout: Option<Duration>,
    expires: Option<u64>,
    comment: Option<Box<str>>,
}

#[derive(Debug, Clone)]
struct KernelSet {
    size: Option<u32>,
    interval: bool,
    items: BTreeMap<Key, Item>,
}

#[derive(Debug, Clone, Default)]
struct Table {
    chains: Option<Vec<Chain>>,
    sets: BTreeMap<&'static str, KernelSet>,
}

/// The kernel's state, which the enforcer and other programs share.
#[derive(Debug, Default)]
struct State {
    now: u64,
    table: Option<Table>,
    generation: u32,
    news: VecDeque<Change>,
    lost: bool,
    /// So many writes of a set are refused, and how.
    refusals: BTreeMap<SetId, (u32, i32)>,
    refused: u64,
    reader: Option<Wanted>,
}

fn error(verb: &'static str, set: SetId, errno: i32) -> Error {
    Error::Apply { verb, object: format!("elements of set {}", set.name()), errno, message: None }
}

impl State {
    fn set(&mut self, id: SetId) -> Result<&mut KernelSet, Error> {
        let now = self.now;
        let set = self
            .table
            .as_mut()
            .and_then(|table| table.sets.get_mut(id.name()))
            .ok_or_else(|| error("find", id, ENOENT))?;
        set.items.retain(|_, item| item.expires.is_none_or(|end| end > now));
        Ok(set)
    }

    fn items(&mut self, id: SetId) -> BTreeMap<Key, Item> {
        self.set(id).map(|set| set.items.clone()).unwrap_or_default()
    }

    fn may_write(&mut self, id: SetId) -> Result<(), Error> {
        match self.refusals.get_mut(&id) {
            Some((left, errno)) if *left > 0 => {
                *left -= 1;
                self.refused += 1;
                Err(error("add", id, *errno))
            }
            _ => Ok(()),
        }
    }

    fn item(&self, info: &ElementInfo) -> Item {
        let expires = info.expires.map(|left| self.now + left.as_millis() as u64);
        Item { last: info.last(), timeout: info.timeout, expires, comment: info.comment.clone() }
    }

    fn of_element(&self, element: &Element<'_>) -> (Key, Item) {
        let expires = element.timeout.map(|left| self.now + left.as_millis() as u64);
        (
            element.key,
            Item {
                last: element.key,
                timeout: element.timeout,
                expires,
                comment: element.comment.map(Into::into),
            },
        )
    }

    fn info(&self, key: Key, item: &Item) -> ElementInfo {
        let expires = item.expires.map(|end| Duration::from_millis(end - self.now));
        let end = (item.last != key).then_some(item.last);
        ElementInfo {
            key,
            end,
            timeout: item.timeout,
            expires,
            packets: 0,
            bytes: 0,
            comment: item.comment.clone(),
        }
    }

    fn dump(&mut self, id: SetId) -> Result<Vec<ElementInfo>, Error> {
        let items = self.set(id)?.items.clone();
        Ok(items.iter().map(|(key, item)| self.info(*key, item)).collect())
    }

    /// Another program's transaction; `lossy`: its notifications do not arrive.
    fn tell(&mut self, lossy: bool, notifications: Vec<Notification>) {
        self.generation += 1;
        if lossy {
            self.lost = true;
            return;
        }
        let mut change = Change::default();
        notifications.into_iter().for_each(|one| change.take(one));
        self.news.push_back(change);
    }

    fn installation(
        &mut self,
        ruleset: &Ruleset,
        order: Order<'_>,
        level: Option<FallbackLevel>,
    ) -> Result<Installed, Error> {
        let mut steps = Vec::new();
        let recreate = order.recreate || level == Some(FallbackLevel::Recreated);
        for id in SetId::ALL {
            // What is over is over.
            let _ = self.set(id);
        }
        let old = self.table.clone();
        let mut table = old.clone().unwrap_or_default();
        if recreate && old.is_some() {
            steps.push(nft::Step::DeleteTable);
            table = Table::default();
        }
        if recreate || old.is_none() {
            steps.push(nft::Step::AddTable(0));
        }
        let mut fill: Vec<&Set> = Vec::new();
        for set in &ruleset.sets {
            let there = table.sets.get(set.id.name);
            if there.is_some_and(|there| there.size == set.size) {
                continue;
            }
            if there.is_some() {
                steps.push(nft::Step::DeleteSet(set.id.name.to_owned()));
            }
            steps.push(nft::Step::AddSet(set.id));
            table.sets.insert(
                set.id.name,
                KernelSet { size: set.size, interval: set.id.interval, items: BTreeMap::new() },
            );
            fill.push(set);
        }
        for set in order.refill.iter().filter_map(|id| ruleset.set(*id)) {
            if !fill.iter().any(|other| other.id == set.id) {
                steps.extend([
                    nft::Step::FlushSet(set.id.name.to_owned()),
                    nft::Step::AddElements(set.id),
                ]);
                table.sets.get_mut(set.id.name).unwrap().items.clear();
                fill.push(set);
            }
        }
        if table.chains.as_ref() != Some(&ruleset.chains) {
            steps.extend(ruleset.chains.iter().map(|chain| nft::Step::AddRules(chain.name)));
            table.chains = Some(ruleset.chains.clone());
        }
        let mut installed = Installed { before: self.generation, ..Installed::default() };
        for set in fill {
            let id = SetId::of(set.id).unwrap();
            let of_model = set.elements.iter().map(|range| {
                (
                    *range.start(),
                    Item { last: *range.end(), timeout: None, expires: None, comment: None },
                )
            });
            let instead =
                if let Elements::Instead(of) = order.elements { of(set.id) } else { None };
            let before = old
                .as_ref()
                .and_then(|old| old.sets.get(set.id.name))
                .filter(|_| set.owner != Owner::Config && !set.id.transient);
            let items: Vec<(Key, Item)> = match (level, instead, before) {
                (Some(_), instead, before) => {
                    if instead.is_some() || before.is_some() {
                        installed.missing.push(set.id);
                    }
                    of_model.collect()
                }
                (None, Some(elements), _) => {
                    elements.map(|info| (info.key, self.item(&info))).collect()
                }
                (None, None, Some(before)) => {
                    installed.carried += before.items.len();
                    before.items.clone().into_iter().collect()
                }
                (None, None, None) => of_model.collect(),
            };
            // What refuses the rules themselves too is no matter of blocks.
            if !items.is_empty() && level.is_none() {
                self.may_write(id)?;
            }
            let set = table.sets.get_mut(set.id.name).unwrap();
            for (key, item) in items {
                put(id, set, key, item, false)?;
            }
        }
        if !steps.is_empty() {
            self.generation += 1;
        }
        installed.steps = steps;
        installed.generation = self.generation;
        self.table = Some(table);
        Ok(installed)
    }
}

/// As the kernel puts an element into a set; with `again` one that is there stays as it is.
fn put(id: SetId, set: &mut KernelSet, key: Key, item: Item, again: bool) -> Result<(), Error> {
    if set.interval {
        if set.items.iter().any(|(first, there)| *first <= item.last && key <= there.last) {
            return Err(error("add", id, EEXIST));
        }
    } else if set.items.contains_key(&key) {
        return if again { Ok(()) } else { Err(error("add", id, EEXIST)) };
    }
    if set.size.is_some_and(|size| set.items.len() >= size as usize) {
        return Err(error("add", id, ENFILE));
    }
    set.items.insert(key, item);
    Ok(())
}

/// The enforcer's way to the model of the kernel.
pub struct FakeKernel(Rc<RefCell<State>>);

impl FakeKernel {
    /// All of a transaction, or nothing of it.
    fn transaction(
        &mut self,
        id: SetId,
        work: impl FnOnce(&mut State) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut state = self.0.borrow_mut();
        state.set(id)?;
        let before = state.table.clone();
        let result = work(&mut state);
        if result.is_err() {
            state.table = before;
        } else {
            state.generation += 1;
        }
        result
    }

    /// What an earlier run left.
    fn read(&self) -> Result<Found, Error> {
        let mut state = self.0.borrow_mut();
        for id in SetId::ALL {
            let _ = state.set(id);
        }
        let Some(table) = &state.table else { return Ok(Found::default()) };
        let set = |(name, set): (&&'static str, &KernelSet)| SetInfo {
            name: (*name).to_owned(),
            flags: 0,
            key_type: 0,
            key_len: 0,
            size: set.size,
            count: Some(set.items.len() as u32),
            timeout: None,
            expressions: Vec::new(),
            comment: None,
        };
        let rules = table.chains.iter().flatten();
        let rules = rules.flat_map(|chain| {
            chain
                .rules
                .iter()
                .map(|rule| RuleInfo { chain: chain.name.to_owned(), expressions: lower(rule) })
        });
        Ok(Found {
            table: Some(TableInfo { flags: 0, owner: None }),
            sets: table.sets.iter().map(set).collect(),
            rules: rules.collect(),
            ..Found::default()
        })
    }
}

impl Kernel for FakeKernel {
    fn install(
        &mut self,
        ruleset: &Ruleset,
        order: Order<'_>,
        _many: bool,
    ) -> (Result<Installed, Error>, bool) {
        let mut state = self.0.borrow_mut();
        let error = match state.installation(ruleset, order, None) {
            Ok(installed) => return (Ok(installed), false),
            Err(error) => error,
        };
        for level in [FallbackLevel::RulesOnly, FallbackLevel::Recreated] {
            if let Ok(installed) = state.installation(ruleset, order, Some(level)) {
                return (
                    Ok(Installed { fallback: Some(Fallback { error, level }), ..installed }),
                    false,
                );
            }
        }
        (Err(error), false)
    }

    fn add(&mut self, set: SetId, element: &Element<'_>) -> Result<(), Error> {
        self.transaction(set, |state| {
            state.may_write(set)?;
            let (key, item) = state.of_element(element);
            put(set, state.set(set)?, key, item, false)
        })
    }

    fn add_many(&mut self, set: SetId, elements: &[Element<'_>]) -> Result<(), Error> {
        self.transaction(set, |state| {
            for element in elements {
                let (key, item) = state.of_element(element);
                put(set, state.set(set)?, key, item, true)?;
            }
            Ok(())
        })
    }

    fn renew(&mut self, set: SetId, element: &Element<'_>) -> Result<bool, Error> {
        let mut was_there = false;
        self.transaction(set, |state| {
            state.may_write(set)?;
            let (key, item) = state.of_element(element);
            let there = state.set(set)?;
            was_there = there.items.remove(&key).is_some();
            put(set, there, key, item, false)
        })?;
        Ok(was_there)
    }

    fn delete(&mut self, set: SetId, elements: &[Element<'_>]) -> Result<(), Error> {
        let result = self.transaction(set, |state| {
            state.may_write(set)?;
            let there = state.set(set)?;
            for element in elements {
                there.items.remove(&element.key);
            }
            Ok(())
        });
        result.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
    }

    fn get(&mut self, set: SetId, keys: &[Key]) -> Result<Vec<Option<ElementInfo>>, Error> {
        let mut state = self.0.borrow_mut();
        let items = state.set(set)?.items.clone();
        Ok(keys.iter().map(|key| items.get(key).map(|item| state.info(*key, item))).collect())
    }

    fn dump(&mut self, set: SetId) -> Result<Vec<ElementInfo>, Error> {
        self.0.borrow_mut().dump(set)
    }

    fn contents(
        &mut self,
        set: SetId,
        _count: Option<u32>,
        _known: &dyn Fn() -> Vec<Key>,
    ) -> Result<Vec<ElementInfo>, Error> {
        self.dump(set)
    }

    fn counts(&mut self) -> Result<Vec<(SetId, Option<u32>)>, Error> {
        let mut state = self.0.borrow_mut();
        Ok(BLOCKED
            .into_iter()
            .filter_map(|id| Some((id, Some(state.set(id).ok()?.items.len() as u32))))
            .collect())
    }

    fn restore(&mut self, set: &Set, elements: &[ElementInfo]) -> Result<(), Error> {
        let id = SetId::of(set.id).unwrap();
        self.transaction(id, |state| {
            state.may_write(id)?;
            for info in elements {
                let item = state.item(info);
                put(id, state.set(id)?, info.key, item, true)?;
            }
            Ok(())
        })
    }

    fn replace_intervals(
        &mut self,
        set: &Set,
        delete: &[ElementInfo],
        add: &[ElementInfo],
    ) -> Result<(), Error> {
        let id = SetId::of(set.id).unwrap();
        self.transaction(id, |state| {
            state.may_write(id)?;
            for info in delete {
                let there = state.set(id)?;
                if there.items.get(&info.key).is_none_or(|item| item.last != info.last()) {
                    return Err(error("delete", id, ENOENT));
                }
                there.items.remove(&info.key);
            }
            for info in add {
                let item = state.item(info);
                put(id, state.set(id)?, info.key, item, false)?;
            }
            Ok(())
        })
    }

    fn flush(&mut self, set: SetId) -> Result<(), Error> {
        self.transaction(set, |state| {
            state.set(set)?.items.clear();
            Ok(())
        })
    }

    fn news(&mut self) -> News {
        let mut state = self.0.borrow_mut();
        let changes = state
            .news
            .drain(..)
            .map(|change| (change, Author { pid: 7, program: "other".to_owned() }))
            .collect();
        News { changes, lost: std::mem::take(&mut state.lost), more: false }
    }

    fn begin_dump(&mut self, wanted: Wanted) {
        self.0.borrow_mut().reader = Some(wanted);
    }

    fn is_dumping(&self) -> bool {
        self.0.borrow().reader.is_some()
    }

    fn take_dump(&mut self) -> Option<Result<Dump, Error>> {
        let mut state = self.0.borrow_mut();
        let wanted = state.reader.take()?;
        let mut read = || {
            let mut dump = Dump::default();
            if wanted.hosts {
                for set in HOSTS {
                    dump.hosts.extend(state.dump(set)?.into_iter().map(|info| (set, info.key)));
                }
            }
            if wanted.networks {
                dump.networks =
                    Some([state.dump(SetId::BlockedNets4)?, state.dump(SetId::BlockedNets6)?]);
            }
            if wanted.exemptions {
                let sets = [SetId::Allowed4, SetId::Allowed6, SetId::Spared4, SetId::Spared6];
                dump.exemptions = Some(
                    sets.into_iter().filter_map(|set| Some((set, state.dump(set).ok()?))).collect(),
                );
            }
            Ok(dump)
        };
        Some(read())
    }
}

// ---- notifications

/// Keeps the engine's reports.
#[derive(Default)]
pub struct Recorder(Vec<Report>);

impl Observer for Recorder {
    fn on_actions(&mut self, _actions: &[Action]) {}
    fn on_refusal(&mut self, _actions: &[Action], _source: Source) {}
    fn on_change(&mut self, _engine: &Engine, _source: Source) {}
    fn on_report(&mut self, _engine: &Engine, report: Report) {
        self.0.push(report);
    }
    fn notify(&mut self, _notice: Notice) {}
}

// ---- the steps

/// One step of a random history.
#[derive(Debug, Clone)]
pub enum Step {
    Block {
        what: u8,
        seconds: Option<u16>,
    },
    Unblock {
        what: u8,
    },
    UnblockAll,
    Protect {
        list: u8,
    },
    Scan {
        from: u8,
    },
    Pass {
        millis: u32,
    },
    /// Another program adds an element of a host.
    AddHost {
        what: u8,
        seconds: Option<u16>,
    },
    /// Another program adds an interval, which need not be a network.
    AddInterval {
        first: u8,
        more: u8,
        seconds: Option<u16>,
    },
    /// Another program deletes one of the elements.
    Delete {
        set: u8,
        which: u8,
    },
    /// Another program gives a host another end.
    Retime {
        set: u8,
        which: u8,
        seconds: Option<u16>,
    },
    FlushSet {
        set: u8,
    },
    DeleteTable,
    DeleteRules,
    /// The notifications of the next edit are lost.
    Lose,
    /// So many writes of a set are refused from now on.
    Refuse {
        set: u8,
        writes: u8,
        how: u8,
    },
    Reconfigure {
        prefix: u8,
        total: u8,
    },
    /// The daemon starts again; another program was at work meanwhile.
    Restart {
        reboot: bool,
        meanwhile: Meanwhile,
    },
    /// This source goes on sending from now on, as far as it gets through.
    Sends {
        from: u8,
    },
}

/// What another program does while the daemon is down.
#[derive(Debug, Clone, Copy)]
pub enum Meanwhile {
    Nothing,
    Delete { set: u8, which: u8 },
    FlushSet { set: u8 },
    DeleteTable,
    AddHost { what: u8 },
    AddInterval { first: u8, more: u8 },
}

/// How many blocks and targets the steps choose from.
pub const SOURCES: u8 = 52;

fn network(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn v6(subnet: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, subnet, 0, 0, 0, last))
}

/// Addresses that may be asked about: 32 of IPv4, nine of IPv6.
fn universe() -> Vec<IpAddr> {
    let v4 = (0..32).map(|n| IpAddr::V4(Ipv4Addr::new(20, 0, 0, n)));
    let v6 = (0..4).flat_map(|subnet| [v6(subnet, 1), v6(subnet, 2)]).chain([v6(0x100, 1)]);
    v4.chain(v6).collect()
}

fn source(what: u8, prefix: u8) -> Source {
    const NETWORKS: [&str; 16] = [
        "20.0.0.0/27",
        "20.0.0.0/28",
        "20.0.0.16/28",
        "20.0.0.8/29",
        "20.0.0.24/29",
        "20.0.0.12/30",
        "20.0.0.0/30",
        "20.0.0.4/31",
        "20.0.0.0/8",
        "2001:db8::/48",
        "2001:db8::/56",
        "2001:db8::/63",
        "2001:db8:0:2::/63",
        "2001:db8:0:1::/64",
        "2001:db8:0:1::1/128",
        "2001:db8:0:2::/64",
    ];
    match what % SOURCES {
        n @ 0..32 => Source::from(IpNet::from(IpAddr::V4(Ipv4Addr::new(20, 0, 0, n)))),
        n @ 32..48 => Source::from(network(NETWORKS[usize::from(n - 32)])),
        n => Source::of(v6(u16::from(n - 48), 1), prefix),
    }
}

/// Four small lists, any of them together.
fn list(bits: u8) -> AllowList {
    let networks = ["20.0.0.5/32", "20.0.0.16/29", "2001:db8:0:1::2/128", "2001:db8:0:2::/64"];
    networks
        .iter()
        .enumerate()
        .filter(|(n, _)| bits >> n & 1 == 1)
        .map(|(_, text)| network(text))
        .collect()
}

fn prefix(choice: u8) -> u8 {
    [64, 56, 128][usize::from(choice % 3)]
}

fn end(now: u64, seconds: Option<u16>) -> Option<u64> {
    seconds.map(|seconds| now + (u64::from(seconds) + 1) * 1000)
}

fn number(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (false, address.to_bits().into()),
        IpAddr::V6(address) => (true, address.to_bits()),
    }
}

/// First and last address of a source, and whether they are IPv6.
fn range(network: IpNet) -> (bool, u128, u128) {
    let (is_v6, first) = number(network.network());
    (is_v6, first, number(network.broadcast()).1)
}

/// What is to be dropped, and until when.
#[derive(Debug, Clone)]
struct Blocked {
    end: Option<u64>,
    /// Ranges of addresses.
    exempt: Vec<(u128, u128)>,
    is_scan: bool,
}

impl Blocked {
    fn exempts(&self, address: u128) -> bool {
        self.exempt.iter().any(|(first, last)| (*first..=*last).contains(&address))
    }

    fn is_empty(&self, (_, first, last): (bool, u128, u128)) -> bool {
        let mut at = Some(first);
        while let Some(address) = at.filter(|address| *address <= last) {
            let Some((_, end)) =
                self.exempt.iter().find(|(from, to)| (*from..=*to).contains(&address))
            else {
                return false;
            };
            at = end.checked_add(1);
        }
        true
    }
}

/// The enforcer over the model of the kernel, and beside it what must be true.
pub struct World {
    state: Rc<RefCell<State>>,
    enforcer: Option<Enforcer<FakeKernel, Recorder>>,
    now: u64,
    model: BTreeMap<Source, Blocked>,
    list: u8,
    prefix: u8,
    total: u32,
    lossy: bool,
    sender: Option<IpAddr>,
    /// Log of the steps, for a failure.
    steps: Vec<Step>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    pub fn new() -> Self {
        let state = Rc::new(RefCell::new(State { now: 1_000_000, ..State::default() }));
        let mut world = Self {
            state,
            enforcer: None,
            now: 1_000_000,
            model: BTreeMap::new(),
            list: 0,
            prefix: 64,
            total: 1000,
            lossy: false,
            sender: None,
            steps: Vec::new(),
        };
        world.start(None);
        world
    }

    fn config(&self) -> (Ruleset, Policy) {
        let mut config = Config::default();
        config.block.ipv6 = Ipv6Accounts { first: self.prefix, then: self.prefix.min(64) };
        config.block.total = self.total;
        config.block.unproven.action = UnprovenAction::Block;
        let ruleset = for_config(&config, 32768..=60999);
        let mut policy = Policy::from_config(&config);
        policy.capacity = 64;
        (ruleset, policy)
    }

    fn in_force(&self) -> InForce {
        let (ruleset, policy) = self.config();
        InForce { ruleset, policy, never_block: list(self.list), services: Services::default() }
    }

    fn start(&mut self, stored: Option<Stored>) {
        let in_force = self.in_force();
        let kernel = FakeKernel(Rc::clone(&self.state));
        let found = kernel.read().unwrap();
        let engine = Engine::new(in_force.policy.clone(), [5, 6]);
        let drift = Drift::new(OwnTable::No);
        let started = Enforcer::start(
            self.time(),
            kernel,
            Recorder::default(),
            engine,
            in_force,
            Earlier { table: &found, stored },
            drift,
        );
        self.enforcer = Some(started.expect("the kernel takes the rules"));
    }

    fn time(&self) -> MonoTime {
        MonoTime::from_millis(self.now)
    }

    fn enforcer(&mut self) -> &mut Enforcer<FakeKernel, Recorder> {
        self.enforcer.as_mut().unwrap()
    }

    fn go_to(&mut self, now: u64) {
        self.now = self.now.max(now);
        self.state.borrow_mut().now = self.now;
    }

    /// Whether a block must not be: all of it is never blocked, or a scan's has a part that is.
    fn is_void(&self, source: Source, is_scan: bool) -> bool {
        let network = source.network();
        let list = list(self.list);
        if is_scan { list.overlaps(&network) } else { list.covers(&network) }
    }

    fn insert(&mut self, source: Source, end: Option<u64>, is_scan: bool) {
        if !self.is_void(source, is_scan) {
            self.model.insert(source, Blocked { end, exempt: Vec::new(), is_scan });
        }
    }

    /// Addresses are not dropped any more: every block leaves them out. `within`: only networks.
    fn exempt(&mut self, part: (bool, u128, u128), which: impl Fn(Source) -> bool) {
        let (is_v6, first, last) = part;
        self.model.retain(|source, block| {
            let whole = range(source.network());
            if whole.0 == is_v6 && whole.1 <= last && first <= whole.2 && which(*source) {
                block.exempt.push((first, last));
            }
            !block.is_empty(whole)
        });
    }

    fn is_host(&self, source: Source) -> bool {
        source.prefix_len() == if source.addr().is_ipv4() { 32 } else { self.prefix }
    }

    /// The sets that a host may be in: of what is proven or manual, and of what is neither.
    fn host_sets(source: Source) -> [SetId; 2] {
        if source.addr().is_ipv4() {
            [SetId::Blocked4, SetId::Unproven4]
        } else {
            [SetId::Blocked6, SetId::Unproven6]
        }
    }

    fn scan(&mut self, from: IpAddr) {
        let now = self.time();
        for number in 1..=4 {
            let port = Port { transport: Transport::Tcp, number };
            let destination = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
            let probe = Probe {
                source: from,
                destination,
                port,
                scan: ScanKind::Syn,
                ambiguous: false,
                ip_options: false,
                signature: Signature::None,
            };
            self.enforcer().evaluate(now, &probe, Hold::None);
        }
        self.follow_scans();
    }

    /// Whether the rules let the packets of an address through.
    fn passes(&self, address: IpAddr) -> bool {
        let mut state = self.state.borrow_mut();
        let key = Key::from(address);
        let networks = if address.is_ipv4() { SetId::BlockedNets4 } else { SetId::BlockedNets6 };
        let source = Source::of(address, self.prefix);
        let is_host = Self::host_sets(source)
            .into_iter()
            .any(|set| state.items(set).contains_key(&Key::from(source.addr())));
        !is_host
            && !state.items(networks).iter().any(|(first, item)| *first <= key && key <= item.last)
    }

    /// Lets the daemon do what there is to do, and what it waits for; it must come to an end.
    fn settle(&mut self) {
        for round in 0..2000 {
            let now = self.time();
            let enforcer = self.enforcer();
            while enforcer.watch(now) {}
            enforcer.on_timer(now);
            if let Some(from) = self.sender.filter(|from| round < 20 && self.passes(*from)) {
                self.scan(from);
            }
            self.follow_scans();
            let enforcer = self.enforcer();
            let next = enforcer.next_timer(now);
            let is_void = |world: &Self| {
                let blocks = world.enforcer.as_ref().unwrap().engine().blocks();
                blocks
                    .map(|block| (block.source, block.reason.scan().is_some()))
                    .any(|(source, is_scan)| world.is_void(source, is_scan))
            };
            match next {
                Some(next) => self.go_to(next.millis()),
                // What the kernel did not let go is tried again.
                None if is_void(self) => self.go_to(self.now + 1000),
                None => return,
            }
        }
        panic!("the enforcer does not come to rest: {:?}", self.steps);
    }

    /// What the engine reported of scans, which only it can decide.
    fn follow_scans(&mut self) {
        let now = self.now;
        for report in std::mem::take(&mut self.enforcer().observer.0) {
            if let Report::Blocked { source, timeout, reason, .. } = report
                && reason.scan().is_some()
            {
                let end = timeout.map(|timeout| now + timeout.as_millis() as u64);
                self.model.insert(source, Blocked { end, exempt: Vec::new(), is_scan: true });
            }
        }
    }

    /// After a refusal the engine says what it has; whether the kernel has the same is checked.
    fn take_engines_word(&mut self, of: impl Fn(Source) -> bool) {
        let engine = self.enforcer.as_ref().unwrap().engine();
        self.model.retain(|source, _| !of(*source));
        for block in engine.blocks().filter(|block| of(block.source)) {
            let exempt = block
                .exempt
                .iter()
                .map(|part| range(*part))
                .map(|(_, first, last)| (first, last))
                .collect();
            let end = block.expires.map(MonoTime::millis);
            self.model.insert(
                block.source,
                Blocked { end, exempt, is_scan: block.reason.scan().is_some() },
            );
        }
    }

    pub fn run(&mut self, step: Step) {
        self.steps.push(step.clone());
        let now = self.time();
        let prefix_len = self.prefix;
        match step {
            Step::Block { what, seconds } => {
                let source = source(what, prefix_len);
                let timeout =
                    end(self.now, seconds).map(|end| Duration::from_millis(end - self.now));
                match self.enforcer().block(now, source, timeout, "because") {
                    Ok(()) => {
                        let end = end(self.now, seconds);
                        self.model
                            .insert(source, Blocked { end, exempt: Vec::new(), is_scan: false });
                    }
                    Err(BlockError::Refused(Refusal::NeverBlock { .. })) => {
                        assert!(list(self.list).overlaps(&source.network()))
                    }
                    Err(BlockError::Refused(Refusal::Total(_))) => {
                        assert!(self.enforcer().engine().status().ordered >= self.total as usize)
                    }
                    Err(BlockError::Refused(refusal)) => panic!("{refusal}"),
                    Err(BlockError::Kernel { .. }) => assert!(self.state.borrow().refused > 0),
                }
            }
            Step::Unblock { what } => {
                let target = source(what, 128);
                let account =
                    if target.is_single() { Source::of(target.addr(), prefix_len) } else { target };
                let result = self.enforcer().unblock(now, target);
                if result.is_err() {
                    assert!(self.state.borrow().refused > 0);
                    self.take_engines_word(|source| {
                        target.contains(source) || source == account || source.contains(account)
                    });
                } else {
                    // The block of an account can leave nothing out.
                    let is_lifted = |source: Source| {
                        target.contains(source) || source.contains(account) && self.is_host(source)
                    };
                    let lifted: Vec<Source> =
                        self.model.keys().copied().filter(|source| is_lifted(*source)).collect();
                    lifted.iter().for_each(|source| drop(self.model.remove(source)));
                    self.exempt(range(account.network()), |source| source.contains(account));
                }
            }
            Step::UnblockAll => {
                if self.enforcer().unblock_all(now).is_err() {
                    assert!(self.state.borrow().refused > 0);
                    self.take_engines_word(|_| true);
                } else {
                    self.model.clear();
                }
            }
            Step::Protect { list: bits } => {
                self.list = bits;
                // A refusal of the kernel is tried again.
                let _ = self.enforcer().protect(now, list(bits));
                let gone: Vec<Source> = self
                    .model
                    .iter()
                    .filter(|(source, block)| self.is_void(**source, block.is_scan))
                    .map(|(source, _)| *source)
                    .collect();
                gone.iter().for_each(|source| drop(self.model.remove(source)));
            }
            Step::Scan { from } => {
                let all = universe();
                let from = all[usize::from(from) % all.len()];
                self.scan(from);
            }
            Step::Pass { millis } => self.go_to(self.now + u64::from(millis)),
            Step::AddHost { what, seconds } => {
                let all = universe();
                let address = all[usize::from(what) % all.len()];
                self.add_host(address, end(self.now, seconds));
            }
            Step::AddInterval { first, more, seconds } => {
                self.add_interval(first, more, end(self.now, seconds))
            }
            Step::Delete { set, which } => self.delete(BLOCKED[usize::from(set % 6)], Some(which)),
            Step::FlushSet { set } => self.delete(BLOCKED[usize::from(set % 6)], None),
            Step::Retime { set, which, seconds } => {
                self.retime(HOSTS[usize::from(set % 4)], which, end(self.now, seconds))
            }
            Step::DeleteTable => {
                let mut state = self.state.borrow_mut();
                if state.table.take().is_some() {
                    let lossy = std::mem::take(&mut self.lossy);
                    state.tell(lossy, vec![Notification::TableDeleted]);
                }
            }
            Step::DeleteRules => {
                let mut state = self.state.borrow_mut();
                if let Some(table) = &mut state.table {
                    table.chains = None;
                    let lossy = std::mem::take(&mut self.lossy);
                    state.tell(lossy, vec![Notification::RuleDeleted { chain: "gate".to_owned() }]);
                }
            }
            Step::Lose => self.lossy = true,
            Step::Refuse { set, writes, how } => {
                let set = [BLOCKED.as_slice(), &ALLOWED].concat()[usize::from(set % 8)];
                let errno = [ENFILE, EBUSY, EEXIST][usize::from(how % 3)];
                self.state.borrow_mut().refusals.insert(set, (u32::from(writes % 6), errno));
            }
            Step::Reconfigure { prefix: choice, total } => {
                let before = (self.prefix, self.total);
                (self.prefix, self.total) =
                    (prefix(choice), if total % 4 == 0 { 20 } else { 1000 });
                // As the packet thread does it.
                if self.enforcer().engine().status().ordered > self.total as usize {
                    self.total = before.1;
                }
                if self.enforcer.as_ref().unwrap().would_lose_exemptions(self.prefix).is_some() {
                    self.prefix = before.0;
                }
                let in_force = self.in_force();
                if self.enforcer().reconfigure(now, in_force).is_err() {
                    (self.prefix, self.total) = before;
                }
            }
            Step::Sends { from } => {
                let all = universe();
                self.sender = Some(all[usize::from(from) % all.len()]);
            }
            Step::Restart { reboot, meanwhile } => {
                let blocks = self.enforcer().engine().blocks();
                let row = |block: portsentry::engine::BlockView<'_>| Block {
                    source: block.source,
                    exempt: block.exempt.to_vec(),
                    since: block.since,
                    expires: block.expires,
                    port: block.port,
                    reason: block.reason.clone(),
                };
                let blocks = blocks.map(row).collect();
                self.enforcer = None;
                self.lossy = false;
                match meanwhile {
                    _ if reboot => {}
                    Meanwhile::Nothing => {}
                    Meanwhile::Delete { set, which } => {
                        self.delete(BLOCKED[usize::from(set % 6)], Some(which))
                    }
                    Meanwhile::FlushSet { set } => self.delete(BLOCKED[usize::from(set % 6)], None),
                    Meanwhile::DeleteTable => self.state.borrow_mut().table = None,
                    Meanwhile::AddHost { what } => {
                        let all = universe();
                        self.add_host(all[usize::from(what) % all.len()], None);
                    }
                    Meanwhile::AddInterval { first, more } => self.add_interval(first, more, None),
                }
                {
                    let mut state = self.state.borrow_mut();
                    state.news.clear();
                    (state.lost, state.reader) = (false, None);
                    if reboot {
                        state.table = None;
                    }
                }
                self.start(Some(Stored {
                    content: Content { blocks, ..Content::default() },
                    is_same_boot: !reboot,
                }));
            }
        }
        self.settle();
        self.follow_scans();
        self.check();
    }

    fn add_host(&mut self, address: IpAddr, end: Option<u64>) {
        let source = Source::of(address, self.prefix);
        let [set, _] = Self::host_sets(source);
        let key = Key::from(address);
        let mut state = self.state.borrow_mut();
        let now = state.now;
        let Ok(there) = state.set(set) else { return };
        let timeout = end.map(|end| Duration::from_millis(end - now));
        if put(set, there, key, Item { last: key, timeout, expires: end, comment: None }, false)
            .is_err()
        {
            return;
        }
        let lossy = std::mem::take(&mut self.lossy);
        state.tell(lossy, vec![Notification::ElementsAdded { set: set.spec(), keys: vec![key] }]);
        drop(state);
        // An element that no rule looks up is meant for its prefix. One that works outranks the block
        // of an unproven scan, which is in another set.
        let outranks = key == Key::from(source.addr());
        if self.model.get(&source).is_none_or(|block| block.is_scan && outranks) {
            self.insert(source, end, false);
        }
    }

    fn add_interval(&mut self, first: u8, more: u8, end: Option<u64>) {
        let (set, first, last) = if first < 64 {
            let (first, last) = (first % 32, (first % 32).saturating_add(more % 16).min(31));
            (
                SetId::BlockedNets4,
                IpAddr::V4(Ipv4Addr::new(20, 0, 0, first)),
                IpAddr::V4(Ipv4Addr::new(20, 0, 0, last)),
            )
        } else {
            let first = u16::from(first % 4);
            let last = Ipv6Addr::from_bits(
                number(v6(first + u16::from(more % 2), 0)).1 | u128::from(u64::MAX),
            );
            (SetId::BlockedNets6, v6(first, 0), IpAddr::V6(last))
        };
        let (key, last_key) = (Key::from(first), Key::from(last));
        let mut state = self.state.borrow_mut();
        let now = state.now;
        let Ok(there) = state.set(set) else { return };
        let timeout = end.map(|end| Duration::from_millis(end - now));
        if put(
            set,
            there,
            key,
            Item { last: last_key, timeout, expires: end, comment: None },
            false,
        )
        .is_err()
        {
            return;
        }
        let lossy = std::mem::take(&mut self.lossy);
        state.tell(lossy, vec![Notification::ElementsAdded { set: set.spec(), keys: vec![key] }]);
        drop(state);
        let networks: Vec<IpNet> = match (first, last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect()
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect()
            }
            _ => unreachable!(),
        };
        for network in networks {
            let source = Source::from(network);
            // A host that is blocked already keeps its end.
            if !self.model.contains_key(&source) {
                self.insert(source, end, false);
            }
        }
    }

    /// Another program deletes an element, or all of a set: what was not to end by itself at that
    /// moment is unblocked.
    fn delete(&mut self, set: SetId, which: Option<u8>) {
        let now = self.now;
        let mut state = self.state.borrow_mut();
        let items: Vec<(Key, Item)> = state.items(set).into_iter().collect();
        let picked: Vec<(Key, Item)> = match which {
            Some(which) if !items.is_empty() => {
                vec![items[usize::from(which) % items.len()].clone()]
            }
            Some(_) => Vec::new(),
            None => items,
        };
        let is_ending =
            |(_, item): &(Key, Item)| item.expires.is_some_and(|end| end <= now + EXPIRED_WITHIN);
        if picked.is_empty() || picked.iter().any(is_ending) {
            return;
        }
        let there = state.set(set).unwrap();
        picked.iter().for_each(|(key, _)| drop(there.items.remove(key)));
        let lossy = std::mem::take(&mut self.lossy);
        state.tell(
            lossy,
            vec![Notification::ElementsDeleted {
                set: set.spec(),
                keys: picked.iter().map(|(key, _)| *key).collect(),
            }],
        );
        // An element that the kernel did not give up when its block moved to the other set.
        let outranking = match set {
            SetId::Unproven4 => state.items(SetId::Blocked4),
            SetId::Unproven6 => state.items(SetId::Blocked6),
            _ => BTreeMap::new(),
        };
        drop(state);
        // Blocks are rather restored than lost.
        if lossy {
            return;
        }
        for (key, item) in picked.into_iter().filter(|(key, _)| !outranking.contains_key(key)) {
            let address = key.address().unwrap();
            if set.is_interval() {
                let (is_v6, first) = number(address);
                let last = number(item.last.address().unwrap()).1;
                let prefix = self.prefix;
                let is_host = move |source: Source| {
                    source.prefix_len() == if source.addr().is_ipv4() { 32 } else { prefix }
                };
                self.exempt((is_v6, first, last), |source| !is_host(source));
            } else {
                let source = Source::of(address, self.prefix);
                if Key::from(source.addr()) == key {
                    self.model.remove(&source);
                }
            }
        }
    }

    fn retime(&mut self, set: SetId, which: u8, end: Option<u64>) {
        let now = self.now;
        let mut state = self.state.borrow_mut();
        let keys: Vec<Key> = state.items(set).into_keys().collect();
        if keys.is_empty() {
            return;
        }
        let key = keys[usize::from(which) % keys.len()];
        let item = state.set(set).unwrap().items.get_mut(&key).unwrap();
        let is_near = |one: Option<u64>, other: Option<u64>| {
            one.zip(other).is_some_and(|(one, other)| one.abs_diff(other) <= 2 * NEAR_AN_END)
        };
        if is_near(item.expires, end) || is_near(item.expires, Some(now)) || is_near(end, Some(now))
        {
            return;
        }
        (item.expires, item.timeout) = (end, end.map(|end| Duration::from_millis(end - now)));
        let spec = set.spec();
        state.tell(
            false,
            vec![
                Notification::ElementsDeleted { set: spec, keys: vec![key] },
                Notification::ElementsAdded { set: spec, keys: vec![key] },
            ],
        );
        drop(state);
        let source = Source::of(key.address().unwrap(), self.prefix);
        if Key::from(source.addr()) == key
            && let Some(block) = self.model.get_mut(&source)
        {
            block.end = end;
        }
    }

    /// The rules are there, exactly what should be dropped is, and the engine knows it.
    fn check(&mut self) {
        let (ruleset, _) = self.config();
        let now = self.now;
        // Long over.
        self.model.retain(|_, block| block.end.is_none_or(|end| end + NEAR_AN_END > now));
        let mut state = self.state.borrow_mut();
        let table = state.table.clone().unwrap_or_else(|| panic!("no table: {:?}", self.steps));
        assert_eq!(table.chains.as_ref(), Some(&ruleset.chains), "other rules: {:?}", self.steps);
        for set in &ruleset.sets {
            assert!(
                table.sets.contains_key(set.id.name),
                "no set {}: {:?}",
                set.id.name,
                self.steps
            );
        }
        let sets: BTreeMap<SetId, BTreeMap<Key, Item>> =
            BLOCKED.into_iter().chain(ALLOWED).map(|id| (id, state.items(id))).collect();
        drop(state);
        let list = list(self.list);
        let engine = self.enforcer.as_ref().unwrap().engine();
        let is_near = |end: Option<u64>| end.is_some_and(|end| end.abs_diff(now) <= NEAR_AN_END);
        for address in universe() {
            let (is_v6, bits) = number(address);
            let covers = |source: &Source| source.network().contains(&address);
            if self.model.iter().any(|(source, block)| covers(source) && is_near(block.end)) {
                continue;
            }
            let is_wanted = self.model.iter().any(|(source, block)| {
                covers(source) && !block.exempts(bits) && block.end.is_none_or(|end| end > now)
            });
            let by_range = |set: SetId| {
                sets[&set].iter().any(|(key, item)| {
                    *key <= Key::from(address) && Key::from(address) <= item.last
                })
            };
            let is_allowed = by_range(ALLOWED[usize::from(is_v6)]);
            assert_eq!(is_allowed, list.contains(address), "{address} is exempt: {:?}", self.steps);
            let source = Source::of(address, self.prefix);
            let is_host = Self::host_sets(source)
                .into_iter()
                .any(|set| sets[&set].contains_key(&Key::from(source.addr())));
            let networks = if is_v6 { SetId::BlockedNets6 } else { SetId::BlockedNets4 };
            let is_there = is_host || by_range(networks);
            assert_eq!(
                is_there, is_wanted,
                "{address} is dropped at {now}: {:?}\n{:?}\n{sets:?}",
                self.steps, self.model
            );
            assert!(!(is_there && !is_allowed && list.contains(address)));
            let knows = |block: portsentry::engine::BlockView<'_>| {
                covers(&block.source)
                    && block.exempt.iter().all(|part| !part.contains(&address))
                    && block.expires.is_none_or(|end| end.millis() > now)
            };
            assert_eq!(
                engine.blocks().any(knows),
                is_wanted,
                "the engine knows of {address} at {now}: {:?}\n{:?}",
                self.steps,
                self.model
            );
        }
        // What a list shows: every host of the engine has its element with its end, and every
        // element that works is known.
        let mut listed = BTreeSet::new();
        for block in engine.blocks().filter(|block| {
            self.is_host(block.source) && !is_near(block.expires.map(MonoTime::millis))
        }) {
            let [proven, unproven] = Self::host_sets(block.source);
            let set = if block.reason.is_unproven_scan() { unproven } else { proven };
            let item = sets[&set].get(&Key::from(block.source.addr()));
            let item =
                item.unwrap_or_else(|| panic!("{} has no element: {:?}", block.source, self.steps));
            let is_same = match (item.expires, block.expires) {
                (Some(one), Some(other)) => one.abs_diff(other.millis()) <= NEAR_AN_END,
                (one, other) => one.is_none() && other.is_none(),
            };
            assert!(
                is_same,
                "{}: {:?} {:?}: {:?}",
                block.source, item.expires, block.expires, self.steps
            );
            listed.insert(block.source);
        }
        for (key, item) in
            HOSTS.into_iter().flat_map(|set| &sets[&set]).filter(|(_, item)| !is_near(item.expires))
        {
            let source = Source::of(key.address().unwrap(), self.prefix);
            assert!(
                listed.contains(&source) || Key::from(source.addr()) != *key,
                "{source} {item:?} is not known: {:?}",
                self.steps
            );
        }
    }
}
