//! The reflex as the packet thread sees it: what it did, and what it is to forget.

use super::PacketThread;
use super::command;
use crate::errors::error_chain;
use crate::nft::{Error, Installed};
use crate::ruleset::SetId;
use crate::ruleset::reflex::Tally;

impl PacketThread {
    /// What the reflex did since the start, and how full its sets are.
    pub(super) fn reflex_figures(&mut self) -> Option<command::Reflex> {
        self.enforcer.ruleset.set(SetId::Held4)?;
        let tally = self.tally().inspect_err(|error| log::debug!("{}", error_chain(error))).ok()?;
        Some(command::Reflex { tally: self.reflex_before.plus(tally), fullest: self.fullest() })
    }

    /// The counters of the rules that are there now.
    pub(super) fn tally(&mut self) -> Result<Tally, Error> {
        self.enforcer.executor.kernel.connection().rules().map(|rules| Tally::of(&rules))
    }

    /// Elements and size of the fullest set, in parts of its size.
    fn fullest(&mut self) -> Option<(u32, u32)> {
        let sets = self.enforcer.executor.kernel.connection().sets().ok()?;
        let filled = sets
            .into_iter()
            .filter(|set| SetId::from_name(&set.name).is_some_and(SetId::is_reflex));
        let counted =
            filled.filter_map(|set| Some((set.count?, set.size.filter(|size| *size > 0)?)));
        counted.max_by_key(|(count, size)| u64::from(*count) * 1_000_000 / u64::from(*size))
    }

    /// Other rules are in force: the counters of the old ones are kept, and buckets of another size
    /// are forgotten, for each keeps the one that it was made with.
    pub(super) fn reflex_changed(
        &mut self,
        before: Tally,
        installed: &Installed,
        buckets_differ: bool,
    ) {
        if installed.replaced_rules() {
            self.reflex_before = self.reflex_before.plus(before);
        }
        if buckets_differ && let Err(error) = self.enforcer.executor.forget_counts() {
            log::warn!(
                "cannot forget what was counted by the old configuration: {}",
                error_chain(&error)
            );
        }
    }
}
