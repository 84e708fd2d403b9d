//! Answers `portsentryctl`: asks the threads that know, and the kernel for what is in its sets.
//!
//! It runs on the control server's worker threads, one handler each. What it says is blocked was
//! read from the kernel at that moment.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use super::listing::{Listing, network_rows};
use super::observed::Familiar;
use super::protected::ProtectionReason;
use super::rows::{
    MEND, campaign_row, campaign_rows, details, kernel, proof, row, slowed_row, slowed_rows,
    time_of_day,
};
use super::status;
use super::supervisor::{NotSwitched, Order, Reloaded};
use super::switches::Switch;
use super::tested::tested;
use super::view::SharedView;
use crate::config::{CampaignAction, Config, DEFAULT_PATH, Keyword, Mode};
use crate::control::{
    AllowRow, Answer, BlockRow, Caller, Cancelled, Cause, Causes, Handler, HistoryRow, Kind,
    Observed, Past, PortName, Proof, Refusal, Reply, Request, Shown, Standing, State, Status,
    Target, Tested, TouchedRow, WouldBeRow,
};
use crate::enforce::{BlockError, Place, Placement, UnblockedAll, slowed_packets, view};
use crate::engine::{
    AccountView, CampaignView, ObservedView, Reason, SlowedView, Source, Trace, Unblocked,
};
use crate::errors::error_chain;
use crate::journal::Notice;
use crate::journal::Record;
use crate::journal::format::duration;
use crate::journal::record::{KINDS, NOT_STORED, probed};
use crate::netlink::sock_diag::SockDiag;
use crate::nft::text::Form;
use crate::nft::{Connection, Key, LIGHT_DUMP, TIMEOUT_DAYS_MAX};
use crate::packet::command::{Command, Known};
use crate::probe::{Port, ScanKind};
use crate::ruleset::{SCHEMA, SetId, known};
use crate::store::clock;
use crate::store::events::Query;
use crate::sys::mailbox::Link;
use crate::sys::users;

const SECONDS_PER_DAY: u64 = 86_400;

/// What is known of an address.
struct Found {
    account: Option<AccountView>,
    trace: Option<Trace>,
    blocks_before: u32,
    allowed: Option<AllowRow>,
    /// The block over it, or how it is slowed.
    block: Option<BlockRow>,
    exempt_from: Option<Target>,
    /// Of a slowed source.
    proof: Option<Proof>,
    /// Of a network around it.
    campaign: Option<(CampaignView, CampaignAction)>,
}

/// Answers requests from what the threads know and what the kernel's sets hold.
pub(super) struct RequestHandler {
    /// The way to the packet thread.
    pub packets: Link<Command>,
    /// The way to the main thread.
    pub supervisor: Link<Order>,
    /// For reading only: all writes go through the packet thread's connection. Opened when it is
    /// needed first: most workers of a daemon are never asked.
    pub connection: Option<Connection>,
    /// What the main thread keeps true.
    pub view: SharedView,
    /// The figures that need counting since the start.
    pub status: status::Sources,
}

impl Handler for RequestHandler {
    fn handle(&mut self, request: Request, caller: Caller, _: &Cancelled) -> Answer {
        if request.changes() {
            let (at, about, command) = (Timestamp::now(), about(&request), request.to_string());
            let result = self.change(request);
            let done = result.as_ref().map(drop).map_err(|refusal| refusal.message.as_str());
            // The time before what came of it.
            self.status.events.keep(Record::order(at, about, &command, done));
            self.audit(caller, command, &result);
            result.map(self::done)
        } else {
            self.read(request)
        }
        .unwrap_or_else(Answer::from)
    }
}

impl RequestHandler {
    /// Changes something: what was done, for people.
    fn change(&mut self, request: Request) -> Result<String, Refusal> {
        match request {
            Request::Block { address, seconds, reason, force } => {
                self.block(address, seconds, reason, force)
            }
            Request::Unblock { address } => self.unblock(address),
            Request::UnblockAll {} => self.unblock_all(),
            Request::AllowAdd { address } => self.allow(address),
            Request::AllowRemove { address } => self.disallow(address),
            Request::Reload {} => self.reload(),
            Request::Enforce { seconds } => self.switch(Switch::Enforce(time(seconds)?)),
            Request::Observe {} => self.switch(Switch::Observe),
            Request::Off { seconds } => self.switch(Switch::Off(time(seconds)?)),
            Request::On {} => self.switch(Switch::On),
            other => Err(defect(&other)),
        }
    }

