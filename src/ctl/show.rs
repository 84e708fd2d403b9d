//! Output for people: local times, durations in two units, every cell escaped.

use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::allowed::because;
use super::geo::{self, Geo, Located};
use super::table::{Align, Table};
use crate::control::protocol::{
    AllowRow, BlockRow, Cause, HistoryRow, ListRow, Outcome, PortName, PortUse, Proof, Shown,
    Stamp, Standing, State, Target, Tested, TestedPort,
};
use crate::journal::format::{duration, offset, printable};
use crate::journal::record::UNKNOWN_END;
use crate::probe::Transport;

/// Time zone of the output.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Zone {
    /// The time zone of `TZ`, or the system's; UTC where there is none.
    ///
    /// # Errors
    /// What to tell where `TZ` names a zone that is not known.
    pub fn system() -> Result<Self, String> {
        match (TimeZone::try_system(), std::env::var("TZ")) {
            (Ok(zone), _) => Ok(Self(zone)),
            (Err(_), Ok(name)) if !name.is_empty() => Err(format!(
                "there is no time zone TZ={name}: times are in UTC; name one below /usr/share/zoneinfo, or install tzdata"
            )),
            (Err(_), _) => Ok(Self::utc()),
        }
    }

    /// UTC.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    pub(super) fn time(&self, at: Timestamp) -> String {
        let local = at.to_zoned_datetime(self.0.clone());
        let (date, time) = (local.date(), local.time());
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        // A format that is read for each of a million rows takes several times as long.
        format!("{date} {hour:02}:{minute:02}:{second:02}{}", offset(&local))
    }

    /// A time in a form of strftime(3).
    pub(super) fn form(&self, at: Timestamp, form: &str) -> String {
        at.to_zoned_datetime(self.0.clone()).strftime(form).to_string()
    }

    /// Seconds of the local time before UTC.
    pub(super) fn offset(&self, at: Timestamp) -> i64 {
        self.0.to_offset(at).seconds().into()
    }

    pub(super) fn stamp(&self, at: Option<Stamp>) -> String {
        at.map_or_else(|| "-".to_owned(), |Stamp(at)| self.time(at))
    }
}

/// A name and its value on a line.
pub(super) fn pair(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "  {name:<12} {}", printable(value))
}

/// A number with its noun: `1 port`, `2 ports`.
pub(super) fn count(n: u64, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// A list of port ranges may be very long; `--json` has all of it.
pub(super) fn shortened(ranges: &str) -> String {
    const WIDTH: usize = 80;
    match ranges.char_indices().nth(WIDTH) {
        None => ranges.to_owned(),
        Some((at, _)) => {
            let head = ranges.get(..at).unwrap_or_default();
            format!("{}, ...", head.rsplit_once(", ").map_or(head, |(head, _)| head))
        }
    }
}

/// The table of blocks; `places`: with where each is.
pub(super) fn blocks(places: bool) -> Table<11> {
    let columns = [
        ("ADDRESS", Align::Left),
        ("STATE", Align::Left),
        ("SCAN", Align::Left),
        ("CAUSE", Align::Left),
        ("ENDS IN", Align::Right),
        ("DROPPED", Align::Right),
        ("PASSED", Align::Right),
        ("SINCE", Align::Left),
        ("COUNTRY", Align::Left),
        ("AS", Align::Left),
        ("REASON", Align::Left),
    ];
    Table::new(columns, "Nothing is blocked or slowed.").spare(&[8, 9], !places)
}

/// A row of the table of blocks.
pub(super) fn block(Located { row, geo }: Located<BlockRow>, zone: &Zone) -> [String; 11] {
    let [country, system] = geo::cells(geo.as_ref());
    [
        address(&row),
        state(row.state).to_owned(),
        row.scan.unwrap_or_else(|| "-".to_owned()),
        cause(row.cause).to_owned(),
        if row.state == State::Reported { "-".to_owned() } else { ends_in(row.expires_in) },
        number(row.packets),
        number(row.passed),
        zone.stamp(row.since),
        country,
        system,
        row.reason,
    ]
}

pub(super) fn number(packets: Option<u64>) -> String {
    packets.map_or_else(|| "-".to_owned(), |packets| packets.to_string())
}

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Blocked => "blocked",
        State::Slowed => "slowed",
        State::Reported => "reported",
    }
}

