//! What the engine does, in sentences. Sequences at random are in `tests/engine.rs`.

use std::net::Ipv4Addr;

use super::*;
use crate::config::{Config, ProtocolAction};
use crate::probe::{Port, Transport};

/// An engine with a kernel beside it that says yes, unless told otherwise.
struct Bench {
    engine: Engine,
    now: u64,
    reports: Vec<Report>,
    orders: Vec<Action>,
    refuse: bool,
    answers: bool,
    packets: Option<u64>,
    released: Vec<(Source, Option<Vec<Port>>)>,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = Policy::from_config(&Config::default());
        policy.capacity = 3000;
        change(&mut policy);
        Self {
            engine: Engine::new(policy, [1, 2]),
            now: 0,
            reports: Vec::new(),
            orders: Vec::new(),
            refuse: false,
            answers: true,
            packets: Some(0),
            released: Vec::new(),
        }
    }

    fn at(&self) -> Moment {
        Moment::from_millis(self.now)
    }

    fn carry_out(&mut self, mut actions: Vec<Action>) {
        while !actions.is_empty() {
            for action in std::mem::take(&mut actions) {
                let result = if self.refuse { Err("set is full".to_owned()) } else { Ok(()) };
                let outcome = match &action {
                    Action::Report(report) => {
                        self.reports.push(report.clone());
                        continue;
                    }
                    Action::Block { subject, .. } => Outcome::Blocked { subject: *subject, result },
                    Action::Unblock { subject } => Outcome::Unblocked { subject: *subject, result },
                    Action::Count { subject } => Outcome::Counted { subject: *subject, packets: self.packets },
                    Action::Release { source, forget } => {
                        self.released.push((*source, forget.clone()));
                        continue;
                    }
                };
                self.orders.push(action);
                if self.answers {
                    self.engine.on_outcome(self.at(), outcome, &mut actions);
                }
            }
        }
    }

    fn answer(&mut self, outcome: Outcome) {
        let mut actions = Vec::new();
        self.engine.on_outcome(self.at(), outcome, &mut actions);
        self.carry_out(actions);
    }

    fn probe(&mut self, source: &str, port: &str, scan: ScanKind, imitable: bool) {
        let (transport, number) = port.split_once('/').unwrap();
        let transport = [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip].into_iter().find(|known| known.name() == transport).unwrap();
        let port = Port { transport, number: number.parse().unwrap() };
        let destination = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let probe = Probe { source: source.parse().unwrap(), destination, port, scan, imitable, ip_options: false };
        let mut actions = Vec::new();
        self.engine.on_probe(self.at(), &probe, &mut actions);
        self.carry_out(actions);
    }

    fn syn(&mut self, source: &str, ports: impl IntoIterator<Item = u16>) {
        for port in ports {
            self.probe(source, &format!("tcp/{port}"), ScanKind::Syn, false);
        }
    }

    /// SYNs with which the rules hold their source.
    fn held(&mut self, source: &str, ports: impl IntoIterator<Item = u16>) {
        self.rules_tell(source, ports, Engine::on_held);
    }

    /// SYNs of a source that the rules hold already.
    fn still(&mut self, source: &str, ports: impl IntoIterator<Item = u16>) {
        self.rules_tell(source, ports, Engine::on_still);
    }

    fn rules_tell(&mut self, source: &str, ports: impl IntoIterator<Item = u16>, tell: fn(&mut Engine, Moment, &Probe, &mut Vec<Action>) -> Trigger) {
        let destination = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        for number in ports {
            let port = Port { transport: Transport::Tcp, number };
            let probe = Probe { source: source.parse().unwrap(), destination, port, scan: ScanKind::Syn, imitable: false, ip_options: false };
            self.command(|engine, now, actions| {
                tell(engine, now, &probe, actions);
            });
        }
    }

    fn command(&mut self, run: impl FnOnce(&mut Engine, Moment, &mut Vec<Action>)) {
        let mut actions = Vec::new();
        run(&mut self.engine, Moment::from_millis(self.now), &mut actions);
        self.carry_out(actions);
    }

    /// Lets time pass, timers included.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time.as_millis() as u64;
        while let Some(due) = self.engine.next_timer().filter(|due| due.millis() <= end) {
            self.now = self.now.max(due.millis());
            self.command(|engine, now, actions| engine.on_timer(now, actions));
        }
        self.now = end;
    }

    /// Reports since the last call, in short.
    fn told(&mut self) -> Vec<String> {
        let short = |report: Report| match report {
            Report::Scan { source, not_blocked, reason, .. } => {
                format!("scan {} {reason} {}", source.address(), not_blocked.map_or("-", NotBlocked::text))
            }
            Report::Blocked { subject, timeout, renewed, .. } => {
                format!("blocked {} {:?}{}", subject.display(64), timeout.unwrap_or_default(), if renewed { " renewed" } else { "" })
            }
            Report::BlockFailed { subject, error } => format!("failed {} {error}", subject.display(64)),
            Report::Unblocked { subject, ending } => format!("unblocked {} {ending:?}", subject.display(64)),
            Report::UnblockFailed { subject, error } => format!("unblock failed {} {error}", subject.display(64)),
        };
        std::mem::take(&mut self.reports).into_iter().map(short).collect()
    }

    fn blocked(&self) -> Vec<String> {
        let mut blocked: Vec<String> = self.engine.blocks().map(|view| view.subject.display(64).to_string()).collect();
        blocked.sort();
        blocked
    }

    fn orders(&mut self) -> usize {
        std::mem::take(&mut self.orders).len()
    }
}

