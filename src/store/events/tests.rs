use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::database::EventDatabase;
use super::*;
use crate::config::Size;
use crate::journal::record::{Effect, Probed};
use crate::journal::sink::Sink;
use crate::journal::{self, JournalHandle};

const NO_LIMIT: u64 = 1 << 40;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn about(second: i64, kind: &str, network: &str) -> Record {
    Record { network: Some(net(network)), ..Record::new(at(second), kind) }
}

fn blocked(second: i64, network: &str, seconds: Option<i64>) -> Record {
    Record {
        until: seconds.map(|seconds| at(second + seconds)),
        effect: Some(Effect::Blocked),
        proven: Some(true),
        ..about(second, "blocked", network)
    }
}

fn ended(second: i64, kind: &str, network: &str, ending: &str) -> Record {
    Record { ending: Some(ending.into()), ..about(second, kind, network) }
}

fn open(directory: &Path) -> EventDatabase {
    EventDatabase::open(directory, at(0)).unwrap().0
}

fn everything() -> Query {
    Query { all: true, ..Query::default() }
}

fn all(database: &EventDatabase, query: &Query) -> Vec<Record> {
    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let page = database.find(query, after).unwrap();
        assert!(page.records.len() <= 512, "a page is bounded");
        records.extend(page.records);
        match page.next {
            Some(next) => after = Some(next),
            None => return records,
        }
    }
}

#[test]
fn a_record_is_read_as_it_was_written_also_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let whole = Record {
        at: at(7) + SignedDuration::from_millis(123),
        kind: "slowed".into(),
        network: Some(net("2001:db8:1::/64")),
        name: Some("scanner.example".into()),
        port: Some("tcp/22".into()),
        effect: Some(Effect::Slowed),
        scan: Some("syn".into()),
        proven: Some(false),
        reason: Some("syn scan: 3 ports, \"quoted\"".into()),
        until: Some(at(67)),
        ended: Some(at(60)),
        ending: Some("expired".into()),
        probes: Some(12),
        first_seen: Some(at(5)),
        touched: ["counts", "ambiguous", "reply", "reported"]
            .map(|weight| Probed {
                age: 1500,
                port: "udp/53".into(),
                scan: "udp".into(),
                weight: weight.into(),
            })
            .into(),
        details: json!({"renewals": 3, "not_blocked": "observe mode"}).as_object().unwrap().clone(),
    };
    let bare = Record::new(at(8), "starting");
    open(directory.path()).write(&[whole.clone(), bare.clone()], NO_LIMIT).unwrap();
    assert_eq!(all(&open(directory.path()), &everything()), [whole, bare]);
}

