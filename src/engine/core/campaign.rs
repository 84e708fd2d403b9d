//! Campaigns: counts what the probes of several sources have in common, and reports, slows or
//! blocks.

use std::net::IpAddr;

use super::Engine;
use crate::config::CampaignAction;
use crate::engine::campaigns::{CampaignView, Noted, Place, Seen, Shared, networks};
use crate::engine::decision::Trigger;
use crate::engine::{Action, MonoTime, Report, Source};
use crate::probe::{Probe, Signature};

impl Engine {
    /// Counts a probe of a port that is new for its source, and that counts toward a block.
    /// `trigger`: of the source itself.
    pub(super) fn note_campaign(
        &mut self,
        now: MonoTime,
        account: Source,
        probe: &Probe,
        trigger: Trigger,
        actions: &mut Vec<Action>,
    ) {
        if self.is_never_block(account) {
            return;
        }
        let (port, scanner) = (probe.port, probe.source);
        let is_past = trigger == Trigger::Passed;
        if probe.signature != Signature::None {
            let source = self.ledger.hash_address(scanner) as u8;
            let seen = Seen { source, port, scanner, is_past };
            let shared = Shared::Signature(probe.signature);
            let noted = self.signatures.note(now, shared, seen);
            if let Some(Noted { place, is_fired: false, is_campaign: true }) = noted
                && self.take_campaign(now)
            {
                self.signatures.set_fired(place);
                self.report_campaign(self.signatures.view(now, place), actions);
            }
        }
        let accounts = self.policy.ipv6.prefix().unwrap_or(self.policy.ipv6.first);
        for (network, source) in networks(scanner).into_iter().flatten() {
            if network.addr().is_ipv6() && network.prefix_len() >= accounts {
                // It is one account.
                continue;
            }
            let seen = Seen { source, port, scanner, is_past };
            let noted = self.campaigns.note(now, Shared::Network(network), seen);
            let Some(Noted { place, is_fired, is_campaign }) = noted else { continue };
            let is_new = !is_fired && is_campaign && self.take_campaign(now);
            if is_new {
                self.campaigns.set_fired(place);
            }
            if is_fired || is_new {
                self.hold_campaign(now, place, actions);
                if is_new {
                    self.report_campaign(self.campaigns.view(now, place), actions);
                }
                // What one customer of a network does says nothing of the others.
                return;
            }
        }
    }

    /// Slows or blocks the network of a campaign, or does so for longer.
    fn hold_campaign(&mut self, now: MonoTime, place: Place, actions: &mut Vec<Action>) {
        let timeout = self.policy.unproven.timeout;
        if self.policy.holds_campaigns()
            && let Some(network) = self.campaigns.hold(now, now.after(timeout), place)
        {
            actions.push(Action::Campaign { network, timeout: Some(timeout) });
        }
    }

    /// Takes one of the reports per minute: a forger chooses how many networks there are.
    fn take_campaign(&mut self, now: MonoTime) -> bool {
        let taken = self.campaign_tokens.take(now);
        if !taken {
            self.status.reports_held_back += 1;
        }
        taken
    }

    fn report_campaign(&self, campaign: Option<CampaignView>, actions: &mut Vec<Action>) {
        if let Some(campaign) = campaign {
            let action = self.action_of(&campaign);
            let is_held = action != CampaignAction::Report;
            let timeout = is_held.then_some(self.policy.unproven.timeout);
            actions.push(Action::Report(Report::Campaign { campaign, action, timeout }));
        }
    }

    /// What is done about a campaign now.
    fn action_of(&self, campaign: &CampaignView) -> CampaignAction {
        match campaign.until {
            Some(_) if self.policy.holds_campaigns() => self.policy.campaign,
            _ => CampaignAction::Report,
        }
    }

    /// Whether the rules slow or block a network around an address. That says nothing of the address.
    pub(super) fn is_in_campaign(&self, address: IpAddr) -> bool {
        self.policy.holds_campaigns() && self.campaigns.is_held(self.now, address)
    }

    /// The campaigns, each with what is done about it.
    pub fn campaigns(&self) -> impl Iterator<Item = (CampaignView, CampaignAction)> {
        let all = self.campaigns.views(self.now).chain(self.signatures.views(self.now));
        all.map(|campaign| (campaign, self.action_of(&campaign)))
    }

    /// The campaign of the smallest network around an address.
    pub fn campaign_around(&self, address: IpAddr) -> Option<(CampaignView, CampaignAction)> {
        let reported = |(network, _)| self.campaigns.reported(self.now, Shared::Network(network));
        let campaign = networks(address).into_iter().flatten().find_map(reported)?;
        Some((campaign, self.action_of(&campaign)))
    }

    /// Ends the campaigns of these networks. Returns the networks that were slowed or blocked.
    pub(super) fn end_campaigns(
        &mut self,
        which: impl Fn(Source) -> bool,
        actions: &mut Vec<Action>,
    ) -> Vec<Source> {
        let network_of = |campaign: CampaignView| match campaign.shared {
            Shared::Network(network) => Some((network, campaign)),
            Shared::Signature(_) => None,
        };
        let views = self.campaigns.views(self.now).filter_map(network_of);
        let ended: Vec<_> = views.filter(|(network, _)| which(*network)).collect();
        let mut released = Vec::new();
        for (network, campaign) in ended {
            self.campaigns.forget(self.now, campaign.shared);
            if campaign.until.is_some() {
                actions.push(Action::Campaign { network, timeout: None });
                released.push(network);
            }
        }
        released
    }
}
