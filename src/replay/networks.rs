//! Networks of campaigns that `campaign.action` slows or blocks, as the kernel's sets have them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::recent::Recent;
use crate::config::{CampaignAction, Config};
use crate::engine::{MonoTime, Source};

/// As many as the sets hold ([`crate::ruleset`]).
pub(super) const NETWORKS_MAX: usize = 8_192;

/// What is done about each, and until when.
#[derive(Debug)]
pub(super) struct Networks {
    action: CampaignAction,
    held: Recent<Source, MonoTime>,
}

impl Networks {
    pub(super) fn new(config: &Config) -> Self {
        Self { action: config.campaign.action, held: Recent::new(NETWORKS_MAX) }
    }

    pub(super) fn hold(&mut self, network: Source, until: MonoTime) {
        self.held.insert(network, until);
    }

    pub(super) fn release(&mut self, network: Source) {
        self.held.remove(&network);
    }

    /// What is done about the network around an address.
    pub(super) fn around(&mut self, now: MonoTime, address: IpAddr) -> CampaignAction {
        let lengths: &[u8] = match (self.action, address) {
            (CampaignAction::Report, _) => &[],
            (_, IpAddr::V4(_)) => &[24],
            (_, IpAddr::V6(_)) => &[56, 48],
        };
        let network = |length: &u8| IpNet::new(address, *length).ok();
        let mut networks = lengths.iter().filter_map(network).map(Source::from);
        let is_held = networks.any(|it| self.held.get(it).is_some_and(|until| *until > now));
        if is_held { self.action } else { CampaignAction::Report }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_each_length_are_held_for_their_time() {
        let mut config = Config::default();
        config.campaign.action = CampaignAction::Slow;
        let mut networks = Networks::new(&config);
        let at = MonoTime::from_millis;
        for text in ["198.51.100.0/24", "2001:db8:1:aa00::/56", "2001:db8:2::/48"] {
            networks.hold(Source::from(text.parse::<IpNet>().unwrap()), at(60_000));
        }
        for (address, is_held) in [
            ("198.51.100.7", true),
            ("198.51.101.7", false),
            ("2001:db8:1:aaff::7", true),
            ("2001:db8:1:ab00::7", false),
            ("2001:db8:2:ffff::7", true),
        ] {
            let address = address.parse().unwrap();
            let action = if is_held { CampaignAction::Slow } else { CampaignAction::Report };
            assert_eq!(networks.around(at(59_999), address), action, "{address}");
            assert_eq!(networks.around(at(60_000), address), CampaignAction::Report);
        }
        networks.release(Source::from("198.51.100.0/24".parse::<IpNet>().unwrap()));
        let address = "198.51.100.7".parse().unwrap();
        assert_eq!(networks.around(at(1), address), CampaignAction::Report);
    }
}
