//! Blocks, offenders and evidence survive restarts, kills, reboots and power failures; a store that
//! cannot be used stops nothing.
//!
//! A reboot is simulated as the daemon sees it: the same state directory and a kernel without our
//! table, in a new network namespace or after the table was deleted; and with another boot id in
//! the stored mark, changed with SQLite itself.

mod unusable;

use crate::support;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portsentry::engine::{MonoTime, Offender, Reason, Source};
use portsentry::nft::{Connection, Element, Key};
use portsentry::ruleset::{SCHEMA, SetId};
use portsentry::store::{self, Block, Content, Mark};
use support::daemon::Daemon;
use support::scene::{DEVICE, Scene};
use support::{done, eventually, missing, run, schedule};

const TOOLS: &[&str] = &["ip", "nft", "nmap", "ping", "mount", "nsenter"];
const HOST: &str = "10.71.1.1";
const SCANNER: &str = "10.71.1.2";

/// How far the daemon's clock is ahead of the kernel's (`store::clock`).
const BEFORE_BOOT: u64 = 10 * 366 * 24 * 3600 * 1000;

fn scene() -> Scene {
    Scene::new(&["10.71.1.1/24"], &["10.71.1.2/24"])
}

fn drop_table(scene: &Scene) {
    // It may be gone already.
    scene.host.run("nft", &["add table inet portsentry; delete table inet portsentry"]);
}

fn kill(daemon: &mut Daemon<'_>) {
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
}

fn database(daemon: &Daemon<'_>) -> PathBuf {
    daemon.path(store::FILE)
}

fn left(daemon: &Daemon<'_>, address: &str) -> Option<u64> {
    daemon
        .json(&["list"])
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["address"] == address)
        .and_then(|row| row["expires_in"].as_u64())
}

fn mark(boot: &str) -> Mark {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Mark {
        boot: boot.to_owned(),
        wall: wall.as_millis() as u64,
        clock: MonoTime::from_millis(clock.tv_sec as u64 * 1000 + BEFORE_BOOT),
    }
}

/// Writes a store as a daemon would have left it this many milliseconds before a reboot, with
/// another clock.
fn write_store(
    directory: &std::path::Path,
    ago: u64,
    blocks: impl Fn(MonoTime) -> Vec<Block>,
    offenders: impl Fn(MonoTime) -> Vec<Offender>,
) {
    let now = mark("");
    let then = Mark {
        boot: "another-boot".to_owned(),
        wall: now.wall - ago,
        clock: MonoTime::from_millis(BEFORE_BOOT + 7_000_000),
    };
    let content = Content {
        blocks: blocks(then.clock),
        offenders: offenders(then.clock),
        mark: then,
        ..Content::default()
    };
    store::open(directory, &now).database.unwrap().replace(&content).unwrap();
}

fn manual(source: &str, now: MonoTime, since: u64, left: Option<u64>) -> Block {
    let source = match source.parse() {
        Ok(address) => Source::of(address, 64),
        Err(_) => Source::from(source.parse::<ipnet::IpNet>().unwrap()),
    };
    Block {
        source,
        exempt: Vec::new(),
        since: MonoTime::from_millis(now.millis() - since * 1000),
        expires: left.map(|left| MonoTime::from_millis(now.millis() + left * 1000)),
        port: None,
        reason: Reason::Manual("stored".into()),
    }
}

/// SYNs to the scanned host, one port after the other.
fn syns(scene: &Scene, from: &str, to: &str, ports: &str) {
    let family: &[&str] = if to.contains(':') { &["-6"] } else { &[] };
    let words = ["-sS", "-n", "-Pn", "--max-retries", "0", "-S", from, "-e", DEVICE, ports, to];
    scene.nmap(&[family, &words].concat());
}

#[test]
fn ports_before_a_kill_count_with_those_after_it() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new(&["10.71.1.1/24", "fd71::1/64"], &["10.71.1.2/24", "fd72::2/64"])
        .with_prefixes(&["fd72::/64"])
        .with_route_to("fd71::/64");
    for (host, scanner) in [(HOST, SCANNER), ("fd71::1", "fd72::2")] {
        let mut daemon = Daemon::start(&scene.host, "tcp: { advanced_ports: 1-1023 }");
        syns(&scene, scanner, host, "-p1,2");
        kill(&mut daemon);
        daemon.restart("tcp: { advanced_ports: 1-1023 }");
        assert!(daemon.blocked().is_empty(), "two ports of three");
        syns(&scene, scanner, host, "-p3,4");
        daemon.wait_for_block(scanner);
        done(&daemon.ctl(&["unblock", "--all"]));
    }
}

