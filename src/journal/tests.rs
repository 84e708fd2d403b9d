//! Tests of the journal's thread: all items are written, whatever the target and the disk do.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use log::Level;

use super::format::samples::{blocked, scan};
use super::names::WAITING_MAX;
use super::sink::Sink;
use super::*;
use crate::config::LogFormat;
use crate::probe::{ScanKind, Transport};

mod lookups;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Sink for Lines {
    fn write(&mut self, level: Level, _module: &str, text: &str) -> io::Result<()> {
        self.0.lock().unwrap().push(format!("{level} {text}"));
        Ok(())
    }
}

/// A target that hangs until it is released.
struct Hanging(Arc<Mutex<()>>, Lines);

impl Sink for Hanging {
    fn write(&mut self, level: Level, module: &str, text: &str) -> io::Result<()> {
        drop(self.0.lock().unwrap());
        self.1.write(level, module, text)
    }
}

struct Refusing;

impl Sink for Refusing {
    fn write(&mut self, _: Level, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

fn settings() -> Settings {
    Settings { history_file: None, ..Settings::from(&Config::default()) }
}

impl Subscription {
    /// Waits for the next line; `None` after `timeout` or when the journal has ended.
    fn next_within(&self, timeout: Duration) -> Option<Arc<str>> {
        self.receiver.recv_timeout(timeout).ok()
    }
}

const LONG: Duration = Duration::from_secs(10);

#[test]
fn queued_events_are_written_before_the_journal_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let lines = Lines::default();
    let journal = JournalHandle::start_with(
        Settings { history_file: Some(path.clone()), ..settings() },
        Box::new(lines.clone()),
    )
    .unwrap();
    journal.notify(Notice::Active);
    journal.notify(scan("10.77.1.1", ScanKind::Syn, Transport::Tcp, 1, None));
    journal.notify(blocked("10.77.1.1", 1, 0));
    journal.notify(blocked("10.77.1.1", 1, 1));
    assert!(journal.stop(LONG));
    let lines = lines.all();
    assert_eq!(lines.len(), 3, "a renewal is a matter of level debug: {lines:?}");
    assert_eq!(lines[0], "INFO adminalert: PortSentry is now active and listening.");
    let history = std::fs::read_to_string(path).unwrap();
    assert_eq!(history.lines().count(), 1);
    assert!(history.ends_with(" Host: 10.77.1.1/10.77.1.1 Port: 1 TCP Blocked\n"), "{history}");
}

// P9, D10
#[test]
fn a_flood_of_events_gives_few_lines_and_the_count_of_the_rest() {
    let lines = Lines::default();
    let journal = JournalHandle::start_with(settings(), Box::new(lines.clone())).unwrap();
    let flood = QUEUE as u64;
    for _ in 0..flood {
        journal.notify(scan("10.77.1.1", ScanKind::Syn, Transport::Tcp, 1, None));
    }
    assert!(journal.stop(LONG));
    let written = lines.all();
    let scans = written.iter().filter(|line| line.contains("attackalert")).count();
    assert!(scans <= 32, "{scans} lines");
    let expected = flood - scans as u64 - journal.stats().lost;
    assert_eq!(journal.stats().held_back, expected);
    assert!(
        written.iter().any(|line| line.contains(&format!("{expected} lines held back"))),
        "{:?}",
        written.last()
    );
}

#[test]
fn a_hanging_target_delays_no_caller_and_losses_are_reported() {
    let (hold, lines) = (Arc::new(Mutex::new(())), Lines::default());
    let held = hold.lock().unwrap();
    let journal =
        JournalHandle::start_with(settings(), Box::new(Hanging(Arc::clone(&hold), lines.clone())))
            .unwrap();
    let begun = Instant::now();
    let sent = outlet::LINES as u64 + 1000;
    for _ in 0..sent {
        journal.notify(Notice::Active);
    }
    assert!(begun.elapsed() < LONG);
    // All but one fill the queue of the log: the target has that one.
    let lost = || journal.stats().lost + journal.stats().unwritten;
    while lost() < 999 {
        assert!(begun.elapsed() < LONG, "{}", lost());
        std::thread::sleep(Duration::from_millis(5));
    }
    let lost = lost();
    assert!((999..=1000).contains(&lost), "{lost}");
    while !journal.stats().is_hanging {
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!journal.stop(Duration::from_millis(50)), "it hangs");
    drop(held);
    let deadline = Instant::now() + LONG;
    while !lines
        .all()
        .iter()
        .any(|line| line.contains(&format!("{lost} messages did not reach the log")))
    {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}

// P25
#[test]
fn a_hanging_target_keeps_nothing_from_history_and_watchers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let (hold, lines) = (Arc::new(Mutex::new(())), Lines::default());
    let held = hold.lock().unwrap();
    let settings = Settings { history_file: Some(path.clone()), ..settings() };
    let sink = Box::new(Hanging(Arc::clone(&hold), lines.clone()));
    let journal = JournalHandle::start_with(settings.clone(), sink).unwrap();
    let watch = journal.subscribe(None);
    for _ in 0..500 {
        journal.notify(blocked("10.77.1.1", 1, 0));
    }
    for _ in 0..500 {
        assert!(watch.next_within(LONG).is_some());
    }
    assert!(!journal.stop(Duration::from_millis(100)), "it hangs");
    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 500);
    drop(held);
    assert!(journal.stop(LONG));
    assert!(lines.all().iter().any(|line| line.contains("has been blocked")));
}

