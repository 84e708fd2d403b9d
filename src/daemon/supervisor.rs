//! The main thread: signals, reload, the never-block list, systemd. It may wait for files; the
//! packet thread never waits for it.

mod changes;
mod names;

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags};
use sd_notify::NotifyState;

use self::changes::{count_changes, watched_changes};
use super::options::Options;
use super::protected::{Guard, Protected};
use super::status;
use super::switches::{Switch, Switches};
use super::view::{ConfigRead, SharedView, View};
use crate::capture;
use crate::config::{self, Config, Loaded, Unit};
use crate::enforce::{InForce, Services};
use crate::engine::Policy;
use crate::errors::error_chain;
use crate::helper::client::HelperClient;
use crate::helper::protocol::Addresses;
use crate::journal::{self, JournalHandle, Notice};
use crate::netlink::route;
use crate::nft::Connection;
use crate::packet::command::{Command, Setup};
use crate::ruleset::{self, SCHEMA, messages};
use crate::store::events::EventsHandle;
use crate::store::{StoreHandle, clock};
use crate::sys::mailbox::{Answer, Inbox, Link};
use crate::sys::signals::{SignalRequest, Signals};
use crate::sys::{poll, process, procfs};
use crate::time::MonoTime;

/// Name servers are looked at this often: nothing tells when they change.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// The same for administrators' connections and listening sockets: an administrator is not exempt
/// yet, and a client of a new service stays slowed, for this long.
const SOCKETS_EVERY: Duration = Duration::from_secs(5);

/// The ports are sent again after this time though none has changed: a client's probe may have been
/// evaluated after the service that it was for had started.
const SERVICES_AGAIN_EVERY: Duration = Duration::from_secs(60);

/// After a change of addresses or routes they are listed again at most this often: a router's
/// routes change thousands of times a second.
const GATHER_AT_MOST_EVERY: Duration = Duration::from_millis(500);

/// The packet thread answers within microseconds; one that does not within this is stuck, and
/// systemd is not told that all is well.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// After this time it is tried again to do what a switch has due.
const SWITCH_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// When the code that is resident is given back: when the start is over on all threads, and when all
/// periodic work has run for the first time. Around each page of code that runs the kernel maps others,
/// and much of what runs first does not run again.
const SETTLED_AFTER: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(40)];

/// What the journal's thread gets for writing its last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What the control server asks the supervisor for.
pub(super) enum Order {
    /// Read the configuration again: what changed, or why nothing did.
    Reload(Answer<Result<Reloaded, String>>),
    /// Never block this; `false`: it is so already.
    AllowAdd(IpNet, Answer<Result<bool, String>>),
    /// Undo that, or forget an administrator; `false`: it was neither added nor remembered.
    AllowRemove(IpNet, Answer<Result<bool, String>>),
    /// What the resolver says of a DNS name in `allow`.
    Addresses(Addresses),
    /// Switch the mode, or detection on or off.
    Switch(Switch, Answer<Result<(), NotSwitched>>),
}

/// Why nothing was switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotSwitched {
    /// It has that state already.
    Already(&'static str),
    /// It could not come into force.
    Failed(String),
}

/// A new configuration is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reloaded {
    /// What is another than before.
    pub changes: Vec<String>,
    /// What the administrator has to know beside that.
    pub warnings: Vec<String>,
}

/// The configuration that the command line asks for.
///
/// # Errors
/// Every finding, in words.
pub(super) fn load(options: &Options) -> Result<Loaded, String> {
    // The daemon itself finds out what its unit refuses.
    let unit = options.check.then(Unit::of_system);
    let loaded = match (&options.config, &unit) {
        (path, Some(unit)) => config::load_under(path.as_deref(), unit),
        (Some(path), None) => config::load(path),
        (None, None) => config::load_default(),
    };
    loaded
        .and_then(|loaded| loaded.changed(|config| options.apply_classic(config), unit.as_ref()))
        .map_err(|refused| refused.to_string())
}

