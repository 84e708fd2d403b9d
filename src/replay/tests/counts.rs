//! What is judged by other counts than a source's ports: refusals, late packets, flags, sweeps,
//! clients of services, and campaigns.

use super::*;

#[test]
fn many_refused_ports_that_are_not_watched_are_reported_slowed_or_ignored() {
    let mut udp = Capture::default();
    for port in 2000..2030 {
        udp.udp((SCANNER, 40_000), (HOST, port));
    }
    let captures = [(scan(SYN, 2000..=2029), "syn"), (udp, "udp")];
    for (unwatched, is_found, slowed) in [
        (config::Unwatched::Report, true, 0),
        (config::Unwatched::Slow, true, 1),
        (config::Unwatched::Ignore, false, 0),
    ] {
        let config = Config { unwatched, ..Config::default() };
        for (capture, kind) in &captures {
            let found = report_with(&[&capture.file()], &["--local", HOST], &config);
            if !is_found {
                assert_eq!(
                    (detected(&found).len(), &found["skipped"]["not_watched"]),
                    (0, &30.into())
                );
                continue;
            }
            assert_eq!(detected(&found), [format!("{SCANNER} {kind} 21")], "{found}");
            let row = &found["detected"][0];
            assert_eq!(row["slowed"].as_array().unwrap().len(), slowed, "{row}");
            // Twenty ports say nothing.
            let few = Capture { packets: capture.packets[..20].to_vec(), now: capture.now };
            assert_eq!(
                detected(&report_with(&[&few.file()], &["--local", HOST], &config)),
                [""; 0]
            );
        }
    }
    // What closed connections send there is nothing.
    assert_eq!(detected(&report(&scan(ACK, 2000..=2029).file())), [""; 0]);
}

#[test]
fn packets_that_look_late_are_reported_from_many_ports_on() {
    let mut config = Config::default();
    (config.tcp.mode, config.udp.mode) = (config::PortMode::Stealth, config::PortMode::Stealth);
    config.tcp.ports = config::PortSet::range(1, 65535);
    config.udp.ports = config::PortSet::range(1, 65535);
    let datagrams = |port: u16, payload: &[u8]| {
        let mut capture = Capture::default();
        for to in 40_000..40_030u16 {
            let mut datagram = [port.to_be_bytes(), to.to_be_bytes()].concat();
            datagram.extend([0, 8 + payload.len() as u8, 0, 0]);
            datagram.extend(payload);
            capture.push(ip(17, SCANNER, HOST, &datagram));
        }
        capture
    };
    for (capture, kind) in [
        (scan(ACK, 40_000..=40_029), Some("ack")),
        (scan(FIN, 40_000..=40_029), Some("fin")),
        (scan(ACK, 40_000..=40_019), None),
        // No answers of a name server.
        (datagrams(53, &[]), Some("udp")),
        (datagrams(53, &[0, 1, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0]), None),
    ] {
        let found = report_with(&[&capture.file()], &["--local", HOST], &config);
        let rows: Vec<_> = kind.map(|kind| format!("{SCANNER} {kind} 21")).into_iter().collect();
        assert_eq!(detected(&found), rows, "{found}");
        assert_eq!(found["probes"], 0, "{found}");
    }
}

#[test]
fn flags_that_no_stack_sends_are_evidence_on_open_and_unwatched_ports() {
    const PSH: u8 = 8;
    const URG: u8 = 32;
    for (flags, kind) in [
        (0, "null"),
        (FIN | PSH | URG, "xmas"),
        (FIN | PSH, "custom-flags"),
        (FIN | URG, "custom-flags"),
        (SYN | FIN, "custom-flags"),
        (SYN | FIN | ACK, "custom-flags"),
    ] {
        let mut open = Capture::default();
        for port in [22, 80, 443] {
            open.session(("198.51.100.7", 50_000), (HOST, port));
            // Also within a live connection.
            open.tcp((SCANNER, 50_000), (HOST, port), SYN, b"");
            open.tcp((HOST, port), (SCANNER, 50_000), SYN | ACK, b"");
            open.tcp((SCANNER, 50_000), (HOST, port), ACK, b"");
            open.tcp((SCANNER, 50_000), (HOST, port), flags, b"");
        }
        for capture in [open, scan(flags, 40_000..=40_002)] {
            let found = report(&capture.file());
            assert_eq!(detected(&found), [format!("{SCANNER} {kind} 3")], "{flags} {found}");
        }
    }
    // A SYN with PSH or URG opens a connection.
    let mut urgent = Capture::default();
    for port in [22, 80, 443, 993] {
        urgent.tcp((SCANNER, 50_000), (HOST, port), SYN | URG | PSH, b"");
        urgent.tcp((HOST, port), (SCANNER, 50_000), SYN | ACK, b"");
    }
    assert_eq!(detected(&report(&urgent.file())), [""; 0]);
}

