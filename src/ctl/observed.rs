//! Output of what observe mode would have slowed or blocked.

use std::io::{self, Write};

use super::geo::{self, Located};
use super::show::{Zone, count, state};
use super::table::{Align, Table};
use crate::control::protocol::{Observed, WouldBeRow};
use crate::journal::format::printable;

/// Prints the table of `list --would-be`.
pub(super) fn list(
    out: &mut dyn Write,
    sources: &[Located<&WouldBeRow>],
    places: bool,
    zone: &Zone,
) -> io::Result<()> {
    let columns = [
        ("ADDRESS", Align::Left),
        ("WOULD BE", Align::Left),
        ("SCAN", Align::Left),
        ("PROBES", Align::Right),
        ("SINCE", Align::Left),
        ("LAST SEEN", Align::Left),
        ("COUNTRY", Align::Left),
        ("AS", Align::Left),
        ("REASON", Align::Left),
    ];
    let table = Table::new(columns, "Nothing would have been blocked or slowed.");
    let mut table = table.spare(&[6, 7], !places);
    for Located { row, geo } in sources {
        let [country, system] = geo::cells(geo.as_ref());
        let cells = [
            row.address.to_string(),
            state(row.would_be).to_owned(),
            row.scan.clone().unwrap_or_else(|| "-".to_owned()),
            row.probes.to_string(),
            zone.stamp(Some(row.since)),
            zone.stamp(Some(row.last_seen)),
            country,
            system,
            row.reason.clone(),
        ];
        table.row(out, cells)?;
    }
    table.end(out)
}

/// Prints `observe report`: what an administrator has to know before scans are blocked.
pub(super) fn report(out: &mut dyn Write, observed: &Observed, zone: &Zone) -> io::Result<()> {
    let Observed { mode, since, slowed, blocked, forgotten, sources } = observed;
    if mode != "observe" && sources.is_empty() {
        return writeln!(out, "Nothing was observed; the mode is {}.", printable(mode));
    }
    writeln!(
        out,
        "Observed since {} (mode now: {}): {} would have been slowed, {} blocked.",
        zone.stamp(Some(*since)),
        printable(mode),
        count(*slowed, "source"),
        blocked
    )?;
    if *slowed > 0 {
        writeln!(out, "A slowed source is blocked as soon as its address is proven.")?;
    }
    if *forgotten > 0 {
        writeln!(
            out,
            "{} with few probes more are not listed: there was no room.",
            count(*forgotten, "source")
        )?;
    }
    if !sources.is_empty() {
        writeln!(out)?;
        let rows: Vec<_> = sources.iter().map(|row| Located { row, geo: None }).collect();
        list(out, &rows, false, zone)?;
    }
    let familiar: Vec<&WouldBeRow> = sources.iter().filter(|row| row.is_familiar()).collect();
    if !familiar.is_empty() {
        writeln!(out, "\nLook at these before scans are blocked:")?;
    }
    for row in &familiar {
        writeln!(out, "  {}: {}", row.address, printable(&familiarity(row)))?;
        if row.allowed.is_none() {
            writeln!(
                out,
                "    if it may do that: portsentryctl allow add {}, or allow in the configuration",
                row.address
            )?;
        }
    }
    if mode == "observe" {
        writeln!(
            out,
            "\nTo block scans, and to observe again by itself unless you confirm it:\n  portsentryctl enforce --confirm 5m"
        )?;
    }
    Ok(())
}

/// What speaks for a source.
fn familiarity(row: &WouldBeRow) -> String {
    let network = row.network.map(|network| format!("in this host's network {network}"));
    let services = (!row.services.is_empty())
        .then(|| format!("has a connection to {} now", row.services.join(", ")));
    let allowed = row
        .allowed
        .as_ref()
        .map(|allowed| format!("never blocked from now on ({})", allowed.origin));
    let all: Vec<String> = network.into_iter().chain(services).chain(allowed).collect();
    all.join("; ")
}