fn host(address: &str) -> Subject {
    Subject::Host(Source::of(address.parse().unwrap(), 64))
}

const THEM: &str = "203.0.113.9";
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_third_port_blocks_and_the_log_says_so_after_the_kernel() {
    let mut bench = Bench::new(|_| {});
    bench.answers = false;
    bench.syn(THEM, [1, 2]);
    assert!(bench.told().is_empty());
    bench.now = 200;
    bench.syn(THEM, [3, 4, 5]);
    assert_eq!(bench.told(), ["scan 203.0.113.9 syn scan: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3 -"]);
    assert_eq!(bench.orders(), 1);
    assert!(bench.blocked().is_empty());
    bench.answer(Outcome::Blocked { subject: host(THEM), result: Ok(()) });
    assert_eq!(bench.told(), ["blocked 203.0.113.9 60s"]);
    assert_eq!(bench.blocked(), [THEM]);
    assert_eq!(bench.engine.status().already_blocked, 2);
}

#[test]
fn xmas_scan_over_ipv6_is_blocked_once_and_as_a_prefix() {
    let mut bench = Bench::new(|_| {});
    for (n, port) in (1..=9).zip(1..) {
        bench.probe(&format!("2001:db8::{n}"), &format!("tcp/{port}"), ScanKind::Xmas, false);
    }
    assert_eq!(bench.blocked(), ["2001:db8::/64"]);
    assert_eq!(bench.orders(), 1);
}

#[test]
fn trigger_zero_blocks_at_the_first_port_but_not_for_imitable_evidence() {
    let mut bench = Bench::new(|policy| policy.scan_trigger = 0);
    bench.probe(THEM, "tcp/80", ScanKind::Ack, true);
    assert!(bench.blocked().is_empty());
    bench.syn("203.0.113.10", [22]);
    assert_eq!(bench.blocked(), ["203.0.113.10"]);
}

#[test]
fn one_port_tried_again_and_again_is_no_scan() {
    let mut bench = Bench::new(|_| {});
    for _ in 0..500 {
        bench.now += 900;
        bench.syn(THEM, [873, 874]);
    }
    assert!(bench.told().is_empty());
}

#[test]
fn late_acknowledgements_to_five_ports_are_no_scan_and_to_six_are_one() {
    let mut bench = Bench::new(|_| {});
    for port in 1..=5 {
        bench.probe(THEM, &format!("tcp/{port}"), ScanKind::Ack, true);
    }
    assert!(bench.told().is_empty());
    bench.probe(THEM, "tcp/6", ScanKind::Ack, true);
    assert_eq!(bench.blocked(), [THEM]);
}

