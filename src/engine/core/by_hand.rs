//! The administrator's word, by `portsentryctl` or by nft: blocks, unblocks, and what stands in the kernel's sets already.

use std::time::Duration;

use ipnet::IpNet;

use super::{Engine, is_void};
use crate::config::Mode;
use crate::engine::account::Touch;
use crate::engine::entry::{Adopted, Order};
use crate::engine::{Action, Ending, MonoTime, Reason, Refusal, Source};

/// What an order to unblock comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unblocked {
    /// Blocks that are being lifted.
    pub lifted: Vec<Source>,
    /// Blocked networks that leave [`Unblocked::target`] out from now on.
    pub exempted: Vec<Source>,
    /// What is exempt from those.
    pub target: Option<Source>,
}

impl Engine {
    /// The administrator blocks a source, or gives a block another time and reason.
    /// [`Report::Blocked`](crate::engine::Report::Blocked) follows the kernel's answer.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn block(&mut self, now: MonoTime, source: Source, timeout: Option<Duration>, text: &str, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        let now = self.tick(now);
        let network = source.network();
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Refusal::NoTime);
        }
        for (list, name) in self.lists() {
            if let Some(overlaps) = list.overlapping(&network) {
                return Err(Refusal::NeverBlock { network, overlaps, list: name });
            }
        }
        if self.policy.mode == Mode::Observe {
            return Err(Refusal::Observe);
        }
        if self.blocks.view(source).is_none() && self.blocks.count() >= self.policy.total as usize {
            return Err(Refusal::Total(self.policy.total));
        }
        self.blocks.order(now, source, Order { timeout, reason: Reason::Manual(text.to_owned()), port: None }, actions);
        Ok(())
    }

    /// The administrator lifts a block; the source's evidence is forgiven.
    /// [`Report::Unblocked`](crate::engine::Report::Unblocked) follows the kernel's answer.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotBlocked`].
    pub fn unblock(&mut self, now: MonoTime, source: Source, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        self.tick(now);
        if self.blocks.lift(source, Ending::ByHand, actions) { Ok(()) } else { Err(Refusal::NotBlocked(source.network())) }
    }

    /// The administrator wants no address of `target` blocked: blocks within it are lifted, blocks around it leave it out from now on. For a single IPv6
    /// address the account that it belongs to is meant as well. The block of an account is one element, which can leave nothing out: it is lifted.
    pub fn unblock_within(&mut self, now: MonoTime, target: Source, actions: &mut Vec<Action>) -> Unblocked {
        self.tick(now);
        let account = if target.is_single() { self.policy.account(target.addr()) } else { target };
        let mut done = Unblocked::default();
        for view in self.blocks.views() {
            let is_around = view.source.contains(account);
            if target.contains(view.source) || is_around && self.policy.is_account(view.source) {
                done.lifted.push(view.source);
            } else if is_around {
                done.exempted.push(view.source);
            }
        }
        for source in &done.lifted {
            self.blocks.lift(*source, Ending::ByHand, actions);
        }
        for source in &done.exempted {
            self.blocks.exempt(*source, account.network(), actions);
        }
        done.target = Some(account);
        done
    }

    /// The administrator wants nothing held against a source: the rules forget it, whether it is blocked or not.
    pub fn forgive(&mut self, now: MonoTime, source: Source, actions: &mut Vec<Action>) {
        self.tick(now);
        if self.policy.reflex {
            let touched = self.ledger.look(source, |known| known.slots.iter().filter_map(|slot| Touch::live(*slot, 0)).map(Touch::port).collect());
            actions.push(Action::Release { source, forget: Some(touched.unwrap_or_default()) });
        }
    }

    /// Somebody took the element of a source out of the kernel's set: the block is over, and the source's evidence is forgiven as after an unblock.
    /// Gives whether it was blocked.
    pub fn removed_by_hand(&mut self, now: MonoTime, source: Source, actions: &mut Vec<Action>) -> bool {
        self.tick(now);
        let was_blocked = self.blocks.removed(source, actions);
        if was_blocked && self.policy.is_account(source) {
            self.forgive(now, source, actions);
            self.ledger.forget(source);
        }
        was_blocked
    }

    /// Another program took a part of a blocked network out of the kernel's set: from now on the block leaves it out. Gives whether that is news.
    pub fn removed_part(&mut self, now: MonoTime, source: Source, part: IpNet, actions: &mut Vec<Action>) -> bool {
        self.tick(now);
        self.blocks.removed_part(source, part, actions)
    }

    /// Somebody put an element into the kernel's sets, or gave it another time: what the kernel has counts from now on. Gives whether that is news.
    /// What must not be blocked is lifted.
    pub fn changed_by_hand(&mut self, now: MonoTime, found: Adopted, actions: &mut Vec<Action>) -> bool {
        let now = self.tick(now);
        if self.blocks.view(found.source).is_some() {
            return self.blocks.changed(now, &found);
        }
        self.adopt(now, [found], actions);
        true
    }

    /// Takes over the elements that are in the kernel's sets at start. Those that must not be blocked are lifted.
    pub fn adopt(&mut self, now: MonoTime, found: impl IntoIterator<Item = Adopted>, actions: &mut Vec<Action>) {
        let now = self.tick(now);
        let found = found.into_iter();
        self.blocks.reserve(found.size_hint().0);
        for element in found {
            self.blocks.adopt(now, &element);
            if is_void(&self.policy, &self.always, &self.never_block, element.source, &element.reason) {
                self.blocks.lift(element.source, Ending::NeverBlock, actions);
            }
        }
    }
}
