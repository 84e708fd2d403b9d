//! What happened since the last digest: a row for each source, bounded. Pure.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::helper::protocol::{Class, Incident};

/// Sources of one digest, some 300 bytes each. A message of more is not read, and forged
/// addresses must not fill memory.
pub(super) const SOURCES_MAX: usize = 500;

/// Troubles of one digest that differ.
pub(super) const TROUBLES_MAX: usize = 50;

/// From this many sources of one network on, a message shows the network.
const SHARED: usize = 4;

/// A source, and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Address or prefix.
    pub(super) target: String,
    /// Its name.
    pub(super) name: Option<String>,
    /// The most that was done.
    pub(super) class: Class,
    /// Whether its address is proven.
    pub(super) is_proven: bool,
    /// Incidents.
    pub(super) events: u64,
    /// The first and the last, in seconds since 1970.
    pub(super) first: i64,
    /// See there.
    pub(super) last: i64,
    /// The port of the last one.
    pub(super) port: Option<String>,
    /// The kind of scan of the last one.
    pub(super) scan: Option<String>,
    /// The reason of the last one.
    pub(super) reason: String,
}

/// Something to look at that is not about a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// The kind of event.
    pub(super) kind: String,
    /// What happened.
    pub(super) text: String,
    /// How often.
    pub(super) times: u64,
    /// The last time, in seconds since 1970.
    pub(super) last: i64,
}

/// Sources of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Network {
    /// The network, `198.51.100.0/24`.
    pub(super) network: IpNet,
    /// Its sources, the worst first.
    pub(super) rows: Vec<Row>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Digest {
    rows: HashMap<String, Row>,
    pub(super) troubles: Vec<Trouble>,
    /// Incidents that found the digest full, or were in a message that was given up.
    pub(super) dropped: u64,
    /// Incidents that did not reach this process.
    pub(super) missed: u64,
}

impl Digest {
    /// Adds an incident; `false`: there is no room for it.
    pub(super) fn add(&mut self, incident: &Incident) -> bool {
        let is_room = match &incident.target {
            Some(target) if incident.class != Class::Trouble => self.add_source(target, incident),
            target => self.add_trouble(target.as_deref(), incident),
        };
        self.dropped += u64::from(!is_room);
        is_room
    }

    fn add_source(&mut self, target: &str, incident: &Incident) -> bool {
        if !self.rows.contains_key(target) && self.rows.len() >= SOURCES_MAX {
            // Forged addresses must not keep a proven source out.
            let weakest = self.rows.values().min_by_key(|row| (row.is_proven, row.class, row.last));
            match weakest.map(|row| (row.is_proven, row.class, row.target.clone(), row.events)) {
                Some((is_proven, class, weakest, events))
                    if (is_proven, class) < (incident.is_proven, incident.class) =>
                {
                    self.rows.remove(&weakest);
                    self.dropped += events;
                }
                _ => return false,
            }
        }
        let row = self.rows.entry(target.to_owned()).or_insert_with(|| Row {
            target: target.to_owned(),
            name: None,
            class: incident.class,
            is_proven: false,
            events: 0,
            first: incident.at,
            last: incident.at,
            port: None,
            scan: None,
            reason: String::new(),
        });
        row.events += 1;
        row.class = row.class.max(incident.class);
        row.is_proven |= incident.is_proven;
        row.last = incident.at;
        row.name = incident.name.clone().or(row.name.take());
        row.port = incident.port.clone().or(row.port.take());
        row.scan = incident.scan.clone().or(row.scan.take());
        row.reason.clone_from(&incident.reason);
        true
    }

    fn add_trouble(&mut self, target: Option<&str>, incident: &Incident) -> bool {
        let text = match target {
            Some(target) => format!("{target}: {}", incident.reason),
            None => incident.reason.clone(),
        };
        let same = |known: &&mut Trouble| known.kind == incident.kind && known.text == text;
        if let Some(known) = self.troubles.iter_mut().find(same) {
            known.times += 1;
            known.last = incident.at;
        } else if self.troubles.len() < TROUBLES_MAX {
            let kind = incident.kind.clone();
            self.troubles.push(Trouble { kind, text, times: 1, last: incident.at });
        } else {
            return false;
        }
        true
    }

    /// Entries: sources and troubles.
    pub(super) fn len(&self) -> usize {
        self.rows.len() + self.troubles.len()
    }

    /// Incidents.
    pub(super) fn incidents(&self) -> u64 {
        let of_rows: u64 = self.rows.values().map(|row| row.events).sum();
        of_rows + self.troubles.iter().map(|trouble| trouble.times).sum::<u64>()
    }

