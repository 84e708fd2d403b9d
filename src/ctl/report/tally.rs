//! The figures of a report, added up event by event: however many there are, the memory is bounded.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::super::geo::{Databases, Geo};
use crate::control::protocol::{HistoryRow, Stamp, Target};
use crate::journal::record::NOT_STORED;

/// Rows of a ranking that are counted exactly; of more, the smaller half is given up.
const COUNTED_MAX: usize = 20_000;

/// Distinct sources that are counted, in eight bytes each; of more, the report says "more than".
const SOURCES_MAX: usize = 1_000_000;

/// Rows of a ranking that are shown.
const SHOWN_MAX: usize = 15;

/// Columns of a plot over time: more are too narrow for a phone.
const SPANS_MAX: i64 = 96;

/// What a column may stand for, in seconds.
const SPANS: [i64; 12] =
    [60, 300, 900, 3600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000, 31_536_000];

/// What is counted of a time, a source, a network or a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Counts {
    /// Reports that a source exceeded the trigger.
    pub(super) scans: u64,
    /// Sources slowed.
    pub(super) slowed: u64,
    /// Sources that were slowed, and proven then.
    pub(super) proven: u64,
    /// Blocks that began.
    pub(super) blocked: u64,
}

impl Counts {
    /// Adds an event of this kind; `false`: it is of another.
    fn add(&mut self, kind: &str) -> bool {
        let of = match kind {
            "scan" => &mut self.scans,
            "slowed" => &mut self.slowed,
            "proven" => &mut self.proven,
            "blocked" => &mut self.blocked,
            _ => return false,
        };
        *of = of.saturating_add(1);
        true
    }

    /// What rows are ordered by.
    fn weight(&self) -> u64 {
        self.scans.saturating_add(self.slowed).saturating_add(self.blocked)
    }
}

/// A part of the time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Span {
    /// Its beginning.
    pub(super) at: Stamp,
    #[serde(flatten)]
    pub(super) counts: Counts,
}

/// What is known of a source.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SourceRow {
    pub(super) address: Target,
    /// Where it is, by the databases that `geo` of the configuration names; absent: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) geo: Option<Geo>,
    /// Its name: text that its owner chose.
    pub(super) host: Option<String>,
    #[serde(flatten)]
    pub(super) counts: Counts,
    /// Probes of it, as far as an event has their number.
    pub(super) probes: u64,
    /// Its last event.
    pub(super) last: Stamp,
}

/// A port, a kind of scan, a network.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Ranked {
    pub(super) name: String,
    pub(super) scans: u64,
}

/// A country with sources of scans.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct CountryRow {
    /// Its code (ISO 3166-1 alpha-2).
    pub(super) country: String,
    #[serde(flatten)]
    pub(super) of: Origin,
}

/// An autonomous system with sources of scans.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SystemRow {
    pub(super) asn: u32,
    pub(super) as_name: Option<String>,
    #[serde(flatten)]
    pub(super) of: Origin,
}

impl SystemRow {
    /// `AS64496 Example Networks`.
    pub(super) fn name(&self) -> String {
        let name = self.as_name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        format!("AS{}{name}", self.asn)
    }
}

/// What comes from a country or an autonomous system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Origin {
    pub(super) sources: u64,
    pub(super) scans: u64,
}

impl Origin {
    fn add(&mut self, is_new: bool) {
        self.sources += u64::from(is_new);
        self.scans += 1;
    }

    /// What rows are ordered by: the sources, and where these are as many, the scans.
    fn weight(&self) -> u64 {
        (self.sources << 40).saturating_add(self.scans)
    }
}

/// The most frequent of many, and how many others there are.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Ranking<T> {
    pub(super) rows: Vec<T>,
    /// Others that are not among the rows.
    pub(super) others: u64,
    /// There were too many to count each: others may have more than the rows say.
    pub(super) approximate: bool,
}

/// The figures of a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Figures {
    pub(super) since: Stamp,
    pub(super) until: Stamp,
    /// Seconds of each span.
    pub(super) span: i64,
    pub(super) spans: Vec<Span>,
    pub(super) events: u64,
    #[serde(flatten)]
    pub(super) counts: Counts,
    /// Of the blocks, those that an administrator ordered.
    pub(super) ordered: u64,
    /// Sources of scans.
    pub(super) distinct: u64,
    /// There are more than that.
    pub(super) distinct_exceeded: bool,
    pub(super) ports: Ranking<Ranked>,
    pub(super) kinds: Ranking<Ranked>,
    pub(super) networks: Ranking<Ranked>,
    /// Countries of sources; absent: no database is configured, or can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) countries: Option<Ranking<CountryRow>>,
    /// Their autonomous systems; absent as the countries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) autonomous_systems: Option<Ranking<SystemRow>>,
    pub(super) sources: Ranking<SourceRow>,
    /// Events that were not stored in a flood.
    pub(super) not_stored: u64,
    /// Packets that the kernel could not deliver.
    pub(super) lost: u64,
    /// Packets given up in a flood.
    pub(super) shed: u64,
    /// Starts of the daemon.
    pub(super) starts: u64,
}

