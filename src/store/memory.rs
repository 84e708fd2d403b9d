//! What is remembered of this host besides its blocks: its administrators and its services.
//!
//! The main thread keeps it up to date, the store's thread writes it. Rows have the time of day, not
//! the engine's clock as all others: a daemon of an earlier version keeps these tables and knows
//! nothing of them, but its marks are of later boots.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rusqlite::Transaction;
use rusqlite::types::{FromSqlError, FromSqlResult};

use super::rows::Columns;
use super::{Mark, rows};
use crate::probe::Port;
use crate::ruleset::SERVICE_MEMORY;
use crate::time::MonoTime;

/// Administrators remembered at most; the one seen longest ago gives way. About 100 bytes each.
pub(super) const ADMINS_MAX: usize = 1024;

/// Services remembered at most; the one seen longest ago gives way. About 100 bytes each.
pub(super) const SERVICES_MAX: usize = 4096;

/// How long after a boot packets to the services of the last boot are no probes, unless they listen
/// again: more than any service takes to start, and short for those that do not return.
pub(super) const SERVICES_START_WITHIN: Duration = Duration::from_secs(600);

/// A later sighting is worth a write when the stored one is this old. After a crash something looks
/// absent for this much longer.
const WRITE_AFTER: Duration = Duration::from_secs(3600);

pub(super) const ALL_ADMINS: &str = "SELECT address, seen, sum FROM admins ORDER BY seen DESC";
pub(super) const ALL_SERVICES: &str = "SELECT port, seen, sum FROM services ORDER BY seen DESC";

/// The tables, absent from databases that only earlier versions wrote.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS admins (address TEXT PRIMARY KEY, seen INTEGER NOT NULL, sum INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS services (port TEXT PRIMARY KEY, seen INTEGER NOT NULL, sum INTEGER NOT NULL) STRICT, WITHOUT ROWID;";

/// Administrators and services, each with the time when it was seen last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// Addresses that had an ssh session.
    pub admins: BTreeMap<IpAddr, MonoTime>,
    /// Ports that services listened on.
    pub services: BTreeMap<Port, MonoTime>,
}

impl Memory {
    /// Notes the administrators who are connected at `now`, and forgets those not seen for `memory`.
    pub fn see_admins(
        &mut self,
        now: MonoTime,
        connected: impl IntoIterator<Item = IpAddr>,
        memory: Duration,
    ) {
        see(&mut self.admins, now, connected, memory);
        limit(&mut self.admins, ADMINS_MAX);
    }

    /// Notes the ports of services at `now`, and forgets those that the rules have forgotten too.
    pub fn see_services(&mut self, now: MonoTime, open: impl IntoIterator<Item = Port>) {
        see(&mut self.services, now, open, SERVICE_MEMORY);
        limit(&mut self.services, SERVICES_MAX);
    }

    /// What was read, the latest first.
    pub(super) fn stored(admins: Vec<(IpAddr, MonoTime)>, services: Vec<(Port, MonoTime)>) -> Self {
        Self {
            admins: admins.into_iter().take(ADMINS_MAX).collect(),
            services: services.into_iter().take(SERVICES_MAX).collect(),
        }
    }

    /// Adds what another memory has, with the later time of each.
    pub(super) fn merge(&mut self, other: Self) {
        merge(&mut self.admins, other.admins);
        merge(&mut self.services, other.services);
        limit(&mut self.admins, ADMINS_MAX);
        limit(&mut self.services, SERVICES_MAX);
    }

    /// Applies `convert` to all times.
    pub(super) fn convert(&mut self, convert: impl Fn(MonoTime) -> MonoTime) {
        self.admins
            .values_mut()
            .chain(self.services.values_mut())
            .for_each(|at| *at = convert(*at));
    }

    /// After a boot at or before `now` all services are as old: however long the host was off, they
    /// may take [`SERVICES_START_WITHIN`] to start.
    pub(super) fn rebooted(&mut self, now: MonoTime) {
        let seen = now.before(SERVICE_MEMORY - SERVICES_START_WITHIN);
        self.services.values_mut().for_each(|at| *at = seen);
    }

    /// Whether it is worth a write: `written` has other entries, or much older ones.
    pub(super) fn differs(&self, written: &Self) -> bool {
        differ(&self.admins, &written.admins) || differ(&self.services, &written.services)
    }

    /// Writes it in place of what was stored.
    pub(super) fn write(&self, transaction: &Transaction<'_>, mark: &Mark) -> rusqlite::Result<()> {
        transaction.execute_batch("DELETE FROM admins; DELETE FROM services;")?;
        let mut put =
            transaction.prepare("INSERT INTO admins (address, seen, sum) VALUES (?, ?, ?)")?;
        for (address, seen) in &self.admins {
            rows::put(&mut put, [address.to_string().into(), wall(mark, *seen).into()])?;
        }
        let mut put =
            transaction.prepare("INSERT INTO services (port, seen, sum) VALUES (?, ?, ?)")?;
        for (port, seen) in &self.services {
            rows::put(&mut put, [port.to_string().into(), wall(mark, *seen).into()])?;
        }
        Ok(())
    }
}

