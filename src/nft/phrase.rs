//! The phrases that rules are made of, one function each, and the two names that every part of the ruleset uses.
//!
//! Never here: what a configuration means. That is said in these phrases by `ruleset` and `reflex`.

use super::model::{Chain, Op, Operand, Rule, Selector, Statement, Verdict, tcp_flag};
use super::set_id::SetId;

/// The start of the prefix of every packet that is logged.
pub const LOG_PREFIX: &str = "portsentry: probe ";

/// The chain that probes end in: what comes here is told to the daemon.
pub(super) const PROBE: &str = "probe";

/// A rule, and why it is there; the next of several that are there for one reason says nothing.
pub(super) fn rule(why: &'static str, statements: impl Into<Vec<Statement>>) -> Rule {
    Rule { why, statements: statements.into() }
}

/// The packet compares so.
pub(super) fn matches(selector: Selector, op: Op, operand: Operand) -> Statement {
    Statement::Match { selector, op, operand }
}

pub(super) fn is(selector: Selector, number: u32) -> Statement {
    matches(selector, Op::Eq, Operand::Number(number))
}

pub(super) fn is_not(selector: Selector, number: u32) -> Statement {
    matches(selector, Op::Ne, Operand::Number(number))
}

pub(super) fn is_in(selector: Selector, set: SetId) -> Statement {
    matches(selector, Op::Eq, Operand::Set(set))
}

pub(super) fn is_not_in(selector: Selector, set: SetId) -> Statement {
    matches(selector, Op::Ne, Operand::Set(set))
}

/// Of the flags that open, carry on and end a connection, exactly these.
pub(super) fn only_flags(value: u8) -> Statement {
    Statement::TcpFlags { mask: tcp_flag::FIN | tcp_flag::SYN | tcp_flag::RST | tcp_flag::ACK, value }
}

/// The packet opens a connection.
pub(super) fn opens() -> Statement {
    only_flags(tcp_flag::SYN)
}

/// The packet is for what a local socket took lately. A concatenation is looked up by the same selectors that `open` puts in.
pub(super) fn to_service() -> Statement {
    Statement::Lookup { set: SetId::Services, key: vec![Selector::L4Proto, Selector::ThDport] }
}

/// The packet is gone.
pub(super) fn drop() -> Statement {
    Statement::Verdict(Verdict::Drop)
}

/// Back to the chain that led here; in a base chain, on to the next one.
pub(super) fn back() -> Statement {
    Statement::Verdict(Verdict::Return)
}

/// On in that chain, and not back.
pub(super) fn goto(chain: &'static str) -> Statement {
    Statement::Verdict(Verdict::Goto(chain))
}

/// A chain that others lead to.
pub(super) fn chain(name: &'static str, rules: Vec<Rule>) -> Chain {
    Chain { name, base: None, rules }
}
