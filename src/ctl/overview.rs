//! The daemon's status, for people.

use std::io::{self, Write};
use std::time::Duration;

use super::health::is_protecting;
use super::screen::{Colour, Screen};
use super::show::{Zone, cause, count, pair, shortened};
use crate::control::protocol::{
    AllowedName, Cause, Reflex, Responses, Rights, Stamp, Status, Tracked,
};
use crate::journal::format::{duration, printable};

/// Prints the daemon's status.
pub(super) fn status(out: &mut dyn Write, status: &Status, zone: &Zone) -> io::Result<()> {
    let mode = match (status.detection.as_str(), status.mode.as_str()) {
        ("off", _) => "is off, and watches nothing",
        ("paused", _) => "is paused, and watches nothing",
        (_, "enforce") => "blocks scans",
        (_, "observe") => "observes, and blocks nothing",
        (_, other) => other,
    };
    let screen = Screen::current();
    let colour = if is_protecting(status) { Colour::Green } else { Colour::Red };
    writeln!(
        out,
        "PortSentry {} {}, up {} (process {}).",
        printable(&status.version),
        screen.paint(colour, &printable(mode)),
        duration(Duration::from_secs(status.uptime)),
        status.pid
    )?;
    let mut pair = |name: &str, value: String| pair(out, name, &value);
    pair("config", status.config.clone().unwrap_or_else(|| "built-in defaults".to_owned()))?;
    let until = |at: Option<Stamp>| {
        at.map(|Stamp(at)| format!(" until {}", zone.time(at))).unwrap_or_default()
    };
    let mut mode = status.mode.clone();
    if status.confirm_by.is_some() {
        mode.push_str(&format!("{}, unless confirmed", until(status.confirm_by)));
    } else if status.mode != status.configured_mode && !status.configured_mode.is_empty() {
        mode.push_str(&format!(" (the configuration has {})", status.configured_mode));
    }
    pair("mode", mode)?;
    if status.detection != "on" && !status.detection.is_empty() {
        pair("detection", format!("{}{}", status.detection, until(status.on_at)))?;
    }
    match status.queues {
        None => pair("capture", format!("{}, group {}", status.capture, status.group))?,
        Some(queues) => {
            let next = u32::from(status.group) + 1;
            pair("capture", format!("{}, queues {} and {next}", status.capture, status.group))?;
            let waiting = |now, most, what| format!("{now} of {most} {what}");
            let probes = waiting(queues.probes, queues.probes_length, "probes");
            let connections = waiting(queues.connections, queues.connections_length, "connections");
            let suspects = format!("{} let pass, {} dropped", queues.passed, queues.stopped);
            pair("waiting", format!("{probes}, {connections}; of suspects {suspects}"))?;
        }
    }
    if status.watching.is_empty() {
        pair("watching", "nothing".to_owned())?;
    }
    for (position, watching) in status.watching.iter().enumerate() {
        let name = if position == 0 { "watching" } else { "" };
        let ports = count(watching.ports.into(), "port");
        let ranges = shortened(&watching.ranges);
        pair(name, format!("{} {}, {ports}: {ranges}", watching.transport, watching.mode))?;
    }
    let causes = status.causes.map_or_else(Vec::new, |causes| {
        vec![
            (causes.proven, Cause::Proven),
            (causes.unproven, Cause::Unproven),
            (causes.order, Cause::Order),
            (causes.foreign, Cause::Foreign),
        ]
    });
    let causes: Vec<String> = causes
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, of)| format!("{count} {}", cause(of)))
        .collect();
    let of = if causes.is_empty() { String::new() } else { format!(": {}", causes.join(", ")) };
    pair("blocked", format!("{}{of}", status.blocked))?;
    pair("slowed", status.slowed.to_string())?;
    let admins = count(status.admins, "administrator");
    pair("never block", format!("{} addresses and networks, {admins} remembered", status.allowed))?;
    for name in &status.allowed_names {
        pair("", allowed_name(name, zone))?;
    }
    for name in &status.allowed_interfaces {
        pair("", format!("whatever arrives over {}", printable(name)))?;
    }
    if let Some(Tracked { connections, most }) = status.tracked {
        pair("tracked", format!("{connections} of {most} connections"))?;
    }
    pair("sources", status.sources.to_string())?;
    pair("probes", status.probes.to_string())?;
    pair("lost", count(status.lost, "packet"))?;
    if status.shed > 0 {
        pair("shed", format!("{} of unknown sources, in a flood", count(status.shed, "packet")))?;
    }
    let responses = status.responses;
    if responses != Responses::default() {
        let Responses { failed, dropped, .. } = responses;
        let commands = count(responses.commands, "command");
        pair("responses", format!("{commands} run, {failed} of them failed, {dropped} dropped"))?;
    }
    for (position, rights) in status.confinement.iter().enumerate() {
        let Rights { of, user, capabilities, filters, no_new_privs, landlock } = rights;
        let of = if of == "packets" { "packet thread" } else { of };
        let capabilities = if capabilities.is_empty() {
            "no capability".to_owned()
        } else {
            capabilities.join(" ")
        };
        let filters = count(u64::from(*filters), "filter");
        let gains = if *no_new_privs { "" } else { ", not confined" };
        let landlock = landlock.map_or_else(String::new, |version| format!(", Landlock {version}"));
        let text = format!(
            "{of}: user {user}, {capabilities}, {filters} of system calls{landlock}{gains}"
        );
        pair(if position == 0 { "rights" } else { "" }, text)?;
    }
    for (position, of) in status.notifications.iter().enumerate() {
        let name = if position == 0 { "notify" } else { "" };
        let error = of.error.as_ref().map_or_else(String::new, |error| {
            format!("; the last attempt failed: {}", printable(error))
        });
        let (sent, failed) = (count(of.sent, "message"), count(of.failed, "attempt"));
        let (waiting, dropped) = (of.waiting, count(of.dropped, "event"));
        let text = format!(
            "{}: {sent} sent, {failed} failed, {waiting} waiting, {dropped} dropped{error}",
            of.channel
        );
        pair(name, text)?;
    }
    pair("held back", count(status.held_back, "log line"))?;
    pair("reflex", reflex(status.reflex.as_ref()))?;
    if status.watching.iter().any(|watching| watching.mode == "connect") {
        let decoy = status.decoy;
        let (connections, banners) =
            (count(decoy.connections, "connection"), count(decoy.banners, "banner"));
        let (refused, half_open) = (decoy.refused, decoy.half_open);
        pair(
            "decoys",
            format!("{connections}, {refused} refused, {half_open} half-open, {banners}"),
        )?;
    }
    let store = &status.store;
    if !store.state.is_empty() {
        let age = store.age.map_or_else(String::new, |age| {
            format!(", written {} ago", duration(Duration::from_secs(age)))
        });
        let blocks = count(store.blocks, "block");
        let offenders = count(store.offenders, "offender");
        let sources = count(store.sources, "source");
        pair("stored", format!("{}: {blocks}, {offenders}, {sources}{age}", store.state))?;
    }
    let repairs = &status.repairs;
    if repairs.count > 0 {
        let program = printable(repairs.program.as_deref().unwrap_or("an unknown program"));
        let process =
            repairs.process.map_or_else(String::new, |process| format!(" (process {process})"));
        pair("repairs", format!("{}, the last one after {program}{process}", repairs.count))?;
    }
    for warning in &status.warnings {
        let line = format!("Warning: {}", printable(warning));
        writeln!(out, "{}", screen.paint(Colour::Yellow, &line))?;
    }
    Ok(())
}

/// A DNS name of the allow list.
fn allowed_name(name: &AllowedName, zone: &Zone) -> String {
    let addresses: Vec<_> = name.addresses.iter().map(ToString::to_string).collect();
    let state = match name.resolved {
        None => "never resolved".to_owned(),
        Some(Stamp(at)) => {
            format!("{}; resolved {}", addresses.join(", "), zone.time(at))
        }
    };
    let error = name.error.as_ref().map_or_else(String::new, |error| format!("; now: {error}"));
    printable(&format!("{}: {state}{error}", name.name)).to_string()
}

/// The reflex's counts.
fn reflex(reflex: Option<&Reflex>) -> String {
    let Some(reflex) = reflex else { return "off".to_owned() };
    let mut text = format!(
        "{}, {} released, {} dropped",
        count(reflex.holds + reflex.untold_holds, "hold"),
        reflex.released,
        count(reflex.dropped, "packet")
    );
    if reflex.untold_holds + reflex.untold > 0 {
        text.push_str(&format!(
            ", {} counted and not told",
            count(reflex.untold_holds + reflex.untold, "probe")
        ));
    }
    text
}