#[test]
fn udp_is_told_once_a_window_and_does_not_count_toward_a_block() {
    let mut bench = Bench::new(|_| {});
    for port in 1..=20 {
        bench.probe(THEM, &format!("udp/{port}"), ScanKind::Udp, false);
    }
    bench.syn(THEM, [1, 2]);
    assert_eq!(bench.told(), ["scan 203.0.113.9 udp scan: 3 ports in 0.0s: udp/1 udp/2 udp/3 udp.action is log"]);
    bench.syn(THEM, [3]);
    assert_eq!(bench.blocked(), [THEM]);
    let mut bench = Bench::new(|policy| policy.udp = ProtocolAction::Block);
    for port in 1..=3 {
        bench.probe(THEM, &format!("udp/{port}"), ScanKind::Udp, false);
    }
    assert_eq!(bench.blocked(), [THEM]);
}

#[test]
fn observe_mode_tells_and_orders_nothing() {
    let mut bench = Bench::new(|policy| policy.mode = Mode::Observe);
    bench.syn(THEM, 1..100);
    assert_eq!(bench.told(), ["scan 203.0.113.9 syn scan: 3 ports in 0.0s: tcp/1 tcp/2 tcp/3 observe mode"]);
    assert_eq!(bench.orders(), 0);
    bench.command(|engine, now, actions| assert_eq!(engine.block(now, host(THEM), None, "", actions), Err(Refusal::Observe)));
}

#[test]
fn a_never_block_address_is_told_once_a_window_and_never_blocked() {
    let mut bench = Bench::new(|policy| policy.allow = ["203.0.113.0/24".parse().unwrap()].into_iter().collect());
    let own: AllowList = ["2001:db8::1/128".parse().unwrap()].into_iter().collect();
    bench.command(|engine, now, actions| engine.set_never_block(now, own, actions));
    bench.syn(THEM, 1..100);
    bench.syn("2001:db8::bad", 1..100);
    bench.syn("fe80::1", 1..100);
    assert_eq!(bench.told().iter().filter(|line| line.ends_with("never-block address")).count(), 3);
    assert_eq!(bench.orders(), 0);
    bench.command(|engine, now, actions| {
        let refusal = engine.block(now, host("2001:db8::7"), None, "", actions).unwrap_err();
        assert_eq!(refusal.to_string(), "block 2001:db8::/64: it overlaps 2001:db8::1/128, which is never blocked (never_block)");
        let all = Subject::Network("0.0.0.0/0".parse().unwrap());
        assert!(engine.block(now, all, None, "", actions).is_err());
    });
}

#[test]
fn handshakes_are_told_as_proof_whatever_stands_against_a_block() {
    let cases: [fn(&mut Policy); 4] = [
        |policy| policy.allow = ["203.0.113.0/24".parse().unwrap()].into_iter().collect(),
        |policy| policy.tcp = ProtocolAction::Log,
        |policy| policy.tcp = ProtocolAction::Command,
        |policy| policy.mode = Mode::Observe,
    ];
    for case in cases {
        for (scan, expected) in [(ScanKind::Connect, true), (ScanKind::Syn, false)] {
            let mut bench = Bench::new(case);
            for port in 1..=3 {
                bench.probe(THEM, &format!("tcp/{port}"), scan, false);
            }
            let [Report::Scan { reason: Reason::Scan { proven, .. }, not_blocked: Some(_), .. }] = &bench.reports[..] else {
                panic!("{:?}", bench.reports);
            };
            assert_eq!(*proven, expected, "{:?}", bench.reports);
        }
    }
}

#[test]
fn an_unproven_block_is_renewed_while_packets_come_and_expires_when_they_end() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.told();
    bench.packets = Some(10);
    bench.wait(SECOND * 50);
    assert_eq!(bench.told(), ["blocked 203.0.113.9 60s renewed"]);
    // Renewed at 45 s, asked again at 90 s; not one more packet since.
    bench.wait(SECOND * 54);
    assert!(bench.told().is_empty());
    assert_eq!(bench.blocked(), [THEM]);
    bench.wait(SECOND * 2);
    assert_eq!(bench.told(), ["unblocked 203.0.113.9 Expired"]);
    assert_eq!(bench.engine.status().blocked, 0);
}

#[test]
fn renewals_are_told_ever_more_seldom() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.told();
    for packets in 1..=99 {
        bench.packets = Some(packets);
        bench.wait(SECOND * 45);
    }
    assert_eq!(bench.engine.status().renewals, 99);
    assert_eq!(bench.told().len(), 7);
}

