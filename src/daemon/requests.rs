//! Answers `portsentryctl`: asks the threads that know, and the kernel for what is in its sets.
//!
//! It runs on the control server's worker threads, one handler each. What it says is blocked was
//! read from the kernel at that moment.

mod address;
mod changes;
mod several;

use std::sync::Arc;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

pub(super) use several::Orders;

use super::allowed_names::NameView;
use super::listing::{Listing, network_rows};
use super::observed::Familiar;
use super::protected::ProtectionReason;
use super::rows::{campaign_rows, details, kernel, list_rows, row, slowed_rows, time_of_day};
use super::status;
use super::supervisor::Order;
use super::view::{SharedView, View};
use crate::config::{Allowance, Allowed, Config, Keyword, Mode};
use crate::control::{
    AllowRow, AllowedName, Answer, BlockRow, Caller, Cancelled, Cause, Causes, Handler, HistoryRow,
    Kind, Observed, Past, PortName, Refusal, Reply, Request, RulesState, Selection, Stamp, State,
    Status, Target, WouldBeRow,
};
use crate::enforce::{Placement, blocked_packets, view};
use crate::engine::{ObservedView, Source};
use crate::errors::error_chain;
use crate::journal::{Notice, Record};
use crate::nft::text::Form;
use crate::nft::{Connection, ElementInfo, LIGHT_DUMP};
use crate::packet::command::Command;
use crate::probe::Port;
use crate::ruleset::SCHEMA;
use crate::store::clock;
use crate::store::events::Query;
use crate::sys::mailbox::Link;
use crate::sys::users;

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
    /// Orders that come in parts, of all clients.
    pub orders: Orders,
}

impl Handler for RequestHandler {
    fn handle(&mut self, request: Request, caller: Caller, _: &Cancelled) -> Answer {
        if let Request::BlockSeveral(order) = request {
            self.block_several(caller, *order).map(Answer::from)
        } else if let Request::UnblockPart { list, from } = &request {
            self.unblock_part(caller, &request, list.as_ref(), *from).map(Answer::from)
        } else if request.changes() {
            let (at, about, command) = (Timestamp::now(), about(&request), request.to_string());
            let testing = (request == Request::TestResponse {}).then(|| self.testing());
            let result = self.change(request);
            let done = result.as_ref().map(drop).map_err(|refusal| refusal.message.as_str());
            // The time before what came of it.
            self.status.events.keep(Record::order(at, about, &command, done));
            self.audit(caller, command, &result);
            result.map(|message| testing.map_or_else(|| self::done(message), Answer::from))
        } else {
            self.read(request)
        }
        .unwrap_or_else(Answer::from)
    }
}

