//! How the daemon fares, for `portsentryctl status` and for SIGUSR1.

use std::collections::BTreeSet;
use std::time::Instant;

use super::requests::{allowed_interfaces, allowed_names};
use super::rows::{list_rows, time_ahead};
use super::view::{SharedView, View};
use crate::config::{Config, Keyword, Method, Mode, PortMode, PortSet, Protocol};
use crate::control::{
    ConfigLoaded, Decisions, Decoys, EventStore, Intake, Reflex, Repairs, Responses, Rights,
    RulesState, Stamp, Status, Store, Tracked, Watching,
};
use crate::engine::{self, NotBlocked};
use crate::helper::client::HelperClient;
use crate::journal::{JournalHandle, Notice};
use crate::packet::command::{Command, Figures};
use crate::probe::{Port, ScanKind, Transport};
use crate::store::events::EventsHandle;
use crate::store::{StoreHandle, clock};
use crate::sys::mailbox::{Link, Unresponsive};
use crate::sys::{procfs, reach, users};

/// The rules of `watch` look at the state of connections, which switches the tracking on.
pub(super) fn tracking_begins(tracked: procfs::Tracked) -> String {
    let procfs::Tracked { connections, most } = tracked;
    format!(
        "no connection was tracked before the start; the rules have the kernel track all of them from now on, {connections} of {most} now: \
         see BESIDE OTHER FIREWALLS in portsentry-rules(7) for how to leave a busy service out"
    )
}

/// What happens when the table is full.
pub(super) const TRACKING_FILLS: &str = "the table of tracked connections is four fifths full; when it is full the kernel drops new connections: \
     raise net.netfilter.nf_conntrack_max, or leave a busy service out (BESIDE OTHER FIREWALLS in portsentry-rules(7))";

/// What the figures need besides the threads.
#[derive(Clone)]
pub(super) struct Sources {
    /// When the daemon started.
    pub started: Instant,
    /// The journal, which counts too.
    pub journal: JournalHandle,
    /// What is done beside the blocks.
    pub helper: HelperClient,
    /// What is stored.
    pub store: StoreHandle,
    /// What happened.
    pub events: EventsHandle,
}

