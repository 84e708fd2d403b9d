//! `list`: which rows are shown, and in which order.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::args::{List, Sort};
use crate::control::protocol::{BlockRow, Cause, Stamp, State};

impl List {
    /// Whether a row is to be shown.
    pub(super) fn selects(&self, row: &BlockRow) -> bool {
        let network = row.address.network();
        (!self.proven || row.cause == Cause::Proven)
            && (!self.slowed || row.state == State::Slowed)
            && self.since.is_none_or(|since| row.since.is_some_and(|Stamp(at)| at >= since))
            && self.net.is_none_or(|net| {
                let net = net.network();
                net.contains(&network) || network.contains(&net)
            })
    }

    /// Puts rows, which came in the order of addresses, into the wanted order, and cuts them off.
    pub(super) fn arrange(&self, rows: &mut Vec<BlockRow>) {
        match self.sort {
            None | Some(Sort::Address) => {}
            Some(Sort::Packets) => rows.sort_by_key(|row| Reverse(row.packets)),
            Some(Sort::Since) => rows.sort_by_key(|row| Reverse(row.since.map(|Stamp(at)| at))),
            Some(Sort::Until) => {
                let never = Timestamp::MAX;
                rows.sort_by_key(|row| row.until.map_or(never, |Stamp(at)| at));
            }
        }
        rows.truncate(self.limit.unwrap_or(usize::MAX));
    }

    /// Whether rows can be shown as they come.
    pub(super) fn is_in_order(&self) -> bool {
        matches!(self.sort, None | Some(Sort::Address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::Target;

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
        let shown = |options: List| {
            let mut rows: Vec<BlockRow> =
                rows.iter().filter(|row| options.selects(row)).cloned().collect();
            options.arrange(&mut rows);
            rows.iter().map(|row| row.address.to_string()).collect::<Vec<_>>().join(" ")
        };
        let list = List::default;
        let cases: [(&str, List, &str); 10] = [
            ("all", list(), "10.0.0.1 10.9.0.0/16 192.0.2.1 2001:db8::1"),
            ("proven", List { proven: true, ..list() }, "10.0.0.1 2001:db8::1"),
            ("slowed", List { slowed: true, ..list() }, "192.0.2.1"),
            (
                "since",
                List { since: Timestamp::from_second(200).ok(), ..list() },
                "10.0.0.1 192.0.2.1",
            ),
            ("network", List { net: "10.0.0.0/8".parse().ok(), ..list() }, "10.0.0.1 10.9.0.0/16"),
            ("around", List { net: "10.9.8.7".parse().ok(), ..list() }, "10.9.0.0/16"),
            (
                "packets",
                List { sort: Some(Sort::Packets), limit: Some(2), ..list() },
                "192.0.2.1 10.0.0.1",
            ),
            (
                "newest",
                List { sort: Some(Sort::Since), ..list() },
                "10.0.0.1 192.0.2.1 10.9.0.0/16 2001:db8::1",
            ),
            (
                "soonest end, never last",
                List { sort: Some(Sort::Until), ..list() },
                "2001:db8::1 192.0.2.1 10.0.0.1 10.9.0.0/16",
            ),
            ("limit", List { limit: Some(1), ..list() }, "10.0.0.1"),
        ];
        for (name, options, wanted) in cases {
            assert_eq!(shown(options), wanted, "{name}");
        }
    }
}