/// What the packet thread needs for a configuration.
///
/// # Errors
/// In words, when the services of this host cannot be learned.
pub(super) fn setup(
    (written, switches): (&Config, &Switches),
    guard: &mut Guard,
    protected: &Protected,
) -> Result<Setup, String> {
    let ephemeral = procfs::ephemeral_ports();
    let services = guard.services().map_err(|error| format!("{SERVICES_UNKNOWN}: {error}"))?;
    let config = switches.over(written);
    let mut ruleset = if switches.is_off {
        ruleset::at_rest(&switches.with_mode(written), ephemeral.clone())
    } else {
        ruleset::for_config(&config, ephemeral.clone())
    };
    if ruleset.queues_by().is_some() {
        let by = Connection::open(SCHEMA)
            .and_then(|mut connection| connection.queue_by())
            .map_err(|error| error_chain(&error))?;
        ruleset = ruleset.queueing(by.ok_or_else(|| messages::NO_QUEUE.to_owned())?);
    }
    let in_force = InForce {
        ruleset,
        policy: Policy::from_config(&config),
        never_block: protected.keys().copied().collect(),
        services,
    };
    Ok(Setup { config, in_force, ephemeral })
}

const SERVICES_UNKNOWN: &str = "cannot learn which services listen";

/// The main thread's state.
pub(super) struct Supervisor {
    /// The command line, for reading the configuration again.
    pub options: Options,
    /// What the control server shows.
    pub view: SharedView,
    /// The never-block list.
    pub guard: Guard,
    /// The way to the packet thread.
    pub packets: Link<Command>,
    /// The packet thread.
    pub thread: JoinHandle<Result<(), capture::Error>>,
    /// What is done beside the blocks.
    pub helper: HelperClient,
    /// What is stored.
    pub store: StoreHandle,
    /// What happened.
    pub events: EventsHandle,
    /// The journal.
    pub journal: JournalHandle,
    /// What the control server asks.
    pub inbox: Inbox<Order>,
    /// Changes of addresses and routes.
    pub routes: route::Monitor,
    /// Signals.
    pub signals: Signals,
    /// The services that were sent to the packet thread last, and when that was.
    pub services: (Services, Instant),
    /// That the table of tracked connections fills was reported.
    pub tracking_fills: bool,
    /// The packet thread may have another list than the one shown: it could not take the last one
    /// as a whole.
    pub stale: bool,
}

