mod copies;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use rusqlite::types::{Value, ValueRef};

use super::*;
use crate::engine::{LongTermBits, TouchView};
use crate::probe::{ScanKind, Transport};
use crate::sys::files;

fn mark(boot: &str, seconds: u64) -> Mark {
    Mark {
        boot: boot.to_owned(),
        wall: 1_700_000_000_000 + seconds * 1000,
        clock: MonoTime::from_millis(seconds * 1000),
    }
}

fn at(seconds: u64) -> MonoTime {
    MonoTime::from_millis(seconds * 1000)
}

fn host(last: u8) -> Source {
    Source::of(std::net::IpAddr::from([192, 0, 2, last]), 64)
}

fn block(source: Source, since: u64, expires: Option<u64>) -> Block {
    let port = Some(Port { transport: Transport::Tcp, number: 23 });
    let reason = Reason::Scan {
        scan: ScanKind::Xmas,
        proven: true,
        detail: "3 ports in 0.2s: tcp/1 tcp/2 tcp/23".into(),
    };
    Block { source, exempt: Vec::new(), since: at(since), expires: expires.map(at), port, reason }
}

fn content() -> Content {
    let source = Source::of("2001:db8:1:2::".parse().unwrap(), 64);
    let touch = |number: u16, age: u64| TouchView {
        port: Port { transport: Transport::Udp, number },
        scan: ScanKind::Udp,
        ambiguous: number.is_multiple_of(2),
        at: at(100 - age),
    };
    let evidence = Evidence {
        source,
        first: at(5),
        last: at(100),
        last_reported: Some(at(9)),
        probes: 7,
        ports: vec![touch(53, 0), touch(4, 90)],
        long: LongTermBits { current: 0x8000_0001, previous: 6 },
    };
    Content {
        mark: mark("a", 100),
        blocks: vec![
            Block {
                exempt: vec![
                    "198.51.100.7/32".parse().unwrap(),
                    "198.51.100.128/25".parse().unwrap(),
                ],
                ..block(Source::from("198.51.100.0/24".parse::<IpNet>().unwrap()), 50, None)
            },
            block(host(1), 60, Some(3660)),
            Block {
                reason: Reason::Manual("because".into()),
                port: None,
                ..block(source, 70, Some(170))
            },
        ],
        offenders: vec![Offender { source, times: 3, last: at(70) }],
        evidence: vec![evidence],
        memory: Memory {
            admins: [("192.0.2.9".parse().unwrap(), at(95))].into(),
            services: [(Port { transport: Transport::Tcp, number: 25 }, at(90))].into(),
        },
    }
}

fn sorted(mut content: Content) -> Content {
    content.blocks.sort_by_key(|block| block.source);
    content
}

fn opened(directory: &Path) -> (Database, Content) {
    let opened = open(directory, &mark("z", 5));
    assert_eq!(opened.warnings, Vec::<String>::new());
    (opened.database.unwrap(), opened.content.unwrap())
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn written_content_is_read_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let (mut database, found) = opened(directory.path());
    assert_eq!((found.blocks.len(), found.mark.boot.as_str()), (0, ""));
    database.replace(&content()).unwrap();
    assert_eq!(database.rows().unwrap(), Rows { blocks: 3, offenders: 1, evidence: 1 });
    drop(database);
    let (mut database, found) = opened(directory.path());
    assert_eq!(sorted(found), sorted(content()));
    let changes = [
        Change::Ended(host(1)),
        Change::Block(block(host(2), 101, None)),
        Change::Block(block(host(2), 102, Some(200))),
        Change::Forgiven(content().evidence[0].source),
        Change::Ended(host(77)),
    ];
    database.apply(&mark("a", 103), &changes).unwrap();
    drop(database);
    let (_, found) = opened(directory.path());
    let wanted =
        [content().blocks[0].clone(), content().blocks[2].clone(), block(host(2), 102, Some(200))];
    let wanted =
        Content { mark: mark("a", 103), blocks: wanted.into(), evidence: Vec::new(), ..content() };
    assert_eq!(sorted(found), sorted(wanted));
}

