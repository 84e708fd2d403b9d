//! PortSentry 1.2's lines, word for word where it had a line for the thing: logcheck rules, grep recipes and fail2ban's jail match them.
//!
//! Differences, each with its reason:
//! * one line a transport names the watched ports, not one line a port: 1,024 lines at each start help nobody;
//! * excluded ports are not listed: the ranges leave them out;
//! * a block names nftables, its duration and its reason, and is said only after the kernel acknowledged it;
//! * "is already blocked" comes at level debug, when a block is renewed: 1.2 flooded the log with it;
//! * reverse names come later; until then the name is the address, as with `RESOLVE_HOST="0"`;
//! * a line about a packet has the scanner's address, a line about an IPv6 block the prefix that is blocked.

use log::Level;

use super::words::{count, duration, scan_name, transport as transport_name};
use super::{Line, Style, level};
use crate::engine::{Ending, NotBlocked, Reason, Report, Subject};
use crate::journal::{Ended, Event, Notice, Response};
use crate::probe::{Port, Probe, Transport};

/// The lines of an event.
pub(super) fn lines(event: &Event, style: &Style) -> Vec<Line> {
    let level = level(event);
    let many = |texts: Vec<String>| texts.into_iter().map(|text| Line::new(level, text)).collect();
    let text = match &event.notice {
        Notice::Engine(report) => return many(engine(report, style)),
        Notice::Starting => format!("adminalert: PortSentry {} is starting.", env!("CARGO_PKG_VERSION")),
        Notice::Watching { transport, mode, ports, ranges } => watching(*transport, mode, *ports, ranges),
        Notice::Active => "adminalert: PortSentry is now active and listening.".to_owned(),
        Notice::Stopping { blocks_left } => {
            let mut texts = vec!["securityalert: PortSentry is shutting down".to_owned()];
            if *blocks_left > 0 {
                texts.push(format!("adminalert: {} left in force in the kernel.", count(*blocks_left, "block")));
            }
            return many(texts);
        }
        Notice::Reloaded => "adminalert: PortSentry has reloaded its configuration.".to_owned(),
        Notice::ReloadRefused { findings } => {
            let mut texts = vec!["adminalert: ERROR: the new configuration was refused, the old one stays in force:".to_owned()];
            texts.extend(findings.lines().filter(|line| !line.trim().is_empty()).take(FINDINGS_MAX).map(|line| format!("adminalert: ERROR: {line}")));
            return many(texts);
        }
        Notice::Lost { packets, total } => {
            format!("adminalert: WARNING: {} lost between the kernel and PortSentry, {total} since the start.", count(*packets, "packet"))
        }
        Notice::NeverBlock { entries } => format!("adminalert: {entries} addresses and networks are never blocked."),
        Notice::Response(Response::Command { target, command, ended: Ended::Success, .. }) => {
            format!("attackalert: External command run for host: {target} using command: \"{command}\"")
        }
        Notice::Response(Response::Command { target, command, ended, output, .. }) => {
            let wrote = if output.is_empty() { String::new() } else { format!("; it wrote: {output}") };
            format!("attackalert: ERROR: External command for host: {target} failed ({ended}): \"{command}\"{wrote}")
        }
        Notice::Response(Response::Denied { target, line }) => {
            format!("attackalert: Host {target} has been blocked via wrappers with string: \"{line}\"")
        }
        Notice::Response(Response::NoLongerDenied { target }) => format!("adminalert: Host {target} is no longer denied via wrappers."),
        Notice::Response(Response::Dropped { commands }) => {
            format!("adminalert: ERROR: {} not run: too many were waiting.", count(*commands, "external command"))
        }
        Notice::ForeignChange { pid, program, remedy } => {
            format!("securityalert: WARNING: {program} (process {pid}) changed the table inet portsentry: {remedy}")
        }
        Notice::Status(text) => format!("adminalert: Status: {text}"),
        Notice::Adopted { blocks } => {
            format!("adminalert: {} found in the kernel, kept in force.", count(u64::try_from(*blocks).unwrap_or(u64::MAX), "block"))
        }
        Notice::Warning(text) => return many(message_lines(Level::Warn, "", text)),
        Notice::Error(text) => return many(message_lines(Level::Error, "", text)),
        Notice::HeldBack { lines, within } => format!("adminalert: WARNING: {} held back within {}.", count(*lines, "line"), duration(*within)),
    };
    vec![Line::new(level, text)]
}