#[test]
fn an_element_that_somebody_took_out_is_unblocked_by_hand_and_forgiven() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.packets = None;
    bench.wait(SECOND * 45);
    assert_eq!(bench.told().last().unwrap(), "unblocked 203.0.113.9 ByHand");
    bench.syn(THEM, [4, 5]);
    assert!(bench.blocked().is_empty());
}

#[test]
fn proven_sources_are_blocked_longer_each_time() {
    let mut bench = Bench::new(|_| {});
    for hours in [1, 4, 16] {
        for port in 1..=3 {
            bench.probe(THEM, &format!("tcp/{port}"), ScanKind::Connect, false);
        }
        assert_eq!(bench.told().last().unwrap(), &format!("blocked 203.0.113.9 {}s", hours * 3600));
        bench.wait(SECOND * 3600 * hours);
        assert_eq!(bench.told(), ["unblocked 203.0.113.9 Expired"]);
    }
    bench.wait(SECOND * 86_400 * 31);
    for port in 1..=3 {
        bench.probe(THEM, &format!("tcp/{port}"), ScanKind::Connect, false);
    }
    assert_eq!(bench.told().last().unwrap(), "blocked 203.0.113.9 3600s");
}

#[test]
fn proof_lengthens_an_unproven_block() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.told();
    for port in 1..=4 {
        bench.probe(THEM, &format!("tcp/{port}"), ScanKind::Connect, false);
    }
    assert_eq!(bench.told().last().unwrap(), "blocked 203.0.113.9 3600s renewed");
    assert_eq!(bench.orders(), 2);
}

#[test]
fn new_unproven_blocks_are_capped_by_the_minute_and_the_rest_is_told() {
    let mut bench = Bench::new(|policy| policy.unproven.per_minute = 10);
    for n in 0..30 {
        bench.syn(&format!("203.0.113.{n}"), 1..=4);
    }
    assert_eq!(bench.blocked().len(), 8, "a quarter is kept for those who go on");
    let told = bench.told();
    assert_eq!(told.iter().filter(|line| line.ends_with("block.unproven.per_minute is used up")).count(), 22);
    for n in 10..30 {
        bench.syn(&format!("203.0.113.{n}"), 5..=9);
    }
    assert_eq!(bench.blocked().len(), 8);
    for n in 20..30 {
        bench.syn(&format!("203.0.113.{n}"), [10]);
    }
    assert_eq!(bench.blocked().len(), 10);
    bench.wait(SECOND * 6);
    bench.syn("203.0.113.29", [11]);
    assert_eq!(bench.blocked().len(), 11);
}

#[test]
fn at_trigger_0_a_scanner_among_invented_sources_is_blocked_with_what_is_kept_for_those_who_go_on() {
    let mut bench = Bench::new(|policy| policy.scan_trigger = 0);
    // Less than the suspects' places between two of the scanner's probes.
    let flood = |bench: &mut Bench, from: u32| {
        for n in from..from + 500 {
            bench.syn(&Ipv4Addr::from_bits(0x2c00_0000 + n).to_string(), [7]);
        }
    };
    flood(&mut bench, 0);
    for port in 1..=7 {
        bench.syn(THEM, [port]);
        flood(&mut bench, 500 * u32::from(port));
    }
    assert_eq!(bench.blocked().len(), 450);
    bench.syn(THEM, [8]);
    assert_eq!(bench.blocked().len(), 451);
}

#[test]
fn there_are_never_more_blocks_than_the_total() {
    let mut bench = Bench::new(|policy| policy.total = 5);
    for n in 0..9 {
        bench.syn(&format!("203.0.113.{n}"), 1..=3);
    }
    assert_eq!(bench.blocked().len(), 5);
    assert!(bench.told().iter().any(|line| line.ends_with("block.total is reached")));
    bench.command(|engine, now, actions| assert_eq!(engine.block(now, host("192.0.2.77"), None, "", actions), Err(Refusal::Total(5))));
}

#[test]
fn report_and_slow_order_nothing() {
    for (action, words) in [(UnprovenAction::Report, "report"), (UnprovenAction::Slow, "slow")] {
        let mut bench = Bench::new(|policy| policy.unproven.action = action);
        bench.syn(THEM, 1..9);
        assert_eq!(bench.orders(), 0);
        assert!(bench.told().concat().ends_with(&format!("block.unproven.action is {words}")));
    }
}