// P25
#[test]
fn the_file_and_its_log_are_private() {
    let directory = tempfile::tempdir().unwrap();
    let (mut database, _) = opened(directory.path());
    database.replace(&content()).unwrap();
    assert_eq!(names(directory.path()), [FILE, &format!("{FILE}-wal")]);
    for name in names(directory.path()) {
        assert_eq!(
            fs::metadata(directory.path().join(&name)).unwrap().permissions().mode() & 0o777,
            0o600,
            "{name}"
        );
    }
    drop(database);
    // Wider permissions are taken away again.
    fs::set_permissions(directory.path().join(FILE), fs::Permissions::from_mode(0o664)).unwrap();
    let _ = opened(directory.path());
    assert_eq!(
        fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

// P25
#[test]
fn a_link_or_another_users_file_is_not_opened() {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = elsewhere.path().join("x");
    fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, directory.path().join(FILE)).unwrap();
    let refused = open(directory.path(), &mark("z", 5));
    assert!(
        matches!(refused.database, Err(Error { fault: Fault::NotOurs("a symbolic link"), .. })),
        "{refused:?}"
    );
    fs::remove_file(directory.path().join(FILE)).unwrap();
    fs::hard_link(&target, directory.path().join(FILE)).unwrap();
    assert!(matches!(
        open(directory.path(), &mark("z", 5)).database,
        Err(Error { fault: Fault::NotOurs(_), .. })
    ));
    assert_eq!(fs::read(&target).unwrap(), b"");
    // A link to the directory itself is allowed: systemd creates such (DynamicUser).
    let (real, link) = (tempfile::tempdir().unwrap(), elsewhere.path().join("state"));
    std::os::unix::fs::symlink(real.path(), &link).unwrap();
    let _ = opened(&link);
}

#[test]
fn a_database_of_a_newer_version_is_left_alone_to_the_byte() {
    let directory = tempfile::tempdir().unwrap();
    let (mut database, _) = opened(directory.path());
    database.replace(&content()).unwrap();
    database.run("PRAGMA user_version = 3").unwrap();
    assert!(fs::metadata(directory.path().join(format!("{FILE}-wal"))).unwrap().len() > 0);
    drop(database);
    let before = fs::read(directory.path().join(FILE)).unwrap();
    let refused = open(directory.path(), &mark("z", 5));
    assert!(
        matches!(&refused.database, Err(error @ Error { fault: Fault::Newer(3), .. }) if error.is_others() && !error.is_damage()),
        "{refused:?}"
    );
    assert!(refused.content.is_none());
    assert_eq!(
        (names(directory.path()), fs::read(directory.path().join(FILE)).unwrap()),
        (vec![FILE.to_owned()], before)
    );
}

#[test]
fn a_database_of_version_1_is_upgraded_with_all_that_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE);
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let version_1 = Connection::open(&file).unwrap();
    version_1
        .execute_batch(
            "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA application_id = 1347642734; PRAGMA user_version = 1;
             CREATE TABLE mark (one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT NOT NULL, wall INTEGER NOT NULL, clock INTEGER NOT NULL) STRICT;
             CREATE TABLE blocks (subject TEXT PRIMARY KEY, prefix INTEGER NOT NULL, since INTEGER NOT NULL, expires INTEGER, port TEXT,
                 reason TEXT NOT NULL, sum INTEGER NOT NULL) STRICT, WITHOUT ROWID;
             CREATE TABLE offenders (source TEXT PRIMARY KEY, prefix INTEGER NOT NULL, times INTEGER NOT NULL, last INTEGER NOT NULL,
                 sum INTEGER NOT NULL) STRICT, WITHOUT ROWID;
             CREATE TABLE evidence (source TEXT PRIMARY KEY, prefix INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, told INTEGER,
                 probes INTEGER NOT NULL, ports BLOB NOT NULL, sum INTEGER NOT NULL) STRICT, WITHOUT ROWID;
             INSERT INTO mark VALUES (1, 'a', 1700000100000, 100000);",
        )
        .unwrap();
    for (name, prefix) in [("2001:db8:1:2::", 56), ("192.0.2.1", 64), ("198.51.100.0/24", 64)] {
        let values = [
            Value::from(name.to_owned()),
            prefix.into(),
            50_000.into(),
            Value::Null,
            Value::Null,
            "by hand".to_owned().into(),
        ];
        let sum = rows::sum(values.iter().map(ValueRef::from));
        version_1
            .execute(
                "INSERT INTO blocks VALUES (?, ?, 50000, NULL, NULL, 'by hand', ?)",
                (name, prefix, sum),
            )
            .unwrap();
    }
    drop(version_1);
    let wanted = ["192.0.2.1", "198.51.100.0/24", "2001:db8:1::/56"];
    for _ in 0..2 {
        let (mut database, found) = opened(directory.path());
        assert_eq!(
            sorted(found.clone())
                .blocks
                .iter()
                .map(|block| block.source.to_string())
                .collect::<Vec<_>>(),
            wanted
        );
        // An equal list changes nothing and leaves no second row for a block.
        database.set_blocks(&found.mark, [Some(found.blocks.clone())]).unwrap();
        assert_eq!(database.rows().unwrap().blocks, 3);
    }
}