/// Counts by key, within bounds.
struct Counted<K, V> {
    rows: HashMap<K, V>,
    given_up: u64,
}

impl<K: Hash + Eq, V> Counted<K, V> {
    fn new() -> Self {
        Self { rows: HashMap::new(), given_up: 0 }
    }

    /// The row of a key. Before there are too many, the smaller half is given up.
    fn row(&mut self, key: K, weight: impl Fn(&V) -> u64, new: impl FnOnce() -> V) -> &mut V {
        if self.rows.len() >= COUNTED_MAX && !self.rows.contains_key(&key) {
            let mut weights: Vec<u64> = self.rows.values().map(&weight).collect();
            let middle = weights.len() / 2;
            let (_, median, _) = weights.select_nth_unstable(middle);
            let median = *median;
            // Those of the median itself as well, if there is anything above them: often it is 1.
            self.rows.retain(|_, row| weight(row) > median);
            self.given_up = self.given_up.saturating_add((COUNTED_MAX - self.rows.len()) as u64);
        }
        self.rows.entry(key).or_insert_with(new)
    }

    /// The largest, and among equals the first in the order of `tie`.
    fn ranking<T, O: Ord>(
        self,
        weight: impl Fn(&V) -> u64,
        tie: impl Fn(&K) -> O,
        show: impl Fn(K, V) -> T,
    ) -> Ranking<T> {
        let all = self.rows.len() as u64 + self.given_up;
        let mut rows: Vec<(K, V)> = self.rows.into_iter().collect();
        rows.sort_by_cached_key(|(key, row)| (std::cmp::Reverse(weight(row)), tie(key)));
        rows.truncate(SHOWN_MAX);
        let others = all - rows.len() as u64;
        let rows = rows.into_iter().map(|(key, row)| show(key, row)).collect();
        Ranking { rows, others, approximate: self.given_up > 0 }
    }
}

/// Adds up events.
pub(super) struct Tally {
    since: Timestamp,
    until: Timestamp,
    /// The beginning of the first span, in seconds.
    start: i64,
    span: i64,
    spans: Vec<Counts>,
    events: u64,
    counts: Counts,
    ordered: u64,
    hasher: foldhash::quality::RandomState,
    distinct: HashSet<u64, foldhash::fast::RandomState>,
    distinct_exceeded: bool,
    ports: Counted<String, u64>,
    kinds: Counted<String, u64>,
    networks: Counted<IpNet, u64>,
    geo: Databases,
    countries: Counted<String, Origin>,
    systems: Counted<u32, (Option<String>, Origin)>,
    sources: Counted<Target, SourceRow>,
    not_stored: u64,
    lost: u64,
    shed: u64,
    starts: u64,
}

impl Tally {
    /// For the events of this time. `offset`: seconds of the local time before UTC, so that a span
    /// of a day is one.
    pub(super) fn new(since: Timestamp, until: Timestamp, offset: i64, geo: Databases) -> Self {
        let (first, last) = (since.as_second(), until.as_second().max(since.as_second()));
        let fits = |span: &&i64| (last - first) / **span <= SPANS_MAX;
        let span = SPANS.iter().find(fits).copied().unwrap_or(i64::MAX / 2);
        let start = first - (first + offset).rem_euclid(span);
        let spans = usize::try_from((last - start) / span).unwrap_or(0) + 1;
        Self {
            since,
            until,
            start,
            span,
            spans: vec![Counts::default(); spans],
            events: 0,
            counts: Counts::default(),
            ordered: 0,
            hasher: Default::default(),
            distinct: HashSet::default(),
            distinct_exceeded: false,
            ports: Counted::new(),
            kinds: Counted::new(),
            networks: Counted::new(),
            geo,
            countries: Counted::new(),
            systems: Counted::new(),
            sources: Counted::new(),
            not_stored: 0,
            lost: 0,
            shed: 0,
            starts: 0,
        }
    }

