//! What the kernel's rules do with a packet, in their order ([`crate::ruleset`]), and what the engine
//! gets of it.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::detected::Detected;
use super::flows::{Flow, Flows};
use super::learn::Learned;
use super::local::Locals;
use super::recent::Recent;
use crate::capture::files::link::Cast;
use crate::config::{Config, PortMode, PortSet};
use crate::engine::{
    Action, AllowList, Engine, MonoTime, Outcome, Policy, Report, SLOWED_MAX, Source,
};
use crate::probe::{Port, Probe, ScanKind, Transport as Protocol};
use crate::ruleset::SOCKETLESS_PROTOCOLS;
use crate::wire::{Packet, Transport, ip, sctp, tcp::Flags};

/// Ports that slowed sources probed, as the rules remember them.
pub(super) const PROBED_MAX: usize = 262_144;

/// Where a host's own connections start by Linux's default; a capture does not say.
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// Keys of the engine's hash tables: a replay is the same each time.
const SEED: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];

/// Ports of a slowed source from which on its answers say something.
const MIX_MIN: u32 = 8;

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
    /// Its port is not watched.
    NotWatched,
    /// Its checksum or its length is wrong: the kernel discards it.
    Checksum,
    /// The capture ends before an answer could have come.
    NoTime,
    /// `allow` with `silent`.
    Silent,
}