pub(super) fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Foreign => "foreign",
        Cause::Unproven => "unproven",
        Cause::Proven => "proven",
        Cause::Order => "by order",
        Cause::Campaign => "campaign",
    }
}

/// How far a slowed source is from being proven.
fn proof(proof: Proof) -> String {
    let Proof { bits, needed, silent, answered, blind } = proof;
    let (silents, answereds) = (count(silent, "silent port"), count(answered, "answered one"));
    let ports = format!("its retransmissions went to {silents} and {answereds}");
    if blind {
        format!("none: {ports}, so it does not see our answers")
    } else {
        format!("{} of {needed} bits; {ports}", bits.max(0))
    }
}

pub(super) fn ends_in(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), |seconds| duration(Duration::from_secs(seconds)))
}

/// The blocked address with its exemptions.
fn address(row: &BlockRow) -> String {
    let exempt: Vec<String> = row.exempt.iter().map(ToString::to_string).collect();
    if exempt.is_empty() {
        row.address.to_string()
    } else {
        format!("{} except {}", row.address, exempt.join(", "))
    }
}

/// The lines about a block.
fn block_details(out: &mut dyn Write, block: &BlockRow, zone: &Zone) -> io::Result<()> {
    pair(out, "cause", cause(block.cause))?;
    pair(out, "reason", &block.reason)?;
    pair(out, "since", &zone.stamp(block.since))?;
    let end = ends_in(block.expires_in);
    match block.until {
        Some(_) => pair(out, "ends in", &format!("{end}, at {}", zone.stamp(block.until)))?,
        None => pair(out, "ends", &format!("{end}, until it is unblocked"))?,
    }
    for (what, packets) in [("dropped", block.packets), ("passed", block.passed)] {
        if let Some(packets) = packets {
            pair(out, what, &count(packets, "packet"))?;
        }
    }
    if block.renewals > 0 {
        pair(out, "renewed", &count(block.renewals.into(), "time"))?;
    }
    Ok(())
}

/// The lines about what an address is exempt from.
fn exemptions(
    out: &mut dyn Write,
    exempt_from: Option<&Target>,
    (allowed, in_prefix): (Option<&AllowRow>, Option<&AllowRow>),
    zone: &Zone,
) -> io::Result<()> {
    if let Some(network) = exempt_from {
        pair(out, "exempt from", &format!("the block of {network}"))?;
    }
    if let Some(allowed) = allowed {
        let seen = match allowed.last_seen {
            Some(Stamp(at)) => format!(", last seen {}", zone.time(at)),
            None => String::new(),
        };
        pair(out, "never block", &format!("{} ({}{seen})", allowed.address, allowed.origin))?;
        pair(out, "because", &because(allowed, zone))?;
    }
    if let Some(other) = in_prefix {
        let AllowRow { address, origin, .. } = other;
        pair(
            out,
            "not blocked",
            &format!("its IPv6 prefix has {address} ({origin}), which is never blocked"),
        )?;
        pair(
            out,
            "to block it",
            "set block: { ipv6: { first: 128 } }, which counts and blocks single addresses",
        )?;
    }
    Ok(())
}

/// What the packets of an address may still do.
fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Counted => "is not blocked; its probes count.",
        Standing::Allowed => "is never blocked.",
        Standing::Slowed => {
            "is slowed: its probes are dropped, its new connections wait for a second, all else passes."
        }
        Standing::Unproven => "is blocked: what it opens is dropped.",
        Standing::Blocked => "is blocked: all of its packets are dropped.",
    }
}

