//! Handles the administrator's commands, and elements that were added, changed or removed with nft.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::{Engine, must_lift};
use crate::config::Mode;
use crate::engine::account::Touch;
use crate::engine::entry::{Adopted, Order};
use crate::engine::{
    Action, Ending, ListName, Listed, MonoTime, OnList, Reason, Refusal, SlowEnding, Source,
};
use crate::probe::Port;

/// What [`Engine::unblock_within`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unblocked {
    /// Blocks that are being lifted.
    pub lifted: Vec<Source>,
    /// Sources that are not slowed any more.
    pub released: Vec<Source>,
    /// Blocked networks in which [`Unblocked::target`] is exempt from now on.
    pub exempted: Vec<Source>,
    /// The address or network that is exempt.
    pub target: Option<Source>,
}

impl Engine {
    /// Blocks a source for the administrator, or gives its block another timeout and reason.
    /// [`Report::Blocked`](crate::engine::Report::Blocked) follows the kernel's answer.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn block(
        &mut self,
        now: MonoTime,
        source: Source,
        timeout: Option<Duration>,
        text: &str,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.order_block(now, source, timeout, Reason::Manual(text.into()), actions)
    }

    fn order_block(
        &mut self,
        now: MonoTime,
        source: Source,
        timeout: Option<Duration>,
        reason: Reason,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
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
        self.blocks.order(
            now,
            source,
            Order { timeout, reason, port: None, scanner: None },
            actions,
        );
        Ok(())
    }

    /// Begins to load a list, again or, with `add`, more of it; [`Engine::block_listed`] gives it its
    /// blocks.
    ///
    /// # Errors
    ///
    /// [`Refusal::Lists`].
    pub fn begin_list(
        &mut self,
        name: &ListName,
        text: &str,
        add: bool,
    ) -> Result<Arc<Listed>, Refusal> {
        self.blocks.lists.begin(name, text, add).ok_or(Refusal::Lists)
    }

    /// Blocks a source of a list that is being loaded. A block that is not of this list, drops as
    /// much and lasts as long stays as it is: a list takes nothing from another order.
    ///
    /// # Errors
    ///
    /// As [`Engine::block`]; [`Refusal::Superseded`].
    pub fn block_listed(
        &mut self,
        now: MonoTime,
        source: Source,
        timeout: Option<Duration>,
        loading: &Arc<Listed>,
        actions: &mut Vec<Action>,
    ) -> Result<OnList, Refusal> {
        self.is_loading(loading)?;
        let found = match self.blocks.view(source) {
            Some(block) if block.reason.list() == Some(loading.name()) => OnList::Kept,
            Some(block) if !block.reason.is_unproven_scan() => {
                let end = timeout.map(|timeout| self.now.max(now).after(timeout));
                let lasts = match (block.expires, end) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(present), Some(end)) => present >= end,
                };
                if lasts { OnList::Elsewhere } else { OnList::New }
            }
            _ => OnList::New,
        };
        if found != OnList::Elsewhere {
            let reason = Reason::Listed(Arc::clone(loading));
            self.order_block(now, source, timeout, reason, actions)?;
        }
        Ok(found)
    }

    /// Whether no other loading of the list has begun since this one.
    ///
    /// # Errors
    ///
    /// [`Refusal::Superseded`].
    pub fn is_loading(&self, loading: &Arc<Listed>) -> Result<(), Refusal> {
        if self.blocks.lists.is_latest(loading) {
            Ok(())
        } else {
            Err(Refusal::Superseded(loading.name().clone()))
        }
    }

    /// The sources on a list, or all, among `places` entries from `from` on, but those of this loading, and
    /// where to go on; `None`: these were the last.
    pub fn on_list(
        &self,
        list: Option<&ListName>,
        loading: Option<&Arc<Listed>>,
        from: usize,
        places: usize,
    ) -> (Vec<Source>, Option<usize>) {
        self.blocks.on_list(list, loading, from, places)
    }

    /// Lifts a block for the administrator and forgets the source's evidence.
    /// [`Report::Unblocked`](crate::engine::Report::Unblocked) follows the kernel's answer.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotBlocked`].
    pub fn unblock(
        &mut self,
        now: MonoTime,
        source: Source,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.tick(now);
        if self.blocks.lift(source, Ending::Manual, actions) {
            Ok(())
        } else {
            Err(Refusal::NotBlocked(source.network()))
        }
    }

    /// Lifts a block of a named list that the source is no longer on. Returns whether it was there.
    pub fn take_off_list(
        &mut self,
        now: MonoTime,
        source: Source,
        actions: &mut Vec<Action>,
    ) -> bool {
        self.tick(now);
        self.blocks.lift(source, Ending::OffList, actions)
    }

    /// Unblocks every address of `target`: lifts blocks within it, and exempts it from blocks
    /// around it. A single IPv6 address stands for its first account. The block of that is one
    /// element, which can leave nothing out: it is lifted.
    pub fn unblock_within(
        &mut self,
        now: MonoTime,
        target: Source,
        actions: &mut Vec<Action>,
    ) -> Unblocked {
        let now = self.tick(now);
        let account = if target.is_single() { self.policy.account(target.addr()) } else { target };
        let mut done = Unblocked::default();
        for view in self.blocks.views() {
            let is_around = view.source.contains(account);
            let is_element = self.policy.account(view.source.addr()) == view.source;
            if target.contains(view.source) || is_around && is_element {
                done.lifted.push(view.source);
            } else if is_around {
                done.exempted.push(view.source);
            }
        }
        for source in &done.lifted {
            self.blocks.lift(*source, Ending::Manual, actions);
        }
        // A block of which that was the rest is lifted.
        let (whole, exempted): (Vec<_>, Vec<_>) = std::mem::take(&mut done.exempted)
            .into_iter()
            .partition(|source| self.blocks.exempt(*source, account.network(), actions));
        done.lifted.extend(whole);
        done.exempted = exempted;
        done.released = self.slowed_within(target, account);
        for source in &done.released {
            self.forgive(now, *source, actions);
            self.forget(*source);
            self.end_slowing(*source, SlowEnding::Manual, actions);
        }
        // One around the address ends too: its set can leave nothing out.
        let is_it = |network: Source| target.contains(network) || network.contains(account);
        done.released.extend(self.end_campaigns(is_it, actions));
        done.target = Some(account);
        done
    }

    /// The slowed sources within a network, or around an account of it.
    fn slowed_within(&self, target: Source, account: Source) -> Vec<Source> {
        let views = self.slowed.views(self.now, None).map(|view| view.source);
        views.filter(|source| target.contains(*source) || source.contains(account)).collect()
    }

    /// Forgets all slowed sources; the rules must be made to forget theirs. Returns how many there
    /// were.
    pub fn release_all(&mut self, now: MonoTime, actions: &mut Vec<Action>) -> usize {
        let now = self.tick(now);
        let all: Vec<Source> = self.slowed.views(now, None).map(|view| view.source).collect();
        for source in &all {
            self.end_slowing(*source, SlowEnding::Manual, actions);
            self.forget(*source);
        }
        all.len() + self.end_campaigns(|_| true, actions).len()
    }

    /// Makes the rules forget a source and its ports, whether it is blocked or not.
    pub fn forgive(&mut self, now: MonoTime, source: Source, actions: &mut Vec<Action>) {
        self.tick(now);
        if self.policy.reflex {
            actions.push(Action::Release { source, forget: Some(self.touched(source)) });
        }
    }

    /// The ports of a source's account.
    pub(super) fn touched(&self, source: Source) -> Vec<Port> {
        let ports = self.ledger.inspect(source, |known| {
            let touches = known.slots.iter().filter_map(|slot| Touch::live(*slot, 0));
            touches.map(Touch::port).collect()
        });
        ports.unwrap_or_default()
    }

    /// Another program removed the element of a source: ends the block and forgets the evidence, as
    /// an unblock does. Returns whether the source was blocked.
    pub fn element_removed(
        &mut self,
        now: MonoTime,
        source: Source,
        actions: &mut Vec<Action>,
    ) -> bool {
        self.tick(now);
        let was_blocked = self.blocks.removed(source, actions);
        if was_blocked && self.policy.is_account(source) {
            self.forgive(now, source, actions);
            self.forget(source);
        }
        was_blocked
    }

    /// Another program removed a part of a blocked network: exempts that part. Returns whether this
    /// changed anything.
    pub fn removed_part(
        &mut self,
        now: MonoTime,
        source: Source,
        part: IpNet,
        actions: &mut Vec<Action>,
    ) -> bool {
        self.tick(now);
        self.blocks.removed_part(source, part, actions)
    }

    /// Another program added an element or changed its timeout: takes over the kernel's values, or
    /// lifts the block of a never-block address. Returns whether this changed anything.
    pub fn element_changed(
        &mut self,
        now: MonoTime,
        found: Adopted,
        actions: &mut Vec<Action>,
    ) -> bool {
        let now = self.tick(now);
        if self.blocks.view(found.source).is_some() {
            return self.blocks.changed(now, &found);
        }
        self.adopt(now, [found], actions);
        true
    }

    /// Adopts elements that are in the kernel's sets. Lifts those of never-block addresses.
    pub fn adopt(
        &mut self,
        now: MonoTime,
        found: impl IntoIterator<Item = Adopted>,
        actions: &mut Vec<Action>,
    ) {
        let now = self.tick(now);
        let found = found.into_iter();
        self.blocks.reserve(found.size_hint().0);
        for element in found {
            let source = element.source;
            let must_lift =
                must_lift(&self.policy, &self.always, &self.never_block, source, &element.reason);
            self.blocks.adopt(now, element);
            if must_lift {
                self.blocks.lift(source, Ending::NeverBlock, actions);
            }
        }
    }
}