#[test]
fn a_refused_block_is_told_and_tried_again_ever_later() {
    let mut bench = Bench::new(|_| {});
    bench.refuse = true;
    for millis in 0..20_000 {
        bench.now = millis;
        bench.syn(THEM, [millis as u16]);
    }
    // At 0, 1, 3, 7 and 15 seconds.
    assert_eq!(bench.orders(), 5);
    let told = bench.told();
    assert_eq!(told.iter().filter(|line| *line == "failed 203.0.113.9 set is full").count(), 5);
    assert_eq!(told.iter().filter(|line| line.starts_with("scan")).count(), 1);
    assert!(bench.blocked().is_empty());
    assert_eq!(bench.engine.status().ordered, 1);
    bench.wait(SECOND * 120);
    assert_eq!(bench.engine.status().ordered, 0);
    bench.refuse = false;
    bench.syn(THEM, [1, 2, 3]);
    assert_eq!(bench.blocked(), [THEM]);
}

#[test]
fn the_administrator_blocks_and_unblocks_and_unblocking_forgives() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.told();
    bench.command(|engine, now, actions| engine.unblock(now, host(THEM), actions).unwrap());
    assert_eq!(bench.told(), ["unblocked 203.0.113.9 ByHand"]);
    bench.syn(THEM, [4, 5]);
    assert!(bench.blocked().is_empty());
    bench.command(|engine, now, actions| engine.block(now, host(THEM), Some(SECOND * 5), "abuse", actions).unwrap());
    let network = Subject::Network("198.51.100.7/24".parse().unwrap());
    bench.command(|engine, now, actions| engine.block(now, network, None, "", actions).unwrap());
    assert_eq!(bench.blocked(), ["198.51.100.0/24", THEM]);
    bench.wait(SECOND * 100);
    assert_eq!(bench.blocked(), ["198.51.100.0/24"]);
    bench.command(|engine, now, actions| {
        assert_eq!(engine.unblock(now, host("192.0.2.50"), actions).unwrap_err().to_string(), "unblock 192.0.2.50/32: it is not blocked");
        assert!(engine.block(now, host("192.0.2.50"), Some(Duration::ZERO), "", actions).is_err());
        engine.unblock(now, network, actions).unwrap();
    });
    assert!(bench.blocked().is_empty());
}

#[test]
fn commands_wait_for_the_order_in_flight() {
    let mut bench = Bench::new(|_| {});
    bench.answers = false;
    bench.syn(THEM, 1..=3);
    bench.command(|engine, now, actions| engine.unblock(now, host(THEM), actions).unwrap());
    assert_eq!(bench.orders(), 1);
    bench.answer(Outcome::Blocked { subject: host(THEM), result: Ok(()) });
    assert_eq!(bench.orders, [Action::Unblock { subject: host(THEM) }]);
    bench.command(|engine, now, actions| engine.block(now, host(THEM), None, "still", actions).unwrap());
    assert_eq!(bench.orders(), 1);
    bench.answer(Outcome::Unblocked { subject: host(THEM), result: Ok(()) });
    assert!(matches!(bench.orders.as_slice(), [Action::Block { renew: false, timeout: None, .. }]));
    bench.answer(Outcome::Blocked { subject: host(THEM), result: Ok(()) });
    let told = bench.told();
    assert_eq!(told[1..], ["blocked 203.0.113.9 60s", "unblocked 203.0.113.9 ByHand", "blocked 203.0.113.9 0ns"]);
}

#[test]
fn a_block_that_ends_while_its_count_is_asked_for_is_told_with_the_answer() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.answers = false;
    bench.wait(SECOND * 70);
    bench.told();
    assert_eq!(bench.orders.last(), Some(&Action::Count { subject: host(THEM) }));
    bench.answer(Outcome::Counted { subject: host(THEM), packets: Some(0) });
    assert_eq!(bench.told(), ["unblocked 203.0.113.9 Expired"]);
}

