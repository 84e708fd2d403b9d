//! PortSentry 1.2's log lines, word for word: logcheck rules, grep recipes and fail2ban's jail
//! match them.
//!
//! Differences, each with its reason:
//! * more than [`ONE_BY_ONE`] ports are one line with ranges: 1.2 had no longer lists, and 5,000
//!   lines are of no use;
//! * ranges that are not "the first N ports" stand in one line;
//! * `manually exclude port: N` has no blank after the number; a pattern without `$` still matches;
//! * a block names nftables, its duration and its reason, and is logged after the kernel
//!   acknowledged it;
//! * what is watched is one line a protocol; 1.2's lines for each port are logged at level debug,
//!   since they hid what mattered at a start;
//! * "is already blocked" is logged at level debug, when a block is renewed: 1.2 flooded the log
//!   with it;
//! * a failed command is an error with its status and the start of its output: 1.2 logged that it
//!   had run;
//! * a line about a packet has the scanner's address; a line about an IPv6 block has the blocked
//!   prefix and no name, since a prefix has none.

use std::fmt::Display;
use std::net::IpAddr;

use log::Level;

use super::facts::start;
use super::phrases::{count, done, duration, scan_name, transport as transport_name};
use super::{Line, level};
use crate::config::PortSet;
use crate::engine::{Ending, NotBlocked, Report, Shared, SlowEnding, SlowedPackets, Source};
use crate::journal::history::State;
use crate::journal::{Ended, Event, HostName, Notice, Response};
use crate::probe::{Port, Probe, Transport};

/// Longest list with a line for each port. PortSentry 1.2 took no longer lists (MAXSOCKS), so every
/// line of a migrated configuration is still there.
const ONE_BY_ONE: u32 = 64;

/// Bytes shown of a command, and of a failed command's output: the line stays short enough for any
/// log.
const COMMAND_MAX: usize = 1000;
const OUTPUT_MAX: usize = 300;