/// With a window of a second; `nmap -T0` waits 301 of them, and the window has 600.
#[test]
fn a_scan_slower_than_the_window_is_blocked_across_a_restart() {
    if missing(TOOLS).is_some() {
        return;
    }
    const YAML: &str = "scan_window: 1s\ntcp: { advanced_ports: 1-1023 }";
    let scene = Scene::new(&["10.71.1.1/24", "fd71::1/64"], &["10.71.1.2/24", "fd72::2/64"])
        .with_prefixes(&["fd72::/64"])
        .with_route_to("fd71::/64");
    let mut daemon = Daemon::start(&scene.host, YAML);
    let sources = [(HOST, SCANNER), ("fd71::1", "fd72::2")];
    for port in 1..=24 {
        for (host, scanner) in sources {
            syns(&scene, scanner, host, &format!("-p{}", port * 7));
        }
        if port == 11 {
            assert!(daemon.blocked().is_empty(), "eleven ports within the day");
            daemon.stop();
            daemon.restart(YAML);
        }
        std::thread::sleep(Duration::from_millis(1100));
    }
    for (_, scanner) in sources {
        daemon.wait_for_block(scanner);
    }
    assert!(daemon.log().contains("ports or more in a day"), "{}", daemon.log());
}

#[test]
fn a_start_waits_for_no_full_set_and_packets_for_no_piece_of_it() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "tcp: { advanced_ports: 1-1023 }");
    syns(&scene, SCANNER, HOST, "-p1,2");
    let before = Instant::now();
    kill(&mut daemon);
    let empty = {
        daemon.restart("tcp: { advanced_ports: 1-1023 }");
        before.elapsed()
    };
    kill(&mut daemon);
    scene.host.enter(|| {
        let mut connection = Connection::open(SCHEMA).unwrap();
        let keys: Vec<Key> = (0..200_000_u32)
            .map(|n| Key::Touch(Ipv4Addr::from(0x0b00_0000 + n).into(), 6, 443))
            .collect();
        for keys in keys.chunks(10_000) {
            let elements: Vec<Element<'_>> = keys
                .iter()
                .map(|key| Element {
                    timeout: Some(Duration::from_secs(600)),
                    ..Element::new(*key)
                })
                .collect();
            connection.add_elements(SetId::Seen4, &elements).unwrap();
        }
    });
    let before = Instant::now();
    daemon.restart("tcp: { advanced_ports: 1-1023 }");
    let full = before.elapsed();
    println!("a start with an empty set {empty:?}, with 200,000 elements {full:?}");
    assert!(full < empty + Duration::from_secs(2), "{empty:?} {full:?}");
    let sources = || daemon.json(&["status"])["sources"].as_u64().unwrap();
    assert!(eventually(Duration::from_secs(120), || sources() >= 131_000), "{}", sources());
    syns(&scene, SCANNER, HOST, "-p3,4");
    daemon.wait_for_block(SCANNER);
}