#[test]
fn what_was_never_blocked_is_not_told_as_unblocked() {
    let mut bench = Bench::new(|_| {});
    bench.answers = false;
    bench.syn(THEM, 1..=3);
    bench.command(|engine, now, actions| engine.unblock(now, host(THEM), actions).unwrap());
    bench.answer(Outcome::Blocked { subject: host(THEM), result: Err("no".to_owned()) });
    bench.answer(Outcome::Unblocked { subject: host(THEM), result: Ok(()) });
    assert_eq!(bench.told()[1..], ["failed 203.0.113.9 no"]);
    assert_eq!(bench.orders.last(), Some(&Action::Unblock { subject: host(THEM) }));
}

#[test]
fn elements_found_at_start_are_taken_over() {
    let mut bench = Bench::new(|policy| policy.allow = ["198.51.100.1/32".parse().unwrap()].into_iter().collect());
    bench.now = 7_200_000;
    let element = |address, remaining, reason| Adopted {
        subject: host(address),
        timeout: Some(SECOND * 3600),
        remaining,
        packets: 7,
        reason,
        since: None,
        port: None,
    };
    let scan = Reason::Scan { scan: ScanKind::Syn, proven: false, detail: "3 ports".to_owned() };
    let found = [
        element(THEM, Some(SECOND * 60), scan.clone()),
        element("203.0.113.10", None, Reason::Foreign("x".to_owned())),
        element("198.51.100.1", None, scan),
    ];
    bench.command(|engine, now, actions| engine.adopt(now, found, actions));
    assert_eq!(bench.told(), ["unblocked 198.51.100.1 NeverBlock"]);
    let view = bench.engine.blocked(host(THEM)).unwrap();
    assert_eq!((view.since.millis(), view.expires.unwrap().millis(), view.packets), (7_200_000 - 3_540_000, 7_260_000, 7));
    bench.syn(THEM, 1..9);
    assert_eq!(bench.engine.status().already_blocked, 6);
    // As many packets as at the start: nobody scans any more.
    bench.packets = Some(7);
    bench.wait(SECOND * 61);
    assert_eq!(bench.told(), ["unblocked 203.0.113.9 Expired"]);
    assert_eq!(bench.blocked(), ["203.0.113.10"]);
}

#[test]
fn another_configuration_keeps_blocks_and_accounts_and_lifts_what_is_allowed_now() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.syn("203.0.113.10", 1..=3);
    bench.syn("203.0.113.11", 1..=2);
    bench.told();
    let mut policy = bench.engine.policy().clone();
    policy.scan_trigger = 4;
    policy.allow = ["203.0.113.10/32".parse().unwrap()].into_iter().collect();
    bench.command(|engine, now, actions| engine.reconfigure(now, policy, actions));
    assert_eq!(bench.told(), ["unblocked 203.0.113.10 NeverBlock"]);
    assert_eq!(bench.blocked(), [THEM]);
    bench.syn("203.0.113.11", 3..=4);
    assert_eq!(bench.blocked(), [THEM]);
    bench.syn("203.0.113.11", [5]);
    assert_eq!(bench.blocked(), ["203.0.113.11", THEM]);
}

#[test]
fn another_prefix_length_keeps_what_is_blocked() {
    let mut bench = Bench::new(|_| {});
    bench.syn("2001:db8::1", 1..=3);
    bench.told();
    let policy = Policy { ipv6_prefix: 56, ..bench.engine.policy().clone() };
    bench.command(|engine, now, actions| engine.reconfigure(now, policy, actions));
    let blocked: Vec<Subject> = bench.engine.blocks().map(|view| view.subject).collect();
    assert_eq!(blocked, [Subject::Network("2001:db8::/64".parse().unwrap())]);
}

#[test]
fn what_must_not_be_blocked_and_will_not_go_is_tried_again() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.refuse = true;
    bench.packets = Some(99);
    let list: AllowList = ["203.0.113.0/24".parse().unwrap()].into_iter().collect();
    bench.command(|engine, now, actions| engine.set_never_block(now, list, actions));
    bench.orders();
    bench.wait(SECOND * 21);
    assert_eq!(bench.orders, [Action::Unblock { subject: host(THEM) }, Action::Unblock { subject: host(THEM) }]);
    bench.refuse = false;
    bench.wait(SECOND * 10);
    assert_eq!(bench.told().last().unwrap(), "unblocked 203.0.113.9 NeverBlock");
}

