//! What the engine knows, for those who ask. Nothing here changes anything.

use std::net::IpAddr;

use super::{Engine, is_void};
use crate::config::Mode;
use crate::engine::account::{Tally, Touch, clock};
use crate::engine::decision::{ConnectionVerdict, Decision, decide};
use crate::engine::entry::BlockView;
use crate::engine::offenders::Offender;
use crate::engine::policy::Policy;
use crate::engine::status::{AccountView, Evidence, Status, TouchView};
use crate::engine::{MonoTime, Reason, Source};
use crate::probe::{ScanKind, Transport};

impl Engine {
    /// Whether anything is known of the source that an address belongs to. For the packet path: it changes nothing.
    pub fn knows(&self, source: IpAddr) -> bool {
        self.ledger.knows(self.policy.account(source))
    }

    /// What a new connection of this source may do. For the packet path: it changes nothing.
    pub fn connection_verdict(&self, source: IpAddr) -> ConnectionVerdict {
        let source = self.policy.account(source);
        if self.policy.mode == Mode::Observe {
            return ConnectionVerdict::Free;
        }
        if self.blocks.view(source).is_some() {
            return ConnectionVerdict::Blocked;
        }
        let horizon = self.ledger.horizon(self.now);
        let Some(tally) = self.ledger.look(source, |known| Tally::of(known.slots, horizon, self.counted)) else { return ConnectionVerdict::Free };
        let blocks = |transport| matches!(decide(&self.policy, tally, ScanKind::Syn, transport), Decision::Block { .. });
        let is_past = blocks(Transport::Tcp) || blocks(Transport::Udp);
        if is_past && !self.is_never_block(source) { ConnectionVerdict::Held } else { ConnectionVerdict::Free }
    }

    /// Whether the account of a source passes the trigger over `transport`, as it stands.
    pub fn has_passed(&self, source: IpAddr, transport: Transport) -> bool {
        let source = self.policy.account(source);
        let horizon = self.ledger.horizon(self.now);
        let tally = self.ledger.look(source, |known| Tally::of(known.slots, horizon, self.counted));
        tally.is_some_and(|tally| decide(&self.policy, tally, ScanKind::Udp, transport) != Decision::Wait)
    }

    /// The engine in numbers.
    pub fn status(&self) -> Status {
        let done = self.blocks.done();
        Status {
            sources: self.ledger.sources(),
            suspects: self.ledger.suspects(),
            capacity: self.ledger.capacity(),
            blocked: self.blocks.in_force(),
            ordered: self.blocks.count(),
            offenders: self.offenders.count(),
            blocks: done.blocked,
            renewals: done.renewed,
            refused: done.refused,
            unblocked: done.unblocked,
            evicted: self.ledger.evicted(),
            ..self.status.clone()
        }
    }

    /// What is known of the source that `address` belongs to; `None` if it touched nothing within the window.
    pub fn account(&self, address: IpAddr) -> Option<AccountView> {
        let source = self.policy.account(address);
        let horizon = self.ledger.horizon(self.now);
        let view = self.ledger.look(source, |known| {
            let mut ports: Vec<TouchView> = known.slots.iter().filter_map(|slot| Touch::live(*slot, horizon)).map(Touch::view).collect();
            ports.sort_by_key(|touch| touch.at);
            AccountView { source, first: MonoTime::from_millis(known.first), last: MonoTime::from_millis(known.last), probes: known.probes, ports }
        })?;
        (!view.ports.is_empty()).then_some(view)
    }

    /// How often the source that `address` belongs to was blocked as proven, within `block.escalate.memory`.
    pub fn blocks_before(&self, address: IpAddr) -> u32 {
        let source = self.policy.account(address);
        self.offenders.times(self.now, source, self.policy.escalate.memory)
    }

    /// The blocks that are in force, in no order.
    pub fn blocks(&self) -> impl Iterator<Item = BlockView<'_>> {
        self.blocks.views()
    }

    /// The block of this very source, if it is in force.
    pub fn blocked(&self, source: Source) -> Option<BlockView<'_>> {
        self.blocks.view(source)
    }

    /// The blocks in force, in pieces: `places` bounds the work of one call, `from` is 0 or what the call before gave. `None`: these were the last.
    pub fn blocks_page(&self, from: usize, places: usize) -> (impl Iterator<Item = BlockView<'_>>, Option<usize>) {
        self.blocks.page(from, places)
    }

    /// Whether a block of this source and reason must not be: it lies within what is never blocked, or is a scan's and overlaps that.
    pub fn must_not_block(&self, source: Source, reason: &Reason) -> bool {
        is_void(&self.policy, &self.always, &self.never_block, source, reason)
    }

    /// A proven source that was blocked, and how often.
    pub fn offender(&self, source: Source) -> Option<Offender> {
        self.offenders.get(source)
    }

    /// The proven sources that were blocked.
    pub fn offenders(&self) -> impl Iterator<Item = Offender> {
        self.offenders.all()
    }

    /// What is known of the sources that were touched at `since` or later: suspects first, and at most `most` of them.
    pub fn evidence(&self, since: MonoTime, most: usize) -> Vec<Evidence> {
        let horizon = self.ledger.horizon(self.now);
        let mut all = Vec::new();
        self.ledger.survey(clock(since), most, |source, known| {
            let ports: Vec<TouchView> = known.slots.iter().filter_map(|slot| Touch::live(*slot, horizon)).map(Touch::view).collect();
            if !ports.is_empty() {
                all.push(Evidence {
                    source,
                    first: MonoTime::from_millis(known.first),
                    last: MonoTime::from_millis(known.last),
                    told: (known.told > 0).then(|| MonoTime::from_millis(known.told)),
                    probes: known.probes,
                    ports,
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