#[test]
fn another_programs_database_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    Connection::open(directory.path().join(FILE))
        .unwrap()
        .execute_batch("CREATE TABLE x (y); PRAGMA user_version = 1")
        .unwrap();
    let before = fs::read(directory.path().join(FILE)).unwrap();
    assert!(matches!(
        open(directory.path(), &mark("z", 5)).database,
        Err(Error { fault: Fault::NotOurs("another program's database"), .. })
    ));
    assert_eq!(fs::read(directory.path().join(FILE)).unwrap(), before);
}

#[test]
fn an_invalid_file_is_set_aside_and_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let noise: Vec<u8> =
        (0..40_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(directory.path().join(FILE), &noise).unwrap();
    let now = open(directory.path(), &mark("z", 5));
    assert_eq!((now.warnings.len(), now.content.unwrap().blocks.len()), (1, 0));
    assert!(now.warnings[0].contains(".damaged-1700000005"), "{:?}", now.warnings);
    now.database.unwrap().replace(&content()).unwrap();
    assert_eq!(
        fs::read(directory.path().join(format!("{FILE}.damaged-1700000005"))).unwrap(),
        noise
    );
    let _ = opened(directory.path());
}

// P25
#[test]
fn a_row_with_a_wrong_sum_is_ignored_and_the_others_stay() {
    let directory = tempfile::tempdir().unwrap();
    let (mut database, _) = opened(directory.path());
    database.replace(&content()).unwrap();
    database.run("UPDATE blocks SET subject = '192.0.2.9' WHERE subject = '192.0.2.1'").unwrap();
    drop(database);
    let now = open(directory.path(), &mark("z", 5));
    assert_eq!(now.warnings.len(), 1, "{:?}", now.warnings);
    let found = sorted(now.content.unwrap());
    assert_eq!(
        found.blocks.iter().map(|block| block.source).collect::<Vec<_>>(),
        [content().blocks[0].source, content().blocks[2].source]
    );
    drop(now.database);
    assert_eq!(sorted(opened(directory.path()).1), found, "the new one has what was whole");
}

#[test]
fn a_file_cut_short_anywhere_never_stops_the_start_and_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (mut database, _) = opened(directory.path());
    database.replace(&content()).unwrap();
    drop(database);
    let whole = fs::read(directory.path().join(FILE)).unwrap();
    for length in (1..whole.len()).step_by(701) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), &whole[..length]).unwrap();
        let now = open(directory.path(), &mark("z", 5));
        assert!(now.database.is_ok() && now.warnings.len() == 1, "{length}: {now:?}");
        assert_eq!(
            fs::read(directory.path().join(format!("{FILE}.damaged-1700000005"))).unwrap()[..],
            whole[..length]
        );
    }
}

#[test]
fn a_database_that_is_deleted_or_replaced_takes_no_write() {
    for log in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let (mut database, _) = opened(directory.path());
        database.replace(&content()).unwrap();
        database.replace(&content()).unwrap();
        let log_path = directory.path().join(format!("{FILE}-wal"));
        let path = if log { log_path.clone() } else { directory.path().join(FILE) };
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another program's").unwrap();
        let error = database.apply(&mark("a", 103), &[]).unwrap_err();
        assert!(error.is_gone(), "{error:?}");
        drop(database);
        // Closing touches neither file.
        assert_eq!(fs::read(&path).unwrap(), b"another program's");
        assert!(log_path.exists());
    }
}

// P25
#[test]
fn a_directory_that_others_can_write_is_not_used() {
    if !files::is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let refused = open(directory.path(), &mark("z", 5));
    assert!(
        matches!(&refused.database, Err(error @ Error { fault: Fault::Distrusted(..), .. }) if !error.is_of_disk()),
        "{refused:?}"
    );
    assert_eq!(names(directory.path()), Vec::<String>::new());
}