#[test]
fn a_search_selects_by_time_source_port_kind_effect_and_scan() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = open(directory.path());
    let scan = |second, network, port: &str, effect, scan: &str| Record {
        port: Some(port.into()),
        effect: Some(effect),
        scan: Some(scan.into()),
        ..about(second, "scan", network)
    };
    let mut touching = scan(30, "2001:db8:1::7/128", "tcp/3", Effect::Blocked, "syn");
    touching.touched =
        vec![Probed { age: 9, port: "tcp/22".into(), scan: "syn".into(), weight: "counts".into() }];
    let records = [
        Record::new(at(0), "starting"),
        scan(10, "192.0.2.1/32", "tcp/22", Effect::Reported, "syn"),
        scan(20, "192.0.2.200/32", "tcp/220", Effect::Slowed, "fin"),
        touching,
        blocked(40, "198.51.100.0/24", None),
        Record::not_stored(at(50), 7),
        about(60, "order", "192.0.2.1/32"),
    ];
    database.write(&records, NO_LIMIT).unwrap();
    let found = |query: Query| -> Vec<i64> {
        let seconds = |record: Record| record.at.as_second() - at(0).as_second();
        all(&database, &query).into_iter().map(seconds).collect()
    };
    let of = |network: &str| Query { source: Some(net(network)), ..Query::default() };
    // Gaps are in every answer, and what is about no source only in that to `all`.
    assert_eq!(found(Query::default()), [10, 20, 30, 40, 50, 60]);
    assert_eq!(found(everything()), [0, 10, 20, 30, 40, 50, 60]);
    assert_eq!(
        found(Query { since: Some(at(20)), until: Some(at(40)), ..Query::default() }),
        [20, 30, 40]
    );
    assert_eq!(found(Query { since: Some(at(61)), ..everything() }), Vec::<i64>::new());
    assert_eq!(found(of("192.0.2.1/32")), [10, 50, 60]);
    assert_eq!(found(of("192.0.2.0/24")), [10, 20, 50, 60]);
    assert_eq!(found(of("198.51.100.77/32")), [40, 50], "a network around it");
    assert_eq!(found(of("2001:db8::/32")), [30, 50]);
    assert_eq!(found(of("::/0")), [30, 50], "no IPv4");
    assert_eq!(found(of("0.0.0.0/0")), [10, 20, 40, 50, 60], "no IPv6");
    let port = |port: &str| Query { port: Some(port.into()), ..Query::default() };
    assert_eq!(found(port("tcp/22")), [10, 30, 50], "the port itself, and a touched one");
    assert_eq!(found(port("tcp/2")), [50]);
    let kinds = |kinds: &[&str]| Query {
        kinds: kinds.iter().map(|kind| (*kind).into()).collect(),
        ..Query::default()
    };
    assert_eq!(found(kinds(&["blocked", "starting"])), [0, 40]);
    assert_eq!(found(kinds(&["x'); DROP TABLE events; --"])), Vec::<i64>::new());
    assert_eq!(found(Query { effect: Some(Effect::Slowed), ..Query::default() }), [20, 50]);
    assert_eq!(found(Query { scan: Some("fin".into()), ..Query::default() }), [20, 50]);
    let both = Query { scan: Some("syn".into()), ..of("192.0.2.0/24") };
    assert_eq!(found(Query { kinds: vec!["scan".into()], ..both }), [10]);
}

#[test]
fn each_block_has_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = open(directory.path());
    let hosts = ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32", "192.0.2.4/32", "192.0.2.5/32"];
    let [unblocked, renewed, again, open_end, over] = hosts;
    let records = [
        blocked(0, unblocked, Some(60)),
        blocked(1, renewed, Some(60)),
        blocked(2, again, Some(60)),
        blocked(3, open_end, None),
        blocked(4, over, Some(60)),
        ended(10, "unblocked", unblocked, "by-hand"),
        Record { until: Some(at(300)), ..about(11, "renewed", renewed) },
        // An end of slowing is not that of the block.
        ended(12, "proven", renewed, "proven"),
        blocked(100, again, Some(60)),
        ended(300, "unblocked", renewed, "expired"),
    ];
    database.write(&records, NO_LIMIT).unwrap();
    let ends = |database: &EventDatabase| -> Vec<(i64, Option<i64>, Option<String>)> {
        let blocks = Query { kinds: vec!["blocked".into()], ..Query::default() };
        let second = |at: Timestamp| at.as_second() - 1_795_000_000;
        all(database, &blocks)
            .into_iter()
            .map(|record| (second(record.at), record.ended.map(second), record.ending))
            .collect()
    };
    let end = |second, at, ending: &str| (second, Some(at), Some(ending.to_owned()));
    let ended =
        [end(0, 10, "by-hand"), end(1, 300, "expired"), end(2, 62, "expired"), (3, None, None)];
    let both = |rest: [(i64, Option<i64>, Option<String>); 2]| [&ended[..], &rest].concat();
    assert_eq!(ends(&database), both([(4, None, None), (100, None, None)]));
    // No daemon ran when this one expired.
    drop(database);
    let (database, _) = EventDatabase::open(directory.path(), at(120)).unwrap();
    assert_eq!(ends(&database), both([end(4, 64, "expired"), (100, None, None)]));
}