/// The lines of an event.
pub(super) fn lines(event: &Event) -> Vec<Line> {
    let level = level(event);
    let texts = match &event.notice {
        Notice::Engine(report) => engine(report, event.name.as_ref()),
        Notice::Starting => {
            vec![format!("adminalert: PortSentry {} is starting.", env!("CARGO_PKG_VERSION"))]
        }
        Notice::Watching { transport, mode, ports, excluded, services } => {
            return watching(*transport, mode, ports, excluded, services);
        }
        Notice::Active => vec!["adminalert: PortSentry is now active and listening.".to_owned()],
        Notice::Stopping { blocks_left } => {
            let mut texts = vec![
                "securityalert: PortSentry is shutting down".to_owned(),
                "adminalert: PortSentry is shutting down".to_owned(),
            ];
            if *blocks_left > 0 {
                texts.push(format!(
                    "adminalert: {} left in force in the kernel.",
                    count(*blocks_left, "block")
                ));
            }
            texts.push("adminalert: Nothing is watched until the next start.".to_owned());
            texts
        }
        Notice::Reloaded { changes } if changes.is_empty() => {
            vec!["adminalert: PortSentry has reloaded its configuration: no change.".to_owned()]
        }
        Notice::Reloaded { changes } => {
            let first = "adminalert: PortSentry has reloaded its configuration.".to_owned();
            let changed = changes.iter().map(|change| format!("adminalert: Changed: {change}"));
            std::iter::once(first).chain(changed).collect()
        }
        Notice::Switched { mode, detection, confirm_within, on_within, why } => {
            let unless = confirm_within
                .map(|time| format!(", and observe again in {} unless confirmed", duration(time)));
            let time = on_within.map(|time| format!(" for {}", duration(time)));
            let why = why.as_ref().map(|why| format!("; {why}"));
            vec![format!(
                "adminalert: Switched: mode {mode}{}; detection {detection}{}{}.",
                unless.unwrap_or_default(),
                time.unwrap_or_default(),
                why.unwrap_or_default()
            )]
        }
        Notice::Control { command, is_done, result, .. } => {
            let word = if *is_done { "done" } else { "refused" };
            let who = who(&event.notice);
            let result = result.lines().map(str::trim).collect::<Vec<_>>().join("; ");
            vec![format!(
                "adminalert: Command of {who}: {}: {word}: {result}",
                start(command, COMMAND_MAX)
            )]
        }
        Notice::ReloadRefused { findings } => {
            let first =
                "adminalert: ERROR: the new configuration was refused, the old one stays in force:";
            std::iter::once(first.to_owned()).chain(message_lines(level, findings)).collect()
        }
        Notice::Lost { packets, total } => vec![format!(
            "adminalert: WARNING: {} lost between the kernel and PortSentry, {total} since the start.",
            count(*packets, "packet")
        )],
        Notice::Shed { packets, total } => vec![format!(
            "adminalert: WARNING: {} of unknown sources shed in a flood, {total} since the start.",
            count(*packets, "packet")
        )],
        Notice::NeverBlock { entries } => {
            vec![format!("adminalert: {entries} addresses and networks are never blocked.")]
        }
        Notice::AllowedName { name, added, removed } => [
            (added, "is allowed now: never blocked by the name"),
            (removed, "is not allowed any more by the name"),
        ]
        .into_iter()
        .flat_map(|(list, what)| {
            list.iter().map(move |address| format!("adminalert: {address} {what} {name}."))
        })
        .collect(),
        Notice::Response(response) => vec![respond(response)],
        Notice::ForeignChange { pid, program, remedy } => vec![format!(
            "securityalert: WARNING: {program} (process {pid}) changed the table inet portsentry: {remedy}"
        )],
        Notice::Status(text) => vec![format!("adminalert: Status: {text}")],
        Notice::Adopted { blocks } => vec![format!(
            "adminalert: {} found in the kernel, kept in force.",
            count(*blocks as u64, "block")
        )],
        Notice::Restored { blocks } => vec![format!(
            "adminalert: {} restored from the state store, in force again.",
            count(*blocks as u64, "block")
        )],
        Notice::Warning(text) | Notice::Error(text) => message_lines(level, text).collect(),
        Notice::HeldBack { lines, within } => vec![format!(
            "adminalert: WARNING: {} held back within {}.",
            count(*lines, "line"),
            duration(*within)
        )],
    };
    texts.into_iter().map(|text| Line::classic(level, text)).collect()
}

/// `root (uid 0, process 123, login ada)`.
fn who(notice: &Notice) -> String {
    let Notice::Control { uid, user, pid, login, .. } = notice else { return String::new() };
    let name = user.as_deref().unwrap_or("user");
    let process = pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
    let login = login.as_ref().map(|login| format!(", login {login}")).unwrap_or_default();
    format!("{name} (uid {uid}{process}{login})")
}

fn respond(response: &Response) -> String {
    match response {
        Response::Command { target, command, ended: Ended::Success, .. } => format!(
            "attackalert: External command run for host: {target} using command: \"{}\"",
            start(command, COMMAND_MAX)
        ),
        Response::Command { target, command, ended, output, .. } => {
            let output = start(output.trim(), OUTPUT_MAX);
            let wrote =
                if output.is_empty() { String::new() } else { format!("; it wrote: {output}") };
            format!(
                "attackalert: ERROR: External command for host: {target} failed ({ended}): \"{}\"{wrote}",
                start(command, COMMAND_MAX)
            )
        }
        Response::Denied { target, line } => format!(
            "attackalert: Host {target} has been blocked via wrappers with string: \"{line}\""
        ),
        Response::NoLongerDenied { target } => {
            format!("adminalert: Host {target} is no longer denied via wrappers.")
        }
        Response::Dropped { commands } => format!(
            "adminalert: ERROR: {} not run: too many were waiting.",
            count(*commands, "external command")
        ),
        Response::Notified { channel, is_sent: true, message, .. } => {
            format!("adminalert: Notification by {channel} sent: {message}")
        }
        Response::Notified { channel, message, .. } => {
            format!("adminalert: WARNING: Notification by {channel} failed: {message}")
        }
    }
}

