//! What is in the kernel already, and what ought to be: taking over blocks of an earlier run, putting back what somebody took out.
//!
//! It removes nothing: an element that nobody ordered is the administrator's, and is taken over as well.

use std::collections::HashSet;
use std::time::Duration;

use super::court::Court;
use super::foreign::QUIET_FROM;
use crate::engine::{Adopted, Moment, Reason, Subject};
use crate::journal::Notice;
use crate::nft::expr::Expr;
use crate::nft::plan::Found;
use crate::nft::{ElementInfo, Error};
use crate::ruleset::SetId;

impl Court {
    /// More than a few blocks are in force.
    pub(super) fn has_many(&self) -> bool {
        self.engine.blocks().nth(QUIET_FROM).is_some()
    }

    /// Somebody put this into the sets, or gave it another time. Whether that is news; if so, it is to be stored.
    pub(super) fn taken_from(&mut self, now: Moment, subject: Subject, info: ElementInfo) -> bool {
        let is_news = self.engine.changed_by_hand(now, adopted((subject, info)), &mut self.orders);
        if let Some(block) = self.engine.blocked(subject).filter(|_| is_news) {
            self.archive.on_change(&self.engine, block.subject);
        }
        is_news
    }

    /// Blocks that somebody took out of the kernel, with the table or by `nft flush`, are put back; what somebody put in is taken over.
    pub(super) fn put_back(&mut self, now: Moment) -> Result<(), Error> {
        let found = self.responder.blocked()?;
        let missing = missing(now, self.engine.blocks(), &found);
        if !missing.is_empty() {
            self.responder.put_back(&missing)?;
            self.journal.tell(Notice::Warning(format!("{} blocks were missing in the kernel and have been put back", missing.len())));
        }
        self.engine.adopt(now, found.into_iter().map(adopted), &mut self.orders);
        self.perform(now);
        Ok(())
    }
}

/// How long IPv6 prefixes were by the rules of an earlier run; `None` when there are none, or not ours.
///
/// The elements of `blocked6` are first addresses: only the rule that masks a source tells what they block.
pub(super) fn former_prefix(found: &Found) -> Option<u8> {
    found.rules.iter().find_map(|rule| prefix_of(&rule.expressions))
}

/// The group that the rules of an earlier run, or of another daemon, log to, or the queue that they fill; `None` when there are none. Whoever has
/// the queue has the group of the same number too.
pub(super) fn former_group(found: &Found) -> Option<u16> {
    let expressions = found.rules.iter().flat_map(|rule| &rule.expressions);
    expressions.into_iter().find_map(|expr| match expr {
        Expr::Log { group, .. } => Some(*group),
        Expr::Queue { number, .. } => Some(*number),
        Expr::Target { name, info, .. } if name == "NFQUEUE" => info.first_chunk::<2>().map(|number| u16::from_ne_bytes(*number)),
        _ => None,
    })
}

/// The bits that a rule keeps of a source before it looks it up in `blocked6`; without a mask all 128.
fn prefix_of(expressions: &[Expr]) -> Option<u8> {
    let looks_up = |expr: &Expr| matches!(expr, Expr::Lookup { set, invert: false, .. } if set == SetId::Blocked6.name());
    let position = expressions.iter().position(looks_up)?;
    let mask = expressions.iter().take(position).rev().find_map(|expr| if let Expr::Bitwise { mask, .. } = expr { Some(mask) } else { None });
    let bits = mask.map_or(128, |mask| mask.iter().map(|byte| byte.count_ones()).sum());
    u8::try_from(bits).ok().filter(|bits| (1..=128).contains(bits))
}

/// An element as the engine takes it over.
pub(super) fn adopted((subject, info): (Subject, ElementInfo)) -> Adopted {
    Adopted {
        subject,
        timeout: info.timeout,
        remaining: info.expires,
        packets: info.packets,
        reason: info.comment.as_deref().unwrap_or_default().parse().unwrap_or(Reason::Foreign(String::new())),
        since: None,
        port: None,
    }
}

/// Blocks in force by the engine's books that are not in the kernel's sets, with what is left of their time and their comment.
fn missing<'a>(
    now: Moment,
    books: impl Iterator<Item = crate::engine::BlockView<'a>>,
    kernel: &[(Subject, ElementInfo)],
) -> Vec<(Subject, Option<Duration>, String)> {
    let there: HashSet<Subject> = kernel.iter().map(|(subject, _)| *subject).collect();
    books
        .filter(|block| !there.contains(&block.subject))
        .map(|block| (block.subject, block.expires.map(|at| at.since(now)), block.reason.comment()))
        // What ends this very moment is not worth an element, and a time of nothing would mean no end.
        .filter(|(_, left, _)| left.is_none_or(|left| left >= Duration::from_secs(1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::ruleset;

    fn prefix_in(bits: u8) -> Option<u8> {
        let mut config = Config::default();
        config.block.ipv6_prefix = bits;
        let ruleset = ruleset::for_config(&config, 32768..=60999);
        let rules = ruleset.chains.iter().flat_map(|chain| &chain.rules);
        rules.map(crate::nft::lower::lower).find_map(|expressions| prefix_of(&expressions))
    }

    #[test]
    fn the_rules_tell_how_long_their_prefixes_are() {
        for bits in [48, 56, 60, 64, 127, 128] {
            assert_eq!(prefix_in(bits), Some(bits));
        }
    }
}