#[test]
fn the_number_of_set_aside_files_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    for seconds in 0..20u64 {
        fs::write(directory.path().join(FILE), "no database").unwrap();
        let now = open(directory.path(), &mark("z", seconds));
        assert_eq!(now.database.is_ok(), seconds < 8, "{seconds}: {now:?}");
    }
    assert_eq!(names(directory.path()).len(), 9);
}

#[test]
fn a_read_only_store_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (mut database, _) = opened(directory.path());
    database.replace(&content()).unwrap();
    drop(database);
    let Ok(path) = fs::canonicalize(directory.path()).map(|path| path.join(FILE)) else { panic!() };
    assert_eq!(open::read_only(&path).map(sorted).unwrap(), sorted(content()));
    assert_eq!(names(directory.path()), [FILE]);
}

#[test]
fn the_list_of_all_blocks_writes_only_differences() {
    let directory = tempfile::tempdir().unwrap();
    let (mut database, _) = opened(directory.path());
    database.replace(&content()).unwrap();
    let mut wanted = content().blocks;
    // The kernel's timer differs by a moment: no change.
    wanted[1].expires = Some(at(3661));
    wanted[2].expires = Some(at(999));
    wanted.remove(0);
    wanted.push(block(host(9), 100, None));
    // Of a list that breaks off nothing is written.
    let cut = [Some(vec![block(host(8), 100, None)]), None];
    let error = database.set_blocks(&mark("a", 199), cut.clone()).unwrap_err();
    assert!(error.is_unlisted(), "{error:?}");
    assert!(database.replace_with(&Content::default(), cut).unwrap_err().is_unlisted());
    let (first, last) = wanted.split_at(1);
    database.set_blocks(&mark("a", 200), [Some(first.to_vec()), Some(last.to_vec())]).unwrap();
    drop(database);
    wanted[0].expires = Some(at(3660));
    let (_, found) = opened(directory.path());
    assert_eq!(sorted(found).blocks, sorted(Content { blocks: wanted, ..content() }).blocks);
}

// P25
#[test]
fn rows_are_bounded_and_expired_ones_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut database, _) = opened(directory.path());
    let known = |n: u32| {
        let source = Source::of(std::net::Ipv4Addr::from(n).into(), 64);
        let evidence = Evidence {
            source,
            first: at(1),
            last: at(u64::from(n)),
            last_reported: None,
            probes: 1,
            ports: Vec::new(),
            long: LongTermBits::default(),
        };
        Change::Evidence(evidence)
    };
    let many: Vec<_> = (0..EVIDENCE_MAX as u32 + 500).map(known).collect();
    database.apply(&mark("a", 1), &many).unwrap();
    database.prune(&mark("a", 1), at(0), at(0)).unwrap();
    assert_eq!(database.rows().unwrap().evidence, EVIDENCE_MAX as u64);
    let full: i64 = database.ask("PRAGMA page_count").unwrap();
    database.prune(&mark("a", 2), at(u64::from(u32::MAX)), at(0)).unwrap();
    assert_eq!(database.rows().unwrap(), Rows::default());
    for _ in 0..20 {
        database.prune(&mark("a", 3), at(0), at(0)).unwrap();
    }
    let now: i64 = database.ask("PRAGMA page_count").unwrap();
    assert!(
        now < full && database.ask("PRAGMA freelist_count").unwrap() <= FREE_PAGES,
        "{full} pages, {now} afterwards"
    );
}

type Model = std::collections::BTreeMap<Source, Block>;

fn are_same(found: &Model, model: &Model) -> bool {
    found.len() == model.len()
        && found.values().zip(model.values()).all(|(found, wanted)| is_same(found, wanted))
}

