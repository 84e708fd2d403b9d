//! One transaction of another program, as the kernel's notifications describe it
//! (`NFNLGRP_NFTABLES`), or the sum of several.
//!
//! Pure: what each part of it means for our table, and how several add up, within a bound. What is
//! done about it is decided in `drift`.

use std::collections::VecDeque;

use super::element::BLOCKED;
use crate::nft::{Key, Notification, SetSpec};
use crate::ruleset::SetId;

/// Changed elements that may wait: 16 MB. Past that the sets are recreated as they were.
const ELEMENTS_MAX: usize = 1 << 19;

/// What other programs changed and the daemon has not dealt with.
#[derive(Debug, Default)]
pub struct Change {
    /// Chains, rules, sets or what the configuration puts into them.
    pub(super) structure: bool,
    /// The table, or a set of blocks, was removed: whatever has that name now is not ours.
    pub(super) recreate: bool,
    /// Exempt addresses.
    pub(super) exemptions: bool,
    /// Intervals of blocked networks that were added or removed.
    pub(super) networks: usize,
    /// Keys of the host sets.
    pub(super) removed: VecDeque<(SetId, Key)>,
    pub(super) added: VecDeque<(SetId, Key)>,
}

impl Change {
    /// Adds what one notification says.
    pub fn take(&mut self, notification: Notification) {
        match notification {
            Notification::TableDeleted => (self.structure, self.recreate) = (true, true),
            Notification::SetDeleted(name) => {
                self.structure = true;
                self.recreate |= SetId::from_name(&name).is_some_and(|set| BLOCKED.contains(&set));
            }
            Notification::TableAdded
            | Notification::Added
            | Notification::ChainDeleted(_)
            | Notification::RuleDeleted { .. } => self.structure = true,
            Notification::ElementsDeleted { set, keys } => {
                self.elements(set, keys, |change| &mut change.removed)
            }
            Notification::ElementsAdded { set, keys } => {
                self.elements(set, keys, |change| &mut change.added)
            }
            Notification::Generation(_) => {}
        }
    }

    fn elements(
        &mut self,
        set: SetSpec,
        keys: Vec<Key>,
        list: impl Fn(&mut Self) -> &mut VecDeque<(SetId, Key)>,
    ) {
        let Some(set) = SetId::of(set) else { return };
        match set {
            SetId::Blocked4 | SetId::Blocked6 | SetId::Unproven4 | SetId::Unproven6
                if self.removed.len() + self.added.len() + keys.len() > ELEMENTS_MAX =>
            {
                (self.structure, self.recreate) = (true, true);
            }
            SetId::Blocked4 | SetId::Blocked6 | SetId::Unproven4 | SetId::Unproven6 => {
                list(self).extend(keys.into_iter().map(|key| (set, key)))
            }
            SetId::BlockedNets4 | SetId::BlockedNets6 => {
                self.networks = self.networks.saturating_add(keys.len())
            }
            SetId::Allowed4 | SetId::Allowed6 | SetId::Spared4 | SetId::Spared6 => {
                self.exemptions = true
            }
            SetId::Silent4
            | SetId::Silent6
            | SetId::TcpPorts
            | SetId::UdpPorts
            | SetId::Protocols
            | SetId::Interfaces
            | SetId::AllowedInterfaces
            | SetId::SilentInterfaces => self.structure = true,
            // What the rules remember, which others may forget.
            _ => {}
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        !self.structure && !self.exemptions && self.networks == 0 && self.has_no_elements()
    }

    pub(super) fn has_no_elements(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }

    /// Adds a later one.
    pub(super) fn join(&mut self, mut later: Self) {
        if later.recreate {
            // What was in the table went with it: nothing was meant for single elements.
            later.removed.clear();
            later.added.clear();
            later.networks = 0;
        }
        self.structure |= later.structure;
        self.recreate |= later.recreate;
        self.exemptions |= later.exemptions;
        self.networks = self.networks.saturating_add(later.networks);
        if self.removed.len() + self.added.len() + later.removed.len() + later.added.len()
            > ELEMENTS_MAX
        {
            (self.structure, self.recreate) = (true, true);
            return;
        }
        self.removed.append(&mut later.removed);
        self.added.append(&mut later.added);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn key(last: u8) -> Key {
        Key::from(IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn elements_that_went_with_their_table_are_no_unblock() {
        let mut change = Change::default();
        change.take(Notification::ElementsDeleted {
            set: SetId::Blocked4.spec(),
            keys: vec![key(1)],
        });
        change.take(Notification::TableDeleted);
        let mut pending = Change::default();
        pending.join(change);
        assert!(pending.structure && pending.recreate && pending.has_no_elements());
    }

    #[test]
    fn what_waits_is_bounded_and_past_that_the_sets_are_recreated() {
        let mut change = Change::default();
        for _ in 0..=ELEMENTS_MAX / 1000 {
            change.take(Notification::ElementsDeleted {
                set: SetId::Blocked4.spec(),
                keys: vec![key(1); 1000],
            });
        }
        assert!(change.recreate && change.removed.len() <= ELEMENTS_MAX);
    }

    #[test]
    fn what_the_rules_remember_may_be_forgotten() {
        let mut change = Change::default();
        change.take(Notification::ElementsDeleted {
            set: SetId::Services.spec(),
            keys: vec![Key::Service(6, 22)],
        });
        assert!(change.is_nothing());
        change.take(Notification::ElementsDeleted {
            set: SetId::TcpPorts.spec(),
            keys: vec![Key::Port(22)],
        });
        assert!(change.structure);
    }
}
