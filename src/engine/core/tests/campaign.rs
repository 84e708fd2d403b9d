//! Campaigns: sources of one network, or of one program, that stay below their triggers.

use super::*;
use crate::config::{CampaignAction, Mode};
use crate::engine::campaigns::{PORTS, SOURCES};

fn campaigns(bench: &mut Bench) -> Vec<String> {
    let lines = bench.report_lines().into_iter();
    lines.filter(|line| line.starts_with("campaign")).collect()
}

/// Networks that the kernel was asked to treat, and whether it was to end.
fn networks(bench: &mut Bench) -> Vec<(String, bool)> {
    let orders = bench.orders.drain(..).filter_map(|order| match order {
        Action::Campaign { network, timeout } => Some((network.to_string(), timeout.is_none())),
        _ => None,
    });
    orders.collect()
}

/// Ports that one client would not try together.
fn port(n: u16) -> u16 {
    // Two thirds of them differ in their bits.
    200 + n
}

#[test]
fn many_sources_of_a_network_with_a_port_each_are_one_campaign() {
    for per_source in [1, 2] {
        let mut bench = Bench::new(|_| {});
        for n in 0..254 / per_source {
            let source = format!("198.51.100.{}", n + 1);
            bench.syn(&source, (0..per_source).map(|step| port(n * per_source + step)));
        }
        let lines = campaigns(&mut bench);
        let [line] = lines.as_slice() else { panic!("{per_source}: {lines:?}") };
        assert!(line.starts_with("campaign 198.51.100.0/24: "), "{line}");
        assert!(line.ends_with("16 ports, Report"), "{line}");
        let [(view, CampaignAction::Report)] = bench.engine.campaigns().collect::<Vec<_>>()[..]
        else {
            panic!("one is listed");
        };
        assert!(view.sources == u32::from(254 / per_source) && view.ports > 50, "{view:?}");
        assert_eq!(networks(&mut bench), []);
        assert!(bench.blocked().is_empty());
    }
}

#[test]
fn one_port_each_from_many_64s_of_a_56_is_a_campaign_of_it_alone() {
    let mut bench = Bench::new(|_| {});
    for n in 0..64 {
        bench.syn(&format!("2001:db8:7:ab{n:02x}::1"), [port(n)]);
    }
    let lines = campaigns(&mut bench);
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(line.starts_with("campaign 2001:db8:7:ab00::/56: "), "{line}");
    // Another customer's wrong port is not what makes the /48 one.
    bench.syn("2001:db8:7:cd00::1", [port(300)]);
    assert!(campaigns(&mut bench).is_empty());
}

#[test]
fn two_ports_each_from_many_64s_of_a_48_are_one_campaign() {
    let mut bench = Bench::new(|_| {});
    for n in 0..511u16 {
        // A /64 of another /56 each time.
        let subnet = n.wrapping_mul(0x0101).wrapping_add(n >> 8);
        bench.syn(&format!("2001:db8:7:{subnet:x}::1"), [port(2 * n), port(2 * n + 1)]);
    }
    let lines = campaigns(&mut bench);
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(line.starts_with("campaign 2001:db8:7::/48: "), "{line}");
}

#[test]
fn sources_past_their_triggers_are_a_campaign_whatever_ports_they_share() {
    let mut bench = Bench::new(|_| {});
    for n in 1..=SOURCES {
        bench.syn(&format!("198.51.100.{n}"), [21, 23, 512]);
    }
    assert_eq!(campaigns(&mut bench), ["campaign 198.51.100.0/24: 8 sources, 2 ports, Report"]);
}

// P4
#[test]
fn innocent_neighbours_are_no_campaign() {
    // All clients of a network try the ports of a service that has moved.
    let mut bench = Bench::new(|policy| policy.scan_trigger = 20);
    for n in 1..=254 {
        let mail = [25, 110, 143, 465, 587, 993, 995];
        let domain = [53, 88, 135, 389, 445, 464, 636];
        bench.syn(&format!("198.51.100.{n}"), mail.into_iter().chain(domain).chain([80, 443]));
    }
    assert!(campaigns(&mut bench).is_empty());
    // A scanner has neighbours with a wrong port each, fewer than a campaign's sources take.
    let mut bench = Bench::new(|_| {});
    bench.syn("198.51.100.1", 1..=500);
    for n in 2..=100 {
        bench.syn(&format!("198.51.100.{n}"), [[21, 23, 111, 513][n % 4]]);
    }
    assert!(campaigns(&mut bench).is_empty());
    // Sources that are never blocked.
    let mut bench = Bench::new(|_| {});
    bench.set_never_block(["198.51.100.0/24".parse().unwrap()].into_iter().collect());
    for n in 0..100 {
        bench.syn(&format!("198.51.100.{n}"), [port(n)]);
    }
    assert!(campaigns(&mut bench).is_empty());
}