// P25, D3
#[test]
fn blocks_come_back_after_a_reboot_with_what_is_left_of_their_time() {
    if missing(TOOLS).is_some() {
        return;
    }
    let (first, second) = (scene(), scene());
    let mut daemon = Daemon::start(&first.host, "block: { unproven: { timeout: 1h } }");
    first.scan("-p1-50");
    daemon.wait_for_block(SCANNER);
    done(&daemon.ctl(&["block", "198.51.100.0/24", "--for", "2h", "--reason", "a network"]));
    done(&daemon.ctl(&["block", "2001:db8:5::/64"]));
    done(&daemon.ctl(&["block", "203.0.113.9"]));
    done(&daemon.ctl(&["unblock", "203.0.113.9"]));
    let before = daemon.json(&["list"]);
    // Power failure: no orderly end.
    kill(&mut daemon);
    daemon.namespace = &second.host;
    daemon.restart("block: { unproven: { timeout: 1h } }");
    assert!(!second.reaches(), "protected");
    let after = daemon.json(&["list"]);
    assert_eq!(after.as_array().unwrap().len(), 3, "{after}");
    for (row, old) in after.as_array().unwrap().iter().zip(before.as_array().unwrap()) {
        for key in ["address", "reason", "scan", "proven"] {
            assert_eq!(row[key], old[key], "{key} of {row}");
        }
        let (now, then) =
            (row["expires_in"].as_u64().unwrap(), old["expires_in"].as_u64().unwrap());
        assert!(now <= then && now + 30 >= then, "{row} {old}");
        let seconds = |row: &serde_json::Value| {
            row["since"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
        };
        assert!(seconds(row).abs_diff(seconds(old)) <= 2, "{row} {old}");
    }
    daemon.wait_for_log("3 blocks restored from the state store, in force again.");
    assert_eq!(daemon.json(&["status"])["store"]["state"], "ok");
    // And the next start reports and does nothing more.
    assert!(daemon.stop().success());
    daemon.restart("block: { unproven: { timeout: 1h } }");
    daemon.wait_for_log("3 blocks found in the kernel, kept in force.");
    assert_eq!(daemon.blocked().len(), 3);
}

// P25
#[test]
fn after_a_reboot_expired_and_protected_blocks_stay_away() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    daemon.stop();
    drop_table(&scene);
    write_store(
        daemon.directory.path(),
        100_000,
        |now| {
            vec![
                manual("192.0.2.1", now, 10, Some(90)),
                manual("192.0.2.2", now, 10, Some(1000)),
                manual("192.0.2.3", now, 10, None),
                // The host itself, a network around it, in which the host alone is exempt, and one
                // of the allow list.
                manual(HOST, now, 10, None),
                manual("10.71.0.0/16", now, 10, None),
                manual("192.0.2.4", now, 10, None),
                // Its end is later than its whole duration: a clock was wrong.
                manual(
                    "192.0.2.5",
                    MonoTime::from_millis(now.millis() - 5_000_000),
                    10,
                    Some(1_000_000),
                ),
            ]
        },
        |now| {
            vec![Offender { source: Source::of(SCANNER.parse().unwrap(), 64), times: 3, last: now }]
        },
    );
    daemon.restart("allow: [\"127.0.0.0/8\", \"192.0.2.4\"]");
    assert_eq!(daemon.blocked(), ["10.71.0.0/16", "192.0.2.2", "192.0.2.3", "192.0.2.5"]);
    let left = left(&daemon, "192.0.2.2").unwrap();
    assert!((850..=900).contains(&left), "{left}");
    daemon.wait_for_log(
        "2 blocks that were stored are not restored: what they name is never blocked now",
    );
    assert_eq!(
        daemon.json(&["show", SCANNER, "--json"]).get("blocks_before").cloned().unwrap_or_default(),
        3
    );
}

// P25
#[test]
fn elements_deleted_while_the_daemon_was_down_are_unblocks() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        done(&daemon.ctl(&["block", address]));
    }
    kill(&mut daemon);
    scene.host.run(
        "nft",
        &["delete", "element", "inet", "portsentry", "blocked4", "{ 192.0.2.2, 192.0.2.3 }"],
    );
    scene.host.run(
        "nft",
        &["add", "element", "inet", "portsentry", "blocked4", "{ 192.0.2.9 timeout 1h }"],
    );
    daemon.restart("");
    assert_eq!(daemon.blocked(), ["192.0.2.1", "192.0.2.9"]);
    daemon.wait_for_log("2 blocks were taken out of the kernel's sets while the daemon was down");
    // It stays so after the next reboot.
    let settled = || daemon.json(&["status"])["store"]["blocks"] == 2;
    assert!(eventually(Duration::from_secs(10), settled), "{}", daemon.json(&["status"]));
    kill(&mut daemon);
    drop_table(&scene);
    daemon.restart("");
    assert_eq!(daemon.blocked(), ["192.0.2.1", "192.0.2.9"]);
}