/// Lines of a refused configuration's findings that are logged: `portsentry --check` shows all of them.
const FINDINGS_MAX: usize = 60;

fn watching(transport: Transport, mode: &str, ports: u32, ranges: &str) -> String {
    let name = transport_name(transport);
    match mode {
        "advanced" => format!("adminalert: Advanced mode will monitor {} {name} ports: {ranges}", ports),
        "stealth" => format!("adminalert: Going into stealth listen mode on {name} {}: {ranges}", if ports == 1 { "port" } else { "ports" }),
        "connect" => format!("adminalert: Going into listen mode on {name} {}: {ranges}", if ports == 1 { "port" } else { "ports" }),
        other => format!("adminalert: {other} mode will monitor {ports} {name} ports: {ranges}"),
    }
}

fn engine(report: &Report, style: &Style) -> Vec<String> {
    let name = |subject: &Subject| subject.display(style.ipv6_prefix).to_string();
    match report {
        Report::Scan { probe, not_blocked, .. } => scan(probe, not_blocked.map(NotBlocked::text)),
        Report::Blocked { subject, timeout, reason, renewed, .. } => {
            let name = name(subject);
            let time = timeout.map_or_else(|| "until it is unblocked".to_owned(), |timeout| format!("for {}", duration(timeout)));
            let tag = if matches!(reason, Reason::Manual(_)) { "adminalert" } else { "attackalert" };
            vec![if *renewed {
                format!("{tag}: Host: {name}/{name} is already blocked, renewed {time}: {reason}")
            } else {
                format!("{tag}: Host {name} has been blocked via nftables {time}: {reason}")
            }]
        }
        Report::BlockFailed { subject, error } => {
            vec![format!("attackalert: ERROR: Host {} could not be blocked via nftables: {error}", name(subject))]
        }
        Report::Unblocked { subject, ending } => {
            let why = match ending {
                Ending::Expired => "its time is up",
                Ending::ByHand => "unblocked by hand",
                Ending::NeverBlock => "it must never be blocked",
            };
            vec![format!("adminalert: Host {} is no longer blocked: {why}.", name(subject))]
        }
        Report::UnblockFailed { subject, error } => vec![format!("adminalert: ERROR: Host {} could not be unblocked: {error}", name(subject))],
    }
}

fn scan(probe: &Probe, not_blocked: Option<&'static str>) -> Vec<String> {
    let Probe { source, port, scan, ip_options, .. } = probe;
    let (name, place) = (transport_name(port.transport), place(*port));
    let mut texts = vec![format!("attackalert: {} from host: {source}/{source} to {place}", scan_name(*scan))];
    if *ip_options {
        texts.push(format!("attackalert: Packet from host: {source}/{source} to {place} has IP options set (detection avoidance technique)."));
    }
    if let Some(why) = not_blocked {
        // 1.2's sentence is kept for what it was said of: the administrator chose not to react.
        texts.push(if why.contains("action") || why.contains("observe") || why.contains("configuration") {
            format!("attackalert: Ignoring {name} response per configuration file setting.")
        } else {
            format!("attackalert: Host {source} was not blocked: {why}")
        });
    }
    texts
}

fn place(port: Port) -> String {
    match port.transport {
        Transport::Ip => format!("IP protocol: {}", port.number),
        other => format!("{} port: {}", transport_name(other), port.number),
    }
}