/// Prints what would happen to packets of an address.
pub(super) fn tested(out: &mut dyn Write, tested: &Tested, zone: &Zone) -> io::Result<()> {
    let address = tested.address;
    writeln!(out, "{address} {}", standing(tested.standing))?;
    if tested.observed {
        pair(out, "mode", "observe: nothing is dropped")?;
    }
    if let Some(block) = &tested.block {
        block_details(out, block, zone)?;
    }
    let allowed = (tested.allowed.as_ref(), tested.allowed_in_prefix.as_ref());
    exemptions(out, tested.exempt_from.as_ref(), allowed, zone)?;
    if tested.standing != Standing::Allowed {
        let Tested { touched, trigger, .. } = tested;
        let ports = count(*touched, "closed port");
        pair(out, "touched", &format!("{ports}; more than {trigger} are a scan"))?;
    }
    if !tested.interfaces.is_empty() && tested.standing != Standing::Allowed {
        let interfaces = printable(&tested.interfaces.join(", ")).to_string();
        pair(out, "except", &format!("over {interfaces} nothing is slowed or blocked (allow)"))?;
    }
    for TestedPort { port: PortName(port), use_of, outcome, is_probe } in &tested.ports {
        let use_of = match use_of {
            PortUse::Service => "of a service",
            PortUse::Decoy => "a decoy answers",
            PortUse::Watched => "closed, watched",
            PortUse::Unwatched => "not watched",
        };
        let outcome = match outcome {
            Outcome::Passes => "passes",
            Outcome::Waits if port.transport == Transport::Udp => "passes at a low rate",
            Outcome::Waits => "passes when it is retransmitted, after a second",
            Outcome::Decoy => "gets a connection",
            Outcome::EitherWay => {
                "is dropped, or answered as closed ports answer (a random half is)"
            }
            Outcome::Dropped => "is dropped",
        };
        let probe = match (is_probe, tested.standing) {
            (false, _) => "",
            (true, Standing::Allowed) => "; reported",
            (true, _) => "; counts as a probe",
        };
        pair(out, &port.to_string(), &format!("{use_of}: {outcome}{probe}"))?;
    }
    Ok(())
}

/// Prints the state of an address.
pub(super) fn shown(
    out: &mut dyn Write,
    shown: &Shown,
    geo: Option<&Geo>,
    zone: &Zone,
) -> io::Result<()> {
    match &shown.block {
        Some(block) => {
            writeln!(out, "{} is {}.", shown.address, state(block.state))?;
            if block.address != shown.address {
                pair(out, &format!("{} as", state(block.state)), &address(block))?;
            }
            block_details(out, block, zone)?;
            if let Some(evidence) = shown.proof {
                pair(out, "proof", &proof(evidence))?;
            }
        }
        None => writeln!(out, "{} is not blocked.", shown.address)?,
    }
    if let Some(geo) = geo {
        pair(out, "located", &geo.to_string())?;
    }
    if shown.observed {
        pair(out, "mode", "observe: nothing is dropped")?;
    }
    let allowed = (shown.allowed.as_ref(), shown.allowed_in_prefix.as_ref());
    exemptions(out, shown.exempt_from.as_ref(), allowed, zone)?;
    if let Some(row) = &shown.campaign {
        let since = zone.stamp(row.since);
        let (what, is) = (&row.reason, state(row.state));
        pair(out, "campaign", &format!("{}, {is}, since {since}: {what}", row.address))?;
    }
    if let Some(now) = shown.standing {
        pair(out, "now", standing(now).trim_start_matches("is "))?;
    }
    if shown.touched > 0 || !shown.ports.is_empty() {
        let total = shown.touched.max(u64::try_from(shown.ports.len()).unwrap_or(u64::MAX));
        pair(
            out,
            "touched",
            &format!("{}: {}", count(total, "port"), shortened(&shown.ports.join(", "))),
        )?;
        if !shown.probes.is_empty() {
            let counted = shown.probes.iter().filter(|probe| probe.weight == "counts").count();
            let trigger = shown.trigger;
            let total = shown.probes.len();
            pair(out, "counted", &format!("{counted} of {total}; more than {trigger} are a scan"))?;
        }
        pair(out, "scans", &shown.scans.join(", "))?;
        // Of a block by order, whether the address may be forged says nothing.
        let is_manual = |block: &BlockRow| matches!(block.cause, Cause::Order | Cause::Foreign);
        if !shown.block.as_ref().is_some_and(is_manual) {
            pair(
                out,
                "proven",
                if shown.proven { "yes" } else { "no, its address may be forged" },
            )?;
        }
        pair(out, "first seen", &zone.stamp(shown.first_seen))?;
        pair(out, "last seen", &zone.stamp(shown.last_seen))?;
    }
    if shown.blocks_before > 0 {
        pair(out, "so far", &count(shown.blocks_before, "block"))?;
    }
    Ok(())
}