    /// Logs who changed what, or tried to.
    fn audit(
        &self,
        Caller { uid, pid }: Caller,
        command: String,
        result: &Result<String, Refusal>,
    ) {
        let login = pid.and_then(users::login).filter(|login| *login != uid);
        let notice = Notice::Control {
            uid,
            user: users::name(uid),
            pid,
            login: login.map(|login| users::name(login).unwrap_or_else(|| login.to_string())),
            command,
            is_done: result.is_ok(),
            result: match result {
                Ok(message) => message.clone(),
                Err(refusal) => refusal.message.clone(),
            },
        };
        self.status.journal.notify_surely(notice);
    }

    fn read(&mut self, request: Request) -> Result<Answer, Refusal> {
        Ok(match request {
            Request::Status {} => Reply::Status(Box::new(self.status()?)).into(),
            Request::List {} => self.list()?,
            Request::Observed {} => Reply::Observed(Box::new(self.observed()?)).into(),
            Request::Show { address } => Reply::Shown(Box::new(self.show(address)?)).into(),
            Request::Test { address, ports } => {
                let ports: Vec<Port> = ports.into_iter().map(|PortName(port)| port).collect();
                Reply::Tested(Box::new(self.test(address, &ports)?)).into()
            }
            Request::AllowList {} => {
                let protected = Arc::clone(&self.view.lock().protected);
                Reply::Allowed {
                    rows: protected.iter().map(|entry| self.allow_row(entry)).collect(),
                }
                .into()
            }
            Request::Rules {} => {
                let ruleset = Arc::clone(&self.view.lock().ruleset);
                Reply::Rules { text: ruleset.render(SCHEMA.table, Form::Table) }.into()
            }
            Request::History(past) => self.history(*past)?,
            other => return Err(defect(&other)),
        })
    }