    /// Adds an event.
    pub(super) fn add(&mut self, row: HistoryRow) {
        self.events += 1;
        let number = |key: &str| row.details.get(key).and_then(Value::as_u64).unwrap_or(0);
        match row.kind.as_str() {
            NOT_STORED => self.not_stored += number("events"),
            "lost" => self.lost += number("packets"),
            "shed" => self.shed += number("packets"),
            "starting" => self.starts += 1,
            _ => {}
        }
        if !self.counts.add(&row.kind) {
            return;
        }
        if row.kind == "blocked" && row.protocol == "MANUAL" {
            self.ordered += 1;
        }
        let place = (row.at.0.as_second() - self.start).div_euclid(self.span);
        if let Some(span) = usize::try_from(place).ok().and_then(|place| self.spans.get_mut(place))
        {
            span.add(&row.kind);
        }
        let one = |count: &u64| *count;
        if row.kind == "scan" {
            let scan = row.scan.clone().unwrap_or_else(|| "unknown".to_owned());
            *self.kinds.row(scan, one, || 0) += 1;
            // A port may have been touched by several kinds of probes.
            let ports = row.touched.iter().map(|touched| touched.port.clone());
            let ports: HashSet<String> = ports.chain(row.port_name()).collect();
            for port in ports {
                *self.ports.row(port, one, || 0) += 1;
            }
        }
        let Some(address) = row.address else { return };
        if row.kind == "scan" {
            let hash = self.hasher.hash_one(address);
            let mut is_new = false;
            if self.distinct.len() < SOURCES_MAX {
                is_new = self.distinct.insert(hash);
            } else {
                self.distinct_exceeded |= !self.distinct.contains(&hash);
            }
            self.place(address, is_new);
            *self.networks.row(around(address.network()), one, || 0) += 1;
        }
        let weight = |row: &SourceRow| row.counts.weight();
        let new = || SourceRow {
            address,
            geo: None,
            host: None,
            counts: Counts::default(),
            probes: 0,
            last: row.at,
        };
        let source = self.sources.row(address, weight, new);
        source.counts.add(&row.kind);
        source.probes = source.probes.max(row.probes.unwrap_or(0));
        source.last = source.last.max(row.at);
        if !row.host.is_empty() && row.host != address.to_string() {
            source.host = Some(row.host);
        }
    }

    /// Counts a scan for where its source is.
    fn place(&mut self, address: Target, is_new: bool) {
        let Some(Geo { country, asn, as_name }) = self.geo.find(address) else { return };
        if let Some(country) = country {
            self.countries.row(country, Origin::weight, Origin::default).add(is_new);
        }
        if let Some(asn) = asn {
            let new = || (as_name, Origin::default());
            self.systems.row(asn, |(_, of)| of.weight(), new).1.add(is_new);
        }
    }

    /// The figures of all events.
    pub(super) fn figures(self) -> Figures {
        let at = |place: usize| {
            let second = self.start.saturating_add(self.span.saturating_mul(place as i64));
            Stamp(Timestamp::from_second(second).unwrap_or(self.since))
        };
        let one = |count: &u64| *count;
        let ranked = |name: String, scans| Ranked { name, scans };
        let by_name = |name: &String| name.clone();
        let has_places = !self.geo.is_empty();
        Figures {
            since: Stamp(self.since),
            until: Stamp(self.until),
            span: self.span,
            spans: (self.spans.iter().enumerate())
                .map(|(place, counts)| Span { at: at(place), counts: *counts })
                .collect(),
            events: self.events,
            counts: self.counts,
            ordered: self.ordered,
            distinct: self.distinct.len() as u64,
            distinct_exceeded: self.distinct_exceeded,
            ports: self.ports.ranking(one, |port| port_order(port), ranked),
            kinds: self.kinds.ranking(one, by_name, ranked),
            networks: self.networks.ranking(
                one,
                |network| *network,
                |network, scans| ranked(network.to_string(), scans),
            ),
            countries: has_places.then(|| {
                let show = |country, of| CountryRow { country, of };
                self.countries.ranking(Origin::weight, String::clone, show)
            }),
            autonomous_systems: has_places.then(|| {
                let show = |asn, (as_name, of)| SystemRow { asn, as_name, of };
                self.systems.ranking(|(_, of)| of.weight(), |asn| *asn, show)
            }),
            sources: self.sources.ranking(
                |row| row.counts.weight(),
                |address| address.network(),
                |address, row| SourceRow { geo: self.geo.find(address), ..row },
            ),
            not_stored: self.not_stored,
            lost: self.lost,
            shed: self.shed,
            starts: self.starts,
        }
    }
}

/// Ports by their number, `tcp/9` before `tcp/22`.
fn port_order(port: &str) -> (Option<u16>, String) {
    (port.split_once('/').and_then(|(_, number)| number.parse().ok()), port.to_owned())
}