#[test]
fn new_settings_replace_a_target_that_hangs() {
    let (hold, lines) = (Arc::new(Mutex::new(())), Lines::default());
    let held = hold.lock().unwrap();
    let sink = Box::new(Hanging(Arc::clone(&hold), lines.clone()));
    let journal = JournalHandle::start_with(settings(), sink).unwrap();
    journal.notify(Notice::Active);
    let deadline = Instant::now() + LONG;
    while !journal.stats().is_hanging {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut changed = settings();
    changed.log.level = log::LevelFilter::Off;
    journal.reconfigure(changed).unwrap();
    while journal.stats().is_hanging {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(journal.stop(LONG));
    drop(held);
}

#[test]
fn a_disk_that_fails_at_the_start_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let path = state.join("history");
    let lines = Lines::default();
    // The daemon makes the state directory as soon as it can.
    let settings =
        Settings { history_file: Some(path.clone()), state_dir: state.clone(), ..settings() };
    let journal = JournalHandle::start_with(settings, Box::new(lines.clone())).unwrap();
    journal.notify(blocked("10.77.1.1", 1, 0));
    let deadline = Instant::now() + LONG;
    while !journal.stats().history_failing {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::create_dir(&state).unwrap();
    assert!(journal.stop(LONG));
    assert!(std::fs::read_to_string(path).unwrap().contains("10.77.1.1"));
    let lines = lines.all();
    assert!(lines.iter().any(|line| line.contains("cannot be written: No such file")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("is written again")), "{lines:?}");
}

#[test]
fn a_target_that_refuses_is_counted() {
    let journal = JournalHandle::start_with(settings(), Box::new(Refusing)).unwrap();
    journal.notify(Notice::Active);
    journal.notify(Notice::Active);
    assert!(journal.stop(LONG));
    assert!(journal.stats().unwritten >= 2);
}

#[test]
fn the_disk_of_the_history_may_be_full() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let lines = Lines::default();
    let journal = JournalHandle::start_with(
        Settings { history_file: Some(path), ..settings() },
        Box::new(lines.clone()),
    )
    .unwrap();
    for _ in 0..20 {
        journal.notify(blocked("10.77.1.1", 1, 0));
    }
    assert!(journal.stop(LONG));
    assert_eq!(
        lines.all().iter().filter(|line| line.contains("cannot be written: No space left")).count(),
        1
    );
    assert_eq!(lines.all().iter().filter(|line| line.contains("has been blocked")).count(), 20);
}

#[test]
fn subscribers_get_every_event_as_json_and_are_woken() {
    let journal = JournalHandle::start_with(settings(), Box::new(Lines::default())).unwrap();
    let waker = Arc::new(Waker::new().unwrap());
    let subscription = journal.subscribe(Some(Arc::clone(&waker)));
    journal.notify(blocked("10.77.1.1", 1, 0));
    let line: serde_json::Value =
        serde_json::from_str(&subscription.next_within(LONG).unwrap()).unwrap();
    assert_eq!(line["event"], "blocked");
    assert!(crate::sys::poll::readable(std::os::fd::AsFd::as_fd(&*waker), LONG).unwrap());
    for _ in 0..WATCH_QUEUE + 10 {
        journal.notify(Notice::Active);
    }
    assert!(journal.stop(LONG));
    assert_eq!(subscription.take_missed(), 10);
    assert_eq!(std::iter::from_fn(|| subscription.try_next().ok().flatten()).count(), WATCH_QUEUE);
    assert!(matches!(subscription.try_next(), Err(JournalError::Ended)));
}

#[test]
fn a_missing_directory_of_the_history_stops_the_start() {
    let missing = Settings { history_file: Some("/no/such/place/history".into()), ..settings() };
    assert!(matches!(
        JournalHandle::start_with(missing.clone(), Box::new(Lines::default())),
        Err(JournalError::History(..))
    ));
    let journal = JournalHandle::start_with(settings(), Box::new(Lines::default())).unwrap();
    assert!(matches!(journal.reconfigure(missing), Err(JournalError::History(..))));
    assert!(journal.stop(LONG));
}

#[test]
fn new_settings_change_history_file() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    let lines = Lines::default();
    let journal = JournalHandle::start_with(
        Settings { history_file: Some(one.clone()), ..settings() },
        Box::new(lines.clone()),
    )
    .unwrap();
    let subscription = journal.subscribe(None);
    journal.notify(blocked("10.77.1.1", 1, 0));
    subscription.next_within(LONG).unwrap();
    let mut changed = Settings { history_file: Some(two.clone()), ..settings() };
    changed.log.level = log::LevelFilter::Off;
    journal.reconfigure(changed).unwrap();
    journal.notify(blocked("10.77.1.2", 2, 0));
    assert!(journal.stop(LONG));
    assert!(std::fs::read_to_string(one).unwrap().contains("10.77.1.1"));
    assert!(std::fs::read_to_string(two).unwrap().contains("10.77.1.2"));
    assert!(
        lines.all().iter().all(|line| !line.contains("10.77.1.2")),
        "the level is off and the target another"
    );
}

