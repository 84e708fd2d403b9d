use super::super::samples::{all, blocked, command, event, named, scan, slowed};
use super::*;
use crate::probe::ScanKind;

fn texts(event: &Event) -> Vec<String> {
    lines(event).into_iter().map(|line| format!("{} {}", line.level, line.text)).collect()
}

#[test]
fn every_notice_has_its_classic_line() {
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "\
INFO adminalert: PortSentry {version} is starting.
INFO adminalert: Watching 1022 TCP ports in mode advanced: 0-112, 114-138, 140-1023; services listen on 1 of them: 22
DEBUG adminalert: Advanced mode will monitor first 1024 ports
DEBUG adminalert: Advanced mode will manually exclude port: 113
DEBUG adminalert: Advanced mode will manually exclude port: 139
DEBUG adminalert: Advanced Stealth scan detection mode activated. Ignored TCP port: 22
DEBUG adminalert: Advanced Stealth scan detection mode activated. Ignored TCP port: 113
DEBUG adminalert: Advanced Stealth scan detection mode activated. Ignored TCP port: 139
INFO adminalert: Watching 2 UDP ports in mode stealth: 1, 7
DEBUG adminalert: Going into stealth listen mode on UDP port: 1
DEBUG adminalert: Going into stealth listen mode on UDP port: 7
INFO adminalert: Watching 1 TCP port in mode connect: 1
DEBUG adminalert: Going into listen mode on TCP port: 1
INFO adminalert: PortSentry is now active and listening.
WARN attackalert: TCP SYN/Normal scan from host: 10.77.1.1/10.77.1.1 to TCP port: 1
WARN attackalert: Host 10.77.1.1 has been blocked via nftables for 1m: syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3
DEBUG attackalert: Host: 10.77.1.1/10.77.1.1 is already blocked Ignoring
DEBUG attackalert: Host 10.77.1.1 stays blocked via nftables for 1m: syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3
WARN attackalert: Host 2001:db8:1::/64 has been blocked via nftables for 1m: syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3
WARN adminalert: Host 192.0.2.0/24 has been blocked via nftables until it is unblocked: by hand: abuse
WARN attackalert: Host 10.77.1.1 was not blocked: slowed until its address is proven
WARN attackalert: Host 10.77.1.1 continues its scan, slowed: syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3
WARN attackalert: Campaign from 192.0.2.0/24: 8 sources probed 16 ports, slowed for 1m after its last probe.
WARN attackalert: Campaign with masscan: 8 sources probed 16 ports, reported only.
INFO adminalert: Host 10.77.1.1 is no longer slowed: its time is up. Of its packets 12 passed and 34 were dropped.
ERROR attackalert: ERROR: Could not block host 10.77.1.1 via nftables: no space in set\\nof 10
INFO adminalert: Host 10.77.1.1 is no longer blocked: its time is up.
INFO adminalert: Host 10.77.1.1 is exempt from the block of 10.0.0.0/8.
ERROR adminalert: ERROR: Could not unblock host 10.77.1.1: busy
INFO adminalert: PortSentry has reloaded its configuration.
INFO adminalert: Changed: scan_trigger: 2 -> 5
INFO adminalert: Changed: resolve: false -> true
INFO adminalert: PortSentry has reloaded its configuration: no change.
INFO adminalert: Switched: mode enforce, and observe again in 5m unless confirmed; detection paused for 1m.
INFO adminalert: Switched: mode observe; detection on; enforcing was not confirmed in time.
INFO adminalert: Command of root (uid 0, process 12, login ada): block 10.77.1.1 --for 0: done: 10.77.1.1 is blocked; until \\u{{1b}}[2J
ERROR adminalert: ERROR: the new configuration was refused, the old one stays in force:
ERROR adminalert: ERROR: a.yaml:1:2: no
ERROR adminalert: ERROR:   remedy: yes
WARN adminalert: WARNING: 3 packets lost between the kernel and PortSentry, 7 since the start.
WARN adminalert: WARNING: 5 packets of unknown sources shed in a flood, 9 since the start.
DEBUG adminalert: 5 addresses and networks are never blocked.
INFO adminalert: 192.0.2.7 is allowed now: never blocked by the name office.example.net.
INFO adminalert: 2001:db8::7 is allowed now: never blocked by the name office.example.net.
INFO adminalert: 192.0.2.9 is not allowed any more by the name office.example.net.
WARN securityalert: WARNING: n\\u{{1b}}[2Jft (process 12) changed the table inet portsentry: the table was restored
INFO attackalert: External command run for host: 10.77.1.1 using command: \"/bin/page 10.77.1.1 on call\"
ERROR attackalert: ERROR: External command for host: 10.77.1.1 failed (exit status 3): \"/bin/page 10.77.1.1 on call\"; it wrote: no\\n\\u{{1b}}[31mcarrier
ERROR attackalert: ERROR: External command for host: 10.77.1.1 failed (killed by signal 9): \"/bin/page 10.77.1.1 on call\"
ERROR attackalert: ERROR: External command for host: 10.77.1.1 failed (killed, it ran longer than 10s): \"/bin/page 10.77.1.1 on call\"
ERROR attackalert: ERROR: External command for host: 10.77.1.1 failed (not started: no such file or directory): \"/bin/page 10.77.1.1 on call\"
INFO attackalert: Host 10.77.1.1 has been blocked via wrappers with string: \"ALL: 10.77.1.1 : DENY\"
INFO adminalert: Host 10.77.1.1 is no longer denied via wrappers.
ERROR adminalert: ERROR: 2 external commands not run: too many were waiting.
INFO adminalert: Notification by webhook sent: 1 source blocked
WARN adminalert: WARNING: Notification by webhook failed: no answer in time
INFO adminalert: Status: blocked 3
INFO adminalert: 2 blocks found in the kernel, kept in force.
INFO adminalert: 3 blocks restored from the state store, in force again.
WARN adminalert: WARNING: watch out
ERROR adminalert: ERROR: it broke
WARN adminalert: WARNING: 9 lines held back within 1m.
INFO securityalert: PortSentry is shutting down
INFO adminalert: PortSentry is shutting down
INFO adminalert: 2 blocks left in force in the kernel.
INFO adminalert: Nothing is watched until the next start."
    );
    let lines: Vec<String> = all().iter().flat_map(texts).collect();
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn short_port_lists_have_a_line_for_each_port_and_long_ones_ranges() {
    let lines = |mode, ports: PortSet, excluded: PortSet| {
        let notice = Notice::Watching {
            transport: Transport::Tcp,
            mode,
            ports,
            excluded,
            services: PortSet::range(1, 9),
        };
        lines(&event(notice)).into_iter().skip(1).map(|line| line.text).collect::<Vec<_>>()
    };
    let none = PortSet::default;
    assert_eq!(lines("stealth", PortSet::range(1, 64), none()).len(), 64);
    assert_eq!(
        lines("stealth", PortSet::range(1, 65), none()),
        ["adminalert: Going into stealth listen mode on TCP ports: 1-65"]
    );
    assert_eq!(
        lines("connect", PortSet::range(2000, 6999), none()),
        ["adminalert: Going into listen mode on TCP ports: 2000-6999"]
    );
    assert_eq!(
        lines("advanced", PortSet::range(1, 1023), none())[0],
        "adminalert: Advanced mode will monitor first 1023 ports"
    );
    assert_eq!(
        lines("advanced", PortSet::range(1000, 1099), none()),
        [
            "adminalert: Advanced mode will monitor 100 TCP ports: 1000-1099",
            "adminalert: Advanced mode will manually exclude no ports"
        ]
    );
    assert_eq!(
        lines("advanced", PortSet::range(1, 1023), PortSet::range(100, 199))[1..],
        [
            "adminalert: Advanced mode will manually exclude ports: 100-199",
            "adminalert: Advanced Stealth scan detection mode activated. Ignored TCP ports: 1-9, 100-199"
        ]
    );
}

#[test]
fn tagged_lines_are_notices_and_only_errors_are_more_severe() {
    for line in all().iter().flat_map(lines) {
        assert_eq!(
            line.priority,
            if line.text.contains(": ERROR: ") { Level::Error } else { Level::Info },
            "{line:?}"
        );
    }
    assert_eq!(
        Line::classic(Level::Debug, message(Level::Debug, "portsentry::nft", "x")).priority,
        Level::Debug
    );
}

#[test]
fn a_name_precedes_the_address_as_in_the_old_program() {
    let line = |notice| lines(&named(notice)).remove(0).text;
    let syn = scan("10.77.1.1", ScanKind::Syn, Transport::Tcp, 1, None);
    assert_eq!(
        line(syn),
        "attackalert: TCP SYN/Normal scan from host: scanner.example/10.77.1.1 to TCP port: 1"
    );
    assert_eq!(
        line(blocked("10.77.1.1", 1, 1)),
        "attackalert: Host: scanner.example/10.77.1.1 is already blocked Ignoring"
    );
    let told = history(&named(blocked("10.77.1.1", 1, 0)), &jiff::tz::TimeZone::UTC).unwrap();
    assert_eq!(
        told,
        "1795188400 - 11/20/2026 15:26:40 Host: scanner.example/10.77.1.1 Port: 1 TCP Blocked"
    );
}

#[test]
fn a_command_that_writes_megabytes_makes_a_short_line() {
    for text in lines(&event(command(Ended::Status(1), &"\u{1b}[31mx\n".repeat(500_000)))) {
        assert!(text.text.len() < 700, "{}", text.text.len());
    }
}

#[test]
fn scans_have_their_classic_names() {
    let line =
        |kind, transport| texts(&event(scan("192.0.2.7", kind, transport, 9, None))).join("|");
    assert_eq!(
        line(ScanKind::Connect, Transport::Tcp),
        "WARN attackalert: Connect from host: 192.0.2.7/192.0.2.7 to TCP port: 9"
    );
    assert_eq!(
        line(ScanKind::Null, Transport::Tcp),
        "WARN attackalert:  TCP NULL scan from host: 192.0.2.7/192.0.2.7 to TCP port: 9"
    );
    assert_eq!(
        line(ScanKind::Udp, Transport::Udp),
        "WARN attackalert: UDP scan from host: 192.0.2.7/192.0.2.7 to UDP port: 9"
    );
    assert_eq!(
        line(ScanKind::SctpInit, Transport::Sctp),
        "WARN attackalert: SCTP INIT scan from host: 192.0.2.7/192.0.2.7 to SCTP port: 9"
    );
    assert_eq!(
        line(ScanKind::IpProtocol, Transport::Ip),
        "WARN attackalert: IP PROTOCOL scan from host: 192.0.2.7/192.0.2.7 to IP protocol: 9"
    );
}

#[test]
fn a_scan_names_the_scanner_and_not_its_prefix() {
    let line =
        texts(&event(scan("2001:db8:1::7", ScanKind::Syn, Transport::Tcp, 1, None))).join("|");
    assert!(line.contains("from host: 2001:db8:1::7/2001:db8:1::7 to"), "{line}");
}

#[test]
fn a_scan_without_a_block_says_why() {
    let line = |why| {
        texts(&event(scan("192.0.2.7", ScanKind::Udp, Transport::Udp, 9, Some(why)))).pop().unwrap()
    };
    assert_eq!(
        line("observe mode, it would have been blocked"),
        "WARN attackalert: Host 192.0.2.7 was not blocked: observe mode, it would have been blocked"
    );
    assert_eq!(
        line("tcp.action is log"),
        "WARN attackalert: Ignoring UDP response per configuration file setting."
    );
    assert_eq!(
        line("tcp.action is command"),
        "WARN attackalert: UDP scan from host: 192.0.2.7/192.0.2.7 to UDP port: 9"
    );
    assert_eq!(
        line("never-block address"),
        "WARN attackalert: Host 192.0.2.7 was not blocked: never-block address; portsentryctl test 192.0.2.7 tells why"
    );
}

#[test]
fn ip_options_are_logged() {
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
    let line = |notice| history(&event(notice), &utc);
    assert_eq!(
        line(blocked("10.77.1.1", 1, 0)).unwrap(),
        "1795188400 - 11/20/2026 15:26:40 Host: 10.77.1.1/10.77.1.1 Port: 1 TCP Blocked"
    );
    assert_eq!(
        line(blocked("2001:db8:1::7", 22, 0)).unwrap(),
        "1795188400 - 11/20/2026 15:26:40 Host: 2001:db8:1::/64/2001:db8:1::7 Port: 22 TCP Blocked"
    );
    let reported = |why| line(scan("2001:db8:1::7", ScanKind::Udp, Transport::Udp, 9, Some(why)));
    assert_eq!(
        reported("udp.action is log").unwrap(),
        "1795188400 - 11/20/2026 15:26:40 Host: 2001:db8:1::/64/2001:db8:1::7 Port: 9 UDP Reported"
    );
    assert_eq!(reported("never-block address"), None, "fail2ban may read these lines");
    assert_eq!(line(blocked("10.77.1.1", 1, 1)), None);
    let east = jiff::tz::TimeZone::fixed(jiff::tz::offset(2));
    assert!(
        history(&event(blocked("10.77.1.1", 1, 0)), &east)
            .unwrap()
            .starts_with("1795188400 - 11/20/2026 17:26:40 Host")
    );
    assert_eq!(
        line(slowed("10.77.1.1", 1)).unwrap(),
        "1795188400 - 11/20/2026 15:26:40 Host: 10.77.1.1/10.77.1.1 Port: 1 TCP Slowed"
    );
    assert_eq!(all().iter().filter_map(|event| history(event, &utc)).count(), 4);
}