#[test]
fn an_account_shows_what_a_source_did() {
    let mut bench = Bench::new(|_| {});
    bench.now = 50;
    bench.syn(THEM, [22]);
    bench.now = 70;
    bench.probe(THEM, "udp/161", ScanKind::Udp, false);
    let view = bench.engine.account(THEM.parse().unwrap()).unwrap();
    assert_eq!((view.first.millis(), view.last.millis(), view.probes), (50, 70, 2));
    let ports: Vec<String> = view.ports.iter().map(|touch| touch.port.to_string()).collect();
    assert_eq!(ports, ["tcp/22", "udp/161"]);
    assert_eq!(bench.engine.account("203.0.113.10".parse().unwrap()), None);
    bench.wait(SECOND * 700);
    assert_eq!(bench.engine.account(THEM.parse().unwrap()), None);
    assert_eq!((bench.engine.status().sources, bench.engine.next_timer()), (0, None));
}

#[test]
fn a_hold_that_becomes_a_block_is_left_to_run_out() {
    let mut bench = Bench::new(|policy| policy.scan_trigger = 2);
    bench.syn("203.0.113.9", [1, 2]);
    bench.held("203.0.113.9", [3]);
    assert_eq!(bench.engine.status().blocked, 1);
    assert_eq!(bench.released, []);
    // Probes that were on their way.
    bench.held("203.0.113.9", [4]);
    assert_eq!((bench.released.as_slice(), bench.engine.status().held), ([].as_slice(), 2));
}

#[test]
fn a_hold_is_ended_when_the_ledger_or_the_lists_say_no() {
    let source = |text: &str| Source::of(text.parse().unwrap(), 64);
    let mut bench = Bench::new(|policy| {
        policy.scan_trigger = 2;
        policy.allow = ["203.0.113.7/32".parse().unwrap()].into_iter().collect();
    });
    // The ledger has seen one port: the buckets are from another configuration, or messages were lost.
    bench.held("203.0.113.9", [1]);
    // Allowed since the packet left the kernel.
    bench.held("203.0.113.7", [1, 2, 3, 4]);
    let released: Vec<_> = bench.released.iter().map(|(source, _)| *source).collect();
    assert_eq!(released, [source("203.0.113.9"), source("203.0.113.7"), source("203.0.113.7"), source("203.0.113.7"), source("203.0.113.7")]);
    assert_eq!((bench.engine.status().released, bench.engine.status().blocked), (5, 0));
}

#[test]
fn a_few_holds_past_the_budget_are_ended_and_those_of_a_flood_run_out() {
    let mut bench = Bench::new(|policy| (policy.scan_trigger, policy.unproven.per_minute) = (0, 10));
    let invented = |n: u32| Ipv4Addr::from(0x2000_0000 + n).to_string();
    for n in 0..60 {
        bench.held(&invented(n), [1]);
    }
    // Ten may be blocked, and two of these are kept for sources that go on.
    assert_eq!(bench.released.len(), 52);
    for n in 60..5000 {
        bench.now += u64::from(n % 2);
        bench.held(&invented(n), [1]);
    }
    assert!(bench.released.len() <= 110, "{}", bench.released.len());
    // The flood is over: a single one is ended again.
    bench.now += 2500;
    let before = bench.released.len();
    for n in 5000..5020 {
        bench.held(&invented(n), [1]);
    }
    assert!(bench.released.len() > before, "{before}");
}

#[test]
fn a_held_source_that_goes_on_is_blocked_when_the_budget_is_spent() {
    let mut bench = Bench::new(|policy| (policy.scan_trigger, policy.unproven.per_minute) = (0, 10));
    for n in 0..500 {
        bench.held(&Ipv4Addr::from(0x2000_0000 + n).to_string(), [1]);
    }
    let blocks = bench.engine.blocks().count();
    bench.held("203.0.113.9", [1]);
    assert_eq!(bench.engine.blocks().count(), blocks, "one more of the flood, for all that is known");
    bench.still("203.0.113.9", 2..20);
    let subject = Subject::Host(Source::of("203.0.113.9".parse().unwrap(), 64));
    assert!(bench.engine.blocked(subject).is_some());
    // What it was blocked for stays what is known of it.
    let known = bench.engine.account("203.0.113.9".parse().unwrap()).unwrap();
    bench.still("203.0.113.9", 100..200);
    assert_eq!(bench.engine.account("203.0.113.9".parse().unwrap()).unwrap(), known);
}