/// Findings of a refused configuration that are logged; `portsentry --check` shows all of them.
const FINDINGS_MAX: usize = 60;

/// What is watched of one transport.
fn watching(
    transport: Transport,
    mode: &str,
    ports: &PortSet,
    excluded: &PortSet,
    services: &PortSet,
) -> Vec<Line> {
    let watched = ports.without(excluded);
    let taken = watched.without(&watched.without(services));
    let taken = if taken.is_empty() {
        String::new()
    } else {
        format!("; services listen on {} of them: {taken}", taken.count())
    };
    let name = transport_name(transport);
    let ports_of = count(watched.count().into(), &format!("{name} port"));
    let first = format!("adminalert: Watching {ports_of} in mode {mode}: {watched}{taken}");
    let classic = classic_watching(transport, mode, ports, excluded, services);
    std::iter::once(Line::classic(Level::Info, first))
        .chain(classic.into_iter().map(|text| Line::classic(Level::Debug, text)))
        .collect()
}

/// The same as 1.2 logged it. `Ignored` ports are those of local services and the excluded ones, in
/// order.
fn classic_watching(
    transport: Transport,
    mode: &str,
    ports: &PortSet,
    excluded: &PortSet,
    services: &PortSet,
) -> Vec<String> {
    let name = transport_name(transport);
    match mode {
        "stealth" | "connect" => {
            let how = if mode == "stealth" { "stealth listen" } else { "listen" };
            one_by_one(&format!("adminalert: Going into {how} mode on {name} port"), ports)
        }
        _ => {
            let mut texts = vec![match ports.ranges() {
                [range] if *range.start() <= 1 => {
                    format!("adminalert: Advanced mode will monitor first {} ports", ports.count())
                }
                _ => format!(
                    "adminalert: Advanced mode will monitor {} {name} ports: {ports}",
                    ports.count()
                ),
            }];
            if excluded.is_empty() {
                texts.push("adminalert: Advanced mode will manually exclude no ports".to_owned());
            }
            texts.extend(one_by_one(
                "adminalert: Advanced mode will manually exclude port",
                excluded,
            ));
            let taken = ports.without(&ports.without(services));
            let ignored = taken.ranges().iter().chain(excluded.ranges()).cloned().collect();
            texts.extend(one_by_one(&format!("adminalert: Advanced Stealth scan detection mode activated. Ignored {name} port"), &ignored));
            texts
        }
    }
}

/// A line for each port, or one line for many.
fn one_by_one(text: &str, ports: &PortSet) -> Vec<String> {
    if ports.count() > ONE_BY_ONE {
        return vec![format!("{text}s: {ports}")];
    }
    ports.ranges().iter().cloned().flatten().map(|port| format!("{text}: {port}")).collect()
}

/// `NAME/ADDRESS`; the address twice where there is no name, as with `RESOLVE_HOST="0"`.
fn both(name: Option<&HostName>, otherwise: impl Display, address: IpAddr) -> String {
    match name {
        Some(name) => format!("{}/{address}", name.as_str()),
        None => format!("{otherwise}/{address}"),
    }
}

