//! What the kernel's rules do with a packet, in their order ([`crate::ruleset`]), and what the engine
//! gets of it.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::detected::Detected;
use super::flows::{Flow, Flows};
use super::known::Known;
use super::learn::Learned;
use super::local::Locals;
use super::networks::Networks;
use super::recent::Recent;
use crate::capture::files::link::Cast;
use crate::config::{CampaignAction, Config, PortMode, PortSet, ProtocolAction, Unwatched};
use crate::enforce::Hold;
use crate::engine::{
    Action, AllowList, Engine, MANY, MonoTime, Outcome, Policy, Report, SLOWED_MAX, Source,
};
use crate::probe::{Port, Probe, ScanKind, Signature, Transport as Protocol};
use crate::ruleset::{SOCKETLESS_PROTOCOLS, pings, segments};
use crate::wire::{Packet, Transport, ip, tcp::Flags};

/// Ports that slowed sources probed, as the rules remember them.
pub(super) const PROBED_MAX: usize = 262_144;

/// Where a host's own connections start by Linux's default; a capture does not say.
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// Keys of the engine's hash tables: a replay is the same each time.
const SEED: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];

/// Why a packet to this host is no probe, in the order in which the rules find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skipped {
    /// Its source is blocked.
    Blocked,
    /// It belongs to a connection that this host takes part in.
    Connection,
    /// Its frame or its address is not this host's alone: broadcast, multicast, another host.
    NotHost,
    /// A kind of packet that is never a probe, or comes from no host.
    NoProbe,
    /// A service listens on its port.
    Service,
    /// Its port is not watched, and `unwatched` does not look at it.
    NotWatched,
    /// Its checksum or its length is wrong: the kernel discards it.
    Checksum,
    /// The capture ends before an answer could have come.
    NoTime,
    /// `allow` with `silent`.
    Silent,
    /// It counts only together with many others: it is a ping, looks late, or its port is not watched.
    Many,
    /// Its source completed connections, and its port is one of the few that do not count.
    Excused,
}

impl Skipped {
    pub(super) const ALL: [Self; 11] = [
        Self::Blocked,
        Self::Connection,
        Self::NotHost,
        Self::NoProbe,
        Self::Service,
        Self::NotWatched,
        Self::Checksum,
        Self::NoTime,
        Self::Silent,
        Self::Many,
        Self::Excused,
    ];

    /// The key in JSON.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Connection => "connection",
            Self::NotHost => "not_host",
            Self::NoProbe => "no_probe",
            Self::Service => "service",
            Self::NotWatched => "not_watched",
            Self::Checksum => "checksum",
            Self::NoTime => "no_time_to_answer",
            Self::Silent => "silent",
            Self::Many => "only_many",
            Self::Excused => "excused",
        }
    }
}

/// How the capture answers a slowed source's probes.
#[derive(Debug, Clone, Copy, Default)]
struct Mix {
    ports: u32,
    answered: u32,
}

/// A port that a slowed source probed.
#[derive(Debug, Clone, Copy)]
struct Probed {
    at: MonoTime,
    answered: bool,
}

/// The rules and the engine.
pub(super) struct Rules<'a> {
    config: &'a Config,
    tcp: PortSet,
    udp: PortSet,
    silent: AllowList,
    allowed: AllowList,
    locals: &'a Locals,
    learned: &'a Learned,
    patience: Duration,
    engine: Engine,
    flows: Flows,
    known: Known,
    networks: Networks,
    pinged: Recent<(IpAddr, IpAddr), MonoTime>,
    probed: Recent<(IpAddr, u16), Probed>,
    mixes: Recent<IpAddr, Mix>,
    actions: Vec<Action>,
    pub(super) skipped: [u64; Skipped::ALL.len()],
    pub(super) probes: u64,
}