#[test]
fn an_unblock_makes_the_rules_forget_the_source_and_its_ports() {
    let mut bench = Bench::new(|policy| policy.scan_trigger = 2);
    bench.syn("203.0.113.9", [1, 2, 3]);
    let subject = Subject::Host(Source::of("203.0.113.9".parse().unwrap(), 64));
    bench.command(|engine, now, actions| engine.unblock(now, subject, actions).unwrap());
    let [(source, Some(ports))] = bench.released.as_slice() else { panic!("{:?}", bench.released) };
    assert_eq!(Subject::Host(*source), subject);
    let mut numbers: Vec<_> = ports.iter().map(|port| port.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn without_a_reflex_nothing_is_asked_of_its_sets() {
    let mut bench = Bench::new(|policy| (policy.scan_trigger, policy.reflex) = (2, false));
    bench.syn("203.0.113.9", [1, 2, 3]);
    let subject = Subject::Host(Source::of("203.0.113.9".parse().unwrap(), 64));
    bench.command(|engine, now, actions| engine.unblock(now, subject, actions).unwrap());
    assert_eq!(bench.released, []);
}

#[test]
fn an_element_that_is_told_to_be_gone_ends_the_block_and_its_evidence_at_once() {
    let mut bench = Bench::new(|_| {});
    bench.syn(THEM, 1..=3);
    bench.told();
    let mut was_blocked = Vec::new();
    for _ in 0..2 {
        bench.command(|engine, now, actions| was_blocked.push(engine.removed_by_hand(now, host(THEM), actions)));
    }
    assert_eq!((was_blocked, bench.told()), (vec![true, false], vec!["unblocked 203.0.113.9 Removed".to_owned()]));
    bench.syn(THEM, [4, 5]);
    assert!(bench.blocked().is_empty());
    // With an order in flight the kernel's answer to it tells what is true.
    bench.answers = false;
    bench.syn(THEM, [6]);
    bench.command(|engine, now, actions| assert!(!engine.removed_by_hand(now, host(THEM), actions)));
    bench.answer(Outcome::Blocked { subject: host(THEM), result: Ok(()) });
    assert_eq!(bench.blocked(), [THEM]);
}

#[test]
fn an_element_that_somebody_put_in_or_changed_counts_as_the_kernel_has_it() {
    let mut bench = Bench::new(|policy| policy.allow = ["198.51.100.1/32".parse().unwrap()].into_iter().collect());
    let element = |address, seconds: Option<u32>| {
        let time = seconds.map(|seconds| SECOND * seconds);
        Adopted {
            subject: host(address),
            timeout: time,
            remaining: time,
            packets: 0,
            reason: Reason::Foreign(String::new()),
            since: None,
            port: None,
        }
    };
    let mut news = Vec::new();
    for (address, seconds) in [(THEM, Some(60)), (THEM, Some(61)), (THEM, Some(600)), (THEM, None), (THEM, None), ("198.51.100.1", None)] {
        bench.command(|engine, now, actions| news.push(engine.changed_by_hand(now, element(address, seconds), actions)));
    }
    // Our own times differ by moments from the kernel's.
    assert_eq!(news, [true, false, true, true, false, true]);
    assert_eq!(bench.told(), ["unblocked 198.51.100.1 NeverBlock"]);
    bench.wait(SECOND * 100_000);
    assert_eq!(bench.blocked(), [THEM]);
}

#[test]
fn a_block_that_is_lifted_because_it_must_not_be_takes_the_hold_with_it() {
    let mut bench = Bench::new(|policy| policy.scan_trigger = 0);
    bench.held("203.0.113.9", [1]);
    assert_eq!((bench.engine.status().blocked, bench.released.len()), (1, 0));
    let list: AllowList = ["203.0.113.9/32".parse().unwrap()].into_iter().collect();
    bench.command(|engine, now, actions| engine.set_never_block(now, list, actions));
    assert_eq!(bench.engine.status().blocked, 0);
    assert_eq!(bench.released, [(Source::of("203.0.113.9".parse().unwrap(), 64), None)]);
}