/// The table of named lists.
pub(super) fn lists(out: &mut dyn Write, rows: &[ListRow], zone: &Zone) -> io::Result<()> {
    let columns = [
        ("LIST", Align::Left),
        ("BLOCKS", Align::Right),
        ("ENDS IN", Align::Right),
        ("END", Align::Left),
    ];
    let mut table = Table::new(columns, "No list has a block.");
    for row in rows {
        let end = zone.stamp(row.until);
        table.row(out, [row.name.clone(), row.blocks.to_string(), ends_in(row.expires_in), end])?;
    }
    table.end(out)
}

/// The history table; `places`: with where each is.
pub(super) fn history(places: bool) -> Table<9> {
    let columns = ["WHEN", "ADDRESS", "EVENT", "PORT", "NAME", "COUNTRY", "AS", "END", "WHY"];
    let columns = columns.map(|name| (name, Align::Left));
    Table::new(columns, "Nothing happened.").spare(&[5, 6], !places)
}

/// A row of the history table.
pub(super) fn past(Located { row, geo }: Located<HistoryRow>, zone: &Zone) -> [String; 9] {
    let [country, system] = geo::cells(geo.as_ref());
    let address = row.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let name = if row.host.is_empty() || row.host == address { "-" } else { &row.host };
    [
        zone.time(row.at.0),
        address.clone(),
        row.kind.clone(),
        port(&row),
        name.to_owned(),
        country,
        system,
        end(&row, zone),
        why(&row),
    ]
}

/// The port of an event.
fn port(row: &HistoryRow) -> String {
    let none = if row.protocol == "MANUAL" { "by hand" } else { "-" };
    row.port_name().unwrap_or_else(|| none.to_owned())
}

/// The end of what begins with an event, or the way in which something ended with it.
pub(super) fn end(row: &HistoryRow, zone: &Zone) -> String {
    let ending = row.ending.as_deref();
    match (row.kind.as_str(), row.ended, row.until) {
        (_, Some(_), _) if ending == Some(UNKNOWN_END) => "-".to_owned(),
        (_, Some(ended), _) => {
            format!("{} {}", ending.unwrap_or("ended"), zone.time(ended.0))
        }
        ("blocked" | "slowed" | "renewed", None, Some(until)) => {
            format!("until {}", zone.time(until.0))
        }
        ("blocked" | "renewed", None, None) => "never".to_owned(),
        _ => ending.unwrap_or("-").to_owned(),
    }
}

/// The reason of an event, and further facts.
pub(super) fn why(row: &HistoryRow) -> String {
    let details = row.details.iter().map(|(key, value)| match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    });
    row.reason.iter().cloned().chain(details).collect::<Vec<_>>().join("; ")
}