impl Sources {
    /// Gathers them.
    ///
    /// # Errors
    /// When the packet thread does not answer.
    pub(super) fn gather(
        &self,
        packets: &Link<Command>,
        view: &SharedView,
    ) -> Result<Status, Unresponsive> {
        let figures = packets.ask(Command::Status)?;
        let journal = self.journal.stats();
        let counts = self.helper.counts();
        let store = self.store.figures();
        let events = self.events.figures();
        let view = view.lock();
        let config = &view.config;
        let told = view.loaded.warnings.iter().map(ToString::to_string);
        let mut warnings: Vec<String> = told.chain(view.complaints.iter().cloned()).collect();
        warnings.extend(switch_warnings(&view));
        if figures.capture.lost > 0 {
            warnings.push(format!(
                "{} packets were lost between the kernel and the daemon",
                figures.capture.lost
            ));
        }
        if figures.capture.loss_uncounted {
            warnings
                .push("packets were lost between the kernel and the daemon that are not counted yet: how many shows with the next one".to_owned());
        }
        if figures.taken.is_shedding {
            warnings.push("a flood: packets of unknown sources are being shed, so that those of known ones can be judged".to_owned());
        }
        let reflex = reflex(&figures);
        warnings.extend(reflex.as_ref().into_iter().flat_map(reflex_warnings));
        if config.mode == Mode::Observe && figures.engine.blocked > 0 {
            warnings.push(format!(
                "observe mode: {} blocks from before drop nothing, and are listed nowhere, until the mode is enforce again",
                figures.engine.blocked
            ));
        }
        if let (true, Some(author)) = (figures.repairs.fighting, &figures.repairs.last) {
            warnings.push(format!("{author} changed the table inet portsentry again and again"));
        }
        if figures.refused > 0 {
            warnings.push(format!(
                "{} blocks are not in force: the kernel refused them, and it is tried again",
                figures.refused
            ));
        }
        if journal.history_failing {
            warnings.push("the history file cannot be written".to_owned());
        }
        if journal.is_hanging {
            warnings.push(
                "the log's target takes no lines now: those that do not fit the queue are lost"
                    .to_owned(),
            );
        }
        if journal.unwritten > 0 {
            warnings.push(format!("{} log lines could not be written", journal.unwritten));
        }
        let tracked = procfs::tracked();
        if tracked.is_some_and(procfs::Tracked::is_filling) {
            warnings.push(TRACKING_FILLS.to_owned());
        }
        if !self.helper.is_up() {
            warnings.push(
                "the helper process is not running: no command is run and no name found".to_owned(),
            );
        }
        if let Some(why) = &store.failing {
            warnings.push(format!("the state store cannot be written, and a reboot would forget what is not in it: {why}"));
        }
        if let Some(why) = &events.failing {
            warnings.push(format!("the event store cannot be written: {why}"));
        }
        let author = figures.repairs.last.as_ref();
        Ok(Status {
            mode: config.mode.word().to_owned(),
            configured_mode: view.loaded.config.mode.word().to_owned(),
            loaded: Some(ConfigLoaded { at: Stamp(view.read.at), ok: view.read.is_in_force }),
            // Asked of the kernel beside this.
            rules: RulesState::Unknown,
            confirm_by: view.switches.confirm_by.map(time_ahead),
            detection: view.switches.words(&view.loaded.config).1.to_owned(),
            on_at: view.switches.on_at.map(time_ahead),
            capture: if config.has_queue() { Method::Nfqueue } else { Method::Nflog }
                .word()
                .to_owned(),
            group: config.capture.group,
            watching: watched(config).map(watching).collect(),
            sources: u64::from(figures.engine.sources),
            blocked: if config.mode == Mode::Observe { 0 } else { figures.engine.blocked as u64 },
            blocked_most: config.block.total.into(),
            not_in_force: figures.refused as u64,
            decisions: decisions(&figures.engine),
            causes: None,
            lists: list_rows(&figures.engine),
            slowed: figures.engine.slowed as u64,
            allowed: view.protected.len() as u64,
            allowed_names: allowed_names(&view),
            allowed_interfaces: allowed_interfaces(config),
            admins: self.store.memory().admins.len() as u64,
            tracked: tracked
                .map(|procfs::Tracked { connections, most }| Tracked { connections, most }),
            probes: figures.engine.probes,
            by_scan: ScanKind::ALL
                .iter()
                .zip(figures.engine.by_scan)
                .filter(|(_, count)| *count > 0)
                .map(|(kind, count)| (kind.name().to_owned(), count))
                .collect(),
            lost: figures.capture.lost,
            shed: figures.taken.shed,
            intake: intake(&figures),
            queues: figures.queues,
            held_back: journal.held_back,
            unwritten: journal.unwritten,
            helper: self.helper.is_up(),
            confinement: confinement(),
            responses: Responses {
                commands: counts.commands,
                failed: counts.failed,
                dropped: counts.dropped,
            },
            notifications: self.helper.notified(config),
            decoy: Decoys {
                connections: figures.decoy.connections,
                refused: figures.decoy.refused,
                half_open: figures.decoy.half_open,
                banners: figures.decoy.banners,
                unanswered: figures.decoy.unanswered,
                held: figures.decoy.held as u64,
                waiting: figures.decoy.waiting as u64,
            },
            reflex,
            store: Store {
                state: if store.failing.is_some() { "failing" } else { "ok" }.to_owned(),
                blocks: store.rows.blocks,
                offenders: store.rows.offenders,
                sources: store.rows.evidence,
                age: store.written.map(|at| clock::now().since(at).as_secs()),
            },
            events: EventStore {
                state: match events.failing {
                    Some(_) => "failing",
                    None if config.events.keep.is_none() => "off",
                    None => "ok",
                }
                .to_owned(),
                rows: events.rows,
                bytes: events.bytes,
                lost: events.lost,
            },
            repairs: Repairs {
                count: figures.repairs.count,
                process: author.map(|author| author.pid).filter(|pid| *pid > 0),
                program: author
                    .map(|author| author.program.clone())
                    .filter(|program| !program.is_empty()),
                fighting: figures.repairs.fighting,
            },
            uptime: self.started.elapsed().as_secs(),
            // The client may be in another directory.
            config: view.loaded.from.as_ref().map(|path| {
                std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string()
            }),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            warnings,
        })
    }
}

/// The rights of both processes, and of the thread that reads packets.
fn confinement() -> Vec<Rights> {
    let all = [
        ("daemon", procfs::own_rights()),
        ("packets", procfs::thread_rights("packets")),
        ("helper", procfs::child_rights()),
    ];
    let rights = |(of, rights): (&str, Option<procfs::Rights>)| {
        let procfs::Rights { uid, capabilities, filters, no_new_privs } = rights?;
        let user = users::name(uid).unwrap_or_else(|| uid.to_string());
        // Both of the daemon are restricted by the same rules, which the kernel does not show.
        let landlock = reach::in_force().filter(|_| of != "helper");
        Some(Rights { of: of.to_owned(), user, capabilities, filters, no_new_privs, landlock })
    };
    all.into_iter().filter_map(rights).collect()
}

/// What the engine decided since the start.
fn decisions(engine: &engine::Status) -> Decisions {
    let reasons = NotBlocked::ALL.iter().zip(engine.not_blocked);
    Decisions {
        blocks: engine.blocks,
        renewals: engine.renewals,
        ended: engine.unblocked,
        refused: engine.refused,
        not_blocked: reasons
            .filter(|(_, count)| *count > 0)
            .map(|(why, count)| (why.code().to_owned(), count))
            .collect(),
    }
}