impl<'a> Rules<'a> {
    pub(super) fn new(
        config: &'a Config,
        policy: Policy,
        locals: &'a Locals,
        learned: &'a Learned,
        patience: Duration,
    ) -> Self {
        let allowed = policy.allow.clone();
        let mut engine = Engine::new(policy, SEED);
        engine.set_never_block(MonoTime::default(), locals.list().clone());
        Self {
            config,
            tcp: config.tcp.watched(),
            udp: config.udp.watched(),
            silent: config.silent_networks().collect(),
            allowed,
            locals,
            learned,
            patience,
            engine,
            flows: Flows::default(),
            known: Known::new(config),
            networks: Networks::new(config),
            pinged: Recent::new(pings::SIZE as usize),
            probed: Recent::new(PROBED_MAX),
            mixes: Recent::new(SLOWED_MAX),
            actions: Vec::new(),
            skipped: [0; Skipped::ALL.len()],
            probes: 0,
        }
    }

    /// Reports that were suppressed, because there were too many in a minute.
    pub(super) fn reports_held_back(&self) -> u64 {
        self.engine.status().reports_held_back
    }

    /// A packet that this host sent.
    pub(super) fn outgoing(&mut self, now: MonoTime, packet: &Packet<'_>) {
        self.flows.see(now, packet, true);
        let Transport::Tcp(segment) = packet.transport else { return };
        if !segment.flags.contains(Flags::RST) {
            return;
        }
        let remote = packet.destination;
        if let Some(probed) = self.probed.get((remote, segment.source_port))
            && !probed.answered
        {
            probed.answered = true;
            if let Some(mix) = self.mixes.get(remote) {
                mix.answered += 1;
            }
        }
    }

    /// A packet to this host; `bytes` begin with its IP header.
    pub(super) fn incoming(
        &mut self,
        now: MonoTime,
        packet: &Packet<'_>,
        bytes: &[u8],
        cast: Cast,
        detected: &mut Detected<'_>,
    ) {
        if let Err(skipped) = self.evaluate(now, packet, bytes, cast, detected)
            && let Some(count) = self.skipped.get_mut(skipped as usize)
        {
            *count += 1;
        }
    }

    fn evaluate(
        &mut self,
        now: MonoTime,
        packet: &Packet<'_>,
        bytes: &[u8],
        cast: Cast,
        detected: &mut Detected<'_>,
    ) -> Result<(), Skipped> {
        let blocked = self.block_of(packet.source);
        if let Some((source, false)) = blocked {
            detected.dropped(source);
            return Err(Skipped::Blocked);
        }
        let is_blocked =
            blocked.is_some() || self.action_around(now, packet.source) == CampaignAction::Block;
        let (before, flow) = self.flows.see(now, packet, false);
        let opens = opens(packet);
        if let Some(probe) = self.handshake(packet, before, flow) {
            let hold = self.hold(now, &probe, is_blocked, false);
            self.probe(now, &probe, hold, detected);
            return Ok(());
        }
        if let Some(before) = before.filter(|before| before.is_accepted && !opens) {
            self.completion(now, packet, before);
            return Err(Skipped::Connection);
        }
        // Of frames for several hosts, the kernel takes datagrams only.
        let is_group = cast == Cast::Group && packet.protocol != ip::UDP;
        if is_group || cast == Cast::Other || self.locals.is_group(packet.destination) {
            return Err(Skipped::NotHost);
        }
        if is_blocked && !self.may_renew(packet) {
            return Err(Skipped::Blocked);
        }
        if self.silent.contains(packet.source) {
            return Err(Skipped::Silent);
        }
        if self.learned.is_discarded(bytes) {
            return Err(Skipped::Checksum);
        }
        let (probe, is_late) = match Probe::from_packet(packet, &EPHEMERAL) {
            Ok(probe) if probe.scan == ScanKind::PingSweep => {
                return self.ping(now, &probe, detected);
            }
            Ok(probe) => (probe, false),
            Err(reason) => (Probe::late(packet, reason).ok_or(Skipped::NoProbe)?, true),
        };
        // Its own addresses from the wire say nothing of the sender.
        if self.locals.contains(probe.source) || SOCKETLESS_PROTOCOLS.contains(&packet.protocol) {
            return Err(Skipped::NoProbe);
        }
        let (watched, number) = (self.watched(packet.protocol), probe.port.number);
        if watched.is_some_and(PortSet::is_empty) || !self.watches() {
            return Err(Skipped::NotWatched);
        }
        let is_watched = watched.is_none_or(|watched| watched.contains(number));
        let is_service = self.learned.is_open(probe.port);
        if is_strange(packet) && (is_service || !is_watched) {
            let hold = self.hold(now, &probe, is_blocked, true);
            self.probe(now, &probe, hold, detected);
            return Ok(());
        }
        if is_blocked
            && (is_service || !is_watched)
            && (opens || probe.port.transport == Protocol::Udp)
        {
            return Err(Skipped::Blocked);
        }
        if is_service {
            return Err(Skipped::Service);
        }
        let is_allowed = self.allowed.contains(probe.source);
        let is_looked_at = match self.config.unwatched {
            Unwatched::Ignore => false,
            _ => !is_allowed && (opens || probe.port.transport == Protocol::Udp),
        };
        if !is_watched && (!is_looked_at || probe.port.transport == Protocol::Sctp) {
            return Err(Skipped::NotWatched);
        }
        let could_answer = self.learned.end.since(now) >= self.patience;
        if !could_answer && !self.learned.has_refused(probe.port) {
            return Err(Skipped::NoTime);
        }
        let is_slowed = self.is_slowed(now, probe.source);
        let is_counted = is_watched || is_slowed && self.config.unwatched == Unwatched::Slow;
        if is_late || !is_counted {
            if is_late {
                self.engine.on_late(now, &probe, &mut self.actions);
            } else if !probe.ambiguous {
                self.engine.on_unwatched(now, &probe, &mut self.actions);
            }
            self.carry_out(now, MANY as u32 + 1, detected);
            return Err(Skipped::Many);
        }
        let is_unknown = is_blocked || is_slowed || is_allowed;
        if opens
            && probe.port.transport == Protocol::Tcp
            && !is_unknown
            && self.known.excuses(now, &probe)
        {
            return Err(Skipped::Excused);
        }
        let hold = self.hold(now, &probe, is_blocked, false);
        self.probe(now, &probe, hold, detected);
        Ok(())
    }