#[test]
fn log_records_go_to_the_journal_once() {
    let lines = Lines::default();
    let journal = JournalHandle::start_with(settings(), Box::new(lines.clone())).unwrap();
    install();
    global::connect(journal.clone());
    log::warn!("from a module\nof ours");
    log::debug!("not at this level");
    log::info!(target: "neli::socket", "not of another crate");
    assert!(journal.stop(LONG));
    log::warn!("after the end");
    let lines = lines.all();
    assert!(
        lines.contains(&"INFO adminalert: WARNING: from a module\\nof ours".to_owned()),
        "{lines:?}"
    );
    assert!(!lines.iter().any(|line| line.contains("not ") || line.contains("after")), "{lines:?}");
}

#[test]
fn classic_lines_reach_syslog_as_daemon_notice_and_the_other_formats_keep_their_priority() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let receiver = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(LONG)).unwrap();
    for (format, priorities) in [
        (LogFormat::Classic, ["<29>", "<29>", "<27>"]),
        (LogFormat::Text, ["<29>", "<28>", "<27>"]),
    ] {
        let mut settings = settings();
        settings.log.format = format;
        let journal = JournalHandle::start_with(
            settings,
            Box::new(sink::Syslog::new(path.clone(), config::Facility::Daemon)),
        )
        .unwrap();
        journal.notify(Notice::Active);
        journal.notify(scan("10.77.1.1", ScanKind::Syn, Transport::Tcp, 1, None));
        journal.notify(Notice::Error("it broke".to_owned()));
        assert!(journal.stop(LONG));
        for priority in priorities {
            let mut buffer = [0; 8192];
            let length = receiver.recv(&mut buffer).unwrap();
            let line = std::str::from_utf8(&buffer[..length]).unwrap();
            assert!(
                line.starts_with(&format!("{priority}portsentry[{}]: ", std::process::id())),
                "{line}"
            );
        }
    }
}

#[test]
fn a_flood_is_stored_up_to_a_bound_with_all_that_the_log_has_and_a_count_of_the_rest() {
    let lines = Lines::default();
    let journal = JournalHandle::start_with(settings(), Box::new(lines.clone())).unwrap();
    // Before the store is open.
    journal.notify(Notice::Starting);
    journal.settle();
    let stored: Arc<Mutex<Vec<Record>>> = Arc::default();
    let kept = Arc::clone(&stored);
    journal.store_through(Box::new(move |record| {
        kept.lock().unwrap().push(record);
        true
    }));
    const FLOOD: u64 = 3000;
    for n in 0..FLOOD {
        let host = std::net::Ipv4Addr::from(0x0a00_0000 + n as u32).to_string();
        journal.notify(scan(&host, ScanKind::Syn, Transport::Tcp, 1, None));
    }
    assert!(journal.stop(LONG));
    let stored = stored.lock().unwrap();
    assert_eq!(stored[0].kind, "starting");
    let scans: Vec<_> = stored.iter().filter(|record| record.kind == "scan").collect();
    let logged: Vec<String> = lines.all().into_iter().filter(|l| l.contains("scan from")).collect();
    for line in &logged {
        let is_stored =
            |record: &&&Record| line.contains(&format!(": {}/", record.network.unwrap().addr()));
        assert_eq!(scans.iter().filter(is_stored).count(), 1, "{line}");
    }
    let bound = logged.len() as u64 + u64::from(limit::RECORDS);
    // A token or two more with the time that it takes.
    assert!((bound..bound + 100).contains(&(scans.len() as u64)), "{} {bound}", scans.len());
    let last = stored.last().unwrap();
    assert_eq!(last.kind, record::NOT_STORED);
    assert_eq!(last.details["events"], FLOOD - scans.len() as u64);
}

#[test]
fn what_the_store_cannot_take_is_counted() {
    let journal = JournalHandle::start_with(settings(), Box::new(Lines::default())).unwrap();
    let stored: Arc<Mutex<Vec<Record>>> = Arc::default();
    let kept = Arc::clone(&stored);
    journal.store_through(Box::new(move |record| {
        let fits = record.kind == record::NOT_STORED;
        if fits {
            kept.lock().unwrap().push(record);
        }
        fits
    }));
    for port in 1..=5 {
        journal.notify(blocked("10.77.1.1", port, 0));
    }
    assert!(journal.stop(LONG));
    let stored = stored.lock().unwrap();
    assert_eq!((stored.len(), &stored[0].details["events"]), (1, &5.into()));
}
