//! Which rows of the list a client wants, and in which order.

use std::cmp::Reverse;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::reply::{BlockRow, Cause, State};
use super::stamp::Stamp;
use super::target::Target;
use crate::engine::ListName;

/// What a [`Request::List`](super::Request::List) selects; without a key, everything, in the order of
/// addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// Only sources of scans whose address is proven.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub proven: bool,
    /// Only slowed sources.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub slowed: bool,
    /// Only what began since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Stamp>,
    /// Only in this network, or around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<Target>,
    /// Only what is on this list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<ListName>,
    /// The order.
    pub sort: Order,
    /// The first so many only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// What rows are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The address.
    #[default]
    Address,
    /// Dropped packets, the most first.
    Packets,
    /// The beginning, the newest first.
    Since,
    /// The end, the next first.
    Until,
}

impl Selection {
    /// Whether the order depends on the dropped packets of each row.
    pub fn counts_packets(&self) -> bool {
        self.sort == Order::Packets
    }

    /// Whether a row is selected.
    pub fn selects(&self, row: &BlockRow) -> bool {
        (!self.proven || row.cause == Cause::Proven)
            && (!self.slowed || row.state == State::Slowed)
            && self.list.as_ref().is_none_or(|list| row.list.as_deref() == Some(list.as_str()))
            && self.since.is_none_or(|since| row.since.is_some_and(|at| at >= since))
            && self.selects_address(row.address)
    }

    /// Whether a row of this address may be selected.
    pub fn selects_address(&self, address: Target) -> bool {
        let network = address.network();
        self.net.is_none_or(|net| {
            let net = net.network();
            net.contains(&network) || network.contains(&net)
        })
    }

    /// The selected ones of rows that come in the order of addresses, in the wanted order.
    pub fn apply(
        self,
        rows: impl Iterator<Item = BlockRow> + Send + 'static,
    ) -> Box<dyn Iterator<Item = BlockRow> + Send> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let sort = self.sort;
        let rows = rows.filter(move |row| self.selects(row));
        if sort == Order::Address {
            return Box::new(rows.take(limit));
        }
        let mut rows: Vec<BlockRow> = rows.collect();
        match sort {
            Order::Address => {}
            Order::Packets => rows.sort_by_key(|row| Reverse(row.packets)),
            Order::Since => rows.sort_by_key(|row| Reverse(row.since)),
            Order::Until => {
                rows.sort_by_key(|row| row.until.map_or(Timestamp::MAX, |Stamp(at)| at));
            }
        }
        rows.truncate(limit);
        Box::new(rows.into_iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(address: &str, cause: Cause, state: State, since: i64, packets: u64) -> BlockRow {
        BlockRow {
            address: address.parse::<Target>().unwrap(),
            state,
            cause,
            reason: String::new(),
            scan: None,
            proven: cause == Cause::Proven,
            since: Some(Stamp(Timestamp::from_second(since).unwrap())),
            until: (packets > 0).then(|| Stamp(Timestamp::from_second(since + 60).unwrap())),
            expires_in: None,
            packets: Some(packets),
            passed: None,
            renewals: 0,
            exempt: Vec::new(),
            campaign: None,
            list: (packets == 0).then(|| "scanners".to_owned()),
        }
    }

    #[test]
    fn rows_are_selected_sorted_and_cut_off() {
        let rows = [
            row("10.0.0.1", Cause::Proven, State::Blocked, 300, 7),
            row("10.9.0.0/16", Cause::Order, State::Blocked, 100, 0),
            row("192.0.2.1", Cause::Unproven, State::Slowed, 200, 9),
            row("2001:db8::1", Cause::Proven, State::Blocked, 50, 1),
        ];
        let shown = |selection: Selection| {
            let rows = selection.apply(rows.clone().into_iter());
            rows.map(|row| row.address.to_string()).collect::<Vec<_>>().join(" ")
        };
        let list = Selection::default;
        let cases: [(&str, Selection, &str); 12] = [
            ("all", list(), "10.0.0.1 10.9.0.0/16 192.0.2.1 2001:db8::1"),
            ("proven", Selection { proven: true, ..list() }, "10.0.0.1 2001:db8::1"),
            ("slowed", Selection { slowed: true, ..list() }, "192.0.2.1"),
            (
                "since",
                Selection { since: Timestamp::from_second(200).ok().map(Stamp), ..list() },
                "10.0.0.1 192.0.2.1",
            ),
            (
                "network",
                Selection { net: "10.0.0.0/8".parse().ok(), ..list() },
                "10.0.0.1 10.9.0.0/16",
            ),
            ("around", Selection { net: "10.9.8.7".parse().ok(), ..list() }, "10.9.0.0/16"),
            (
                "packets",
                Selection { sort: Order::Packets, limit: Some(2), ..list() },
                "192.0.2.1 10.0.0.1",
            ),
            (
                "newest",
                Selection { sort: Order::Since, ..list() },
                "10.0.0.1 192.0.2.1 10.9.0.0/16 2001:db8::1",
            ),
            (
                "soonest end, never last",
                Selection { sort: Order::Until, ..list() },
                "2001:db8::1 192.0.2.1 10.0.0.1 10.9.0.0/16",
            ),
            ("list", Selection { list: "scanners".parse().ok(), ..list() }, "10.9.0.0/16"),
            ("another list", Selection { list: "scanner".parse().ok(), ..list() }, ""),
            ("limit", Selection { limit: Some(1), ..list() }, "10.0.0.1"),
        ];
        for (name, options, wanted) in cases {
            assert_eq!(shown(options), wanted, "{name}");
        }
    }
}