    /// The watched ports of a protocol; `None` if it has no ports.
    fn watched(&self, protocol: u8) -> Option<&PortSet> {
        match protocol {
            ip::TCP | ip::SCTP => Some(&self.tcp),
            ip::UDP => Some(&self.udp),
            _ => None,
        }
    }

    fn watches(&self) -> bool {
        !self.tcp.is_empty() || !self.udp.is_empty()
    }

    /// Whether a packet of a blocked source that is not proven may say more than what it opens, all of
    /// which is dropped.
    fn may_renew(&self, packet: &Packet<'_>) -> bool {
        match packet.transport {
            Transport::Tcp(_) if !opens(packet) => true,
            Transport::Tcp(_) => self.config.tcp.action == ProtocolAction::Block,
            Transport::Udp(_) => self.config.udp.action == ProtocolAction::Block,
            _ => false,
        }
    }

    /// A client's FIN ends a connection with a service; decoys are none.
    fn completion(&mut self, now: MonoTime, packet: &Packet<'_>, before: Flow) {
        if let Transport::Tcp(segment) = packet.transport
            && segment.flags.contains(Flags::FIN)
            && before.is_completed
            && !self.is_decoy(Port { transport: Protocol::Tcp, number: segment.destination_port })
        {
            self.known.complete(now, packet);
        }
    }

    /// An echo request: the first one to each address is evaluated.
    fn ping(
        &mut self,
        now: MonoTime,
        probe: &Probe,
        detected: &mut Detected<'_>,
    ) -> Result<(), Skipped> {
        let key = (probe.source, probe.destination);
        let memory = pings::memory(self.config);
        let is_known = self.pinged.get(key).is_some_and(|at| now.since(*at) <= memory);
        if !self.watches() || self.allowed.contains(probe.source) || is_known {
            return Err(Skipped::NoProbe);
        }
        self.pinged.insert(key, now);
        self.engine.on_probe(now, probe, &mut self.actions);
        self.carry_out(now, 1, detected);
        Err(Skipped::Many)
    }

