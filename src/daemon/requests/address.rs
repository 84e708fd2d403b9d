//! Requests about one address: what is known of it, and what would happen to it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::rows::{
    campaign_row, campaign_rows, details, kernel, proof, row, slowed_row, time_of_day,
};
use super::super::tested::tested;
use super::{RequestHandler, allowed_interfaces};
use crate::config::{CampaignAction, Mode};
use crate::control::{
    AllowRow, BlockRow, Cause, Kind, Proof, Refusal, Shown, Standing, State, Target, Tested,
    TouchedRow,
};
use crate::enforce::{Place, Placement, blocked_packets, slowed_packets, view};
use crate::engine::{AccountView, CampaignView, Reason, SlowedView, Source, Trace};
use crate::journal::record::{KINDS, NOT_STORED, probed};
use crate::nft::Key;
use crate::packet::command::{Command, Known};
use crate::probe::{Port, ScanKind};
use crate::ruleset::{SetId, known};
use crate::store::events::Query;

/// What is known of an address.
struct Found {
    account: Option<AccountView>,
    trace: Option<Trace>,
    blocks_before: u32,
    allowed: Option<AllowRow>,
    /// Within its IPv6 prefix.
    allowed_in_prefix: Option<AllowRow>,
    /// The block over it, or how it is slowed.
    block: Option<BlockRow>,
    exempt_from: Option<Target>,
    /// Of a slowed source.
    proof: Option<Proof>,
    /// Of a network around it.
    campaign: Option<(CampaignView, CampaignAction)>,
}

impl RequestHandler {
    pub(super) fn show(&mut self, target: Target) -> Result<Shown, Refusal> {
        let Target::Address(address) = target else { return self.show_campaign(target) };
        let found = self.look_up(address)?;
        let standing = self.standing(&found);
        let Found { account, trace, blocks_before, allowed, allowed_in_prefix, .. } = found;
        let Found { block, exempt_from, proof, campaign, .. } = found;
        let observed = self.config().mode == Mode::Observe;
        let is_known = account.is_some()
            || allowed.is_some()
            || allowed_in_prefix.is_some()
            || blocks_before > 0;
        let is_treated = block.is_some() || exempt_from.is_some() || campaign.is_some();
        if !is_known && !is_treated && !self.has_history(target) {
            return Err(Refusal::new(Kind::No, format!("nothing is known of {address}"), ""));
        }
        let ports = account.as_ref().map(|account| account.ports.as_slice()).unwrap_or_default();
        let scans: BTreeSet<_> = ports.iter().map(|touch| touch.scan).collect();
        Ok(Shown {
            address: target,
            observed,
            exempt_from,
            allowed,
            allowed_in_prefix,
            touched: ports.len() as u64,
            ports: ports.iter().map(|touch| touch.port.to_string()).collect(),
            scans: scans.iter().map(ToString::to_string).collect(),
            proven: scans.contains(&ScanKind::Connect)
                || block.as_ref().is_some_and(|block| block.proven),
            first_seen: account.as_ref().map(|account| time_of_day(account.first)),
            last_seen: account.as_ref().map(|account| time_of_day(account.last)),
            blocks_before: u64::from(blocks_before),
            proof,
            block,
            campaign: campaign.as_ref().map(campaign_row),
            probes: trace.as_ref().map(touched_rows).unwrap_or_default(),
            trigger: self.config().scan_trigger.into(),
            standing: Some(standing),
        })
    }

    /// The campaign of a network.
    fn show_campaign(&mut self, target: Target) -> Result<Shown, Refusal> {
        let rows = campaign_rows(&self.packets)?;
        let Some(row) = rows.into_iter().find(|row| row.address == target) else {
            let message = format!("{target} is no campaign's network");
            let remedy =
                "show takes an address, or a campaign's network as \"portsentryctl list\" has it";
            return Err(Refusal::new(Kind::No, message, remedy));
        };
        Ok(Shown {
            address: target,
            block: Some(row.clone()).filter(|row| row.state != State::Reported),
            exempt_from: None,
            allowed: None,
            allowed_in_prefix: None,
            ports: Vec::new(),
            touched: 0,
            scans: Vec::new(),
            proven: false,
            first_seen: row.since,
            last_seen: None,
            blocks_before: 0,
            proof: None,
            campaign: Some(row),
            observed: self.config().mode == Mode::Observe,
            probes: Vec::new(),
            trigger: self.config().scan_trigger.into(),
            standing: None,
        })
    }

    /// Whether anything about it is stored.
    fn has_history(&self, target: Target) -> bool {
        let kinds = KINDS.iter().filter(|kind| **kind != NOT_STORED);
        let kinds = kinds.map(|kind| (*kind).to_owned()).collect();
        let query = Query { source: Some(target.network()), kinds, ..Query::default() };
        self.search(query).any(|row| row.is_ok())
    }

    /// How the rules treat an address.
    fn standing(&self, found: &Found) -> Standing {
        // Elements of earlier blocks drop nothing in observe mode.
        let block = found.block.as_ref().filter(|_| self.config().mode != Mode::Observe);
        match block {
            _ if found.allowed.is_some() => Standing::Allowed,
            Some(row) if row.state == State::Slowed => Standing::Slowed,
            Some(row) if row.cause == Cause::Campaign => Standing::Unproven,
            Some(row) if row.cause == Cause::Unproven && self.stops_only_openings(row) => {
                Standing::Unproven
            }
            Some(_) => Standing::Blocked,
            None => Standing::Counted,
        }
    }