// P4
#[test]
fn what_never_counts_toward_a_block_is_no_campaign() {
    let mut bench = Bench::new(|_| {});
    for n in 0..200 {
        let source = format!("198.51.100.{n}");
        bench.probe(&source, &format!("udp/{}", port(n)), ScanKind::Udp, false);
        bench.probe(&source, &format!("tcp/{}", port(n)), ScanKind::Ack, true);
    }
    assert!(campaigns(&mut bench).is_empty());
}

// P3
#[test]
fn a_network_is_treated_until_its_time_is_up_and_renewed_by_its_probes() {
    for action in [CampaignAction::Slow, CampaignAction::Block] {
        let mut bench = Bench::new(|policy| policy.campaign = action);
        for n in 0..40 {
            bench.syn(&format!("198.51.100.{n}"), [port(n)]);
        }
        let once = [("198.51.100.0/24".to_owned(), false)];
        assert_eq!(networks(&mut bench), once, "the kernel is asked once");
        assert!(campaigns(&mut bench)[0].ends_with(&format!("{action:?}")));
        // The same port again, as the rules log it of a network that they treat.
        bench.wait(SECOND * 30);
        bench.still("198.51.100.1", [port(1)]);
        assert_eq!(networks(&mut bench), once);
        assert!(bench.engine.slowed(None).next().is_none(), "no address is slowed for it");
        let row = |bench: &Bench| bench.engine.campaigns().next().unwrap();
        assert_eq!(row(&bench).1, action);
        bench.wait(SECOND * 61);
        assert_eq!(row(&bench).1, CampaignAction::Report);
        bench.syn("198.51.100.200", [port(1)]);
        assert_eq!((networks(&mut bench), row(&bench).1), (once.to_vec(), action));
        assert!(campaigns(&mut bench).is_empty(), "it was reported before");
        let target = Source::from("198.51.100.7/32".parse::<ipnet::IpNet>().unwrap());
        bench.command(|engine, now, actions| {
            let done = engine.unblock_within(now, target, actions);
            assert_eq!(
                done.released,
                [Source::from("198.51.100.0/24".parse::<ipnet::IpNet>().unwrap())]
            );
        });
        assert_eq!(networks(&mut bench), [("198.51.100.0/24".to_owned(), true)]);
        assert_eq!(bench.engine.campaigns().count(), 0);
    }
}

#[test]
fn in_observe_mode_a_campaign_is_only_reported() {
    let mut bench = Bench::new(|policy| {
        policy.campaign = CampaignAction::Block;
        policy.mode = Mode::Observe;
    });
    for n in 0..40 {
        bench.syn(&format!("198.51.100.{n}"), [port(n)]);
    }
    assert!(campaigns(&mut bench)[0].ends_with("Report"));
    assert_eq!(networks(&mut bench), []);
}

// P9
#[test]
fn a_flood_of_forged_networks_has_few_reports() {
    let mut bench = Bench::new(|policy| policy.campaign = CampaignAction::Slow);
    for network in 0..100 {
        for n in 0..40 {
            bench.syn(&format!("198.51.{network}.{n}"), [port(n)]);
        }
    }
    assert_eq!(campaigns(&mut bench).len(), 10);
    assert_eq!(networks(&mut bench).len(), 10);
    assert_eq!(bench.engine.campaigns().count(), 10);
}

/// SYNs of one program from several sources, each to a port of these.
fn program(signature: Signature, sources: u32, ports: u16) -> Vec<String> {
    let mut bench = Bench::new(|_| {});
    for n in 0..sources {
        let probe = Probe {
            // In a network each.
            source: Ipv4Addr::from(0x0a00_0000 + n * 0x0010_3001).into(),
            destination: "192.0.2.1".parse().unwrap(),
            port: Port { transport: Transport::Tcp, number: port(n as u16 % ports) },
            scan: ScanKind::Syn,
            ambiguous: false,
            ip_options: false,
            signature,
        };
        bench.command(|engine, now, actions| {
            engine.on_probe(now, &probe, actions);
        });
    }
    campaigns(&mut bench)
}

#[test]
fn sources_of_one_program_are_a_campaign_wherever_they_are() {
    for (signature, name, least, ports) in [
        (Signature::Masscan, "masscan", 8, 1),
        (Signature::Mirai, "mirai", 8, 1),
        (Signature::Sequence(7), "nmap", 4, 4),
    ] {
        assert!(program(signature, least - 1, ports).is_empty(), "{name}");
        let lines = program(signature, 10 * least, ports);
        let [line] = lines.as_slice() else { panic!("{name}: {lines:?}") };
        assert!(line.starts_with(&format!("campaign {name}: ")), "{line}");
    }
    assert!(program(Signature::None, 100, 4).is_empty());
    // With one port it may be one client behind several addresses.
    assert!(program(Signature::Sequence(7), 100, 1).is_empty());
}

#[test]
fn the_numbers_are_those_of_the_manual() {
    assert_eq!((SOURCES, PORTS), (8, 16));
}