#[derive(Debug, Clone)]
enum Step {
    Apply(Vec<(u8, Option<u16>)>),
    List(Vec<(u8, Option<u16>)>),
    /// The process is killed: data in SQLite's memory is lost, data given to the system stays.
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let changes = || proptest::collection::vec((0u8..6, proptest::option::of(0u16..500)), 0..6);
    let step = prop_oneof![4 => changes().prop_map(Step::Apply), 1 => changes().prop_map(Step::List), 2 => Just(Step::Kill)];
    proptest::collection::vec(step, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Every acknowledged write survives a kill at any point: the directory is copied as a kill
    /// would leave it.
    // P25
    #[test]
    fn acknowledged_changes_survive_a_kill(steps in steps()) {
        let mut directory = tempfile::tempdir().unwrap();
        let mut database = opened(directory.path()).0;
        let mut model = Model::new();
        let mut seconds = 0;
        for step in steps {
            seconds += 1;
            match step {
                Step::Apply(changes) => {
                    let changes: Vec<_> = changes.into_iter().map(|(last, end)| match end {
                        Some(end) => Change::Block(block(host(last), seconds, (end > 0).then_some(seconds + u64::from(end)))),
                        None => Change::Ended(host(last)),
                    }).collect();
                    database.apply(&mark("a", seconds), &changes).unwrap();
                    for change in changes {
                        match change {
                            Change::Block(block) => drop(model.insert(block.source, block)),
                            Change::Ended(source) => drop(model.remove(&source)),
                            _ => unreachable!(),
                        }
                    }
                }
                Step::List(list) => {
                    let list: Model = list.into_iter()
                        .map(|(last, end)| (host(last), block(host(last), seconds, end.map(|end| seconds + 10 + u64::from(end) * 10))))
                        .collect();
                    database.set_blocks(&mark("a", seconds), list.values().map(|block| Some(vec![block.clone()]))).unwrap();
                    model = list;
                }
                Step::Kill => {
                    let copy = tempfile::tempdir().unwrap();
                    for name in names(directory.path()) {
                        fs::copy(directory.path().join(&name), copy.path().join(&name)).unwrap();
                    }
                    drop(database);
                    directory = copy;
                    let (again, found) = opened(directory.path());
                    database = again;
                    let found: Model = found.blocks.into_iter().map(|block| (block.source, block)).collect();
                    prop_assert!(are_same(&found, &model), "{found:?} {model:?}");
                }
            }
        }
        drop(database);
        let found: Model = opened(directory.path()).1.blocks.into_iter().map(|block| (block.source, block)).collect();
        prop_assert!(are_same(&found, &model), "{found:?} {model:?}");
    }
}

// P25
#[test]
fn administrators_and_services_come_back_after_a_reboot() {
    let carried = content().carried(&Mark { boot: "b".to_owned(), ..mark("a", 4000) });
    let of = |seconds| mark("b", seconds).clock;
    // Seen five seconds before the last mark, and 3900 have passed since.
    assert_eq!(carried.memory.admins.values().copied().collect::<Vec<_>>(), [of(95)]);
    // However long the host was off, there are ten minutes for it to start.
    let long_off = content().carried(&Mark { boot: "b".to_owned(), ..mark("a", 1_000_000) });
    let age = of(1_000_000).since(*long_off.memory.services.values().next().unwrap());
    assert_eq!(age, crate::ruleset::SERVICE_MEMORY - Duration::from_secs(600));
    // Within a boot nothing changes.
    assert_eq!(content().carried(&mark("a", 4000)).memory, content().memory);
}

#[test]
fn database_of_an_earlier_version_gets_the_tables_of_the_memory() {
    let directory = tempfile::tempdir().unwrap();
    let (mut database, _) = opened(directory.path());
    database.replace(&content()).unwrap();
    database.run("DROP TABLE admins; DROP TABLE services").unwrap();
    drop(database);
    let (mut database, found) = opened(directory.path());
    assert_eq!((found.blocks.len(), found.memory), (3, Memory::default()));
    database.set_memory(&mark("a", 200), &content().memory).unwrap();
    drop(database);
    let (database, found) = opened(directory.path());
    assert_eq!((found.blocks.len(), found.memory), (3, content().memory));
    drop(database);
}

// P25
#[test]
fn administrator_whose_row_is_damaged_is_not_exempt() {
    let directory = tempfile::tempdir().unwrap();
    let (mut database, _) = opened(directory.path());
    database.replace(&content()).unwrap();
    database.run("UPDATE admins SET address = '192.0.2.8'").unwrap();
    drop(database);
    let found = open(directory.path(), &mark("z", 5));
    assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
    let memory = found.content.unwrap().memory;
    assert_eq!((memory.admins.len(), memory.services.len()), (0, 1));
}