    /// The block of a source, and whether it stops only what the source opens, because the address
    /// may be forged.
    fn block_of(&self, address: IpAddr) -> Option<(Source, bool)> {
        let accounts = self.engine.policy().accounts(address);
        let (source, is_unproven) = accounts
            .filter_map(|account| self.engine.blocked(account))
            .map(|block| (block.source, block.reason.is_unproven_scan()))
            .next()?;
        (!self.allowed.contains(address)).then_some((source, is_unproven))
    }

    /// What is done about the network of a campaign around an address, which may be exempt from it.
    fn action_around(&mut self, now: MonoTime, address: IpAddr) -> CampaignAction {
        match self.networks.around(now, address) {
            CampaignAction::Report => CampaignAction::Report,
            _ if self.allowed.contains(address) => CampaignAction::Report,
            _ if self.known.is_known(now, address) => CampaignAction::Report,
            action => action,
        }
    }

    /// Whether a source is slowed, by itself or with its network.
    fn is_slowed(&mut self, now: MonoTime, address: IpAddr) -> bool {
        self.engine.slowed_source(address).is_some()
            || self.action_around(now, address) == CampaignAction::Slow
    }

    /// What a packet is for a decoy: the end of a handshake proves the source, and one that is reset
    /// instead was a SYN scan.
    fn handshake(&self, packet: &Packet<'_>, before: Option<Flow>, flow: Flow) -> Option<Probe> {
        let Transport::Tcp(segment) = packet.transport else { return None };
        let port = Port { transport: Protocol::Tcp, number: segment.destination_port };
        let is_first = before.is_some_and(|before| {
            before.is_opened && before.is_accepted && !before.is_completed && !before.is_own
        });
        if !self.is_decoy(port) || !is_first || !flow.is_completed {
            return None;
        }
        let is_reset = segment.flags.contains(Flags::RST);
        Some(Probe {
            source: packet.source,
            destination: packet.destination,
            port,
            scan: if is_reset { ScanKind::Syn } else { ScanKind::Connect },
            ambiguous: false,
            ip_options: packet.ip_options,
            signature: Signature::None,
        })
    }

    fn is_decoy(&self, port: Port) -> bool {
        self.config.tcp.mode == PortMode::Connect
            && self.config.has_decoys(&self.config.tcp)
            && self.tcp.contains(port.number)
            && self.learned.is_open(port)
            && !self.learned.speaks(port)
    }

    /// What the rules do with the source of a probe. `is_strange`: it came to a port that is open or
    /// not watched.
    fn hold(&mut self, now: MonoTime, probe: &Probe, is_blocked: bool, is_strange: bool) -> Hold {
        match probe.port.transport {
            _ if is_blocked => Hold::Repeat,
            Protocol::Ip => Hold::None,
            _ if !self.is_slowed(now, probe.source) => Hold::None,
            Protocol::Udp | Protocol::Sctp => Hold::Repeat,
            Protocol::Tcp if is_strange => Hold::Repeat,
            Protocol::Tcp => self
                .repeats(now, probe)
                .map_or(Hold::Repeat, |answered| Hold::Retransmission { answered }),
        }
    }

    /// Gives a probe to the engine as the daemon does.
    fn probe(&mut self, now: MonoTime, probe: &Probe, hold: Hold, detected: &mut Detected<'_>) {
        self.probes += 1;
        let accounts: Vec<Source> = self.engine.policy().accounts(probe.source).collect();
        detected.probe(&accounts, probe);
        match hold {
            Hold::None | Hold::New => self.engine.on_probe(now, probe, &mut self.actions),
            Hold::Repeat => self.engine.on_repeat(now, probe, &mut self.actions),
            Hold::Retransmission { answered } => {
                self.engine.on_retransmission(now, probe, answered, &mut self.actions)
            }
        };
        self.carry_out(now, 1, detected);
    }

