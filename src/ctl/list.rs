//! `list`: the daemon selects and sorts the rows, so that only those that are shown are sent;
//! countries and autonomous systems it does not know.

use super::args::{List, Sort};
use crate::control::protocol::{Order, Request, Selection, Stamp};

impl List {
    /// What to ask the daemon for.
    pub(super) fn request(&self) -> Request {
        let sort = match self.sort {
            None | Some(Sort::Address) => Order::Address,
            Some(Sort::Packets) => Order::Packets,
            Some(Sort::Since) => Order::Since,
            Some(Sort::Until) => Order::Until,
        };
        Request::List(Box::new(Selection {
            proven: self.proven,
            slowed: self.slowed,
            since: self.since.map(Stamp),
            net: self.net,
            list: self.list.clone(),
            sort,
            limit: self.limit.filter(|_| self.country.is_empty() && self.asn.is_empty()),
        }))
    }
}