/// What was switched and is not as the configuration has it.
fn switch_warnings(view: &View) -> Vec<String> {
    let (mode, detection) = view.switches.words(&view.loaded.config);
    let written = view.loaded.config.mode.word();
    let mut warnings = Vec::new();
    if view.switches.is_off {
        warnings.push(format!("detection is {detection}: nothing is watched, and blocks stay; \"portsentryctl on\" ends that"));
    }
    if view.switches.confirm_by.is_some() {
        warnings.push(
            "enforcing is not confirmed, and ends by itself: \"portsentryctl enforce\" confirms it"
                .to_owned(),
        );
    } else if mode != written {
        warnings.push(format!("the mode is {mode} until the daemon starts again: the configuration has mode: {written}"));
    }
    warnings
}

fn intake(figures: &Figures) -> Intake {
    let Figures { capture, taken, .. } = figures;
    Intake {
        logged: capture.packets + capture.lost,
        judged: taken.evaluated,
        passed_over: taken.no_probe + taken.unreadable,
        overruns: capture.overruns,
        malformed: capture.malformed,
        batch: taken.batch,
        receive_buffer: taken.receive_buffer.map(|bytes| bytes as u64),
    }
}

/// What the reflex did; `None` if the rules have none.
fn reflex(figures: &Figures) -> Option<Reflex> {
    let rules = figures.reflex.as_ref()?;
    Some(Reflex {
        holds: figures.engine.held,
        released: figures.engine.released,
        untold_holds: rules.tally.unlogged_holds,
        dropped: rules.tally.dropped,
        untold: rules.tally.unlogged,
        shed: rules.tally.shed,
        no_room: rules.tally.no_room,
        elements: rules.fullest.map(|(elements, _)| elements),
        size: rules.fullest.map(|(_, size)| size),
    })
}

fn reflex_warnings(reflex: &Reflex) -> Vec<String> {
    let mut warnings = Vec::new();
    if let (Some(elements), Some(size)) = (reflex.elements, reflex.size)
        && elements >= size
    {
        warnings.push(format!("the reflex has no room for new sources now ({elements} of {size} elements): the daemon alone blocks those"));
    }
    if reflex.no_room > 0 {
        warnings.push(format!(
            "{} probes found no room in the reflex's sets and were left to the daemon",
            reflex.no_room
        ));
    }
    if reflex.shed > 0 {
        warnings.push(format!(
            "{} probes were more than the rules count: they were neither counted nor told",
            reflex.shed
        ));
    }
    warnings
}

/// The status as one line, for the log.
pub(super) fn line(packets: &Link<Command>, view: &SharedView) -> String {
    let Ok(figures) = packets.ask(Command::Status) else {
        return "the packet thread does not answer".to_owned();
    };
    let mode = view.lock().config.mode;
    let blocked = if mode == Mode::Observe { 0 } else { figures.engine.blocked };
    let mode = mode.word();
    format!(
        "mode {mode}, {} probes, {} sources, {} blocked, {} slowed, {} packets lost, {} logged packets were no probes, {} unreadable",
        figures.engine.probes,
        figures.engine.sources,
        blocked,
        figures.engine.slowed,
        figures.capture.lost,
        figures.taken.no_probe,
        figures.taken.unreadable
    )
}

/// The transports that are watched, each with its settings.
fn watched(config: &Config) -> impl Iterator<Item = (Transport, &Protocol)> {
    let all = [(Transport::Tcp, &config.tcp), (Transport::Udp, &config.udp)];
    all.into_iter().filter(|(_, protocol)| protocol.mode != PortMode::Off)
}

/// What is watched, a row a transport.
fn watching((transport, protocol): (Transport, &Protocol)) -> Watching {
    let ports = protocol.watched();
    Watching {
        transport: transport.to_string(),
        mode: protocol.mode.word().to_owned(),
        ports: ports.count(),
        ranges: ports.to_string(),
    }
}

/// Tells the journal what is watched from now on; `services`: what local services listen on.
pub(super) fn tell_watching(journal: &JournalHandle, config: &Config, services: &BTreeSet<Port>) {
    for (transport, protocol) in watched(config) {
        let mode = protocol.mode.word();
        let (ports, excluded) = match protocol.mode {
            PortMode::Advanced => (protocol.advanced_ports.clone(), protocol.exclude.clone()),
            _ => (protocol.ports.clone(), PortSet::default()),
        };
        let services = services
            .iter()
            .filter(|port| port.transport == transport)
            .map(|port| port.number..=port.number)
            .collect();
        journal.notify(Notice::Watching { transport, mode, ports, excluded, services });
    }
}