    /// Sources of a class.
    pub(super) fn count(&self, class: Class) -> usize {
        self.rows.values().filter(|row| row.class == class).count()
    }

    /// All sources, the worst first.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<_> = self.rows.values().cloned().collect();
        rows.sort_by(worst_first);
        rows
    }

    /// Sources by their network: those of networks with several, the largest first, and the others.
    pub(super) fn networks(&self) -> (Vec<Network>, Vec<Row>) {
        let mut networks: HashMap<IpNet, Vec<Row>> = HashMap::new();
        let mut others = Vec::new();
        for row in self.rows() {
            match network_of(&row.target) {
                Some(network) => networks.entry(network).or_default().push(row),
                None => others.push(row),
            }
        }
        let (shared, few): (Vec<_>, Vec<_>) =
            networks.into_iter().partition(|(_, rows)| rows.len() >= SHARED);
        others.extend(few.into_iter().flat_map(|(_, rows)| rows));
        others.sort_by(worst_first);
        let mut shared: Vec<_> =
            shared.into_iter().map(|(network, rows)| Network { network, rows }).collect();
        shared.sort_by(|a, b| b.rows.len().cmp(&a.rows.len()).then(a.network.cmp(&b.network)));
        (shared, others)
    }
}

/// The order of rows.
fn worst_first(a: &Row, b: &Row) -> Ordering {
    let rank = |row: &Row| (row.class, row.is_proven, row.last);
    rank(b).cmp(&rank(a)).then_with(|| a.target.cmp(&b.target))
}

/// The network of a source: a /24, or a /48 as a site has it.
fn network_of(target: &str) -> Option<IpNet> {
    let network = match target.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => target.parse::<IpNet>().ok()?,
    };
    let length = if network.addr().is_ipv4() { 24 } else { 48 };
    (network.prefix_len() >= length)
        .then(|| IpNet::new(network.addr(), length).ok().map(|network| network.trunc()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::notify::tests::incident;

    #[test]
    fn a_source_has_one_row_with_the_most_that_was_done() {
        let mut digest = Digest::default();
        assert!(digest.add(&incident("192.0.2.1", Class::Blocked)));
        assert!(digest.add(&incident("192.0.2.1", Class::Slowed)));
        let rows = digest.rows();
        assert_eq!((rows.len(), rows[0].events, rows[0].class), (1, 2, Class::Blocked));
        assert_eq!(digest.incidents(), 2);
    }

    #[test]
    fn sources_of_one_network_are_shown_together() {
        let mut digest = Digest::default();
        for n in 1..=4 {
            digest.add(&incident(&format!("192.0.2.{n}"), Class::Slowed));
            digest.add(&incident(&format!("2001:db8:1:{n}::/64"), Class::Slowed));
            digest.add(&incident(&format!("198.51.{n}.1"), Class::Slowed));
        }
        let (networks, others) = digest.networks();
        let names: Vec<_> = networks.iter().map(|network| network.network.to_string()).collect();
        assert_eq!(names, ["192.0.2.0/24", "2001:db8:1::/48"]);
        assert_eq!(others.len(), 4);
    }

    #[test]
    fn a_flood_of_sources_is_bounded_counted_and_hides_no_proven_one() {
        let mut digest = Digest::default();
        for n in 0..3 * SOURCES_MAX {
            digest.add(&incident(&format!("10.0.{}.{}", n / 256, n % 256), Class::Slowed));
        }
        assert_eq!((digest.len(), digest.dropped), (SOURCES_MAX, 2 * SOURCES_MAX as u64));
        let proven = Incident { is_proven: true, ..incident("192.0.2.9", Class::Blocked) };
        assert!(digest.add(&proven));
        assert_eq!((digest.len(), digest.rows()[0].target.as_str()), (SOURCES_MAX, "192.0.2.9"));
        assert_eq!(digest.incidents() + digest.dropped, 3 * SOURCES_MAX as u64 + 1);
    }

    #[test]
    fn the_same_trouble_is_counted_and_others_are_bounded() {
        let mut digest = Digest::default();
        let trouble = |text: &str| Incident {
            target: None,
            reason: text.to_owned(),
            ..incident("", Class::Trouble)
        };
        (0..3).for_each(|_| assert!(digest.add(&trouble("nft changed the table"))));
        assert_eq!((digest.troubles.len(), digest.troubles[0].times), (1, 3));
        let taken = (0..TROUBLES_MAX).filter(|n| digest.add(&trouble(&n.to_string()))).count();
        assert_eq!(taken, TROUBLES_MAX - 1);
        assert_eq!((digest.troubles.len(), digest.dropped), (TROUBLES_MAX, 1));
    }
}