fn engine(report: &Report, name: Option<&HostName>) -> Vec<String> {
    match report {
        Report::Scan { probe, not_blocked, .. } => scan(probe, *not_blocked, name),
        Report::Slowed { source, .. } => {
            let why = NotBlocked::Slowed.text();
            vec![format!("attackalert: Host {source} was not blocked: {why}")]
        }
        Report::Continues { source, state, reason, .. } => {
            vec![format!("attackalert: Host {source} continues its scan, {state}: {reason}")]
        }
        Report::Campaign { campaign, action, timeout } => {
            let from = match campaign.shared {
                Shared::Network(network) => format!("from {network}"),
                Shared::Signature(signature) => format!("with {}", signature.name()),
            };
            let time = timeout.map_or_else(
                || "only".to_owned(),
                |timeout| format!("for {} after its last probe", duration(timeout)),
            );
            let (sources, ports) = (campaign.sources.into(), campaign.ports.into());
            vec![format!(
                "attackalert: Campaign {from}: {} probed {}, {} {time}.",
                count(sources, "source"),
                count(ports, "port"),
                done(*action)
            )]
        }
        Report::Released { source, ending, packets } => {
            let why = match ending {
                SlowEnding::Expired => "its time is up",
                SlowEnding::Proven => "its address is proven",
                SlowEnding::Blocked => "it is blocked by hand",
                SlowEnding::Manual => "released by hand",
                SlowEnding::NeverBlock => "it must never be blocked",
                SlowEnding::Configuration => "the configuration slows no source",
                SlowEnding::Services => "services listen on all ports that it probed",
            };
            let packets = packets.map_or_else(String::new, |packets| {
                let SlowedPackets { passed, dropped } = packets;
                format!(" Of its packets {passed} passed and {dropped} were dropped.")
            });
            vec![format!("adminalert: Host {source} is no longer slowed: {why}.{packets}")]
        }
        Report::Blocked { source, timeout, reason, renewals, .. } => {
            let time = timeout.map_or_else(
                || "until it is unblocked".to_owned(),
                |timeout| format!("for {}", duration(timeout)),
            );
            let tag = if reason.is_order() { "adminalert" } else { "attackalert" };
            if *renewals > 0 {
                let both = both(name, source, source.network().addr());
                vec![
                    format!("{tag}: Host: {both} is already blocked Ignoring"),
                    format!("{tag}: Host {source} stays blocked via nftables {time}: {reason}"),
                ]
            } else {
                vec![format!("{tag}: Host {source} has been blocked via nftables {time}: {reason}")]
            }
        }
        Report::BlockFailed { source, error } => {
            vec![format!("attackalert: ERROR: Could not block host {source} via nftables: {error}")]
        }
        Report::Unblocked { source, ending } => {
            let why = match ending {
                Ending::Expired => "its time is up",
                Ending::Manual => "unblocked by hand",
                Ending::Removed => "its element was taken out of the kernel's set",
                Ending::NeverBlock => "it must never be blocked",
                Ending::Total => "block.total allows no more",
                Ending::Services => "services listen on all ports that it probed",
                Ending::OffList => "it is no longer on its list",
            };
            vec![format!("adminalert: Host {source} is no longer blocked: {why}.")]
        }
        Report::Exempted { source, exempt } => {
            let exempt = Source::from(*exempt);
            vec![format!("adminalert: Host {exempt} is exempt from the block of {source}.")]
        }
        Report::UnblockFailed { source, error } => {
            vec![format!("adminalert: ERROR: Could not unblock host {source}: {error}")]
        }
    }
}

fn scan(probe: &Probe, not_blocked: Option<NotBlocked>, host: Option<&HostName>) -> Vec<String> {
    let Probe { source, port, scan, ip_options, .. } = probe;
    let (name, place) = (transport_name(port.transport), place(*port));
    let both = both(host, source, *source);
    let mut texts = vec![format!("attackalert: {} from host: {both} to {place}", scan_name(*scan))];
    if *ip_options {
        texts.push(format!("attackalert: Packet from host: {both} to {place} has IP options set (detection avoidance technique)."));
    }
    let ignoring =
        || format!("attackalert: Ignoring {name} response per configuration file setting.");
    let why =
        |why: NotBlocked| format!("attackalert: Host {source} was not blocked: {}", why.text());
    match not_blocked {
        // For a decision of the administrator 1.2 has a sentence, which names no host.
        Some(NotBlocked::TcpLog | NotBlocked::UdpLog | NotBlocked::UnprovenReport) => {
            texts.push(ignoring());
        }
        Some(observed @ (NotBlocked::ObserveSlow | NotBlocked::ObserveBlock)) => {
            texts.extend([ignoring(), why(observed)]);
        }
        // The command has its own line, as has a slowed source; 1.2 logged no more either
        // (`BLOCK_TCP="2"`).
        None | Some(NotBlocked::TcpCommand | NotBlocked::UdpCommand | NotBlocked::Slowed) => {}
        // A line of this kind alone does not tell which entry of the list it is, nor why.
        Some(NotBlocked::NeverBlock) => texts.push(format!(
            "{}; portsentryctl test {source} tells why",
            why(NotBlocked::NeverBlock)
        )),
        Some(other) => texts.push(why(other)),
    }
    texts
}

