//! Networks of campaigns, with `campaign.action: slow` or `block`.
//!
//! Each is treated as a source that is not proven, whose address may be forged: what it opens waits
//! or is dropped, and everything else passes. Addresses that are never blocked are exempt, and so
//! are known clients, which have shown that they get our answers. The daemon fills the sets; the
//! rules never renew an element.

use super::Builder;
use super::family::Family;
use super::known;
use super::sets::SetId;
use super::statements::is_not_in;
use crate::config::CampaignAction;
use crate::nft::model::{Owner, Selector, Set, Statement};

/// Networks of campaigns at a time: as many as the daemon counts.
const SIZE: u32 = 8192;

impl Builder<'_> {
    /// The networks of campaigns as families, if this is done with them.
    pub(super) fn campaigns(&self, action: CampaignAction) -> impl Iterator<Item = Family> {
        let are = self.config.campaigns_are(action);
        Family::campaigns().into_iter().filter(move |_| are)
    }

    pub(super) fn campaign_sets(&self) -> Vec<Set> {
        let set = |family: Family| Set {
            timeouts: true,
            size: Some(SIZE),
            comment: Some("networks of campaigns, by their first address"),
            ..Set::plain(family.held, Owner::Daemon)
        };
        [CampaignAction::Slow, CampaignAction::Block]
            .into_iter()
            .flat_map(|action| self.campaigns(action))
            .map(set)
            .collect()
    }

    /// What packets are paced by: a network is too many hosts for one pace.
    pub(super) fn paced(&self, family: Family) -> Family {
        let [four, six] = Family::both(self.config.block.ipv6.first);
        match family.held {
            SetId::Campaigns4 => four,
            SetId::Campaigns6 | SetId::Campaigns6Wide => six,
            _ => family,
        }
    }

    /// For rules about the networks of campaigns: no known client's packet.
    pub(super) fn unknown(&self, family: Family) -> Option<Statement> {
        let selector = match family.held {
            SetId::Campaigns4 => Selector::Ip4Saddr,
            SetId::Campaigns6 | SetId::Campaigns6Wide => {
                Selector::Ip6SaddrPrefix(known::prefix_len(self.config.block.ipv6))
            }
            _ => return None,
        };
        known::excuses(self.config).then(|| is_not_in(selector, family.known))
    }
}