    /// The connection to nf_tables.
    fn connection(&mut self) -> Result<&mut Connection, Refusal> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(Connection::open(SCHEMA).map_err(kernel)?)),
        }
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.view.lock().config)
    }

    fn placement(&self) -> Placement {
        Placement::new(self.config().block.ipv6.first)
    }

    /// The daemon's status; what is blocked and whether the rules are in place is asked of the
    /// kernel.
    fn status(&mut self) -> Result<Status, Refusal> {
        let mut status = self.status.gather(&self.packets, &self.view)?;
        let view = self.view.lock().clone();
        // For large sets that are in place the engine's count has to do: a dump takes seconds.
        let mut is_counted = status.blocked <= LIGHT_DUMP as u64;
        match self.connection()?.verify(&view.ruleset) {
            Ok(None) => {}
            Ok(Some(difference)) => {
                let what = format!(
                    "the rules in the kernel are not those in force: {difference}; \"portsentryctl reload\" puts them in place"
                );
                status.warnings.push(what);
                is_counted = true;
            }
            Err(error) => status.warnings.push(format!(
                "the rules in the kernel cannot be checked: {}",
                error_chain(&error)
            )),
        }
        if is_counted && view.config.mode != Mode::Observe {
            match self.blocks() {
                Ok(rows) => {
                    status.blocked = rows.len() as u64;
                    status.causes = Some(causes(&rows));
                }
                Err(error) => status
                    .warnings
                    .push(format!("what is blocked cannot be counted: {}", error.message)),
            }
        }
        Ok(status)
    }

    /// The blocks that the kernel drops packets of now.
    fn blocks(&mut self) -> Result<Vec<BlockRow>, Refusal> {
        let mut rows = self.network_rows()?;
        let placement = self.placement();
        let blocked = view::hosts(self.connection()?, placement).map_err(kernel)?;
        let hosts: Vec<Source> = blocked.iter().map(|(source, _)| *source).collect();
        let details = details(&self.packets, &hosts)?;
        rows.extend(blocked.iter().map(|(source, info)| row(*source, info, details.get(source))));
        Ok(rows)
    }

    fn network_rows(&mut self) -> Result<Vec<BlockRow>, Refusal> {
        let packets = self.packets.clone();
        network_rows(&packets, self.connection()?)
    }

    fn list(&mut self) -> Result<Answer, Refusal> {
        let placement = self.placement();
        if self.config().mode == Mode::Observe {
            // Elements of earlier blocks stay in the sets, and drop nothing.
            return Ok(Answer::sorted(Vec::new()));
        }
        if self.packets.ask(Command::Status)?.engine.blocked > LIGHT_DUMP {
            return Ok(Answer::blocks(Listing::begin(&self.packets, placement)?));
        }
        let mut rows = self.blocks()?;
        let packets = self.packets.clone();
        rows.extend(slowed_rows(&packets, self.connection()?, placement)?);
        rows.extend(campaign_rows(&packets)?);
        Ok(Answer::sorted(rows))
    }

    fn observed(&self) -> Result<Observed, Refusal> {
        let found = self.packets.ask(Command::Observed)?;
        let started = clock::now().before(self.status.started.elapsed());
        let familiar = Familiar::learn();
        let protected = Arc::clone(&self.view.lock().protected);
        let row = |view: &ObservedView| {
            let network = view.source.network();
            let entry = protected.iter().find(|(entry, _)| entry.contains(&network));
            familiar.row(view, entry.map(|entry| self.allow_row(entry)))
        };
        let sources: Vec<WouldBeRow> = found.sources.iter().map(row).collect();
        let count = |state| sources.iter().filter(|row| row.would_be == state).count() as u64;
        Ok(Observed {
            mode: self.config().mode.word().to_owned(),
            since: time_of_day(found.since.unwrap_or(started)),
            slowed: count(State::Slowed),
            blocked: count(State::Blocked),
            forgotten: found.forgotten,
            sources,
        })
    }

    fn show(&mut self, target: Target) -> Result<Shown, Refusal> {
        let Target::Address(address) = target else { return self.show_campaign(target) };
        let found = self.look_up(address)?;
        let standing = self.standing(&found);
        let Found { account, trace, blocks_before, allowed, block, exempt_from, proof, campaign } =
            found;
        let observed = self.config().mode == Mode::Observe;
        let is_known = account.is_some() || allowed.is_some() || blocks_before > 0;
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
        let allowed = {
            let protected = Arc::clone(&self.view.lock().protected);
            let entry = protected.iter().find(|(network, _)| network.contains(&address));
            entry.map(|entry| self.allow_row(entry))
        };
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
        Ok(Found { account, trace, blocks_before, allowed, block, exempt_from, proof, campaign })
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

    fn test(&mut self, address: IpAddr, ports: &[Port]) -> Result<Tested, Refusal> {
        let found = self.look_up(address)?;
        let standing = self.standing(&found);
        let Found { account, allowed, block, exempt_from, .. } = found;
        let config = self.config();
        let is_observed = config.mode == Mode::Observe;
        let is_silent =
            config.allow.iter().any(|entry| entry.silent && entry.network.contains(&address));
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
            block,
            exempt_from,
            touched: account.map_or(0, |account| account.ports.len() as u64),
            trigger: config.scan_trigger.into(),
            ports: tested,
        })
    }

    /// The block that covers an address: of itself, its prefix, or a network around it. Without
    /// one, the blocked network that it is exempt from.
    fn block_over(
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
                return Ok((Some(row(source, &info, details.get(&source))), None));
            }
        }
        let contains = |around: &Target| around.network().contains(&target.network());
        let around = self.network_rows()?.into_iter().filter(|row| contains(&row.address));
        let (exempt, covering): (Vec<_>, Vec<_>) =
            around.partition(|row| row.exempt.iter().any(contains));
        let exempt_from = exempt.first().filter(|_| covering.is_empty()).map(|row| row.address);
        Ok((covering.into_iter().next(), exempt_from))
    }

    fn block(
        &mut self,
        target: Target,
        seconds: Option<u64>,
        text: String,
        force: bool,
    ) -> Result<String, Refusal> {
        let config = self.config();
        if config.mode == Mode::Observe {
            return Err(Refusal::new(
                Kind::No,
                "in observe mode nothing is blocked",
                "\"portsentryctl enforce\" blocks scans, and lets you block",
            ));
        }
        let source = target.source(config.block.ipv6.first);
        self.refuse_protected(source)?;
        if !force {
            refuse_sessions(&config, source)?;
        }
        let days = seconds.unwrap_or(0).div_ceil(SECONDS_PER_DAY);
        if days > TIMEOUT_DAYS_MAX {
            return Err(Refusal::new(
                Kind::BadRequest,
                format!("{days}d is too long: a timeout in the kernel ends at {TIMEOUT_DAYS_MAX}d"),
                format!("write at most {TIMEOUT_DAYS_MAX}d; 0 is until it is unblocked"),
            ));
        }
        let timeout = seconds.map_or(config.block.timeout, |seconds| {
            (seconds > 0).then(|| Duration::from_secs(seconds))
        });
        let answer = self.packets.ask(|answer| Command::Block { source, timeout, text, answer })?;
        answer.map_err(|error| match error {
            BlockError::Refused(why) => Refusal::new(Kind::No, format!("cannot {why}"), ""),
            BlockError::Kernel { error, stays: false } => {
                Refusal::new(Kind::Failed, format!("{source} is not blocked: {error}"), MEND)
            }
            BlockError::Kernel { error, stays: true } => {
                let message = format!("the block of {source} stays as it was: {error}");
                Refusal::new(Kind::Failed, message, MEND)
            }
        })?;
        let kept = self.kept();
        let how_long = timeout.map_or_else(
            || "until it is unblocked".to_owned(),
            |timeout| format!("for {}", duration(timeout)),
        );
        Ok(format!("{source} is blocked {how_long}{kept}"))
    }

    /// Says which protected address stands against a block, and why.
    fn refuse_protected(&self, source: Source) -> Result<(), Refusal> {
        let network = source.network();
        let view = self.view.lock();
        let Some((protected, because)) = view
            .protected
            .iter()
            .find(|(protected, _)| protected.contains(&network) || network.contains(*protected))
        else {
            return Ok(());
        };
        if *because == ProtectionReason::OwnAddress && *protected == network {
            return Err(Refusal::new(
                Kind::No,
                format!(
                    "{source} is an address of this host: a block of it would be of no use, and is never made"
                ),
                "block the address of the other side; \"portsentryctl list\" and \"history\" have those of scanners",
            ));
        }
        let mut message = format!("{} is never blocked ({because})", Source::from(*protected));
        if *protected != network {
            message.insert_str(0, &format!("{source} is not blocked: "));
        }
        let remedy = match because {
            ProtectionReason::AllowedByHand | ProtectionReason::Admin => {
                "portsentryctl allow remove it first"
            }
            ProtectionReason::AllowList => {
                "take it from the allow list of the configuration first, and reload"
            }
            ProtectionReason::IgnoreFile => "take it from the ignore file first, and reload",
            _ => "name addresses that do not include it",
        };
        Err(Refusal::new(Kind::No, message, remedy))
    }

    fn unblock(&mut self, target: Target) -> Result<String, Refusal> {
        // Exactly what was named: of a single IPv6 address the engine knows the account.
        let answer =
            self.packets.ask(|answer| Command::Unblock(target.network().into(), answer))?;
        let Unblocked { lifted, released, exempted, target: exempt } =
            answer.map_err(|error| failed(format!("{target} could not be unblocked: {error}")))?;
        let lifts = match lifted.as_slice() {
            [] => None,
            [source] => Some(format!("{source} is unblocked")),
            several => Some(format!("{} blocks in {target} are lifted", several.len())),
        };
        let releases = match released.as_slice() {
            [] => None,
            [source] => Some(format!("{source} is not slowed any more")),
            several => {
                Some(format!("{} sources in {target} are not slowed any more", several.len()))
            }
        };
        let around: Vec<String> = exempted.iter().map(ToString::to_string).collect();
        let exempt = exempt.map_or_else(|| target.to_string(), |exempt| exempt.to_string());
        let exempts = (!around.is_empty()).then(|| {
            format!(
                "{exempt} is exempt from the block of {}, the rest of which stays blocked",
                around.join(" and ")
            )
        });
        let done: Vec<String> = lifts.into_iter().chain(releases).chain(exempts).collect();
        if done.is_empty() {
            return Err(Refusal::new(Kind::No, format!("{target} is not blocked"), ""));
        }
        Ok(format!("{}{}", done.join("; "), self.kept()))
    }

    fn unblock_all(&mut self) -> Result<String, Refusal> {
        let answer = self.packets.ask(Command::UnblockAll)?;
        let UnblockedAll { lifted, released } = answer
            .map_err(|error| failed(format!("not everything could be unblocked: {error}")))?;
        let lifts = match lifted {
            0 => None,
            1 => Some("1 block is lifted".to_owned()),
            count => Some(format!("{count} blocks are lifted")),
        };
        let releases = match released {
            0 => None,
            1 => Some("1 source is not slowed any more".to_owned()),
            count => Some(format!("{count} sources are not slowed any more")),
        };
        let done: Vec<String> = lifts.into_iter().chain(releases).collect();
        if done.is_empty() {
            return Err(Refusal::new(Kind::No, "nothing is blocked", ""));
        }
        Ok(format!("{}{}", done.join("; "), self.kept()))
    }

    /// Waits until what was done is on the disk, so that what is said holds after a power loss;
    /// what to add where it is not.
    fn kept(&self) -> String {
        match self.status.store.settle() {
            Ok(()) => String::new(),
            Err(why) => {
                format!("; a reboot would forget that, the state store cannot be written: {why}")
            }
        }
    }

    fn allow(&mut self, target: Target) -> Result<String, Refusal> {
        let network = target.network();
        if network.prefix_len() == 0 {
            let message = format!("{network} is everybody: nothing could be blocked any more");
            return Err(Refusal::new(Kind::No, message, "set mode: observe to block nothing"));
        }
        let answer = self.supervisor.ask(|answer| Order::AllowAdd(network, answer))?;
        let is_new = answer.map_err(|error| failed(format!("{target} is not allowed: {error}")))?;
        Ok(if is_new {
            format!("{target} is never blocked, until \"portsentryctl allow remove {target}\"")
        } else {
            format!("{target} was allowed already")
        })
    }

    fn disallow(&mut self, target: Target) -> Result<String, Refusal> {
        let answer = self.supervisor.ask(|answer| Order::AllowRemove(target.network(), answer))?;
        let is_removed =
            answer.map_err(|error| failed(format!("{target} is still allowed: {error}")))?;
        let because = self.view.lock().protected.get(&target.network()).copied();
        if is_removed {
            let kept = self.kept();
            return Ok(match because {
                None => format!("{target} may be blocked again{kept}"),
                Some(because) => {
                    format!("{target} was removed, but is still exempt ({because}){kept}")
                }
            });
        }
        Err(match because {
            Some(because) => Refusal::new(
                Kind::No,
                format!("{target} was not allowed by portsentryctl ({because})"),
                "take it from the configuration, key allow or never_block, and reload",
            ),
            None => Refusal::new(Kind::No, format!("{target} is not allowed"), ""),
        })
    }

    fn allow_row(&self, (network, because): (&IpNet, &ProtectionReason)) -> AllowRow {
        let is_admin = *because == ProtectionReason::Admin;
        let last = is_admin
            .then(|| self.status.store.memory().admins.get(&network.addr()).copied())
            .flatten();
        AllowRow {
            address: Source::from(*network).into(),
            origin: because.origin().to_owned(),
            last_seen: last.map(time_of_day),
        }
    }

    fn switch(&self, switch: Switch) -> Result<String, Refusal> {
        self.supervisor.ask(|answer| Order::Switch(switch, answer))?.map_err(
            |error| match error {
                NotSwitched::Already(what) => Refusal::new(Kind::No, what, ""),
                NotSwitched::Failed(why) => failed(format!("nothing was switched: {why}")),
            },
        )?;
        let view = self.view.lock().clone();
        let written = view.loaded.config.mode;
        let file = match &view.loaded.from {
            Some(path) => path.display().to_string(),
            None => DEFAULT_PATH.to_owned(),
        };
        let for_good = |mode: Mode| {
            if mode == written {
                return "as configured".to_owned();
            }
            let (is, word) = (written.word(), mode.word());
            format!(
                "until the daemon starts again: {file} has mode: {is}, write mode: {word} there to keep it"
            )
        };
        Ok(match switch {
            Switch::Enforce(Some(time)) => format!(
                "scans are blocked now, and observed again in {} unless you confirm it with \"portsentryctl enforce\"; a restart before that starts with mode: {}",
                duration(time),
                written.word()
            ),
            Switch::Enforce(None) => format!("scans are blocked, {}", for_good(Mode::Enforce)),
            Switch::Observe => {
                format!("nothing is blocked any more, {}", for_good(Mode::Observe))
            }
            Switch::Off(Some(time)) => format!(
                "detection is off for {}: nothing is watched, blocks stay; \"portsentryctl on\" ends that",
                duration(time)
            ),
            Switch::Off(None) => "detection is off until \"portsentryctl on\" or the next start: nothing is watched, blocks stay".to_owned(),
            Switch::On => "detection is on".to_owned(),
        })
    }

    fn reload(&mut self) -> Result<String, Refusal> {
        let remedy = "the configuration in force goes on; mend the file and reload again";
        let Reloaded { changes, warnings } = self
            .supervisor
            .ask(Order::Reload)?
            .map_err(|findings| Refusal::new(Kind::Configuration, findings, remedy))?;
        let mut lines = if changes.is_empty() {
            "reloaded; nothing has changed".to_owned()
        } else {
            format!("reloaded:\n  {}", changes.join("\n  "))
        };
        warnings.iter().for_each(|warning| lines.push_str(&format!("\nwarning: {warning}")));
        Ok(lines)
    }

    fn history(&self, past: Past) -> Result<Answer, Refusal> {
        if self.config().events.keep.is_none() {
            let remedy = "set events.keep and reload";
            return Err(Refusal::new(Kind::No, "no history is kept", remedy));
        }
        let query = Query {
            since: past.since.map(|stamp| stamp.0),
            // A stamp has no fractions: the whole second counts.
            until: past.until.map(|stamp| stamp.0.saturating_add(LAST_MOMENT).unwrap_or(stamp.0)),
            source: past.source.map(Target::network),
            port: past.port.map(|PortName(port)| port.to_string()),
            kinds: past.kinds,
            effect: past.result,
            scan: past.scan,
            all: past.all,
        };
        Ok(Answer::history(self.search(query)))
    }

    /// The rows that a query selects, found while they are read.
    fn search(
        &self,
        query: Query,
    ) -> impl Iterator<Item = Result<HistoryRow, Refusal>> + Send + use<> {
        let events = self.status.events.clone();
        self.status.journal.settle();
        events.settle();
        let (mut is_over, mut after) = (false, None);
        let pages = std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            Some(match events.find(&query, after) {
                Ok(page) => {
                    (is_over, after) = (page.next.is_none(), page.next);
                    page.records.into_iter().map(|record| Ok(record.into())).collect()
                }
                Err(why) => {
                    is_over = true;
                    let message = format!("the event store cannot be read: {why}");
                    vec![Err(Refusal::new(Kind::Failed, message, "see the log of the daemon"))]
                }
            })
        });
        pages.flatten()
    }
}