/// A message that is not of PortSentry 1.2's, with its tag.
pub(super) fn message(level: Level, module: &str, text: &str) -> String {
    match level {
        Level::Error => format!("adminalert: ERROR: {text}"),
        Level::Warn => format!("adminalert: WARNING: {text}"),
        Level::Info => format!("adminalert: {text}"),
        Level::Debug | Level::Trace => format!("debug: {module}: {text}"),
    }
}

fn message_lines(level: Level, module: &str, text: &str) -> Vec<String> {
    text.lines().filter(|line| !line.trim().is_empty()).take(FINDINGS_MAX).map(|line| message(level, module, line)).collect()
}

/// The line of the history file, without its end; `None` for all but new blocks.
///
/// `1795188400 - 11/20/2026 15:26:40 Host: 10.77.1.1/10.77.1.1 Port: 1 TCP Blocked`: exactly 1.2's, since the jail that fail2ban ships reads it.
/// An IPv6 block has its prefix where the name stands and the prefix's first address where the address stands, so that the line still parses.
/// A block by hand has no port: it stands as `Port: 0 MANUAL`, which fail2ban's pattern passes over.
pub fn history(event: &Event, style: &Style, zone: &jiff::tz::TimeZone) -> Option<String> {
    let Notice::Engine(Report::Blocked { subject, port, renewed: false, .. }) = &event.notice else { return None };
    let address = subject.network(style.ipv6_prefix).addr();
    let (number, name) = port.map_or((0, "MANUAL"), |port| (port.number, transport_name(port.transport)));
    let local = event.at.to_zoned(zone.clone());
    Some(format!(
        "{} - {} Host: {}/{address} Port: {number} {name} Blocked",
        event.at.as_second(),
        local.strftime("%m/%d/%Y %H:%M:%S"),
        subject.display(style.ipv6_prefix),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{CLASSIC, all, blocked, event, scan};
    use super::*;
    use crate::probe::ScanKind;

    fn texts(event: &Event) -> Vec<String> {
        lines(event, &CLASSIC).into_iter().map(|line| format!("{} {}", line.level, line.text)).collect()
    }

    #[test]
    fn every_notice_has_its_classic_line() {
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "\
INFO adminalert: PortSentry {version} is starting.
INFO adminalert: Advanced mode will monitor 1021 TCP ports: 1-112, 114-138, 140-1023
INFO adminalert: Going into stealth listen mode on UDP ports: 1, 7
INFO adminalert: Going into listen mode on TCP port: 1
INFO adminalert: PortSentry is now active and listening.
WARN attackalert: TCP SYN/Normal scan from host: 10.77.1.1/10.77.1.1 to TCP port: 1
WARN attackalert: Host 10.77.1.1 has been blocked via nftables for 1m: syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3
DEBUG attackalert: Host: 10.77.1.1/10.77.1.1 is already blocked, renewed for 1m: syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3
WARN attackalert: Host 2001:db8:1::/64 has been blocked via nftables for 1m: syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3
WARN adminalert: Host 192.0.2.0/24 has been blocked via nftables until it is unblocked: by hand: abuse
ERROR attackalert: ERROR: Host 10.77.1.1 could not be blocked via nftables: no space in set\\nof 10
INFO adminalert: Host 10.77.1.1 is no longer blocked: its time is up.
ERROR adminalert: ERROR: Host 10.77.1.1 could not be unblocked: busy
INFO adminalert: PortSentry has reloaded its configuration.
ERROR adminalert: ERROR: the new configuration was refused, the old one stays in force:
ERROR adminalert: ERROR: a.yaml:1:2: no
ERROR adminalert: ERROR:   remedy: yes
WARN adminalert: WARNING: 3 packets lost between the kernel and PortSentry, 7 since the start.
DEBUG adminalert: 5 addresses and networks are never blocked.
WARN securityalert: WARNING: n\\u{{1b}}[2Jft (process 12) changed the table inet portsentry: the table was restored
INFO adminalert: Status: blocked 3
INFO adminalert: 2 blocks found in the kernel, kept in force.
WARN adminalert: WARNING: watch out
ERROR adminalert: ERROR: it broke
WARN adminalert: WARNING: 9 lines held back within 1m.
INFO securityalert: PortSentry is shutting down
INFO adminalert: 2 blocks left in force in the kernel."
        );
        let lines: Vec<String> = all().iter().flat_map(texts).collect();
        assert_eq!(lines.join("\n"), expected);
    }

    #[test]
    fn scans_have_their_classic_names() {
        let line = |kind, transport| texts(&event(scan("192.0.2.7", kind, transport, 9, None))).join("|");
        assert_eq!(line(ScanKind::Connect, Transport::Tcp), "WARN attackalert: Connect from host: 192.0.2.7/192.0.2.7 to TCP port: 9");
        assert_eq!(line(ScanKind::Null, Transport::Tcp), "WARN attackalert:  TCP NULL scan from host: 192.0.2.7/192.0.2.7 to TCP port: 9");
        assert_eq!(line(ScanKind::Udp, Transport::Udp), "WARN attackalert: UDP scan from host: 192.0.2.7/192.0.2.7 to UDP port: 9");
        assert_eq!(line(ScanKind::SctpInit, Transport::Sctp), "WARN attackalert: SCTP INIT scan from host: 192.0.2.7/192.0.2.7 to SCTP port: 9");
        assert_eq!(line(ScanKind::IpProtocol, Transport::Ip), "WARN attackalert: IP PROTOCOL scan from host: 192.0.2.7/192.0.2.7 to IP protocol: 9");
    }

    #[test]
    fn a_scan_names_the_scanner_and_not_its_prefix() {
        let line = texts(&event(scan("2001:db8:1::7", ScanKind::Syn, Transport::Tcp, 1, None))).join("|");
        assert!(line.contains("from host: 2001:db8:1::7/2001:db8:1::7 to"), "{line}");
    }

    #[test]
    fn what_is_not_blocked_says_why() {
        let line = |why| texts(&event(scan("192.0.2.7", ScanKind::Udp, Transport::Udp, 9, Some(why)))).pop().unwrap();
        assert_eq!(line("observe mode"), "WARN attackalert: Ignoring UDP response per configuration file setting.");
        assert_eq!(line("never-block address"), "WARN attackalert: Host 192.0.2.7 was not blocked: never-block address");
    }

    #[test]
    fn ip_options_are_told() {
        let mut notice = scan("192.0.2.7", ScanKind::Syn, Transport::Tcp, 9, None);
        if let Notice::Engine(Report::Scan { probe, .. }) = &mut notice {
            probe.ip_options = true;
        }
        assert_eq!(
            texts(&event(notice)).pop().unwrap(),
            "WARN attackalert: Packet from host: 192.0.2.7/192.0.2.7 to TCP port: 9 has IP options set (detection avoidance technique)."
        );
    }

    #[test]
    fn the_history_line_is_the_old_one() {
        let utc = jiff::tz::TimeZone::UTC;
        let line = |notice| history(&event(notice), &CLASSIC, &utc);
        assert_eq!(line(blocked("10.77.1.1", 1, false)).unwrap(), "1795188400 - 11/20/2026 15:26:40 Host: 10.77.1.1/10.77.1.1 Port: 1 TCP Blocked");
        assert_eq!(
            line(blocked("2001:db8:1::7", 22, false)).unwrap(),
            "1795188400 - 11/20/2026 15:26:40 Host: 2001:db8:1::/64/2001:db8:1:: Port: 22 TCP Blocked"
        );
        assert_eq!(line(blocked("10.77.1.1", 1, true)), None);
        let east = jiff::tz::TimeZone::fixed(jiff::tz::offset(2));
        assert!(history(&event(blocked("10.77.1.1", 1, false)), &CLASSIC, &east).unwrap().starts_with("1795188400 - 11/20/2026 17:26:40 Host"));
        assert_eq!(all().iter().filter_map(|event| history(event, &CLASSIC, &utc)).count(), 3);
    }
}