#[test]
fn a_search_comes_in_bounded_pages_and_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = open(directory.path());
    let host = |n: i64| if n % 10_000 == 9_999 { "198.51.100.7/32" } else { "192.0.2.1/32" };
    let records: Vec<Record> =
        // Several of one moment, and a clock that was set back.
        (0..50_000).map(|n| about(if n == 30_000 { 1 } else { n / 3 }, "scan", host(n))).collect();
    database.write(&records, NO_LIMIT).unwrap();
    let found = all(&database, &everything());
    assert_eq!(found.len(), 50_000);
    assert!(found.is_sorted_by_key(|record| record.at));
    let rare = Query { source: Some(net("198.51.100.0/24")), ..Query::default() };
    assert_eq!(all(&database, &rare).len(), 5);
    let page = database.find(&rare, None).unwrap();
    assert_eq!(page.records.len(), 1, "it stops though more follow");
    assert!(page.next.is_some());
}

#[test]
fn the_oldest_events_make_room_and_the_file_stays_small() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = open(directory.path());
    const MAX: u64 = 1 << 20;
    let reason = "syn scan: 20 ports in 0.2s: ".to_owned() + &"tcp/1 ".repeat(20);
    for round in 0..40 {
        let records: Vec<Record> = (0..200)
            .map(|n| Record {
                reason: Some(reason.clone()),
                ..blocked(round * 200 + n, "192.0.2.1/32", None)
            })
            .collect();
        database.write(&records, MAX).unwrap();
        let file = std::fs::metadata(directory.path().join(FILE)).unwrap().len();
        // The pages that one transaction needs are given back after it.
        assert!(file <= MAX + (600 << 10) && database.bytes() <= MAX + (600 << 10), "{file}");
    }
    let left = all(&database, &everything());
    assert_eq!(left.len() as u64, database.rows());
    assert!((1000..6000).contains(&left.len()), "{}", left.len());
    let first = left[0].at.as_second() - at(0).as_second();
    assert_eq!(first, 8000 - left.len() as i64, "the newest, without a gap");
    drop(database);
    assert!(open(directory.path()).bytes() <= MAX + (600 << 10));
}

#[test]
fn a_flood_of_forged_sources_does_not_push_out_what_is_proven() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = open(directory.path());
    let proven: Vec<Record> = (0..100).map(|n| blocked(n, "192.0.2.1/32", None)).collect();
    database.write(&proven, NO_LIMIT).unwrap();
    for round in 0..50 {
        let flood: Vec<Record> = (0..500)
            .map(|n| Record {
                proven: Some(false),
                reason: Some("x".repeat(150)),
                ..about(1000 + round * 500 + n, "scan", "198.51.100.7/32")
            })
            .collect();
        database.write(&flood, 1 << 20).unwrap();
    }
    let blocks = Query { kinds: vec!["blocked".into()], ..Query::default() };
    assert_eq!(all(&database, &blocks).len(), 100);
    assert!(database.rows() < 6000, "{}", database.rows());
}

#[test]
fn events_are_deleted_at_their_age() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = open(directory.path());
    let records: Vec<Record> = (0..12_000).map(|n| about(n, "scan", "192.0.2.1/32")).collect();
    database.write(&records, NO_LIMIT).unwrap();
    let mut pieces = 1;
    while database.delete_before(at(11_000)).unwrap() {
        pieces += 1;
    }
    assert_eq!(pieces, 3, "in small transactions");
    let left = all(&database, &everything());
    assert_eq!((left.len(), left[0].at), (1000, at(11_000)));
    assert_eq!(database.rows(), 1000);
}

struct Nowhere;

impl Sink for Nowhere {
    fn write(&mut self, _: log::Level, _: &str, _: &str) -> std::io::Result<()> {
        Ok(())
    }
}

fn journal() -> JournalHandle {
    let config = Config { history_file: None, ..Config::default() };
    JournalHandle::start_with(journal::Settings::from(&config), Box::new(Nowhere)).unwrap()
}

fn config(directory: &Path) -> Config {
    Config {
        state_dir: directory.to_owned(),
        history_file: Some(directory.join("history")),
        ..Config::default()
    }
}