#[test]
fn changes_through_nft_hold_after_a_reboot() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    for address in ["192.0.2.1", "192.0.2.2", "203.0.113.0/24", "198.51.100.0/24"] {
        done(&daemon.ctl(&["block", address]));
    }
    let listed = |daemon: &Daemon<'_>| daemon.blocked().into_iter().collect::<BTreeSet<_>>();
    // One operation after the other, so that the count of stored rows shows which are stored.
    for (verb, elements, stored) in [
        ("delete", [("blocked4", "{ 192.0.2.2 }"), ("blocked_nets4", "{ 203.0.113.0/24 }")], 2),
        (
            "add",
            [("blocked4", "{ 192.0.2.9 timeout 1h }"), ("blocked_nets4", "{ 198.18.0.0/15 }")],
            4,
        ),
    ] {
        for (set, element) in elements {
            scene.host.run("nft", &[verb, "element", "inet", "portsentry", set, element]);
        }
        let is_stored = || daemon.json(&["status"])["store"]["blocks"] == stored;
        assert!(
            eventually(Duration::from_secs(10), is_stored),
            "{:?} {}",
            listed(&daemon),
            daemon.json(&["status"])
        );
    }
    let expected = ["192.0.2.1", "192.0.2.9", "198.18.0.0/15", "198.51.100.0/24"];
    assert_eq!(listed(&daemon), expected.map(str::to_owned).into());
    kill(&mut daemon);
    drop_table(&scene);
    daemon.restart("");
    assert_eq!(listed(&daemon), expected.map(str::to_owned).into());
    assert!(left(&daemon, "192.0.2.9").is_some_and(|left| left > 3000));
}

#[test]
fn restored_blocks_survive_a_flush() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    done(&daemon.ctl(&["block", SCANNER, "--for", "1h"]));
    done(&daemon.ctl(&["block", "203.0.113.0/24"]));
    kill(&mut daemon);
    drop_table(&scene);
    daemon.restart("");
    scene.host.run("nft", &["flush", "ruleset"]);
    assert!(
        eventually(Duration::from_secs(10), || daemon.json(&["status"])["repairs"]["count"] == 1),
        "{}",
        daemon.log()
    );
    assert!(!scene.reaches());
    assert_eq!(daemon.blocked(), [SCANNER, "203.0.113.0/24"]);
    assert!(left(&daemon, SCANNER).is_some_and(|left| (3500..=3600).contains(&left)));
    // A lost table is not an unblock: the store still has the blocks.
    kill(&mut daemon);
    drop_table(&scene);
    daemon.restart("");
    assert_eq!(daemon.blocked(), [SCANNER, "203.0.113.0/24"]);
}

#[test]
fn observe_mode_keeps_the_store_and_blocks_nothing() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    done(&daemon.ctl(&["block", SCANNER, "--for", "1h"]));
    assert!(!scene.reaches());
    kill(&mut daemon);
    drop_table(&scene);
    daemon.restart("mode: observe");
    assert!(scene.reaches());
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    kill(&mut daemon);
    drop_table(&scene);
    daemon.restart("mode: enforce");
    assert_eq!(daemon.blocked(), [SCANNER]);
    assert!(!scene.reaches());
}

#[test]
fn a_scan_that_a_reboot_interrupts_is_blocked_where_it_goes_on() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    scene.scan("-p1-2");
    assert!(
        eventually(Duration::from_secs(20), || daemon.json(&["status"])["sources"] == 1),
        "{}",
        daemon.log()
    );
    assert!(daemon.stop().success());
    drop_table(&scene);
    daemon.restart("");
    assert_eq!(daemon.json(&["show", SCANNER])["ports"].as_array().unwrap().len(), 2);
    assert_eq!(daemon.blocked(), Vec::<String>::new());
    scene.scan("-p3");
    daemon.wait_for_block(SCANNER);
}

#[test]
fn a_changed_prefix_length_keeps_the_blocked_prefixes() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "block: { ipv6_prefix: 64 }");
    done(&daemon.ctl(&["block", "2001:db8:5:6::/64"]));
    done(&daemon.ctl(&["block", "2001:db8:7:8::9"]));
    kill(&mut daemon);
    drop_table(&scene);
    for yaml in ["", "block: { ipv6_prefix: 56 }", "block: { ipv6_prefix: 64 }"] {
        daemon.restart(yaml);
        assert_eq!(daemon.blocked(), ["2001:db8:5:6::/64", "2001:db8:7:8::/64"], "{yaml}");
        kill(&mut daemon);
        drop_table(&scene);
    }
}

