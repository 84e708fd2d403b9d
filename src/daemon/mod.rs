//! Wiring: threads, signals, reload. The only module that knows all others.
//!
//! ```text
//!   main thread (supervisor) --Command--> packet thread --Notice--> journal thread --lines--> log thread, history, watchers
//!        ^  signals, routes, systemd        ^ |  NFLOG, nf_tables    +--records--> events thread
//!        |                                  | +--changes--> store thread
//!        +--Order-- control threads -Command+ +--events---> helper's thread --Order--> helper process
//!                     ^ portsentryctl
//! ```
//!
//! The packet thread waits for nothing but netlink. Everybody else may wait for it, and not for
//! ever.

mod allow_file;
pub(crate) mod allowed_names;
mod confine;
pub(crate) mod interfaces;
mod listing;
mod observed;
pub mod options;
mod protected;
mod requests;
mod rows;
mod status;
mod supervisor;
mod switches;
mod tested;
mod view;

use std::ffi::OsString;
use std::fmt::Display;
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::capture;
use crate::config::{Config, Loaded};
use crate::control;
use crate::errors::error_chain;
use crate::helper::{self, client::HelperClient};
use crate::journal::{self, JournalHandle, Notice};
use crate::netlink::route;
use crate::nft::Ruleset;
use crate::nft::text::Form;
use crate::packet::command::{Command, Setup};
use crate::packet::{Observers, PacketThread, StartError, seen};
use crate::replay;
use crate::ruleset::{self, SCHEMA};
use crate::store::events::EventsHandle;
use crate::store::{self, StoreHandle, Stored, clock};
use crate::sys::mailbox::{self, Inbox, Link};
use crate::sys::privilege;
use crate::sys::process;
use crate::sys::procfs;
use crate::sys::reach::Reach;
use crate::sys::schedule;
use crate::sys::signals::{self, Signals};
use crate::sys::{self, broker};
use options::Options;
use protected::Guard;
use requests::{Orders, RequestHandler};
use supervisor::Supervisor;
use switches::Switches;
use view::{SharedView, View};

/// sysexits(3head): the command line is wrong.
const EX_USAGE: u8 = 64;
/// The kernel lacks something, or another daemon has it.
const EX_UNAVAILABLE: u8 = 69;
/// The daemon itself failed.
const EX_SOFTWARE: u8 = 70;
/// Not permitted.
const EX_NOPERM: u8 = 77;
/// The configuration is wrong.
const EX_CONFIG: u8 = 78;

/// The packet thread is up within milliseconds; a large table from an earlier run takes a few
/// seconds to read.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The packet thread lists blocks at once, unless it takes over a large table.
const BLOCKS_TIMEOUT: Duration = Duration::from_secs(10);

/// The packet thread's turns on the processor: the shortest that the kernel grants. A packet takes
/// some 20 us.
const PACKETS_TURN: Duration = Duration::from_micros(100);

/// What the control server gets for its last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Why the daemon does not run: an exit status, and words for the administrator.
struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    fn new(status: u8, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// Runs `portsentry` with these words of the command line, the program's name first.
pub fn main<I: IntoIterator<Item = OsString>>(arguments: I) -> ExitCode {
    process::abort_on_panic();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // For whoever has no daemon at the other end it is a word like any other that is not known.
    if arguments.get(1).is_some_and(|word| word == helper::ARGUMENT)
        && let Some(socket) = helper::socket()
    {
        return helper::main(socket, arguments.get(2..).unwrap_or_default());
    }
    if arguments.get(1).is_some_and(|word| word == replay::ARGUMENT) {
        return replay::main(arguments);
    }
    let options = match Options::parse_words(arguments) {
        Ok(options) => options,
        Err(error) => {
            // --help and --version come this way too; a closed terminal is nobody's failure.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match run(options) {
        Ok(code) => code,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "portsentry: {}", failure.message);
            ExitCode::from(failure.status)
        }
    }
}

fn run(options: Options) -> Result<ExitCode, Failure> {
    let mut loaded = supervisor::load(&options).map_err(|findings| {
        Failure::new(EX_CONFIG, format!("the configuration is refused\n{findings}"))
    })?;
    if options.check {
        interfaces::check(&mut loaded);
        allowed_names::check(&mut loaded);
        for warning in &loaded.warnings {
            let _ = writeln!(std::io::stderr(), "{warning}");
        }
        return print(&format!("{}: good\n", loaded.source()));
    }
    if options.print_config {
        return print(&loaded.to_yaml());
    }
    if options.print_rules {
        return print(
            &ruleset::for_config(&loaded.config, procfs::ephemeral_ports())
                .render(SCHEMA.table, Form::Replace),
        );
    }
    serve(options, loaded)
}

