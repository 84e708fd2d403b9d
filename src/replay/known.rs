//! Sources that completed connections, and those of their closed ports that do not count
//! ([`crate::ruleset::known`]).

use std::net::IpAddr;

use super::recent::Recent;
use crate::config::Config;
use crate::engine::{MonoTime, Source};
use crate::probe::{Port, Probe};
use crate::rate::TokenBucket;
use crate::ruleset::known::{
    COMPLETED_MEMORY, CONNECTIONS, KNOWN_MEMORY, SIZE, SLACK, excuses, prefix_len,
};
use crate::wire::Packet;

const DAY: u64 = 86_400_000;

/// A source.
#[derive(Debug)]
struct Client {
    last: MonoTime,
    completed: u32,
    known: Option<MonoTime>,
    slack: TokenBucket,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Known {
    /// Bits of an IPv6 source.
    prefix_len: u8,
    is_on: bool,
    clients: Recent<Source, Client>,
    excused: Recent<(Source, Port), MonoTime>,
}

impl Known {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            prefix_len: prefix_len(config.block.ipv6),
            is_on: excuses(config),
            clients: Recent::new(SIZE as usize),
            excused: Recent::new(SIZE as usize),
        }
    }

    /// The source of a packet ends a connection with a service.
    pub(super) fn complete(&mut self, now: MonoTime, packet: &Packet<'_>) {
        if !self.is_on {
            return;
        }
        let source = Source::of(packet.source, self.prefix_len);
        if self.clients.get(source).is_none() {
            let slack = TokenBucket::new(SLACK.into(), DAY, SLACK.into());
            self.clients.insert(source, Client { last: now, completed: 0, known: None, slack });
        }
        let Some(client) = self.clients.get(source) else { return };
        if now.since(client.last) > COMPLETED_MEMORY {
            client.completed = 0;
        }
        client.last = now;
        client.completed = client.completed.saturating_add(1);
        if client.completed >= CONNECTIONS {
            client.known = Some(now);
        }
    }

    fn client(&mut self, now: MonoTime, source: Source) -> Option<&mut Client> {
        let is_recent = |at: MonoTime| now.since(at) <= KNOWN_MEMORY;
        self.clients.get(source).filter(|client| client.known.is_some_and(is_recent))
    }

    /// Whether an address is a known client's.
    pub(super) fn is_known(&mut self, now: MonoTime, address: IpAddr) -> bool {
        self.client(now, Source::of(address, self.prefix_len)).is_some()
    }

    /// Whether the SYN of a source that is neither slowed nor blocked does not count.
    pub(super) fn excuses(&mut self, now: MonoTime, probe: &Probe) -> bool {
        let source = Source::of(probe.source, self.prefix_len);
        if self.client(now, source).is_none() {
            return false;
        }
        let is_recent = |at: MonoTime| now.since(at) <= KNOWN_MEMORY;
        let key = (source, probe.port);
        if let Some(at) = self.excused.get(key).filter(|at| is_recent(**at)) {
            *at = now;
            return true;
        }
        let is_excused = self.client(now, source).is_some_and(|client| client.slack.take(now));
        if is_excused {
            self.excused.insert(key, now);
        }
        is_excused
    }
}
