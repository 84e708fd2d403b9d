//! Reading the sets again, in pieces, and reporting what other programs did to them.

use std::time::Duration;

use super::{INTERVALS_PER_WAKE, KEYS_PER_WAKE};
use crate::enforce::drift::{Drift, Findings, Reading};
use crate::enforce::element;
use crate::enforce::enforcer::{Enforcer, Observer};
use crate::enforce::kernel::{Author, Dump, Kernel};
use crate::enforce::networks::{Family, Span};
use crate::enforce::reconcile::Origin;
use crate::engine::{BlockView, MonoTime};
use crate::errors::error_chain;
use crate::journal::Notice;
use crate::nft::{ElementInfo, Key};
use crate::ruleset::SetId;

/// How much earlier than the engine the kernel may end an element.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);

impl<K: Kernel, O: Observer> Enforcer<K, O> {
    /// Reads on a thread what may differ, and deals with what was read, some of it at a time.
    pub(super) fn read_aside(&mut self, now: MonoTime) {
        if std::mem::take(&mut self.drift.pending.exemptions) {
            self.drift.read.exemptions = true;
            self.drift.findings.exemptions = true;
        }
        let is_quiet = !self.backlog.has_lost()
            && !self.drift.pending.structure
            && self.drift.pending.has_no_elements();
        let is_idle = self.drift.keys.is_empty() && self.drift.intervals.is_empty();
        if !self.drift.read.is_nothing()
            && is_quiet
            && is_idle
            && !self.executor.kernel.is_dumping()
        {
            let mut wanted = std::mem::take(&mut self.drift.read);
            // First comes back what the engine knows: then the kernel has as many elements or more.
            wanted.hosts = wanted.hosts && self.has_unknown_hosts(now);
            self.drift.reading = wanted;
            if !wanted.is_nothing() {
                self.executor.networks.mark();
                self.executor.kernel.begin_dump(wanted);
            }
        }
        if let Some(dump) = self.executor.kernel.take_dump() {
            let wanted = std::mem::take(&mut self.drift.reading);
            match dump {
                Ok(dump) => self.take_dump(dump),
                // A set that is gone is another notification, after which there is nothing to read.
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    log::warn!(
                        "what others put into the sets cannot be read: {}",
                        error_chain(&error)
                    );
                    self.drift.read.join(wanted);
                }
            }
        }
        self.look_at_keys();
        self.look_at_intervals(now);
    }

    /// Whether the host sets have more elements than the engine has blocks of hosts, or the kernel
    /// does not say.
    pub(super) fn has_unknown_hosts(&mut self, now: MonoTime) -> bool {
        let placement = self.executor.placement;
        let Ok(counts) = self.executor.kernel.counts() else { return true };
        element::HOSTS.into_iter().any(|set| {
            let known = self
                .engine
                .blocks()
                .filter(|block| placement.key_in(set, block).is_some())
                // The kernel may have ended this one already, and another element be in its place.
                .filter(|block| block.expires.is_none_or(|end| end > now.after(CLOCK_TOLERANCE)))
                .count();
            let count = counts.iter().find(|(of, _)| *of == set).and_then(|(_, count)| *count);
            // Kernels before 6.16 do not count.
            count.is_none_or(|count| usize::try_from(count).is_ok_and(|count| count > known))
        })
    }

    pub(super) fn take_dump(&mut self, dump: Dump) {
        let Dump { hosts, networks, exemptions } = dump;
        self.drift.keys = hosts;
        if let Some(exemptions) = exemptions {
            for (set, elements) in exemptions {
                self.exemptions.set_present(set, &elements);
            }
            self.exemptions.want(&self.ruleset, &self.never_block);
        }
        let notified = std::mem::take(&mut self.drift.notified);
        let missing = Origin::Drift { notified }.missing(true);
        if let Some(networks) = networks {
            if self.executor.networks.has_changed() {
                // What was read is older than what we wrote meanwhile.
                (self.drift.read.networks, self.drift.notified) = (true, notified);
            } else {
                for (family, intervals) in Family::ALL.into_iter().zip(networks) {
                    self.drift.intervals.push_back(Reading {
                        family,
                        intervals: intervals.into(),
                        from: 0,
                        missing,
                    });
                }
            }
        }
    }

    /// Hosts that were read and that the engine does not know are dealt with as if the kernel had
    /// named them.
    pub(super) fn look_at_keys(&mut self) {
        let Drift { keys, pending, author, .. } = &mut self.drift;
        let piece = keys.split_off(keys.len().saturating_sub(KEYS_PER_WAKE));
        let (engine, placement) = (&self.engine, self.executor.placement);
        let is_unknown = |(set, key): &(SetId, Key)| {
            let is_here = |block: BlockView<'_>| placement.key_in(*set, &block).is_some();
            placement
                .source(*key)
                .is_some_and(|source| !engine.blocked(source).is_some_and(is_here))
        };
        let before = pending.added.len();
        pending.added.extend(piece.into_iter().filter(is_unknown));
        if pending.added.len() > before {
            *author = Author::default();
        }
    }

    /// Intervals that were read: those in one stretch of addresses are compared with what the
    /// blocks want there.
    pub(super) fn look_at_intervals(&mut self, now: MonoTime) {
        let Some(reading) = self.drift.intervals.front_mut() else { return };
        let many = reading.intervals.len().min(INTERVALS_PER_WAKE);
        let piece: Vec<ElementInfo> = reading.intervals.drain(..many).collect();
        let (family, missing) = (reading.family, reading.missing);
        let next = reading.intervals.front().and_then(Span::of_element).map(|span| span.first);
        let within = Span {
            first: reading.from,
            last: next.map_or(family.all().last, |next| next.saturating_sub(1)),
        };
        match next {
            Some(next) => reading.from = next,
            None => drop(self.drift.intervals.pop_front()),
        }
        let summary = self.take_intervals(now, family, within, missing, &piece);
        self.drift.findings.add(summary);
    }

    /// Reports what elements came to, when all of them were looked at.
    pub(super) fn report_findings(&mut self, now: MonoTime) {
        if !self.drift.pending.has_no_elements()
            || !self.drift.intervals.is_empty()
            || !self.drift.keys.is_empty()
        {
            return;
        }
        let Findings { lifted, adopted, retimed, normalised, exemptions } =
            std::mem::take(&mut self.drift.findings);
        let mut remedies = Vec::new();
        let mut add = |count: u64, text: &str| {
            if count > 0 {
                remedies.push(format!("{count} {text}"));
            }
        };
        add(lifted, "removed from the blocked sets, which counts as unblocked");
        add(adopted, "added to the blocked sets, adopted as blocked by hand");
        add(retimed, "given another timeout, which counts");
        add(
            normalised,
            "with bits below block.ipv6.first, which no rule looks up: blocked as the whole prefix",
        );
        if exemptions {
            remedies.push("the never-block addresses were restored".to_owned());
        }
        if !remedies.is_empty() {
            self.report_remedy(now, remedies.join("; "));
        }
    }

    pub(super) fn report_remedy(&mut self, now: MonoTime, mut remedy: String) {
        if !self.drift.lines.take(now) {
            self.drift.unreported += 1;
            return;
        }
        let unreported = std::mem::take(&mut self.drift.unreported);
        if unreported > 0 {
            remedy.push_str(&format!("; {unreported} changes before this were not logged"));
        }
        let Author { pid, program } = self.drift.author.clone();
        let program = if program.is_empty() { "an unknown program".to_owned() } else { program };
        self.observer.notify(Notice::ForeignChange { pid, program, remedy });
    }
}