fn kinds(events: &EventsHandle) -> Vec<String> {
    events.settle();
    let page = events.find(&everything(), None).unwrap();
    page.records.into_iter().map(|record| record.kind).collect()
}

#[test]
fn a_new_store_begins_with_the_lines_of_the_classic_history_file() {
    let directory = tempfile::tempdir().unwrap();
    let now = Timestamp::now().as_second();
    let line = |age: i64, rest: &str| format!("{} - 11/20/2026 15:26:40 Host: {rest}\n", now - age);
    let lines = [
        line(95 * 86_400, "192.0.2.9/192.0.2.9 Port: 1 TCP Blocked"),
        line(3000, "scanner.example/192.0.2.1 Port: 7 UDP Blocked"),
        line(2000, "2001:db8::/64/2001:db8::5 Port: 0 MANUAL Blocked"),
        line(1000, "192.0.2.2/192.0.2.2 Port: 22 TCP Reported"),
    ];
    std::fs::write(directory.path().join("history"), lines.concat()).unwrap();
    for round in 0..2 {
        let events = EventsHandle::start(&config(directory.path()), journal()).unwrap();
        events.settle();
        let found = events.find(&Query::default(), None).unwrap().records;
        assert_eq!(found.len(), 3, "{round}: within its age, and once");
        let [udp, manual, reported] = &found[..] else { panic!() };
        assert_eq!(udp.name.as_deref(), Some("scanner.example"));
        assert_eq!((udp.network, udp.port.as_deref()), (Some(net("192.0.2.1/32")), Some("udp/7")));
        assert_eq!((udp.kind.as_str(), udp.effect), ("blocked", Some(Effect::Blocked)));
        assert_eq!((manual.network, manual.port.as_deref()), (Some(net("2001:db8::/64")), None));
        assert_eq!((reported.kind.as_str(), reported.effect), ("scan", Some(Effect::Reported)));
        events.stop();
    }
}

#[test]
fn a_database_that_is_damaged_deleted_or_not_wanted_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE);
    let start = |config: &Config| EventsHandle::start(config, journal()).unwrap();
    std::fs::write(&file, b"noise".repeat(1000)).unwrap();
    let events = start(&config(directory.path()));
    assert!(events.keep(about(0, "scan", "192.0.2.1/32")));
    // Of long ago by its own time: it goes when the store is looked through, not before.
    assert!(events.keep(Record::new(Timestamp::now(), "starting")));
    assert_eq!(kinds(&events).last().unwrap(), "starting");
    let aside = std::fs::read_dir(directory.path()).unwrap().flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains(".damaged-"));
    assert_eq!(aside.count(), 1);
    std::fs::remove_file(&file).unwrap();
    assert!(events.keep(Record::new(Timestamp::now(), "reloaded")));
    let is_there = || kinds(&events) == ["reloaded"];
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_there() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(is_there() && file.exists());
    let mut off = config(directory.path());
    off.events.keep = None;
    events.reconfigure(&off);
    assert!(events.keep(Record::new(Timestamp::now(), "lost")));
    assert_eq!(kinds(&events), Vec::<String>::new());
    assert!(!file.exists(), "what was stored is deleted");
    let on = Config {
        events: crate::config::Events { max: Size(1 << 20), ..Config::default().events },
        ..off
    };
    events.reconfigure(&on);
    // A record may overtake the configuration.
    let is_kept = || {
        assert!(events.keep(Record::new(Timestamp::now(), "shed")));
        kinds(&events).first().is_some_and(|kind| kind == "shed")
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_kept() {
        assert!(Instant::now() < deadline);
    }
    events.stop();
    // A newer portsentry's is left as it is.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[60..64].copy_from_slice(&9_u32.to_be_bytes());
    std::fs::write(&file, &bytes).unwrap();
    let events = start(&on);
    events.keep(Record::new(Timestamp::now(), "lost"));
    events.settle();
    assert!(events.find(&everything(), None).unwrap_err().contains("a newer portsentry"));
    assert!(events.figures().failing.is_some());
    events.stop();
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}