impl RequestHandler {
    /// Logs who changed what, or tried to.
    fn audit(
        &self,
        Caller { uid, pid, login }: Caller,
        command: String,
        result: &Result<String, Refusal>,
    ) {
        let login = pid.and_then(users::login).or(login).filter(|login| *login != uid);
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
            Request::List(selection) => self.list(*selection)?,
            Request::Lists {} => {
                Reply::Lists { rows: list_rows(&self.packets.ask(Command::Status)?.engine) }.into()
            }
            Request::Geo {} => Reply::Geo((&self.config().geo).into()).into(),
            Request::Observed {} => Reply::Observed(Box::new(self.observed()?)).into(),
            Request::Show { address } => Reply::Shown(Box::new(self.show(address)?)).into(),
            Request::Test { address, ports } => {
                let ports: Vec<Port> = ports.into_iter().map(|PortName(port)| port).collect();
                Reply::Tested(Box::new(self.test(address, &ports)?)).into()
            }
            Request::AllowList {} => {
                let view = self.view.lock().clone();
                let rows = view.protected.iter().map(|entry| self.allow_row(entry)).collect();
                Reply::Allowed {
                    rows,
                    names: allowed_names(&view),
                    interfaces: allowed_interfaces(&view.config),
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
            Ok(None) => status.rules = RulesState::InPlace,
            Ok(Some(difference)) => {
                let what = format!(
                    "the rules in the kernel are not those in force: {difference}; \"portsentryctl reload\" puts them in place"
                );
                status.warnings.push(what);
                status.rules = RulesState::Changed;
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
        let packets = blocked_packets::read(self.connection()?, &hosts).map_err(kernel)?;
        let row = |((source, info), packets): (&(Source, ElementInfo), u64)| {
            row(*source, info, packets, details.get(source))
        };
        rows.extend(blocked.iter().zip(packets).map(row));
        Ok(rows)
    }

    fn network_rows(&mut self) -> Result<Vec<BlockRow>, Refusal> {
        let packets = self.packets.clone();
        network_rows(&packets, self.connection()?)
    }

    fn list(&mut self, selection: Selection) -> Result<Answer, Refusal> {
        let placement = self.placement();
        if self.config().mode == Mode::Observe {
            // Elements of earlier blocks stay in the sets, and drop nothing.
            return Ok(Answer::sorted(Vec::new()));
        }
        if self.packets.ask(Command::Status)?.engine.blocked > LIGHT_DUMP {
            let is_wanted = |target| selection.selects_address(target);
            let counted = selection.counts_packets();
            let rows = Listing::begin(&self.packets, placement, counted, &is_wanted)?;
            return Ok(Answer::blocks(selection.apply(rows)));
        }
        let mut rows = self.blocks()?;
        let packets = self.packets.clone();
        rows.extend(slowed_rows(&packets, self.connection()?, placement)?);
        rows.extend(campaign_rows(&packets)?);
        rows.sort_by_key(|row| row.address);
        Ok(Answer::blocks(selection.apply(rows.into_iter())))
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

    fn allow_row(&self, (network, because): (&IpNet, &ProtectionReason)) -> AllowRow {
        let is_admin = *because == ProtectionReason::Admin;
        let last = is_admin
            .then(|| self.status.store.memory().admins.get(&network.addr()).copied())
            .flatten();
        let view = self.view.lock();
        let has = |name: &&NameView| name.addresses.contains(&network.addr());
        let named = Some(()).filter(|()| *because == ProtectionReason::Name);
        let named = named.and_then(|()| view.names.iter().find(has));
        let is_listed = *because == ProtectionReason::AllowList;
        AllowRow {
            last_seen: last.map(time_of_day),
            name: named.map(|named| named.name.clone()),
            resolved: named.and_then(|named| named.resolved).map(Stamp),
            file: Some(()).filter(|()| is_listed).and_then(|()| file_of(&view.config, network)),
            ..AllowRow::new(Source::from(*network).into(), because.origin())
        }
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

/// A request that another part of the daemon answers.
fn defect(request: &Request) -> Refusal {
    let message = format!("{request} is not answered here");
    Refusal::new(Kind::Failed, message, "this is a defect; please report it")
}

/// The file of `allow` that has this network; `None`: the configuration itself has it.
fn file_of(config: &Config, network: &IpNet) -> Option<String> {
    let has = |allowed: &&Allowed| allowed.networks().iter().any(|own| own.trunc() == *network);
    let found = config.allow.iter().filter(has).map(|allowed| match &allowed.what {
        Allowance::File { path, .. } => Some(path.display().to_string()),
        _ => None,
    });
    // None comes first.
    found.min().flatten()
}

/// The DNS names in `allow`.
pub(super) fn allowed_names(view: &View) -> Vec<AllowedName> {
    let row = |name: &NameView| AllowedName {
        name: name.name.clone(),
        addresses: name.addresses.clone(),
        resolved: name.resolved.map(Stamp),
        error: name.error.clone(),
    };
    view.names.iter().map(row).collect()
}

/// The interfaces in `allow`.
pub(super) fn allowed_interfaces(config: &Config) -> Vec<String> {
    config.allowed_interfaces(false).into_iter().map(str::to_owned).collect()
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

fn done(message: String) -> Answer {
    Reply::Done { message }.into()
}
