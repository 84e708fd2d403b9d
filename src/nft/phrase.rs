//! The phrases that rules are made of, one function each, and the two names that every part of the ruleset uses.
//!
//! Never here: what a configuration means. That is said in these phrases by `ruleset` and `reflex`.

use super::model::{Chain, Op, Operand, Rule, Selector, Statement, Verdict};
use super::set_id::SetId;

/// The start of the prefix of every packet that is logged.
pub const LOG_PREFIX: &str = "portsentry: probe ";

/// The chain that probes end in: what comes here is told to the daemon.
pub(super) const PROBE: &str = "probe";

pub(super) fn rule(why: &'static str, statements: impl Into<Vec<Statement>>) -> Rule {
    Rule { why, statements: statements.into() }
}

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

pub(super) fn drop() -> Statement {
    Statement::Verdict(Verdict::Drop)
}

pub(super) fn back() -> Statement {
    Statement::Verdict(Verdict::Return)
}

pub(super) fn goto(chain: &'static str) -> Statement {
    Statement::Verdict(Verdict::Goto(chain))
}

/// A chain that others lead to.
pub(super) fn chain(name: &'static str, rules: Vec<Rule>) -> Chain {
    Chain { name, base: None, rules }
}