/// Reads an administrator, by the clock of `mark`.
pub(super) fn admin(row: &Columns<'_>, mark: &Mark) -> FromSqlResult<(IpAddr, MonoTime)> {
    let address = row.text(0)?.parse().map_err(|_| FromSqlError::InvalidType)?;
    Ok((address, clock(mark, row.get(1)?)))
}

/// Reads a service, by the clock of `mark`.
pub(super) fn service(row: &Columns<'_>, mark: &Mark) -> FromSqlResult<(Port, MonoTime)> {
    Ok((row.get(0)?, clock(mark, row.get(1)?)))
}

/// The time of day, in milliseconds since 1970.
fn wall(mark: &Mark, seen: MonoTime) -> i64 {
    let age = u64::try_from(mark.clock.since(seen).as_millis()).unwrap_or(u64::MAX);
    i64::try_from(mark.wall.saturating_sub(age)).unwrap_or(i64::MAX)
}

/// The inverse of [`wall`]; a time after the mark counts as the mark's.
fn clock(mark: &Mark, wall: i64) -> MonoTime {
    let wall = u64::try_from(wall).unwrap_or(0);
    mark.clock.before(Duration::from_millis(mark.wall.saturating_sub(wall)))
}

fn see<K: Ord>(
    map: &mut BTreeMap<K, MonoTime>,
    now: MonoTime,
    there: impl IntoIterator<Item = K>,
    memory: Duration,
) {
    map.extend(there.into_iter().map(|key| (key, now)));
    map.retain(|_, seen| now.since(*seen) < memory);
}

fn limit<K: Ord + Copy>(map: &mut BTreeMap<K, MonoTime>, most: usize) {
    if map.len() <= most {
        return;
    }
    let mut by_age: Vec<(MonoTime, K)> = map.iter().map(|(key, at)| (*at, *key)).collect();
    by_age.sort_unstable();
    by_age.truncate(map.len() - most);
    for (_, key) in by_age {
        map.remove(&key);
    }
}

fn merge<K: Ord>(map: &mut BTreeMap<K, MonoTime>, other: BTreeMap<K, MonoTime>) {
    for (key, at) in other {
        let mine = map.entry(key).or_insert(at);
        *mine = at.max(*mine);
    }
}

fn differ<K: Ord>(now: &BTreeMap<K, MonoTime>, written: &BTreeMap<K, MonoTime>) -> bool {
    now.len() != written.len()
        || now
            .iter()
            .any(|(key, at)| written.get(key).is_none_or(|stored| at.since(*stored) >= WRITE_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Transport;

    fn at(seconds: u64) -> MonoTime {
        MonoTime::from_millis(seconds * 1000)
    }

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    fn port(number: u16) -> Port {
        Port { transport: Transport::Tcp, number }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    // P10
    #[test]
    fn memory_is_bounded_and_keeps_the_latest() {
        let mut memory = Memory::default();
        let count = u32::try_from(ADMINS_MAX).unwrap() * 2;
        for number in 0..count {
            memory.see_admins(at(number.into()), [address(number)], HOUR);
        }
        assert_eq!(memory.admins.len(), ADMINS_MAX);
        assert!(memory.admins.contains_key(&address(count - 1)));
        assert!(!memory.admins.contains_key(&address(0)));
        memory.see_services(at(9), (1..=u16::MAX).map(port));
        assert_eq!(memory.services.len(), SERVICES_MAX);
    }

    #[test]
    fn what_was_not_seen_for_its_time_is_forgotten() {
        let mut memory = Memory::default();
        memory.see_admins(at(100_000), [address(1)], HOUR);
        memory.see_services(at(100_000), [port(25)]);
        memory.see_admins(at(103_599), [], HOUR);
        memory.see_services(at(186_399), []);
        assert_eq!((memory.admins.len(), memory.services.len()), (1, 1));
        memory.see_admins(at(103_600), [], HOUR);
        memory.see_services(at(186_400), []);
        assert_eq!(memory, Memory::default());
        memory.see_admins(at(103_600), [address(1)], Duration::ZERO);
        assert_eq!(memory, Memory::default(), "without a memory not even who is connected");
    }

    // P5
    #[test]
    fn after_a_reboot_services_have_time_to_start_however_long_the_host_was_off() {
        let mut memory = Memory::default();
        memory.see_services(at(1), [port(25), port(143)]);
        memory.rebooted(at(1_000_000));
        memory.see_services(at(1_000_599), []);
        assert_eq!(memory.services.len(), 2);
        memory.see_services(at(1_000_600), []);
        assert_eq!(memory, Memory::default());
    }

    #[test]
    fn new_and_much_later_sightings_are_worth_a_write() {
        let mut written = Memory::default();
        written.see_admins(at(1000), [address(1)], 9 * HOUR);
        written.see_services(at(1000), [port(25)]);
        let mut memory = written.clone();
        memory.see_admins(at(4599), [address(1)], 9 * HOUR);
        memory.see_services(at(4599), [port(25)]);
        assert!(!memory.differs(&written));
        memory.see_services(at(4600), [port(25)]);
        assert!(memory.differs(&written));
        let fewer = Memory { admins: BTreeMap::new(), ..written.clone() };
        assert!(fewer.differs(&written));
    }
}
