//! The engine's tests, a file for each kind of input. Random sequences are in
//! `tests/pure/engine.rs`.

mod campaign;
mod configuration;
mod holds;
mod ipv6;
mod longterm;
mod manual;
mod outcomes;
mod probes;
mod reach;
mod services;

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::config::{Config, UnprovenAction};
use crate::engine::{Action, CampaignView, NotBlocked, Outcome, Report, Shared, Trigger};
use crate::probe::{Port, Probe, ScanKind, Signature, Transport};

/// An engine with a simulated kernel that accepts every order unless `refuse` is set.
struct Bench {
    engine: Engine,
    now: u64,
    reports: Vec<Report>,
    orders: Vec<Action>,
    refuse: bool,
    answers: bool,
    is_there: bool,
    released: Vec<(Source, Option<Vec<Port>>)>,
}

impl Bench {
    fn new(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = Policy::from_config(&Config::default());
        // These tests are about blocks; `slow` has its own.
        policy.unproven.action = UnprovenAction::Block;
        policy.capacity = 3000;
        change(&mut policy);
        Self {
            engine: Engine::new(policy, [1, 2]),
            now: 0,
            reports: Vec::new(),
            orders: Vec::new(),
            refuse: false,
            answers: true,
            is_there: true,
            released: Vec::new(),
        }
    }

    fn at(&self) -> MonoTime {
        MonoTime::from_millis(self.now)
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
                    Action::Block { source, .. } => Outcome::Blocked { source: *source, result },
                    Action::Unblock { source } => Outcome::Unblocked { source: *source, result },
                    Action::Exempt { source, .. } => Outcome::Exempted { source: *source, result },
                    Action::Check { source } => {
                        Outcome::Checked { source: *source, is_there: self.is_there }
                    }
                    Action::Slow { .. } | Action::Campaign { .. } => {
                        self.orders.push(action);
                        continue;
                    }
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

    fn probe(&mut self, source: &str, port: &str, scan: ScanKind, ambiguous: bool) {
        let (transport, number) = port.split_once('/').unwrap();
        let transport = [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip]
            .into_iter()
            .find(|known| known.name() == transport)
            .unwrap();
        let port = Port { transport, number: number.parse().unwrap() };
        self.probe_at("192.0.2.1", source, port, scan, ambiguous);
    }

    /// A probe of another address of this host.
    fn probe_at(
        &mut self,
        destination: &str,
        source: &str,
        port: Port,
        scan: ScanKind,
        ambiguous: bool,
    ) {
        let destination = destination.parse().unwrap();
        let probe = Probe {
            source: source.parse().unwrap(),
            destination,
            port,
            scan,
            ambiguous,
            ip_options: false,
            signature: Signature::None,
        };
        let mut actions = Vec::new();
        self.engine.on_probe(self.at(), &probe, &mut actions);
        self.carry_out(actions);
    }

    fn syn(&mut self, source: &str, ports: impl IntoIterator<Item = u16>) {
        for port in ports {
            self.probe(source, &format!("tcp/{port}"), ScanKind::Syn, false);
        }
    }

    /// SYNs for which the rules hold their source.
    fn held(&mut self, source: &str, ports: impl IntoIterator<Item = u16>) {
        self.rule_event(source, ports, Engine::on_held);
    }

    /// SYNs of a source that the rules already hold.
    fn still(&mut self, source: &str, ports: impl IntoIterator<Item = u16>) {
        self.rule_event(source, ports, Engine::on_repeat);
    }

    fn rule_event(
        &mut self,
        source: &str,
        ports: impl IntoIterator<Item = u16>,
        event: fn(&mut Engine, MonoTime, &Probe, &mut Vec<Action>) -> Trigger,
    ) {
        let destination = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        for number in ports {
            let port = Port { transport: Transport::Tcp, number };
            let probe = Probe {
                source: source.parse().unwrap(),
                destination,
                port,
                scan: ScanKind::Syn,
                ambiguous: false,
                ip_options: false,
                signature: Signature::None,
            };
            self.command(|engine, now, actions| {
                event(engine, now, &probe, actions);
            });
        }
    }

    fn command(&mut self, run: impl FnOnce(&mut Engine, MonoTime, &mut Vec<Action>)) {
        let mut actions = Vec::new();
        run(&mut self.engine, MonoTime::from_millis(self.now), &mut actions);
        self.carry_out(actions);
    }

    /// Reconfigures the engine and runs the due timers.
    fn reconfigure(&mut self, policy: Policy) {
        self.command(|engine, now, actions| {
            engine.reconfigure(now, policy);
            engine.on_timer(now, actions);
        });
    }

    /// Replaces the never-block list and runs the due timers.
    fn set_never_block(&mut self, list: AllowList) {
        self.command(|engine, now, actions| {
            engine.set_never_block(now, list);
            engine.on_timer(now, actions);
        });
    }

    /// Advances the time and runs the timers.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time.as_millis() as u64;
        while let Some(due) = self.engine.next_timer().filter(|due| due.millis() <= end) {
            self.now = self.now.max(due.millis());
            self.command(|engine, now, actions| engine.on_timer(now, actions));
        }
        self.now = end;
    }

    /// Reports since the last call, as short lines.
    fn report_lines(&mut self) -> Vec<String> {
        let short = |report: Report| match report {
            Report::Scan { source, not_blocked, reason, .. } => {
                format!(
                    "scan {} {reason} {}",
                    source.addr(),
                    not_blocked.map_or("-", NotBlocked::text)
                )
            }
            Report::Blocked { source, timeout, renewals, .. } => {
                format!(
                    "blocked {source} {:?}{}",
                    timeout.unwrap_or_default(),
                    if renewals > 0 { " renewed" } else { "" }
                )
            }
            Report::Slowed { source, port, timeout, reason, .. } => {
                format!("slowed {source} {timeout:?} for {port}: {reason}")
            }
            Report::Released { source, ending, .. } => format!("released {source} {ending:?}"),
            Report::BlockFailed { source, error } => format!("failed {} {error}", source),
            Report::Unblocked { source, ending } => format!("unblocked {} {ending:?}", source),
            Report::Exempted { source, exempt } => format!("exempted {exempt} from {source}"),
            Report::Continues { source, state, .. } => format!("continues {source} {state}"),
            Report::Campaign {
                campaign: campaign @ CampaignView { sources, ports, .. },
                action,
                ..
            } => {
                let who = match campaign.shared {
                    Shared::Network(network) => network.to_string(),
                    Shared::Signature(signature) => signature.name().to_owned(),
                };
                format!("campaign {who}: {sources} sources, {ports} ports, {action:?}")
            }
            Report::UnblockFailed { source, error } => format!("unblock failed {} {error}", source),
        };
        std::mem::take(&mut self.reports).into_iter().map(short).collect()
    }

    fn blocked(&self) -> Vec<String> {
        let mut blocked: Vec<String> =
            self.engine.blocks().map(|view| view.source.to_string()).collect();
        blocked.sort();
        blocked
    }

    fn orders(&mut self) -> usize {
        std::mem::take(&mut self.orders).len()
    }
}

fn host(address: &str) -> Source {
    Source::of(address.parse().unwrap(), 64)
}

const SCANNER: &str = "203.0.113.9";
const SECOND: Duration = Duration::from_secs(1);