#[test]
fn datagrams_to_own_addresses_in_frames_for_all_hosts_are_probes() {
    let mut capture = Capture::default();
    for port in 151..=160 {
        capture.udp((SCANNER, 40_000), (HOST, port));
        capture.udp(("198.51.100.7", 40_000), ("192.0.2.255", port));
    }
    capture.wait(60).tcp((SCANNER, 1), (HOST, 1), RST, b"");
    let group = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 8, 0];
    let found = report(&capture.cut(1, &group, usize::MAX));
    assert_eq!(detected(&found), [format!("{SCANNER} udp 3")], "{found}");
}

#[test]
fn sweeps_of_pings_and_of_a_port_are_reported() {
    let request = [8, 0, 0, 0, 0, 1, 0, 1];
    let pings = |last: u8| {
        let mut capture = Capture::default();
        for n in 1..=last {
            let host = format!("192.0.2.{n}");
            for _ in 0..3 {
                capture.push(ip(1, SCANNER, &host, &request));
                capture.push(ip(1, &host, SCANNER, &[0, 0, 0, 0, 0, 1, 0, 1]));
            }
        }
        capture
    };
    let found = report(&pings(20).file());
    assert_eq!(detected(&found), [format!("{SCANNER} ping-sweep 11")], "{found}");
    assert_eq!(detected(&report(&pings(10).file())), [""; 0]);
    let mut sweep = Capture::default();
    for n in 1..=20 {
        sweep.tcp((SCANNER, 40_000), (&format!("192.0.2.{n}"), 445), SYN, b"");
    }
    assert_eq!(detected(&report(&sweep.file())), [format!("{SCANNER} sweep 11")]);
}

#[test]
fn clients_of_services_may_try_eight_closed_ports_a_day() {
    let client = "198.51.100.7";
    let after = |connections: u16, ports: u16| {
        let mut capture = Capture::default();
        for n in 0..connections {
            capture.session((client, 50_000 + n), (HOST, 22));
        }
        for port in 1000..1000 + ports {
            capture.refused(client, port, SYN);
        }
        capture
    };
    let rows = |capture: &Capture| detected(&report(&capture.file()));
    let third = [format!("{client} syn 3")];
    assert_eq!(rows(&after(5, 10)), [""; 0]);
    assert_eq!(rows(&after(5, 11)), third);
    assert_eq!(rows(&after(4, 8)), third);
    // A port counts once, and only SYNs are excused.
    let mut again = after(5, 8);
    for port in 1000..1008 {
        again.refused(client, port, SYN);
    }
    let found = report(&again.file());
    assert_eq!((detected(&found).len(), &found["skipped"]["excused"]), (0, &16.into()), "{found}");
    let mut null = after(5, 0);
    for port in 1000..1003 {
        null.refused(client, port, 0);
    }
    assert_eq!(rows(&null), [format!("{client} null 3")]);
    // More of them on the next day, and none two days after.
    let mut next = after(5, 8);
    next.wait(23 * 3600);
    for port in 900..910 {
        next.refused(client, port, SYN);
    }
    let found = report(&next.file());
    assert_eq!((detected(&found).len(), &found["skipped"]["excused"]), (1, &15.into()), "{found}");
    let mut late = after(5, 0);
    late.wait(25 * 3600);
    for port in 900..903 {
        late.refused(client, port, SYN);
    }
    assert_eq!(rows(&late), third);
    // At trigger 0 nothing is excused.
    let config = Config { scan_trigger: 0, ..Config::default() };
    let found = report_with(&[&after(5, 1).file()], &["--local", HOST], &config);
    assert_eq!(detected(&found), [format!("{client} syn 1")], "{found}");
}