    /// Whether a slowed source probes a port once more: then, whether the capture answered it before.
    /// `None` also as long as the answers say nothing: where a firewall drops everything, a client
    /// that sees no answer and one that sees them all retransmit alike.
    fn repeats(&mut self, now: MonoTime, probe: &Probe) -> Option<bool> {
        let timeout = self.engine.policy().unproven.timeout;
        let key = (probe.source, probe.port.number);
        let known = self.probed.get(key).filter(|known| now.since(known.at) <= timeout);
        if let Some(known) = known {
            known.at = now;
            let answered = known.answered;
            let mix = self.mixes.get(probe.source)?;
            let tells = mix.answered >= mix.ports / 4;
            return tells.then_some(answered);
        }
        self.probed.insert(key, Probed { at: now, answered: false });
        match self.mixes.get(probe.source) {
            Some(mix) => mix.ports += 1,
            None => {
                self.mixes.insert(probe.source, Mix { ports: 1, answered: 0 });
            }
        }
        None
    }

    /// Does everything that is due by now, at its own time.
    pub(super) fn run_until(&mut self, now: MonoTime, detected: &mut Detected<'_>) {
        while let Some(due) = self.engine.next_ending().filter(|due| *due <= now) {
            self.engine.on_timer(due, &mut self.actions);
            self.carry_out(due, 1, detected);
        }
        // Once, however long no packet came: nothing depends on when memory is freed.
        if self.engine.next_timer().is_some_and(|due| due <= now) {
            self.engine.on_timer(now, &mut self.actions);
            self.carry_out(now, 1, detected);
        }
    }

    /// Lets the time run on until all is over that ends by itself. Returns when that is.
    pub(super) fn run_out(&mut self, now: MonoTime, detected: &mut Detected<'_>) {
        let mut at = now;
        while let Some(due) = self.engine.next_ending() {
            at = at.max(due);
            self.engine.on_timer(at, &mut self.actions);
            self.carry_out(at, 1, detected);
        }
    }

    /// Is the kernel that grants every action. `least`: packets that a source without an account has
    /// sent until it is reported.
    fn carry_out(&mut self, now: MonoTime, least: u32, detected: &mut Detected<'_>) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                let outcome = match action {
                    Action::Block { source, .. } => Outcome::Blocked { source, result: Ok(()) },
                    Action::Unblock { source } => Outcome::Unblocked { source, result: Ok(()) },
                    Action::Exempt { source, .. } => Outcome::Exempted { source, result: Ok(()) },
                    Action::Check { source } => Outcome::Checked { source, is_there: true },
                    Action::Campaign { network, timeout: Some(timeout) } => {
                        self.networks.hold(network, now.after(timeout));
                        continue;
                    }
                    Action::Campaign { network, timeout: None } => {
                        self.networks.release(network);
                        continue;
                    }
                    Action::Slow { .. } | Action::Release { .. } => continue,
                    Action::Report(report) => {
                        self.report(now, least, report, detected);
                        continue;
                    }
                };
                self.engine.on_outcome(now, outcome, &mut self.actions);
            }
        }
    }

    fn report(&self, now: MonoTime, least: u32, report: Report, detected: &mut Detected<'_>) {
        let (Report::Scan { source, reason, .. } | Report::Slowed { source, reason, .. }) = &report
        else {
            return detected.report(now, least, report);
        };
        let least = match reason.scan() {
            // A probe of each address is the one that its account counts.
            Some(ScanKind::Sweep | ScanKind::PingSweep) => u32::from(self.config.sweep_trigger) + 1,
            _ => least,
        };
        let probes = self.engine.probes_of(*source).unwrap_or(0).max(least);
        detected.report(now, probes, report);
    }
}

/// Whether a packet opens a connection.
fn opens(packet: &Packet<'_>) -> bool {
    let Transport::Tcp(segment) = packet.transport else { return false };
    let ignored = Flags::PSH.with(Flags::URG).with(Flags::ECE).with(Flags::CWR);
    segment.flags.without(ignored) == Flags::SYN
}

/// Whether it has flags that no stack sends.
fn is_strange(packet: &Packet<'_>) -> bool {
    matches!(packet.transport, Transport::Tcp(segment) if segments::is_strange(segment.flags.0))
}