impl Skipped {
    pub(super) const ALL: [Self; 9] = [
        Self::Blocked,
        Self::Connection,
        Self::NotHost,
        Self::NoProbe,
        Self::Service,
        Self::NotWatched,
        Self::Checksum,
        Self::NoTime,
        Self::Silent,
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
        let silent = config.allow.iter().filter(|allowed| allowed.silent);
        let allowed = policy.allow.clone();
        let mut engine = Engine::new(policy, SEED);
        engine.set_never_block(MonoTime::default(), locals.list().clone());
        Self {
            config,
            tcp: config.tcp.watched(),
            udp: config.udp.watched(),
            silent: silent.map(|allowed| allowed.network).collect(),
            allowed,
            locals,
            learned,
            patience,
            engine,
            flows: Flows::default(),
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
        let (before, flow) = self.flows.see(now, packet, false);
        let opens = opens(packet);
        if let Some(probe) = self.handshake(packet, before, flow) {
            self.probe(now, &probe, blocked.is_some(), detected);
            return Ok(());
        }
        if before.is_some_and(|before| before.is_accepted) && !opens {
            return Err(Skipped::Connection);
        }
        if matches!(cast, Cast::Group | Cast::Other) || self.locals.is_group(packet.destination) {
            return Err(Skipped::NotHost);
        }
        if self.silent.contains(packet.source) {
            return Err(Skipped::Silent);
        }
        let probe = Probe::from_packet(packet, &EPHEMERAL).map_err(|_| Skipped::NoProbe)?;
        // Its own addresses from the wire say nothing of the sender.
        if self.locals.contains(probe.source) || is_answer(packet) {
            return Err(Skipped::NoProbe);
        }
        let is_watched = match probe.port.transport {
            Protocol::Tcp | Protocol::Sctp => self.tcp.contains(probe.port.number),
            Protocol::Udp => self.udp.contains(probe.port.number),
            Protocol::Ip => {
                if SOCKETLESS_PROTOCOLS.contains(&packet.protocol) {
                    return Err(Skipped::NoProbe);
                }
                !self.tcp.is_empty() || !self.udp.is_empty()
            }
        };
        if self.learned.is_open(probe.port) {
            return Err(Skipped::Service);
        }
        if !is_watched {
            return Err(Skipped::NotWatched);
        }
        if self.learned.is_discarded(bytes) {
            return Err(Skipped::Checksum);
        }
        let could_answer = self.learned.end.since(now) >= self.patience;
        if !could_answer && !self.learned.has_refused(probe.port) {
            return Err(Skipped::NoTime);
        }
        self.probe(now, &probe, blocked.is_some(), detected);
        Ok(())
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

    /// What a packet is for a decoy: the end of a handshake proves the source, and one that is reset
    /// instead was a SYN scan.
    fn handshake(&self, packet: &Packet<'_>, before: Option<Flow>, flow: Flow) -> Option<Probe> {
        let Transport::Tcp(segment) = packet.transport else { return None };
        let port = Port { transport: Protocol::Tcp, number: segment.destination_port };
        let is_decoy = self.config.tcp.mode == PortMode::Connect
            && self.config.has_decoys(&self.config.tcp)
            && self.tcp.contains(port.number)
            && self.learned.is_open(port)
            && !self.learned.speaks(port);
        let is_first = before.is_some_and(|before| {
            before.is_opened && before.is_accepted && !before.is_completed && !before.is_own
        });
        if !is_decoy || !is_first || !flow.is_completed {
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
        })
    }

    /// Gives a probe to the engine as the rules would log it.
    fn probe(
        &mut self,
        now: MonoTime,
        probe: &Probe,
        is_blocked: bool,
        detected: &mut Detected<'_>,
    ) {
        self.probes += 1;
        let transport = probe.port.transport;
        let policy = self.engine.policy();
        let accounts: Vec<Source> = policy.accounts(probe.source).collect();
        detected.probe(&accounts, probe);
        if is_blocked {
            // A block of a source that is not proven: the rules drop what it opens, and log it.
            if matches!(transport, Protocol::Tcp | Protocol::Sctp) {
                self.engine.on_repeat(now, probe, &mut self.actions);
            }
        } else if self.engine.slowed_source(probe.source).is_none() {
            self.engine.on_probe(now, probe, &mut self.actions);
        } else if let Some(answered) = self.repeats(now, probe) {
            self.engine.on_retransmission(now, probe, answered, &mut self.actions);
        } else {
            self.engine.on_repeat(now, probe, &mut self.actions);
        }
        self.carry_out(now, detected);
    }

    /// Whether a slowed source probes a port once more: then, whether the capture answered it before.
    /// `None` also as long as the answers say nothing: where a firewall drops everything, a client
    /// that sees no answer and one that sees them all retransmit alike.
    fn repeats(&mut self, now: MonoTime, probe: &Probe) -> Option<bool> {
        if probe.port.transport != Protocol::Tcp {
            return None;
        }
        let timeout = self.engine.policy().unproven.timeout;
        let key = (probe.source, probe.port.number);
        let known = self.probed.get(key).filter(|known| now.since(known.at) <= timeout);
        if let Some(known) = known {
            known.at = now;
            let answered = known.answered;
            let mix = self.mixes.get(probe.source)?;
            let tells = mix.ports >= MIX_MIN && mix.answered >= mix.ports / 4;
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
        while let Some(due) = self.engine.next_timer().filter(|due| *due <= now) {
            self.engine.on_timer(due, &mut self.actions);
            self.carry_out(due, detected);
        }
    }

    /// Lets the time run on until all is over that ends by itself. Returns when that is.
    pub(super) fn run_out(&mut self, now: MonoTime, detected: &mut Detected<'_>) {
        let mut at = now;
        while let Some(due) = self.engine.next_timer() {
            at = at.max(due);
            self.engine.on_timer(at, &mut self.actions);
            self.carry_out(at, detected);
        }
    }

    /// Is the kernel that grants every action.
    fn carry_out(&mut self, now: MonoTime, detected: &mut Detected<'_>) {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                let outcome = match action {
                    Action::Block { source, .. } => Outcome::Blocked { source, result: Ok(()) },
                    Action::Unblock { source } => Outcome::Unblocked { source, result: Ok(()) },
                    Action::Exempt { source, .. } => Outcome::Exempted { source, result: Ok(()) },
                    Action::Count { source } => Outcome::Counted { source, packets: Some(0) },
                    Action::Slow { .. } | Action::Release { .. } => continue,
                    Action::Report(report) => {
                        self.report(now, report, detected);
                        continue;
                    }
                };
                self.engine.on_outcome(now, outcome, &mut self.actions);
            }
        }
    }

    fn report(&self, now: MonoTime, report: Report, detected: &mut Detected<'_>) {
        let probes = match &report {
            Report::Scan { source, .. } | Report::Slowed { source, .. } => {
                self.engine.probes_of(*source)
            }
            _ => None,
        };
        detected.report(now, probes.unwrap_or(1), report);
    }
}

/// Whether a packet opens a connection.
fn opens(packet: &Packet<'_>) -> bool {
    match packet.transport {
        Transport::Tcp(segment) => {
            segment.flags.contains(Flags::SYN) && !segment.flags.contains(Flags::ACK)
        }
        Transport::Sctp(message) => message.chunk == Some(sctp::INIT),
        _ => false,
    }
}

/// Flags of an answer, by the rules: whatever is beside them.
fn is_answer(packet: &Packet<'_>) -> bool {
    let Transport::Tcp(segment) = packet.transport else { return false };
    packet.protocol == ip::TCP
        && (segment.flags.contains(Flags::RST)
            || segment.flags.contains(Flags::SYN.with(Flags::ACK)))
}
