//! Names of hosts in lines and events.

use super::*;

/// A resolver that records questions, and may answer them.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<Vec<IpAddr>>>);

impl Asked {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(ToString::to_string).collect()
    }

    /// `answer` is the immediate answer; `None`: no answer.
    fn attach(&self, journal: &JournalHandle, answer: Option<&'static str>) {
        let (asked, back) = (self.clone(), journal.clone());
        journal.resolve_through(Box::new(move |address| {
            asked.0.lock().unwrap().push(address);
            if let Some(name) = answer {
                back.name_found(address, Some(name.to_owned()));
            }
            true
        }));
    }
}

fn resolving() -> Settings {
    Settings { resolve: true, ..settings() }
}

#[test]
fn a_name_is_looked_up_once_for_log_history_and_watchers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history");
    let (lines, asked) = (Lines::default(), Asked::default());
    let journal = JournalHandle::start_with(
        Settings { history_file: Some(path.clone()), ..resolving() },
        Box::new(lines.clone()),
    )
    .unwrap();
    let watch = journal.subscribe(None);
    asked.attach(&journal, None);
    journal.notify(scan("10.77.1.1", ScanKind::Syn, Transport::Tcp, 1, None));
    journal.notify(blocked("10.77.1.1", 1, 0));
    journal.notify(Notice::Active);
    let deadline = Instant::now() + LONG;
    while asked.all().is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(lines.all(), Vec::<String>::new(), "all wait, in order");
    journal.name_found("10.77.1.1".parse().unwrap(), Some("scanner.example.".to_owned()));
    for event in ["scan", "blocked", "active"] {
        let line: serde_json::Value =
            serde_json::from_str(&watch.next_within(LONG).unwrap()).unwrap();
        assert_eq!(line["event"], event);
        assert_eq!(
            line["name"].as_str(),
            (event != "active").then_some("scanner.example"),
            "{line}"
        );
    }
    assert!(journal.stop(LONG));
    let written = lines.all();
    assert_eq!(
        written[0],
        "INFO attackalert: TCP SYN/Normal scan from host: scanner.example/10.77.1.1 to TCP port: 1"
    );
    assert!(
        written[1].starts_with("INFO attackalert: Host 10.77.1.1 has been blocked via nftables"),
        "{written:?}"
    );
    assert_eq!(written[2], "INFO adminalert: PortSentry is now active and listening.");
    let history = std::fs::read_to_string(path).unwrap();
    assert!(
        history.ends_with(" Host: scanner.example/10.77.1.1 Port: 1 TCP Blocked\n"),
        "{history}"
    );
    assert_eq!(asked.all(), ["10.77.1.1"]);
}

#[test]
fn events_wait_for_a_name_until_the_timeout() {
    let (lines, asked) = (Lines::default(), Asked::default());
    let journal = JournalHandle::start_with(resolving(), Box::new(lines.clone())).unwrap();
    asked.attach(&journal, None);
    journal.notify(scan("10.77.1.1", ScanKind::Syn, Transport::Tcp, 1, None));
    let deadline = Instant::now() + LONG;
    while lines.all().is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(lines.all()[0].contains("from host: 10.77.1.1/10.77.1.1 to"), "{:?}", lines.all());
    assert!(journal.stop(LONG));
}

#[test]
fn waiting_events_are_written_at_the_end_and_before_new_settings() {
    for change in [false, true] {
        let (lines, asked) = (Lines::default(), Asked::default());
        let journal = JournalHandle::start_with(resolving(), Box::new(lines.clone())).unwrap();
        let watch = journal.subscribe(None);
        asked.attach(&journal, None);
        journal.notify(scan("10.77.1.1", ScanKind::Syn, Transport::Tcp, 1, None));
        if change {
            while asked.all().is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let mut changed = settings();
            changed.log.level = log::LevelFilter::Off;
            journal.reconfigure(changed).unwrap();
            assert!(watch.next_within(LONG).is_some());
        }
        assert!(journal.stop(LONG));
        assert!(lines.all()[0].contains("from host: 10.77.1.1/10.77.1.1 to"), "{:?}", lines.all());
    }
}