#[test]
fn a_campaign_is_reported_as_live() {
    let mut capture = Capture::default();
    for n in 1..=60u16 {
        capture.refused(&format!("198.51.100.{n}"), 200 + n, SYN);
        let (from, to) = (format!("2001:db8:7:ab{n:02x}::9"), ("2001:db8::1", 200 + n));
        capture.tcp((&from, 40_000), to, SYN, b"").tcp(to, (&from, 40_000), RST | ACK, b"");
    }
    let report = report(&capture.file());
    let rows = report["campaigns"].as_array().unwrap().iter();
    let rows: Vec<_> =
        rows.map(|row| (row["address"].as_str().unwrap(), &row["program"])).collect();
    // These have one sequence number too, the window of nmap, and four ports by then.
    assert_eq!(
        rows,
        [
            ("198.51.100.4", &Value::from("nmap")),
            ("198.51.100.0/24", &Value::Null),
            ("2001:db8:7:ab00::/56", &Value::Null)
        ]
    );
    assert_eq!(detected(&report), Vec::<String>::new());
}

#[test]
fn a_campaign_says_what_would_have_been_done_to_its_network() {
    let mut capture = Capture::default();
    for n in 1..=60u16 {
        capture.refused(&format!("198.51.100.{n}"), 200 + n, SYN);
    }
    for (action, state) in [
        (CampaignAction::Report, "reported"),
        (CampaignAction::Slow, "slowed"),
        (CampaignAction::Block, "blocked"),
    ] {
        let mut config = Config::default();
        config.campaign.action = action;
        let report = report_with(&[&capture.file()], &["--local", "192.0.2.0/24"], &config);
        let rows = report["campaigns"].as_array().unwrap();
        let network = rows.iter().find(|row| row["address"] == "198.51.100.0/24").unwrap();
        let timeout = (action != CampaignAction::Report).then_some(60);
        assert_eq!((&network["state"], &network["timeout"]), (&state.into(), &timeout.into()));
    }
}

#[test]
fn a_host_of_a_slowed_or_blocked_network_is_judged_as_live() {
    let campaign = || {
        let mut capture = Capture::default();
        for port in 50_000..50_006 {
            capture.session(("198.51.100.252", port), (HOST, 22));
        }
        for n in 1..=60u16 {
            capture.refused(&format!("198.51.100.{n}"), 200 + n, SYN);
        }
        capture
    };
    // One that scans ports which are not watched: it counts while it is slowed, and is dropped while it
    // is blocked. A known client is exempt.
    for (action, source, ports, is_found) in [
        (CampaignAction::Report, "198.51.100.251", 5, None),
        (CampaignAction::Report, "198.51.100.251", 30, Some(21)),
        (CampaignAction::Slow, "198.51.100.251", 5, Some(3)),
        (CampaignAction::Slow, "198.51.100.252", 5, None),
        (CampaignAction::Slow, "203.0.113.7", 5, None),
        (CampaignAction::Block, "198.51.100.251", 30, None),
        (CampaignAction::Block, "198.51.100.252", 30, Some(21)),
        (CampaignAction::Block, "203.0.113.7", 30, Some(21)),
    ] {
        let mut config = Config { unwatched: config::Unwatched::Slow, ..Config::default() };
        config.campaign.action = action;
        let mut capture = campaign();
        for port in 0..ports {
            capture.refused(source, 2000 + port, SYN);
        }
        let found = report_with(&[&capture.file()], &["--local", "192.0.2.0/24"], &config);
        let rows = found["detected"].as_array().unwrap();
        let row = rows.iter().find(|row| row["address"] == source);
        let after = row.and_then(|row| row["probes_until_detected"].as_u64());
        assert_eq!(after, is_found, "{action:?} {source} {ports}: {found}");
    }
}