#[test]
fn as_many_as_block_total_come_back_and_those_with_the_longest_time() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    daemon.stop();
    drop_table(&scene);
    let blocks =
        |now| (1..=9).map(|n| manual(&format!("192.0.2.{n}"), now, 10, Some(1000 * n))).collect();
    write_store(daemon.directory.path(), 1000, blocks, |_| Vec::new());
    daemon.restart("block: { total: 3 }");
    assert_eq!(daemon.blocked(), ["192.0.2.7", "192.0.2.8", "192.0.2.9"]);
    daemon.wait_for_log(
        "6 blocks that were in force or stored are lifted: block.total allows no more",
    );
}

// P15
#[test]
fn an_element_without_comment_is_the_block_that_the_store_knows() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    done(&daemon.ctl(&["block", SCANNER, "--for", "1h", "--reason", "known"]));
    kill(&mut daemon);
    let nft = |words: &str| scene.host.run("nft", &[words]);
    nft(&format!(
        "delete element inet portsentry blocked4 {{ {SCANNER} }}; add element inet portsentry blocked4 {{ {SCANNER} timeout 1h expires 50m }}"
    ));
    daemon.restart("");
    let row = daemon.json(&["list"])[0].clone();
    assert_eq!(
        (&row["address"], &row["reason"]),
        (&SCANNER.into(), &"by hand: known".into()),
        "{row}"
    );
    assert!(row["expires_in"].as_u64().is_some_and(|left| (2900..=3000).contains(&left)), "{row}");
    assert!(!scene.reaches());
    assert!(daemon.json(&["list"])[0]["packets"].as_u64() >= Some(1));
}

/// What must hold after a round: the last acknowledged operation on each address; addresses without
/// one may be either.
#[derive(Default)]
struct Books {
    blocked: BTreeSet<String>,
    unsure: BTreeSet<String>,
}