fn print(text: &str) -> Result<ExitCode, Failure> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(EX_SOFTWARE, format!("cannot write: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn serve(options: Options, loaded: Loaded) -> Result<ExitCode, Failure> {
    if !privilege::has_net_admin() {
        return Err(Failure::new(
            EX_NOPERM,
            "CAP_NET_ADMIN is missing; start as root, or give the service that capability",
        ));
    }
    signals::survive_file_size_limit().map_err(failed("signals cannot be caught"))?;
    let signals = Signals::install().map_err(failed("signals cannot be caught"))?;
    // The socket first: where another daemon answers, nothing may be touched.
    let socket = &loaded.config.control;
    let listener = control::listen(&socket.socket, &socket.group)
        .map_err(|error| Failure::new(EX_UNAVAILABLE, error_chain(&error)))?;
    let notes = confine::confine(&loaded.config).map_err(|error| Failure::new(EX_NOPERM, error))?;
    // A disk that fails is reported by the store, and tried again.
    match store::make_directory(&loaded.config.state_dir) {
        Err(error) if !error.is_of_disk() => {
            return Err(Failure::new(EX_CONFIG, error_chain(&error)));
        }
        _ => {}
    }
    let journal = JournalHandle::start(journal::Settings::from(&loaded.config))
        .map_err(|error| Failure::new(EX_CONFIG, error_chain(&error)))?;
    journal.notify(Notice::Starting);
    for warning in &loaded.warnings {
        journal.notify(Notice::Warning(warning.to_string()));
    }
    for note in notes {
        journal.notify(Notice::Warning(note));
    }
    let result =
        start(options, loaded, journal.clone(), (signals, listener)).map(|(supervisor, server)| {
            supervisor::notify(&[sd_notify::NotifyState::Ready]);
            journal.notify(Notice::Active);
            process::trim_heap();
            let code = supervisor.run();
            server.stop(LAST_ANSWERS);
            code
        });
    if result.is_err() {
        journal.stop(LAST_ANSWERS);
    }
    result
}

/// Starts the threads that need the journal.
fn start(
    options: Options,
    loaded: Loaded,
    journal: JournalHandle,
    (signals, listener): (Signals, control::Listener),
) -> Result<(Supervisor, control::Server), Failure> {
    let config = &loaded.config;
    let unavailable = |error: String| Failure::new(EX_UNAVAILABLE, error);
    let routes = route::Monitor::open().map_err(|error| unavailable(error_chain(&error)))?;
    let (packets, inbox) = mailbox::link().map_err(failed("no eventfd"))?;
    let (store, stored) = start_store(config, &journal, &packets)?;
    let events = start_events(config, &journal)?;
    let mut guard = Guard::open(&config.state_dir, store.clone()).map_err(unavailable)?;
    let mut complaints = guard.allowed.faults().to_vec();
    let protected = guard.gather(config, &loaded.ignored, &mut complaints);
    for complaint in &complaints {
        journal.notify(Notice::Warning(complaint.clone()));
    }
    let switches = Switches::default();
    let setup =
        supervisor::setup((config, &switches), &mut guard, &protected).map_err(unavailable)?;
    let services = setup.in_force.services.clone();
    let ruleset = setup.in_force.ruleset.clone();
    let helper = start_helper(config, &journal, &packets)?;
    let (kept, notified) = (events.clone(), helper.clone());
    journal.store_through(Box::new(move |record| {
        let about = record.clone();
        let is_kept = kept.keep(record);
        notified.on_record(&about, is_kept);
        is_kept
    }));
    // The helper's thread alone may start programs: threads that start from here on may not.
    sys::confine::no_exec(Reach::Daemon {
        state: &config.state_dir,
        socket: &config.control.socket,
    });
    broker::start().map_err(failed("the thread that opens sockets cannot start"))?;
    let observers = Observers::new(journal.clone(), helper.clone(), store.clone());
    let was_tracking = procfs::tracked().is_some_and(|tracked| tracked.connections > 0);
    seen::read(packets.clone());
    let thread = start_packets(setup, stored, inbox, observers, &ruleset).inspect_err(|_| {
        helper.stop(false);
        store.stop();
        events.stop();
    })?;
    status::tell_watching(&journal, config, &services.open);
    if let Some(tracked) = procfs::tracked().filter(|_| !was_tracking) {
        journal.notify(Notice::Warning(status::tracking_begins(tracked)));
    }
    let view =
        SharedView::new(View::new(Arc::new(loaded), switches, ruleset, protected, complaints));
    let (orders, order_inbox) = mailbox::link().map_err(failed("no eventfd"))?;
    let told = orders.clone();
    helper.look_up_for(Box::new(move |found| told.tell(supervisor::Order::Addresses(found))));
    let sources = status::Sources {
        started: Instant::now(),
        journal: journal.clone(),
        helper: helper.clone(),
        store: store.clone(),
        events: events.clone(),
    };
    let requests_under_way = Orders::default();
    let mut handler = || -> Box<dyn control::Handler> {
        Box::new(RequestHandler {
            packets: packets.clone(),
            supervisor: orders.clone(),
            connection: None,
            view: view.clone(),
            status: sources.clone(),
            orders: requests_under_way.clone(),
        })
    };
    let watched = journal.clone();
    let feed: control::Feed = Box::new(move |waker| watched.subscribe(Some(waker)));
    let server = control::Server::start(listener, &mut handler, feed)
        .map_err(failed("the control server cannot start"))?;
    let supervisor = Supervisor {
        options,
        view,
        guard,
        packets,
        thread,
        helper,
        store,
        events,
        journal,
        inbox: order_inbox,
        routes,
        signals,
        services: (services, Instant::now()),
        tracking_fills: false,
        stale: false,
    };
    Ok((supervisor, server))
}

type Thread = std::thread::JoinHandle<Result<(), capture::Error>>;

/// Starts the helper and the thread that owns it.
fn start_helper(
    config: &Config,
    journal: &JournalHandle,
    packets: &Link<Command>,
) -> Result<HelperClient, Failure> {
    let asked = packets.clone();
    let blocks = Box::new(move |most| {
        asked.ask_within(BLOCKS_TIMEOUT, |answer| Command::Blocks(most, answer)).ok()
    });
    let helper = HelperClient::start(config, journal.clone(), blocks)
        .map_err(failed("the helper's thread cannot start"))?;
    let names = helper.clone();
    journal.resolve_through(Box::new(move |address| names.resolve(address)));
    Ok(helper)
}

/// Opens the state store and starts the thread that owns it. One that cannot be used is reported,
/// and stops nothing.
fn start_store(
    config: &Config,
    journal: &JournalHandle,
    packets: &Link<Command>,
) -> Result<(StoreHandle, Option<Stored>), Failure> {
    let opened = store::open(&config.state_dir, &clock::mark());
    for warning in &opened.warnings {
        journal.notify(Notice::Warning(warning.clone()));
    }
    StoreHandle::start(config, opened, journal.clone(), Box::new(packets.clone()))
        .map_err(failed("the store's thread cannot start"))
}

/// Starts the thread that owns the event store. One that cannot be used is reported, and stops
/// nothing.
fn start_events(config: &Config, journal: &JournalHandle) -> Result<EventsHandle, Failure> {
    EventsHandle::start(config, journal.clone())
        .map_err(failed("the event store's thread cannot start"))
}

/// Starts the packet thread and waits until it guards the host, or says why it cannot.
fn start_packets(
    setup: Setup,
    stored: Option<Stored>,
    inbox: Inbox<Command>,
    observers: Observers,
    ruleset: &Ruleset,
) -> Result<Thread, Failure> {
    let (started, start) = mpsc::sync_channel::<Result<(), StartError>>(1);
    let seed = [random(), random()];
    let thread = std::thread::Builder::new()
        .name("packets".to_owned())
        .spawn(move || match PacketThread::start(setup, stored, observers, seed) {
            Ok(thread) => {
                // A packet must not wait for the end of another thread's long turn. Without it
                // things go on as they always did.
                if let Err(error) = schedule::take_short_turns(PACKETS_TURN) {
                    log::debug!(
                        "the packet thread keeps the usual turns on the processor: {error}"
                    );
                }
                if let Err(error) = sys::confine::thread(sys::confine::Thread::Packets) {
                    log::warn!("the packet thread keeps more rights than it needs: {error}");
                }
                let _ = started.send(Ok(()));
                thread.run(&inbox)
            }
            Err(error) => {
                let _ = started.send(Err(error));
                Ok(())
            }
        })
        .map_err(failed("the packet thread cannot start"))?;
    match start.recv_timeout(START_TIMEOUT) {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => {
            let error = error.with_lacking(ruleset);
            Err(Failure::new(status_of(&error), error_chain(&error)))
        }
        Err(_) => Err(Failure::new(EX_SOFTWARE, "the packet thread does not come up")),
    }
}

fn status_of(error: &StartError) -> u8 {
    match error {
        StartError::Capture(capture::Error::NotPermitted(_)) => EX_NOPERM,
        StartError::Nft(error) if error.is_permission() => EX_NOPERM,
        _ => EX_UNAVAILABLE,
    }
}

fn failed<E: Display>(what: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::new(EX_SOFTWARE, format!("{what}: {error}"))
}

/// Bits that nobody outside can guess: std keys its hash tables with them.
fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}
