//! What is never blocked, and why.

use std::io::{self, Write};

use super::show::Zone;
use super::table::{Align, Table};
use crate::control::{AllowRow, AllowedName, Stamp};
use crate::journal::format::printable;

/// Prints the table of what is never blocked.
pub(super) fn list(out: &mut dyn Write, rows: &[AllowRow], zone: &Zone) -> io::Result<()> {
    let columns =
        ["ADDRESS", "BECAUSE OF", "NAME OR FILE", "LAST SEEN"].map(|name| (name, Align::Left));
    let mut table = Table::new(columns, "Everything may be blocked.");
    for row in rows {
        let of = row.name.as_ref().or(row.file.as_ref());
        let of = of.map_or_else(|| "-".to_owned(), |of| printable(of).to_string());
        let seen = zone.stamp(row.last_seen.or(row.resolved));
        table.row(out, [row.address.to_string(), row.origin.clone(), of, seen])?;
    }
    table.end(out)
}

/// Prints what is never blocked and has no address: interfaces, and names that were never resolved.
pub(super) fn others(
    out: &mut dyn Write,
    names: &[AllowedName],
    interfaces: &[String],
) -> io::Result<()> {
    for name in names.iter().filter(|name| name.addresses.is_empty()) {
        let why = name.error.as_deref().map_or_else(String::new, |why| format!(": {why}"));
        let line = format!("{} has never been resolved, and exempts no host{why}", name.name);
        writeln!(out, "{}", printable(&line))?;
    }
    for name in interfaces {
        writeln!(out, "Over {} nothing is slowed or blocked (allow).", printable(name))?;
    }
    Ok(())
}

/// Why an entry is on the never-block list, and what takes it off.
pub(super) fn because(row: &AllowRow, zone: &Zone) -> String {
    let text = match row.origin.as_str() {
        "allow" => return under_allow(row, zone),
        "ignore_file" => "the ignore file has it",
        "portsentryctl" => "it was allowed by hand; \"portsentryctl allow remove\" ends that",
        "own_addresses" => {
            "it is an address of this host; never_block: { own_addresses: false } ends that"
        }
        "gateways" => {
            "a route of this host leads through it; never_block: { gateways: false } ends that"
        }
        "resolvers" => "this host asks it for names; never_block: { resolvers: false } ends that",
        "ssh_peers" => {
            "an administrator is connected from it; never_block: { ssh_peers: false } ends that"
        }
        "admins" => {
            "an administrator was connected from it; \"portsentryctl allow remove\" forgets that"
        }
        "link_local" => {
            "routers and neighbours reach this host by link-local addresses, so no setting ends that; packets from the other addresses of a neighbour count"
        }
        _ => "the daemon says so",
    };
    text.to_owned()
}

/// Which entry of `allow` it is.
fn under_allow(row: &AllowRow, zone: &Zone) -> String {
    match (&row.name, row.resolved, &row.file) {
        (Some(name), Some(Stamp(at)), _) => format!(
            "the name {} under allow has this address; it was resolved last {}",
            printable(name),
            zone.time(at)
        ),
        (Some(name), None, _) => {
            format!("the name {} under allow had this address", printable(name))
        }
        (None, _, Some(file)) => format!("the file {} under allow has it", printable(file)),
        (None, ..) => "the configuration has it under allow".to_owned(),
    }
}