fn place(port: Port) -> String {
    match port.transport {
        Transport::Ip => format!("IP protocol: {}", port.number),
        other => format!("{} port: {}", transport_name(other), port.number),
    }
}

/// A message that PortSentry 1.2 did not have, with its tag.
pub(super) fn message(level: Level, module: &str, text: &str) -> String {
    match level {
        Level::Error => format!("adminalert: ERROR: {text}"),
        Level::Warn => format!("adminalert: WARNING: {text}"),
        Level::Info => format!("adminalert: {text}"),
        Level::Debug | Level::Trace => format!("debug: {module}: {text}"),
    }
}

fn message_lines(level: Level, text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .take(FINDINGS_MAX)
        .map(move |line| message(level, "", line))
}

/// The line of the history file, without its line end; `None` for all events but new blocks, slowed
/// sources, and scans that are reported only because the configuration wants no more. The latter two
/// end with `Slowed` and `Reported`, so that what reads blocks skips them.
///
/// `1795188400 - 11/20/2026 15:26:40 Host: 10.77.1.1/10.77.1.1 Port: 1 TCP Blocked`: exactly 1.2's,
/// since the jail that fail2ban ships reads it. Behind the slash is the address of the scanner; in
/// front of it, instead of the name, an IPv6 block has its prefix. As in 1.2, a host's reverse name
/// comes before the slash where it is known; it cannot contain a blank or a slash. A manual block has
/// no port and is written as `Port: 0 MANUAL`, which fail2ban's pattern skips.
pub(crate) fn history(event: &Event, zone: &jiff::tz::TimeZone) -> Option<String> {
    let (source, port, scanner, what) = match &event.notice {
        Notice::Engine(Report::Blocked { source, port, scanner, renewals: 0, .. }) => {
            (source, *port, *scanner, State::Blocked)
        }
        Notice::Engine(Report::Slowed { source, port, scanner, .. }) => {
            (source, Some(*port), Some(*scanner), State::Slowed)
        }
        Notice::Engine(Report::Scan { source, probe, not_blocked: Some(why), .. })
            if is_chosen(*why) =>
        {
            (source, Some(probe.port), Some(probe.source), State::Reported)
        }
        _ => return None,
    };
    let address = scanner.unwrap_or(source.network().addr());
    let (number, name) =
        port.map_or((0, "MANUAL".to_owned()), |port| (port.number, transport_name(port.transport)));
    let local = event.at.to_zoned_datetime(zone.clone());
    Some(format!(
        "{} - {} Host: {} Port: {number} {name} {}",
        event.at.as_second(),
        local.strftime("%m/%d/%Y %H:%M:%S"),
        both(event.name.as_ref(), source, address),
        what.word(),
    ))
}

/// Whether a source is not blocked because the administrator wants a report, or the command, only:
/// not for sources that must never be blocked, nor where a limit is reached.
fn is_chosen(why: NotBlocked) -> bool {
    match why {
        NotBlocked::ObserveSlow
        | NotBlocked::ObserveBlock
        | NotBlocked::TcpLog
        | NotBlocked::TcpCommand
        | NotBlocked::UdpLog
        | NotBlocked::UdpCommand
        | NotBlocked::UnprovenReport
        | NotBlocked::Ping => true,
        NotBlocked::NeverBlock
        | NotBlocked::Slowed
        | NotBlocked::Nat64
        | NotBlocked::PerMinute
        | NotBlocked::Total
        | NotBlocked::Ambiguous
        | NotBlocked::Unwatched
        | NotBlocked::AllowedInterface => false,
    }
}

#[cfg(test)]
mod tests;
