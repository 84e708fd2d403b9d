//! The administrator's word, by `portsentryctl` or by nft: blocks, unblocks, and what stands in the kernel's sets already.

use std::time::Duration;

use super::Engine;
use crate::config::Mode;
use crate::engine::account::Touch;
use crate::engine::entry::{Adopted, Order};
use crate::engine::{Action, Ending, Moment, Reason, Refusal, Source, Subject};

impl Engine {
    /// The administrator blocks a subject, or gives a block another time and reason.
    /// [`Report::Blocked`](crate::engine::Report::Blocked) follows the kernel's answer.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn block(&mut self, now: Moment, subject: Subject, timeout: Option<Duration>, text: &str, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        let now = self.tick(now);
        let subject = self.canonical(subject);
        let network = subject.network(self.policy.ipv6_prefix);
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Refusal::NoTime);
        }
        for (list, name) in self.lists() {
            if let Some(overlaps) = list.overlapping(&network) {
                return Err(Refusal::NeverBlock { subject: network, overlaps, list: name });
            }
        }
        if self.policy.mode == Mode::Observe {
            return Err(Refusal::Observe);
        }
        if self.blocks.view(subject).is_none() && self.blocks.count() >= self.policy.total as usize {
            return Err(Refusal::Total(self.policy.total));
        }
        self.blocks.order(now, subject, Order { timeout, reason: Reason::Manual(text.to_owned()), port: None }, actions);
        Ok(())
    }

    /// The administrator lifts a block; the source's evidence is forgiven.
    /// [`Report::Unblocked`](crate::engine::Report::Unblocked) follows the kernel's answer.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotBlocked`].
    pub fn unblock(&mut self, now: Moment, subject: Subject, actions: &mut Vec<Action>) -> Result<(), Refusal> {
        self.tick(now);
        let subject = self.canonical(subject);
        if self.blocks.lift(subject, Ending::ByHand, actions) { Ok(()) } else { Err(Refusal::NotBlocked(subject.network(self.policy.ipv6_prefix))) }
    }

    /// The administrator wants nothing held against a source: the rules forget it, whether it is blocked or not.
    pub fn forgive(&mut self, now: Moment, source: Source, actions: &mut Vec<Action>) {
        self.tick(now);
        if self.policy.reflex {
            let touched = self.ledger.look(source, |known| known.slots.iter().filter_map(|slot| Touch::live(*slot, 0)).map(Touch::port).collect());
            actions.push(Action::Release { source, forget: Some(touched.unwrap_or_default()) });
        }
    }

    /// Somebody took the element of a subject out of the kernel's set: the block is over, and the source's evidence is forgiven as after an unblock.
    /// Gives whether it was blocked.
    pub fn removed_by_hand(&mut self, now: Moment, subject: Subject, actions: &mut Vec<Action>) -> bool {
        self.tick(now);
        let subject = self.canonical(subject);
        let was_blocked = self.blocks.removed(subject, actions);
        if let (true, Subject::Host(source)) = (was_blocked, subject) {
            self.forgive(now, source, actions);
            self.ledger.forget(source);
        }
        was_blocked
    }

    /// Somebody put an element into the kernel's sets, or gave it another time: what the kernel has counts from now on. Gives whether that is news.
    /// What must not be blocked is lifted.
    pub fn changed_by_hand(&mut self, now: Moment, found: Adopted, actions: &mut Vec<Action>) -> bool {
        let now = self.tick(now);
        let found = Adopted { subject: self.canonical(found.subject), ..found };
        if self.blocks.view(found.subject).is_some() {
            return self.blocks.changed(now, &found);
        }
        self.adopt(now, [found], actions);
        true
    }

    /// Takes over the elements that are in the kernel's sets at start. Those that must not be blocked are lifted.
    pub fn adopt(&mut self, now: Moment, found: impl IntoIterator<Item = Adopted>, actions: &mut Vec<Action>) {
        let now = self.tick(now);
        let found = found.into_iter();
        self.blocks.reserve(found.size_hint().0);
        for element in found {
            let element = Adopted { subject: self.canonical(element.subject), ..element };
            self.blocks.adopt(now, &element);
            if self.is_never_block(element.subject) {
                self.blocks.lift(element.subject, Ending::NeverBlock, actions);
            }
        }
    }
}
