//! Read-only queries of the engine's state.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Engine, must_lift};
use crate::config::Mode;
use crate::engine::account::{Tally, Touch, clock};
use crate::engine::decision::{ConnectionVerdict, Decision, decide};
use crate::engine::entry::BlockView;
use crate::engine::offenders::Offender;
use crate::engine::policy::Policy;
use crate::engine::slowed::SlowedView;
use crate::engine::status::{AccountView, Evidence, Status, TouchView, Trace, TraceTouch};
use crate::engine::{MonoTime, Reason, Source};
use crate::probe::{ScanKind, Transport};

impl Engine {
    /// Whether the source of an address, or its prefix, has an account.
    pub fn knows(&self, source: IpAddr) -> bool {
        self.policy.accounts(source).any(|account| self.ledger.knows(account))
    }

    /// The ports of an account within the window.
    pub(super) fn tally(&self, account: Source) -> Tally {
        let horizon = self.ledger.horizon(self.now);
        let tally =
            self.ledger.inspect(account, |known| Tally::of(known.slots, horizon, self.counted));
        tally.unwrap_or_default()
    }

    /// Whether a new connection of this source may proceed.
    pub fn connection_verdict(&self, source: IpAddr) -> ConnectionVerdict {
        let mut accounts = self.policy.accounts(source);
        if self.policy.mode == Mode::Observe {
            return ConnectionVerdict::Free;
        }
        if self.policy.accounts(source).any(|account| self.blocks.view(account).is_some()) {
            return ConnectionVerdict::Blocked;
        }
        if self.policy.accounts(source).any(|account| self.is_slowed(account)) {
            return ConnectionVerdict::Held;
        }
        let is_past = |account| {
            [Transport::Tcp, Transport::Udp].into_iter().any(|transport| {
                matches!(self.decision(account, ScanKind::Syn, transport), Decision::Block { .. })
            })
        };
        if accounts.any(|account| is_past(account) && !self.is_never_block(account)) {
            ConnectionVerdict::Held
        } else {
            ConnectionVerdict::Free
        }
    }

    /// Whether an account of a source is above its trigger for `transport` now.
    pub fn has_passed(&self, source: IpAddr, transport: Transport) -> bool {
        let mut accounts = self.policy.accounts(source);
        accounts.any(|account| self.decision(account, ScanKind::Udp, transport) != Decision::Wait)
    }

    /// The decision on another probe of an account that counts no new port.
    fn decision(&self, account: Source, scan: ScanKind, transport: Transport) -> Decision {
        let triggers = self.policy.triggers_of(account);
        decide(&self.policy, triggers, self.tally(account), scan, transport)
    }

    /// Counters and sizes.
    pub fn status(&self) -> Status {
        let done = self.blocks.done();
        Status {
            sources: self.ledger.sources(),
            suspects: self.ledger.suspects(),
            capacity: self.ledger.capacity(),
            blocked: self.blocks.in_force(),
            ordered: self.blocks.count(),
            offenders: self.offenders.count(),
            lists: self.blocks.lists.views().collect(),
            slowed: self.slowed.views(self.now, None).count(),
            blocks: done.blocked,
            renewals: done.renewed,
            refused: done.refused,
            unblocked: done.unblocked,
            evicted: self.ledger.evicted(),
            ..self.status.clone()
        }
    }

    /// The account that `address` belongs to first; `None` if it touched no port within the window.
    pub fn account(&self, address: IpAddr) -> Option<AccountView> {
        self.account_of(self.policy.account(address))
    }

    /// What an account touched within the window, and what that means for the decision.
    pub fn trace(&self, source: Source) -> Option<Trace> {
        let AccountView { first, probes, ports, .. } = self.account_of(source)?;
        let trace = |touch: TouchView| TraceTouch {
            port: touch.port,
            scan: touch.scan,
            weight: Touch::of_view(&touch).weight(self.counted),
            age: self.now.since(touch.at),
        };
        let touches = ports.into_iter().map(trace).collect();
        Some(Trace { probes, first: self.now.since(first), touches })
    }

    fn account_of(&self, source: Source) -> Option<AccountView> {
        let horizon = self.ledger.horizon(self.now);
        let view = self.ledger.inspect(source, |known| {
            let mut ports: Vec<TouchView> = known
                .slots
                .iter()
                .filter_map(|slot| Touch::live(*slot, horizon))
                .map(Touch::view)
                .collect();
            ports.sort_by_key(|touch| touch.at);
            AccountView {
                source,
                first: MonoTime::from_millis(known.first),
                last: MonoTime::from_millis(known.last),
                probes: known.probes,
                ports,
            }
        })?;
        (!view.ports.is_empty()).then_some(view)
    }