    /// What is known of an address, and how the rules treat it.
    fn look_up(&mut self, address: IpAddr) -> Result<Found, Refusal> {
        let Known { account, trace, blocks_before, slowed, campaign } =
            self.packets.ask(|answer| Command::Account(address, answer))?;
        let protected = Arc::clone(&self.view.lock().protected);
        let entry = protected.iter().find(|(network, _)| network.contains(&address));
        let allowed = entry.map(|entry| self.allow_row(entry));
        let prefix = Source::of(address, self.config().block.ipv6.first).network();
        let entry = protected.iter().find(|(network, _)| prefix.contains(*network));
        let entry = entry.filter(|_| allowed.is_none());
        let allowed_in_prefix = entry.map(|entry| self.allow_row(entry));
        // The rules accept a never-blocked address before they look for a block around it.
        let is_observed = self.config().mode == Mode::Observe;
        let (block, exempt_from) = if allowed.is_some() || is_observed {
            // In observe mode elements of earlier blocks drop nothing.
            (None, None)
        } else {
            self.block_over(Target::Address(address))?
        };
        let slowed = slowed.filter(|_| allowed.is_none() && block.is_none());
        let proof = slowed.as_ref().map(|(view, _)| proof(view));
        let block = match (block, &slowed) {
            (None, Some(slowed)) => Some(self.slowed_block(slowed)?),
            (block, _) => block,
        };
        let is_held = allowed.is_none()
            && exempt_from.is_none()
            && campaign.is_some_and(|(view, _)| view.until.is_some())
            && !self.is_known_client(address)?;
        let block = block.or_else(|| campaign.as_ref().filter(|_| is_held).map(campaign_row));
        Ok(Found {
            account,
            trace,
            blocks_before,
            allowed,
            allowed_in_prefix,
            block,
            exempt_from,
            proof,
            campaign,
        })
    }

    /// Whether an address completed connections lately, for which the rules exempt it from campaigns.
    fn is_known_client(&mut self, address: IpAddr) -> Result<bool, Refusal> {
        let source = Source::of(address, known::prefix_len(self.config().block.ipv6));
        let set = if source.addr().is_ipv4() { SetId::Known4 } else { SetId::Known6 };
        // Without excused ports there is no such set.
        let found = self.connection()?.get_element(set, Key::from(source.addr()));
        Ok(matches!(found, Ok(Some(_))))
    }

    fn slowed_block(&mut self, slowed: &(SlowedView, Reason)) -> Result<BlockRow, Refusal> {
        let placement = self.placement();
        let sources = [slowed.0.source];
        let packets =
            slowed_packets::read(self.connection()?, placement, &sources).map_err(kernel)?;
        Ok(slowed_row(slowed, packets.first().copied().flatten()))
    }

    /// Whether an unproven block has a set of its own, rather than one that drops everything.
    fn stops_only_openings(&self, row: &BlockRow) -> bool {
        let source = row.address.source(self.config().block.ipv6.first);
        matches!(self.placement().place(source, true), Place::Host(..))
    }

    pub(super) fn test(&mut self, address: IpAddr, ports: &[Port]) -> Result<Tested, Refusal> {
        let found = self.look_up(address)?;
        let standing = self.standing(&found);
        let Found { account, allowed, allowed_in_prefix, block, exempt_from, .. } = found;
        let config = self.config();
        let is_observed = config.mode == Mode::Observe;
        let is_silent = config.silent_networks().any(|network| network.contains(&address));
        let tested = ports
            .iter()
            .map(|port| {
                let is_service = view::is_service(self.connection()?, *port).map_err(kernel)?;
                Ok(tested(&config, (standing, is_silent), *port, is_service))
            })
            .collect::<Result<_, Refusal>>()?;
        Ok(Tested {
            address: Target::Address(address),
            standing,
            observed: is_observed,
            allowed,
            allowed_in_prefix,
            block,
            exempt_from,
            touched: account.map_or(0, |account| account.ports.len() as u64),
            trigger: config.scan_trigger.into(),
            interfaces: allowed_interfaces(&config),
            ports: tested,
        })
    }

    /// The block that covers an address: of itself, its prefix, or a network around it. Without
    /// one, the blocked network that it is exempt from.
    pub(super) fn block_over(
        &mut self,
        target: Target,
    ) -> Result<(Option<BlockRow>, Option<Target>), Refusal> {
        let prefix = self.config().block.ipv6.first;
        let source = target.source(prefix);
        for unproven in [false, true] {
            if let Place::Host(set, key) = Placement::new(prefix).place(source, unproven)
                && let Some(info) = self.connection()?.get_element(set, key).map_err(kernel)?
            {
                let details = details(&self.packets, &[source])?;
                let packets =
                    blocked_packets::read(self.connection()?, &[source]).map_err(kernel)?;
                let packets = packets.first().copied().unwrap_or_default();
                return Ok((Some(row(source, &info, packets, details.get(&source))), None));
            }
        }
        let contains = |around: &Target| around.network().contains(&target.network());
        let around = self.network_rows()?.into_iter().filter(|row| contains(&row.address));
        let (exempt, covering): (Vec<_>, Vec<_>) =
            around.partition(|row| row.exempt.iter().any(contains));
        let exempt_from = exempt.first().filter(|_| covering.is_empty()).map(|row| row.address);
        Ok((covering.into_iter().next(), exempt_from))
    }
}

fn touched_rows(trace: &Trace) -> Vec<TouchedRow> {
    let now = Timestamp::now();
    probed(trace).into_iter().map(|touched| TouchedRow::of(touched, now)).collect()
}