impl Supervisor {
    /// Runs until the end, and says how it was.
    pub(super) fn run(mut self) -> ExitCode {
        let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 3);
        let mut look_at = Instant::now() + LOOK_EVERY;
        let mut sockets_at = Instant::now() + SOCKETS_EVERY;
        let mut gathered = Instant::now();
        let mut changed = false;
        let mut pat_at = Instant::now();
        let begun = Instant::now();
        let mut trims = SETTLED_AFTER.into_iter().map(|after| begun + after);
        let mut trim_at = trims.next();
        self.show_names();
        loop {
            if self.thread.is_finished() {
                return self.packet_thread_ended();
            }
            if let Some(every) = watchdog
                && Instant::now() >= pat_at
            {
                self.pat_watchdog();
                pat_at = Instant::now() + every;
            }
            if Instant::now() >= sockets_at {
                changed |= self.check_sockets();
                sockets_at = Instant::now() + SOCKETS_EVERY;
            }
            changed |= self.look_up_names();
            if changed && gathered.elapsed() >= GATHER_AT_MOST_EVERY || Instant::now() >= look_at {
                if let Err(error) = self.protect() {
                    log::error!("the never-block list could not be renewed: {error}");
                }
                changed = false;
                gathered = Instant::now();
                look_at = gathered + LOOK_EVERY;
            }
            let mut wake_at =
                if changed { look_at.min(gathered + GATHER_AT_MOST_EVERY) } else { look_at };
            wake_at = wake_at.min(sockets_at);
            if let Some(names_at) = self.names_at() {
                wake_at = wake_at.min(names_at);
            }
            if let Some(left) = self.expire_switches() {
                wake_at = wake_at.min(Instant::now() + left);
            }
            if watchdog.is_some() {
                wake_at = wake_at.min(pat_at);
            }
            if let Some(at) = trim_at {
                if Instant::now() >= at {
                    process::trim_code();
                    trim_at = trims.next();
                } else {
                    wake_at = wake_at.min(at);
                }
            }
            self.wait(wake_at.saturating_duration_since(Instant::now()));
            match self.routes.changed() {
                Ok(heard) => changed |= heard,
                Err(error) => {
                    let known = self.view.lock().complaints.clone();
                    self.complain([known, vec![error_chain(&error)]].concat());
                }
            }
            for request in self.signals.take() {
                match request {
                    SignalRequest::Reload => drop(self.reload()),
                    SignalRequest::Status => {
                        self.journal.notify(Notice::Status(status::line(&self.packets, &self.view)))
                    }
                    SignalRequest::Stop => return self.stop(),
                }
            }
            self.inbox.waker.clear();
            while let Some(order) = self.inbox.next() {
                self.obey(order);
            }
        }
    }

    fn wait(&self, timeout: Duration) {
        let mut fds = [self.signals.as_fd(), self.inbox.waker.as_fd(), self.routes.as_fd()]
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        // An interruption is a signal, which the round that follows takes.
        let _ = poll::wait(&mut fds, Some(timeout));
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Addresses(found) => self.take_addresses(found),
            Order::Switch(switch, answer) => {
                let result = self.switch(switch);
                let _ = answer.try_send(result);
            }
            Order::Reload(answer) => {
                let result = self.reload();
                let _ = answer.try_send(result);
            }
            Order::AllowAdd(network, answer) => {
                let mut result = self.guard.allowed.add(network);
                if result == Ok(true)
                    && let Err(error) = self.protect()
                {
                    // What is refused shall not come into force by itself later. The list that is
                    // renewed next is without it again.
                    let _ = self.guard.allowed.remove(network);
                    result = Err(error);
                }
                let _ = answer.try_send(result);
            }
            Order::AllowRemove(network, answer) => {
                let result = self.guard.allowed.remove(network).and_then(|removed| {
                    let is_forgotten = network.prefix_len() == network.max_prefix_len()
                        && self.guard.forget_admin(network.addr());
                    self.protect().map(|()| removed || is_forgotten)
                });
                let _ = answer.try_send(result);
            }
        }
    }

    /// Reads the configuration again and puts it in force as a whole, or leaves everything as it is
    /// and says why.
    fn reload(&mut self) -> Result<Reloaded, String> {
        // systemd.service(5), Type=notify-reload: the moment of the reload tells this one from
        // earlier ones.
        let mut reloading = vec![NotifyState::Reloading];
        reloading.extend(NotifyState::monotonic_usec_now());
        notify(&reloading);
        let result = load(&self.options).and_then(|loaded| self.take_over(loaded));
        notify(&[NotifyState::Ready]);
        self.view.lock().read = ConfigRead { at: Timestamp::now(), is_in_force: result.is_ok() };
        self.journal.notify(match &result {
            Ok(reloaded) => Notice::Reloaded { changes: reloaded.changes.clone() },
            Err(findings) => Notice::ReloadRefused { findings: findings.clone() },
        });
        result
    }

    /// `Err`: nothing has changed.
    fn take_over(&mut self, loaded: Loaded) -> Result<Reloaded, String> {
        let loaded = Arc::new(loaded);
        let old = self.view.lock().clone();
        let before = &old.loaded.config;
        let bound = before.needs_restart(&loaded.config);
        if !bound.is_empty() {
            return Err(format!(
                "{} cannot change while the daemon runs; restart it for that",
                bound.join(", ")
            ));
        }
        let switches = old.switches.after_reload(before, &loaded.config);
        let warnings = self.put_in_force(Arc::clone(&loaded), switches)?;
        self.guard.names.ask_again();
        let mut changes = before.changes(&loaded.config);
        let now = self.view.lock().clone();
        changes.extend(watched_changes(before, &loaded.config));
        changes.extend(count_changes(
            "files of allow: read again,",
            &before.allowed_by_files(),
            &loaded.config.allowed_by_files(),
        ));
        changes.extend(count_changes(
            "ignore_file: read again,",
            &old.loaded.ignored,
            &loaded.ignored,
        ));
        let never_blocked = |view: &View| view.protected.keys().copied().collect::<Vec<_>>();
        changes.extend(count_changes(
            "never-block list:",
            &never_blocked(&old),
            &never_blocked(&now),
        ));
        // The others were logged before, and the status has them.
        for warning in
            loaded.warnings.iter().filter(|warning| !old.loaded.warnings.contains(warning))
        {
            self.journal.notify(Notice::Warning(warning.to_string()));
        }
        Ok(Reloaded { changes, warnings })
    }

    fn tell_watching(&self) {
        let config = Arc::clone(&self.view.lock().config);
        status::tell_watching(&self.journal, &config, &self.services.0.open);
    }

    /// Switches for an administrator.
    fn switch(&mut self, switch: Switch) -> Result<(), NotSwitched> {
        let old = self.view.lock().clone();
        let switches = old
            .switches
            .after(switch, &old.loaded.config, clock::now())
            .map_err(NotSwitched::Already)?;
        self.put_in_force(Arc::clone(&old.loaded), switches).map_err(NotSwitched::Failed)?;
        self.switched(&old, None);
        Ok(())
    }

    /// Does what the switches have due. Returns when to look again.
    fn expire_switches(&mut self) -> Option<Duration> {
        let now = clock::now();
        let due = self.view.lock().switches.due()?;
        if due > now {
            return Some(due.since(now));
        }
        let old = self.view.lock().clone();
        let (switches, said) = old.switches.expired(&old.loaded.config, now)?;
        match self.put_in_force(Arc::clone(&old.loaded), switches) {
            Ok(_) => self.switched(&old, Some(said.join("; "))),
            Err(why) => {
                let what = said.join("; ");
                self.journal.notify(Notice::Error(format!(
                    "this failed and is tried again ({what}): {why}"
                )));
                return Some(SWITCH_AGAIN_AFTER);
            }
        }
        let due = self.view.lock().switches.due();
        due.map(|due| due.since(now))
    }

    /// Reports what was switched.
    fn switched(&self, old: &View, why: Option<String>) {
        let view = self.view.lock().clone();
        let (mode, detection) = view.switches.words(&view.loaded.config);
        if old.switches.is_off && !view.switches.is_off {
            self.tell_watching();
        }
        let left = |at: Option<MonoTime>| at.map(|at| at.since(clock::now()));
        let notice = Notice::Switched {
            mode,
            detection,
            confirm_within: left(view.switches.confirm_by),
            on_within: left(view.switches.on_at),
            why,
        };
        self.journal.notify(notice);
    }

    /// Puts a configuration in force as a whole. `Err`: nothing has changed.
    fn put_in_force(
        &mut self,
        loaded: Arc<Loaded>,
        switches: Switches,
    ) -> Result<Vec<String>, String> {
        let mut complaints = Vec::new();
        let old = self.view.lock().clone();
        let config = &switches.over(&loaded.config);
        let protected = self.guard.gather(config, &loaded.ignored, &mut complaints);
        let setup = setup((&loaded.config, &switches), &mut self.guard, &protected)?;
        let ruleset = setup.in_force.ruleset.clone();
        let services = setup.in_force.services.clone();
        self.journal
            .reconfigure(journal::Settings::from(config))
            .map_err(|error| error_chain(&error))?;
        let answer = self.packets.ask(|answer| Command::Reconfigure(Box::new(setup), answer));
        let applied = answer.unwrap_or_else(|error| Err(error.to_string())).inspect_err(|_| {
            // The packet thread goes on with the old configuration, so the journal does as well.
            if let Err(error) = self.journal.reconfigure(journal::Settings::from(&*old.config)) {
                log::error!("{}", error_chain(&error));
            }
        })?;
        self.helper.reconfigure(config);
        self.store.reconfigure(config);
        self.events.reconfigure(config);
        self.services = (services, Instant::now());
        let view = View::new(loaded, switches, ruleset, protected, old.complaints);
        *self.view.lock() = View { read: old.read, ..view };
        self.show_names();
        self.stale = false;
        self.complain(complaints);
        Ok(applied)
    }

    /// Sends the ports of services to the packet thread if they have changed. Returns whether an
    /// administrator has logged in.
    fn check_sockets(&mut self) -> bool {
        let sent = match self.guard.services() {
            Ok(services) => self.send_services(services),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            log::error!("{SERVICES_UNKNOWN}: {error}");
        }
        let is_filling = procfs::tracked().is_some_and(procfs::Tracked::is_filling);
        if is_filling && !std::mem::replace(&mut self.tracking_fills, true) {
            self.journal.notify(Notice::Warning(status::TRACKING_FILLS.to_owned()));
        }
        let config = Arc::clone(&self.view.lock().config);
        self.guard.has_new_login(&config)
    }

    fn send_services(&mut self, services: Services) -> Result<(), String> {
        let (sent, at) = &self.services;
        // When they were seen last is always new.
        let is_same = services.open == sent.open && services.balanced == sent.balanced;
        if is_same && at.elapsed() < SERVICES_AGAIN_EVERY {
            return Ok(());
        }
        let sent = services.clone();
        self.packets
            .ask(|answer| Command::Services(services, answer))
            .map_err(|error| error.to_string())?;
        self.services = (sent, Instant::now());
        Ok(())
    }

    /// Gathers what must never be blocked, and hands it to the packet thread if it changed.
    fn protect(&mut self) -> Result<(), String> {
        let view = self.view.lock().clone();
        let mut complaints = Vec::new();
        let protected = self.guard.gather(&view.config, &view.loaded.ignored, &mut complaints);
        self.complain(complaints);
        if protected == *view.protected && !self.stale {
            return Ok(());
        }
        let list = protected.keys().copied().collect();
        self.stale = true;
        self.packets
            .ask(|answer| Command::Protect(list, answer))
            .map_err(|error| error.to_string())??;
        self.stale = false;
        self.journal.notify(Notice::NeverBlock { entries: protected.len() });
        self.view.lock().protected = Arc::new(protected);
        Ok(())
    }

    /// Shows the complaints in the status, and reports each once, and its end.
    fn complain(&self, complaints: Vec<String>) {
        let last = std::mem::replace(&mut self.view.lock().complaints, complaints.clone());
        for complaint in complaints.iter().filter(|complaint| !last.contains(complaint)) {
            self.journal.notify(Notice::Warning(complaint.clone()));
        }
        for complaint in last.iter().filter(|complaint| !complaints.contains(complaint)) {
            log::info!("no longer so: {complaint}");
        }
    }

    fn pat_watchdog(&self) {
        match self.packets.ask_within(PING_TIMEOUT, Command::Ping) {
            Ok(()) => {
                // `systemctl status` shows it.
                let status = status::line(&self.packets, &self.view);
                notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
            }
            Err(error) => log::error!("the watchdog is not told that all is well: {error}"),
        }
    }

    fn stop(self) -> ExitCode {
        notify(&[NotifyState::Stopping]);
        let remove = self.view.lock().config.on_exit == config::OnExit::Remove;
        // While the packet thread can still tell what did not fit the queue.
        if let Err(why) = self.store.settle() {
            log::error!("the state store lacks what changed last: {why}");
        }
        let at_rest = (!remove).then(|| {
            let view = self.view.lock().clone();
            let config = view.switches.with_mode(&view.loaded.config);
            Box::new(ruleset::at_rest(&config, procfs::ephemeral_ports()))
        });
        let blocks_left = self.packets.ask(|answer| Command::Stop(at_rest, answer)).unwrap_or(0);
        self.journal.notify(Notice::Stopping { blocks_left });
        let ended = self.thread.join();
        self.store.stop();
        self.helper.stop(remove && blocks_left == 0);
        self.journal.stop(LAST_LINES);
        self.events.stop();
        match ended {
            Ok(Ok(())) => ExitCode::SUCCESS,
            _ => ExitCode::from(super::EX_SOFTWARE),
        }
    }

    fn packet_thread_ended(self) -> ExitCode {
        let why = match self.thread.join() {
            Ok(Ok(())) => "it was told to stop".to_owned(),
            Ok(Err(error)) => error_chain(&error),
            Err(_) => "it panicked".to_owned(),
        };
        self.journal.notify(Notice::Error(format!(
            "the packet thread ended: {why}; blocks stay in the kernel"
        )));
        self.store.stop();
        self.helper.stop(false);
        self.journal.stop(LAST_LINES);
        self.events.stop();
        ExitCode::from(super::EX_SOFTWARE)
    }
}

/// Tells systemd, where there is one.
pub(super) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("systemd was not told: {error}");
    }
}