// P25
#[test]
fn acknowledged_changes_hold_after_a_kill_at_any_moment() {
    if missing(TOOLS).is_some() {
        return;
    }
    let rounds: u32 =
        std::env::var("PORTSENTRY_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(20);
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    let books = Arc::new(Mutex::new(Books::default()));
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for round in 0..rounds {
        let over = AtomicBool::new(false);
        let pause = Duration::from_millis(next(900));
        let seeds = [next(1000), next(1000)];
        let with_table = next(2) == 0;
        std::thread::scope(|scope| {
            for (worker, seed) in seeds.into_iter().enumerate() {
                let (daemon, books, over) = (&daemon, Arc::clone(&books), &over);
                scope.spawn(move || {
                    for step in seed.. {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        // Each worker has its own addresses, so that the last operation is known.
                        let address = format!("198.51.{worker}.{}", step.wrapping_mul(7919) % 40);
                        let block = step % 3 != 0;
                        {
                            let mut books = books.lock().unwrap();
                            books.unsure.insert(address.clone());
                        }
                        let output =
                            daemon.ctl(&[if block { "block" } else { "unblock" }, &address]);
                        // 1: it was not blocked.
                        if matches!(output.status.code(), Some(0 | 1)) {
                            let mut books = books.lock().unwrap();
                            books.unsure.remove(&address);
                            if block {
                                books.blocked.insert(address)
                            } else {
                                books.blocked.remove(&address)
                            };
                        }
                    }
                });
            }
            std::thread::sleep(pause);
            if next(3) == 0 {
                let _ = daemon.ctl(&["reload"]);
            }
            // Repaired, or not yet repaired when it is killed.
            if next(3) == 0 {
                scene.host.run("nft", &["flush", "ruleset"]);
            }
            std::thread::sleep(Duration::from_millis(next(50)));
            let pid = daemon.child.id().to_string();
            run("kill", &["-9", &pid]);
            over.store(true, Ordering::Relaxed);
        });
        daemon.child.wait().unwrap();
        if !with_table {
            drop_table(&scene);
        }
        daemon.restart("");
        let mut books = books.lock().unwrap();
        let found: BTreeSet<String> = daemon.blocked().into_iter().collect();
        let kernel =
            scene.host.run("nft", &["-j", "list", "set", "inet", "portsentry", "blocked4"]);
        for address in &found {
            assert!(
                kernel.contains(&format!("\"{address}\"")),
                "round {round}: {address} is listed and not in the kernel"
            );
        }
        let lost: Vec<_> = books
            .blocked
            .iter()
            .filter(|address| !found.contains(*address) && !books.unsure.contains(*address))
            .collect();
        let back: Vec<_> = found
            .iter()
            .filter(|address| !books.blocked.contains(*address) && !books.unsure.contains(*address))
            .collect();
        assert!(
            lost.is_empty() && back.is_empty(),
            "round {round}, table {with_table}: lost {lost:?}, back {back:?}\n{}",
            daemon.log()
        );
        *books = Books { blocked: found, unsure: BTreeSet::new() };
    }
    println!("{rounds} rounds");
}

#[test]
fn a_long_list_matches_the_kernel_in_the_order_of_addresses() {
    if missing(TOOLS).is_some() {
        return;
    }
    // More than one dump lists.
    let count = 1500;
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    daemon.stop();
    drop_table(&scene);
    let address = |n: u32| Ipv4Addr::from(0x0b00_0000 + n * 77).to_string();
    let blocks = |now| {
        (0..count)
            .map(|n| manual(&address(n), now, 10, Some(100_000)))
            .chain([manual("203.0.113.0/24", now, 10, None)])
            .collect()
    };
    write_store(daemon.directory.path(), 1000, blocks, |_| Vec::new());
    daemon.restart("");
    scene.host.run(
        "nft",
        &["delete", "element", "inet", "portsentry", "blocked4", &format!("{{ {} }}", address(7))],
    );
    let expected: Vec<String> =
        (0..count).filter(|n| *n != 7).map(address).chain(["203.0.113.0/24".to_owned()]).collect();
    assert!(daemon.blocked() == expected);
    let rows = daemon.json(&["list"]);
    assert_eq!((&rows[0]["reason"], &rows[0]["packets"]), (&"by hand: stored".into(), &0.into()));
    assert!(
        rows[0]["expires_in"].as_u64().is_some_and(|left| (99_000..=100_000).contains(&left)),
        "{}",
        rows[0]
    );
}

#[test]
fn a_hundred_thousand_blocks_come_back_in_one_batch() {
    if missing(TOOLS).is_some() {
        return;
    }
    schedule::alone();
    let count: u32 = std::env::var("PORTSENTRY_BLOCKS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(100_000);
    let scene = scene();
    let mut daemon = Daemon::start(&scene.host, "");
    daemon.stop();
    drop_table(&scene);
    let address = |n: u32| Ipv4Addr::from(0x0b00_0000 + n).to_string();
    write_store(
        daemon.directory.path(),
        1000,
        |now| {
            let mut blocks: Vec<_> =
                (0..count).map(|n| manual(&address(n), now, 10, Some(100_000))).collect();
            blocks.push(manual(SCANNER, now, 10, Some(100_000)));
            blocks
        },
        |_| Vec::new(),
    );
    let began = Instant::now();
    daemon.restart("");
    let ours = began.elapsed();
    assert!(!scene.reaches());
    assert_eq!(daemon.json(&["status"])["blocked"], count + 1);
    daemon.wait_for_log(&format!("{} blocks restored from the state store", count + 1));
    // For comparison: nft, reading the same from a file.
    let saved = daemon.path("saved.nft");
    let elements: Vec<_> =
        (0..count).map(|n| format!("{} timeout 100000s expires 99999s", address(n))).collect();
    std::fs::write(
        &saved,
        format!("table inet other {{ set s {{ type ipv4_addr; flags timeout; elements = {{ {} }}\n }}\n }}\n", elements.join(",\n")),
    )
    .unwrap();
    let began = Instant::now();
    scene.host.run("nft", &["-f", saved.to_str().unwrap()]);
    println!(
        "{count} blocks: the daemon answers after {} ms with all in force; nft -f takes {} ms for the elements alone",
        ours.as_millis(),
        began.elapsed().as_millis()
    );
}