/// The last moment of a second, from its beginning.
const LAST_MOMENT: SignedDuration = SignedDuration::from_millis(999);

/// What a change is about.
fn about(request: &Request) -> Option<IpNet> {
    match request {
        Request::Block { address, .. }
        | Request::Unblock { address }
        | Request::AllowAdd { address }
        | Request::AllowRemove { address } => Some(address.network()),
        _ => None,
    }
}

fn touched_rows(trace: &Trace) -> Vec<TouchedRow> {
    let now = Timestamp::now();
    probed(trace).into_iter().map(|touched| TouchedRow::of(touched, now)).collect()
}

/// Refuses to cut off an administrator who is connected. One who logged in is never blocked; a
/// connection whose login is not known counts too, and `never_block.ssh_peers` may be off.
fn refuse_sessions(config: &Config, source: Source) -> Result<(), Refusal> {
    let found = SockDiag::open()
        .and_then(|mut sockets| sockets.established(&config.never_block.admin_ports));
    let connections = found.unwrap_or_else(|error| {
        log::warn!("administrators' connections are not known: {}", error_chain(&error));
        Vec::new()
    });
    let network = source.network();
    match connections.iter().find(|found| network.contains(&found.peer.ip())) {
        None => Ok(()),
        Some(found) => Err(Refusal::new(
            Kind::No,
            format!(
                "{source} is not blocked: {} has a connection to port {}, which may be an administrator's",
                found.peer.ip(),
                found.local.port()
            ),
            "--force blocks it all the same",
        )),
    }
}

/// A request that another part of the daemon answers.
fn defect(request: &Request) -> Refusal {
    let message = format!("{request} is not answered here");
    Refusal::new(Kind::Failed, message, "this is a defect; please report it")
}

fn causes(rows: &[BlockRow]) -> Causes {
    let count = |cause| rows.iter().filter(|row| row.cause == cause).count() as u64;
    Causes {
        proven: count(Cause::Proven),
        unproven: count(Cause::Unproven),
        order: count(Cause::Order),
        foreign: count(Cause::Foreign),
    }
}

fn failed(message: String) -> Refusal {
    Refusal::new(Kind::Failed, message, "")
}

/// A time after which something is to end by itself.
fn time(seconds: Option<u64>) -> Result<Option<Duration>, Refusal> {
    match seconds {
        Some(0) => Err(Refusal::new(Kind::BadRequest, "0 is no time", "write it as 5m or 1h")),
        seconds => Ok(seconds.map(Duration::from_secs)),
    }
}

fn done(message: String) -> Answer {
    Reply::Done { message }.into()
}
