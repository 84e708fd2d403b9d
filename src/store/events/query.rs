//! What a search selects, as SQL.

use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::types::Value;

use crate::journal::Record;
use crate::journal::record::{Effect, NOT_STORED};

/// A selection of events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Query {
    /// Oldest time.
    pub since: Option<Timestamp>,
    /// Latest time.
    pub until: Option<Timestamp>,
    /// About this address or network, a part of it, or a network that contains it.
    pub source: Option<IpNet>,
    /// Of this port, `tcp/22`: the one that caused the event, or one that its source had touched.
    pub port: Option<String>,
    /// Of these kinds; empty: all.
    pub kinds: Vec<String>,
    /// With this effect.
    pub effect: Option<Effect>,
    /// Of this kind of scan.
    pub scan: Option<String>,
    /// Also those that are about no source.
    pub all: bool,
}

/// Where a search goes on: after the event with this time and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub(super) at: i64,
    pub(super) id: i64,
}

/// Some of the events that a search finds, the oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The events; there may be none though others follow.
    pub records: Vec<Record>,
    /// Where to go on; `None`: these were the last.
    pub next: Option<Place>,
}

impl Query {
    /// The conditions, and the values of their `?`.
    pub(super) fn conditions(&self) -> (String, Vec<Value>) {
        let (mut conditions, mut values) = (Vec::new(), Vec::new());
        let mut add = |condition: String, of: Vec<Value>| {
            conditions.push(condition);
            values.extend(of);
        };
        if let Some(since) = self.since {
            add("at >= ?".to_owned(), vec![since.as_millisecond().into()]);
        }
        if let Some(until) = self.until {
            add("at <= ?".to_owned(), vec![until.as_millisecond().into()]);
        }
        if let Some(source) = self.source {
            let (first, last) = ends(source);
            let condition = "(length(first) = length(?) AND first <= ? AND last >= ?)";
            let values = vec![first.clone().into(), last.into(), first.into()];
            add(or_gap(condition, self.kinds.is_empty()), values);
        }
        if let Some(port) = &self.port {
            let condition = "(port = ? OR instr(',' || touched, ?) > 0)";
            let values = vec![port.clone().into(), format!(",{port} ").into()];
            add(or_gap(condition, self.kinds.is_empty()), values);
        }
        if let Some(effect) = self.effect {
            add(or_gap("effect = ?", self.kinds.is_empty()), vec![effect.word().to_owned().into()]);
        }
        if let Some(scan) = &self.scan {
            add(or_gap("scan = ?", self.kinds.is_empty()), vec![scan.clone().into()]);
        }
        if !self.kinds.is_empty() {
            let places = vec!["?"; self.kinds.len()].join(", ");
            let kinds = self.kinds.iter().map(|kind| kind.clone().into()).collect();
            add(format!("kind IN ({places})"), kinds);
        } else if !self.all {
            add(or_gap("first IS NOT NULL", true), Vec::new());
        }
        if conditions.is_empty() {
            conditions.push("TRUE".to_owned());
        }
        (conditions.join(" AND "), values)
    }
}

/// The condition, or that events were not stored: any of them may be one that is sought.
fn or_gap(condition: &str, with_gaps: bool) -> String {
    if with_gaps { format!("({condition} OR kind = '{NOT_STORED}')") } else { condition.to_owned() }
}

/// The first and the last address of a network, in network byte order.
pub(super) fn ends(network: IpNet) -> (Vec<u8>, Vec<u8>) {
    let bytes = |address| match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    (bytes(network.network()), bytes(network.broadcast()))
}