    /// Probes of an account since it was first seen; see [`AccountView::probes`].
    pub fn probes_of(&self, source: Source) -> Option<u32> {
        self.ledger.inspect(source, |known| known.probes)
    }

    /// How often that account was blocked as proven, within `block.escalate.memory`.
    pub fn blocks_before(&self, address: IpAddr) -> u32 {
        let source = self.policy.account(address);
        self.offenders.times(self.now, source, self.policy.escalate.memory)
    }

    /// The slowed sources after this one, in order, each with its evidence.
    pub fn slowed(&self, after: Option<Source>) -> impl Iterator<Item = (SlowedView, Reason)> {
        self.slowed
            .views(self.now, after)
            .map(|view| (view, self.reason(self.now, view.source, (view.scan, view.port), false)))
    }

    /// The slowed sources after this one, in order, each with the end of its time.
    pub fn slowed_until(&self, after: Option<Source>) -> impl Iterator<Item = (Source, MonoTime)> {
        self.slowed.views(self.now, after).map(|view| (view.source, view.until))
    }

    /// The account of an address that is slowed, if there is one.
    pub fn slowed_source(&self, address: IpAddr) -> Option<(SlowedView, Reason)> {
        let mut accounts = self.policy.accounts(address);
        let view = accounts.find_map(|account| self.slowed.view(self.now, account))?;
        Some((view, self.reason(self.now, view.source, (view.scan, view.port), false)))
    }

    /// The blocks that are in force, in no order.
    pub fn blocks(&self) -> impl Iterator<Item = BlockView<'_>> {
        self.blocks.views()
    }

    /// The block of exactly this source, if it is in force.
    pub fn blocked(&self, source: Source) -> Option<BlockView<'_>> {
        self.blocks.view(source)
    }

    /// The blocks in force, in pages: `places` bounds the work of one call; `from` is 0, or the
    /// position that the previous call returned. `None`: this was the last page.
    pub fn blocks_page(
        &self,
        from: usize,
        places: usize,
    ) -> (impl Iterator<Item = BlockView<'_>>, Option<usize>) {
        self.blocks.page(from, places)
    }

    /// The never-block networks within a blocked source, and what is exempt from its block by
    /// itself: the rules let their packets pass.
    pub fn exempt_within(&self, source: Source) -> Vec<IpNet> {
        let network = source.network();
        let own = self.blocks.view(source).map(|block| block.exempt.to_vec()).unwrap_or_default();
        let lists = self.lists().map(|(list, _)| list);
        // Few sources overlap a list, which may have 100,000 entries.
        let listed = lists.into_iter().filter(|list| list.overlaps(&network));
        let within = |exempt: &&IpNet| exempt.contains(&network) || network.contains(*exempt);
        own.into_iter()
            .chain(listed.flat_map(|list| list.networks().iter().filter(within).copied()))
            .collect()
    }

    /// Whether a block must not exist: it lies within a never-block list, or it is a scan's and
    /// overlaps one.
    pub fn must_not_block(&self, source: Source, reason: &Reason) -> bool {
        must_lift(&self.policy, &self.always, &self.never_block, source, reason)
    }

    /// How often a proven source was blocked, and when last.
    pub fn offender(&self, source: Source) -> Option<Offender> {
        self.offenders.get(source)
    }

    /// All remembered offenders.
    pub fn offenders(&self) -> impl Iterator<Item = Offender> {
        self.offenders.all()
    }

    /// Evidence of sources that were active at `since` or later: suspects first, at most `most`.
    pub fn evidence(&self, since: MonoTime, most: usize) -> Vec<Evidence> {
        let horizon = self.ledger.horizon(self.now);
        let mut all = Vec::new();
        self.ledger.recent(clock(since), most, |source, known| {
            let ports: Vec<TouchView> = known
                .slots
                .iter()
                .filter_map(|slot| Touch::live(*slot, horizon))
                .map(Touch::view)
                .collect();
            if !ports.is_empty() {
                all.push(Evidence {
                    source,
                    first: MonoTime::from_millis(known.first),
                    last: MonoTime::from_millis(known.last),
                    last_reported: (known.last_reported > 0)
                        .then(|| MonoTime::from_millis(known.last_reported)),
                    probes: known.probes,
                    ports,
                    long: self.longterm.get(self.now, self.ledger.key_of(source).hash),
                });
            }
        });
        all
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}
