//! The building blocks of rules, one function each, and the two names that every part of the
//! ruleset uses.
//!
//! Never here: anything that depends on the configuration.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::sets::SetId;
use super::{QUEUE_THRESHOLD, SNAPLEN};
use crate::nft::SetSpec;
use crate::nft::model::{
    Base, Chain, Hook, Op, Operand, Rule, Selector, Statement, Verdict, ct_state, tcp_flag,
};

/// The start of the prefix of every packet that is logged.
pub(super) const LOG_PREFIX: &str = "portsentry: probe ";

/// The chain that probes end in: it logs them for the daemon.
pub(super) const PROBE: &str = "probe";

/// A rule and its reason. Of several rules with one reason, the first has it and the others have an
/// empty one.
pub(super) fn rule(why: &'static str, statements: impl Into<Vec<Statement>>) -> Rule {
    Rule { why, statements: statements.into() }
}

/// A comparison.
pub(super) fn matches(selector: Selector, op: Op, operand: Operand) -> Statement {
    Statement::Match { selector, op, operand }
}

pub(super) fn is(selector: Selector, number: u32) -> Statement {
    matches(selector, Op::Eq, Operand::Number(number))
}

pub(super) fn is_not(selector: Selector, number: u32) -> Statement {
    matches(selector, Op::Ne, Operand::Number(number))
}

pub(super) fn is_in(selector: Selector, set: impl Into<SetSpec>) -> Statement {
    matches(selector, Op::Eq, Operand::Set(set.into()))
}

pub(super) fn is_not_in(selector: Selector, set: impl Into<SetSpec>) -> Statement {
    matches(selector, Op::Ne, Operand::Set(set.into()))
}

pub(super) fn is_protocol(number: u8) -> Statement {
    is(Selector::L4Proto, number.into())
}

/// The source is the unspecified address, which the routing lookup does not reject.
pub(super) fn is_from_unspecified() -> Statement {
    matches(Selector::Ip6Saddr, Op::Eq, Operand::Address(Ipv6Addr::UNSPECIFIED.into()))
}

/// A socket accepts the packet: transparent has no value without one.
pub(super) fn has_socket() -> Statement {
    matches(Selector::SocketTransparent, Op::Le, Operand::Number(1))
}

/// Packets of established connections, and ICMP errors about them, go on.
pub(super) fn live_connections() -> Rule {
    let live = Statement::CtState(ct_state::ESTABLISHED | ct_state::RELATED);
    rule("live connections", [live, back()])
}

/// Puts the source into a set, or starts its timeout again.
pub(super) fn update(set: SetId, source: Selector, timeout: Duration) -> Statement {
    Statement::Update { set: set.spec(), key: vec![source], timeout: Some(timeout), over: None }
}

/// Of SYN, ACK, RST and FIN, exactly these are set.
pub(super) fn only_flags(value: u8) -> Statement {
    Statement::TcpFlags {
        mask: tcp_flag::FIN | tcp_flag::SYN | tcp_flag::RST | tcp_flag::ACK,
        value,
    }
}

/// The packet opens a connection.
pub(super) fn opens() -> Statement {
    only_flags(tcp_flag::SYN)
}

/// Conntrack finds the checksum of the packet wrong, if the packet opens a TCP connection or is a
/// datagram: the kernel discards it.
pub(super) fn is_invalid() -> Statement {
    Statement::CtState(ct_state::INVALID)
}

/// The packet is for a service that a local socket had lately. The selectors are those by which
/// chain `open` adds elements.
pub(super) fn to_service() -> Statement {
    Statement::Lookup {
        set: SetId::Services.spec(),
        key: vec![Selector::L4Proto, Selector::ThDport],
    }
}

/// Remembers a service by its port.
pub(super) fn remember(port: Selector) -> Statement {
    Statement::Update {
        set: SetId::Services.spec(),
        key: vec![Selector::L4Proto, port],
        timeout: None,
        over: None,
    }
}

/// Logs to the daemon.
pub(super) fn log(prefix: &'static str, group: u16) -> Statement {
    Statement::Log { prefix, group, snaplen: SNAPLEN, queue_threshold: QUEUE_THRESHOLD }
}

/// Drops the packet, and the rule counts it.
pub(super) fn counted_drop() -> [Statement; 2] {
    [Statement::Counter, drop()]
}

/// Drops the packet.
pub(super) fn drop() -> Statement {
    Statement::Verdict(Verdict::Drop)
}

/// Continues with the next base chain, from any chain.
pub(super) fn accept() -> Statement {
    Statement::Verdict(Verdict::Accept)
}

/// Returns to the calling chain; from a base chain, continues with the next one.
pub(super) fn back() -> Statement {
    Statement::Verdict(Verdict::Return)
}

/// Goes on in that chain, and comes back at its end.
pub(super) fn jump(chain: &'static str) -> Statement {
    Statement::Verdict(Verdict::Jump(chain))
}

/// Goes on in that chain, without coming back.
pub(super) fn goto(chain: &'static str) -> Statement {
    Statement::Verdict(Verdict::Goto(chain))
}

/// A chain that other chains jump to.
pub(super) fn chain(name: &'static str, rules: Vec<Rule>) -> Chain {
    Chain { name, base: None, rules }
}

/// A chain that the kernel calls.
pub(super) fn base_chain(name: &'static str, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name, base: Some(Base { hook, priority }), rules }
}