#[test]
fn no_event_waits_without_resolve_or_resolver() {
    for (settings, taken) in [(settings(), true), (resolving(), false)] {
        let (lines, asked) = (Lines::default(), Asked::default());
        let journal = JournalHandle::start_with(settings, Box::new(lines.clone())).unwrap();
        let watch = journal.subscribe(None);
        let count = asked.clone();
        journal.resolve_through(Box::new(move |address| {
            count.0.lock().unwrap().push(address);
            taken
        }));
        journal.notify(scan("10.77.1.1", ScanKind::Syn, Transport::Tcp, 1, None));
        assert!(watch.next_within(LONG).is_some());
        assert_eq!(asked.all().len(), usize::from(!taken));
        assert!(journal.stop(LONG));
        assert_eq!(lines.all().len(), 1);
    }
}

// P13
#[test]
fn a_name_with_odd_bytes_is_never_written() {
    let (lines, asked) = (Lines::default(), Asked::default());
    let journal = JournalHandle::start_with(resolving(), Box::new(lines.clone())).unwrap();
    asked.attach(&journal, Some("evil\x1b[2J/10.0.0.1 Port: 1 TCP Blocked\n"));
    journal.notify(scan("10.77.1.1", ScanKind::Syn, Transport::Tcp, 1, None));
    let deadline = Instant::now() + LONG;
    while lines.all().is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(
        lines.all(),
        ["INFO attackalert: TCP SYN/Normal scan from host: 10.77.1.1/10.77.1.1 to TCP port: 1"]
    );
    assert!(journal.stop(LONG));
}

#[test]
fn a_flood_of_scans_causes_bounded_lookups_and_waiting_events() {
    for watched in [false, true] {
        let (lines, asked) = (Lines::default(), Asked::default());
        let journal = JournalHandle::start_with(resolving(), Box::new(lines.clone())).unwrap();
        let watch = watched.then(|| journal.subscribe(None));
        asked.attach(&journal, None);
        let flood = WAITING_MAX as u32 + 500;
        for n in 0..flood {
            journal.notify(scan(
                &std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string(),
                ScanKind::Syn,
                Transport::Tcp,
                1,
                None,
            ));
        }
        if let Some(watch) = &watch {
            // The oldest are released without a name long before their timeout.
            assert!(watch.next_within(LONG).unwrap().contains("\"name\":null"));
        }
        let deadline = Instant::now() + LONG;
        // At the end no more names are looked up: all lines but one or two must be decided before.
        while journal.stats().held_back < u64::from(flood) - 35 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(journal.stop(LONG));
        let scans = lines.all().iter().filter(|line| line.contains("attackalert")).count();
        let questions = asked.all().len();
        let allowed = if watched { scans + limit::WATCHED_NAMES as usize + 2 } else { scans };
        assert!(questions >= scans && questions <= allowed, "{questions} questions, {scans} scans");
    }
}

#[test]
fn a_name_that_was_found_before_the_end_is_written() {
    let (lines, asked) = (Lines::default(), Asked::default());
    let journal = JournalHandle::start_with(resolving(), Box::new(lines.clone())).unwrap();
    asked.attach(&journal, None);
    journal.notify(scan("10.77.1.1", ScanKind::Syn, Transport::Tcp, 1, None));
    while asked.all().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    journal.name_found("10.77.1.1".parse().unwrap(), Some("scanner.example".to_owned()));
    journal.notify(Notice::Stopping { blocks_left: 0 });
    assert!(journal.stop(LONG));
    assert!(
        lines.all()[0].contains("from host: scanner.example/10.77.1.1 to"),
        "{:?}",
        lines.all()
    );
    assert!(lines.all()[1].contains("securityalert"), "{:?}", lines.all());
}