/// The /24 or /48 around a source; a larger network is its own.
fn around(network: IpNet) -> IpNet {
    let most = if matches!(network, IpNet::V4(_)) { 24 } else { 48 };
    IpNet::new(network.network(), network.prefix_len().min(most))
        .map_or(network, |around| around.trunc())
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::control::protocol::TouchedRow;
    use crate::journal::Record;

    pub(in super::super) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_795_392_000 + second).unwrap()
    }

    /// An event of a source at a second.
    pub(in super::super) fn event(
        kind: &str,
        second: i64,
        address: &str,
        ports: &[&str],
    ) -> HistoryRow {
        let touched = |port: &&str| TouchedRow {
            at: Stamp(at(second)),
            port: (*port).to_owned(),
            scan: "syn".to_owned(),
            weight: "counts".to_owned(),
        };
        HistoryRow {
            address: address.parse().ok(),
            host: address.to_owned(),
            scan: Some("syn".to_owned()),
            touched: ports.iter().map(touched).collect(),
            probes: Some(ports.len() as u64),
            ..HistoryRow::from(Record::new(at(second), kind))
        }
    }

    #[test]
    fn each_event_is_counted_once_in_its_span_and_ranking() {
        let mut tally = Tally::new(at(0), at(7 * 86_400), 0, Databases::default());
        for second in [10, 20, 11_000] {
            tally.add(event("scan", second, "192.0.2.7", &["tcp/22", "tcp/9", "tcp/22"]));
        }
        tally.add(event("scan", 30, "192.0.2.8", &["tcp/9"]));
        tally.add(event("slowed", 31, "192.0.2.8", &["tcp/9"]));
        tally.add(event("blocked", 32, "2001:db8:1:2::3", &[]));
        tally.add(event("renewed", 33, "192.0.2.8", &[]));
        let mut flood = event("not-stored", 40, "-", &[]);
        flood.details.insert("events".to_owned(), 700.into());
        tally.add(flood);
        let figures = tally.figures();
        assert_eq!(figures.counts, Counts { scans: 4, slowed: 1, proven: 0, blocked: 1 });
        assert_eq!((figures.events, figures.distinct, figures.not_stored), (8, 2, 700));
        assert_eq!((figures.span, figures.spans.len()), (10_800, 57));
        let scans: Vec<u64> = figures.spans.iter().take(2).map(|span| span.counts.scans).collect();
        assert_eq!(scans, [3, 1]);
        let ports: Vec<_> = figures.ports.rows.iter().map(|row| (&*row.name, row.scans)).collect();
        assert_eq!(ports, [("tcp/9", 4), ("tcp/22", 3)]);
        assert_eq!(figures.networks.rows[0].name, "192.0.2.0/24");
        assert_eq!(figures.networks.rows.len(), 1, "of scans only");
        let sources: Vec<_> =
            figures.sources.rows.iter().map(|row| row.address.to_string()).collect();
        assert_eq!(sources, ["192.0.2.7", "192.0.2.8", "2001:db8:1:2::3"]);
        assert_eq!(figures.sources.rows[0].last, Stamp(at(11_000)));
    }

    #[test]
    fn spans_are_those_of_the_local_clock_and_never_too_many() {
        for (seconds, span, spans) in [
            (60, 60, 2),
            (3600, 60, 61),
            (86_400, 900, 97),
            (30 * 86_400, 43_200, 61),
            (90 * 86_400, 86_400, 91),
            (0, 60, 1),
        ] {
            let figures = Tally::new(at(0), at(seconds), 0, Databases::default()).figures();
            assert_eq!((figures.span, figures.spans.len()), (span, spans), "{seconds}");
        }
        // 2026-11-23T00:00:00Z is 05:30 in India: its day began at half past six the evening before.
        let figures = Tally::new(at(0), at(90 * 86_400), 19_800, Databases::default()).figures();
        assert_eq!(figures.spans[0].at, Stamp(at(-19_800)));
        // A clock that was set back has events outside the time.
        let mut tally = Tally::new(at(0), at(60), 0, Databases::default());
        tally.add(event("scan", -1_000_000, "192.0.2.7", &[]));
        tally.add(event("scan", 1_000_000, "192.0.2.7", &[]));
        assert_eq!(tally.figures().counts.scans, 2);
    }

    #[test]
    fn a_flood_of_sources_hides_no_heavy_one_and_takes_no_more_memory() {
        let mut tally = Tally::new(at(0), at(86_400), 0, Databases::default());
        for n in 0..60_000_u32 {
            tally.add(event("scan", 1, &Ipv4Addr::from(0x0a00_0000 + n * 256).to_string(), &[]));
            if n % 100 == 0 {
                tally.add(event("scan", 1, "192.0.2.7", &["tcp/22"]));
            }
        }
        assert!(tally.sources.rows.len() <= COUNTED_MAX);
        assert!(tally.networks.rows.len() <= COUNTED_MAX);
        let figures = tally.figures();
        assert_eq!((figures.distinct, figures.distinct_exceeded), (60_001, false));
        let first = &figures.sources.rows[0];
        assert_eq!((first.address.to_string(), first.counts.scans), ("192.0.2.7".into(), 600));
        assert!(figures.sources.approximate && figures.networks.approximate);
        assert!(!figures.ports.approximate);
        assert_eq!(figures.sources.others + figures.sources.rows.len() as u64, 60_001);
    }
}