/// One event of `watch`, on one line.
pub(super) fn event(
    out: &mut dyn Write,
    event: &Value,
    geo: Option<&Geo>,
    zone: &Zone,
) -> io::Result<()> {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or("?");
    let at = event.get("time").and_then(Value::as_str).and_then(|time| time.parse().ok());
    let at = at.map_or_else(|| "-".repeat("2026-11-20 15:26:40Z".len()), |at| zone.time(at));
    let name = event.get("name").and_then(Value::as_str).map(str::to_owned);
    let known: Vec<String> = name.into_iter().chain(geo.map(Geo::to_string)).collect();
    let who = match known.join(", ") {
        known if known.is_empty() => text("address").to_owned(),
        known => format!("{} ({known})", text("address")),
    };
    let line = match text("event") {
        "scan" => {
            let after = match event.get("not_blocked").and_then(Value::as_str) {
                Some(why) => format!(", not blocked: {why}"),
                None => String::new(),
            };
            format!("scan       {who} to {}: {}{after}", text("port"), text("reason"))
        }
        "blocked" => {
            let time = match event.get("timeout").and_then(Value::as_u64) {
                Some(seconds) => format!("for {}", duration(Duration::from_secs(seconds))),
                None => "until it is unblocked".to_owned(),
            };
            let word = if event.get("renewed").and_then(Value::as_bool) == Some(true) {
                "renewed"
            } else {
                "blocked"
            };
            format!("{word:<10} {who} {time}: {}", text("reason"))
        }
        "slowed" => {
            let seconds = event.get("timeout").and_then(Value::as_u64).unwrap_or_default();
            let time = duration(Duration::from_secs(seconds));
            format!(
                "slowed     {who} for {time}, not blocked, for {}: {}",
                text("port"),
                text("reason")
            )
        }
        "campaign" => {
            let number = |key: &str| event.get(key).and_then(Value::as_u64).unwrap_or_default();
            let with = event.get("program").and_then(Value::as_str);
            let with = with.map_or_else(String::new, |program| format!(" with {program}"));
            format!(
                "campaign   {who}{with}, {}: {} probed {}",
                text("state"),
                count(number("sources"), "source"),
                count(number("ports"), "port")
            )
        }
        "released" => format!("released   {who} is not slowed any more ({})", text("ending")),
        "unblocked" => format!("unblocked  {who} ({})", text("ending")),
        other => {
            let rest: Vec<String> = event
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, value)| {
                    !matches!(key.as_str(), "time" | "level" | "event") && !value.is_null()
                })
                .map(|(key, value)| match value {
                    Value::String(text) => format!("{key}={text}"),
                    other => format!("{key}={other}"),
                })
                .collect();
            format!("{other:<10} {}", rest.join(" "))
        }
    };
    writeln!(out, "{at}  {}", printable(line.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_of_a_slowed_source_is_shown_in_bits_and_ports() {
        let seen = Proof { bits: 9, needed: 16, silent: 9, answered: 0, blind: false };
        assert_eq!(
            proof(seen),
            "9 of 16 bits; its retransmissions went to 9 silent ports and 0 answered ones"
        );
        assert_eq!(
            proof(Proof { bits: -9, silent: 1, answered: 2, blind: true, ..seen }),
            "none: its retransmissions went to 1 silent port and 2 answered ones, so it does not see our answers"
        );
    }

    #[test]
    fn a_name_is_shown_behind_the_address_of_an_event() {
        let shown_at = |event: Value, geo: Option<Geo>| {
            let mut out = Vec::new();
            super::event(&mut out, &event, geo.as_ref(), &Zone::utc()).unwrap();
            String::from_utf8(out).unwrap()
        };
        let shown = |event| shown_at(event, None);
        let mut event = serde_json::json!({
            "time": "2026-11-20T15:26:40.000Z", "level": "warn", "event": "blocked", "address": "10.77.1.1", "name": "scanner.example", "timeout": 60,
            "renewed": false, "reason": "syn scan: 3 ports in 0.2s"
        });
        assert_eq!(
            shown(event.clone()),
            "2026-11-20 15:26:40Z  blocked    10.77.1.1 (scanner.example) for 1m: syn scan: 3 ports in 0.2s\n"
        );
        let geo = Geo { country: Some("DE".into()), asn: Some(64496), as_name: None };
        assert_eq!(
            shown_at(event.clone(), Some(geo.clone())),
            "2026-11-20 15:26:40Z  blocked    10.77.1.1 (scanner.example, DE, AS64496) for 1m: syn scan: 3 ports in 0.2s\n"
        );
        event["name"] = Value::Null;
        assert!(shown_at(event.clone(), Some(geo)).contains(" 10.77.1.1 (DE, AS64496) for 1m"));
        let mut slowed = event.clone();
        slowed["event"] = "slowed".into();
        slowed["port"] = "tcp/22".into();
        assert_eq!(
            shown(slowed),
            "2026-11-20 15:26:40Z  slowed     10.77.1.1 for 1m, not blocked, for tcp/22: syn scan: 3 ports in 0.2s\n"
        );
        assert_eq!(
            shown(event),
            "2026-11-20 15:26:40Z  blocked    10.77.1.1 for 1m: syn scan: 3 ports in 0.2s\n"
        );
    }
}
