//! Rules first, always: a set that cannot be filled, a foreign map, a refused reload or a great
//! many foreign networks keep neither rules nor blocks out.

use crate::support;

use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portsentry::nft::{Connection, Key};
use portsentry::ruleset::{SCHEMA, SetId};
use support::daemon::Daemon;
use support::scene::DEVICE;
use support::{done, eventually, missing, output_text, schedule};

const TOOLS: &[&str] = &["ip", "nft", "nmap", "ping"];
const SCANNER: &str = "10.67.1.2";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

macro_rules! scene {
    () => {{
        if missing(TOOLS).is_some() {
            return;
        }
        Scene::new()
    }};
}

/// The host and a scanner, and what another program does to the host's ruleset.
struct Scene(support::scene::Scene);

impl Deref for Scene {
    type Target = support::scene::Scene;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Scene {
    fn new() -> Self {
        Self(support::scene::Scene::new(&["10.67.1.1/16"], &["10.67.1.2/16"]))
    }

    fn nft(&self, words: &str) {
        self.host.run("nft", &words.split(' ').collect::<Vec<_>>());
    }

    /// Loads a file, which may be long.
    fn load(&self, text: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        self.nft(&format!("-f {}", file.path().display()));
    }

    /// The chains of the table without counters; empty when it is gone.
    fn chains(&self) -> String {
        let listing =
            self.host.output("nft", &["-s", "list", "table", "inet", "portsentry"], ANSWER_TIMEOUT);
        let text = String::from_utf8_lossy(&listing.stdout).into_owned();
        let mut chains: Vec<&str> = text
            .split("\n\t}\n")
            .map(str::trim_start)
            .filter(|block| block.contains("chain "))
            .collect();
        chains.sort_unstable();
        chains.join("\n")
    }

    /// How many elements a set has.
    fn count(&self, set: SetId) -> usize {
        self.host
            .enter(|| Connection::open(SCHEMA).unwrap().dump_set(set).map_or(0, |all| all.len()))
    }

    fn flush(&self, daemon: &Daemon<'_>) {
        let before = repairs(daemon);
        self.nft("flush ruleset");
        assert!(
            eventually(ANSWER_TIMEOUT, || repairs(daemon) > before),
            "not repaired\n{}",
            daemon.log()
        );
    }
}

fn repairs(daemon: &Daemon<'_>) -> u64 {
    daemon.json(&["status"])["repairs"]["count"].as_u64().unwrap()
}

/// The warnings of `status`.
fn warnings(daemon: &Daemon<'_>) -> String {
    daemon.json(&["status"])["warnings"].to_string()
}

/// The longest time in which the packet thread did not answer, asked again and again until
/// `is_over`; how often it answered.
fn longest_silence(daemon: &Daemon<'_>, is_over: &AtomicBool) -> (Duration, u32) {
    let (mut longest, mut answers) = (Duration::ZERO, 0);
    while !is_over.load(Ordering::Relaxed) || answers == 0 {
        let asked = Instant::now();
        // The one question that the packet thread alone answers: others read the kernel's sets, on
        // threads of their own.
        let answer = daemon.ctl(&["unblock", "192.0.2.250"]);
        assert_eq!(answer.status.code(), Some(1), "{}", output_text(&answer));
        longest = longest.max(asked.elapsed());
        answers += 1;
    }
    (longest, answers)
}

/// What a busy machine may add to an answer. The defects that these tests are about took 2 and 17
/// seconds of a release build, ten times as much of a debug build.
fn slack() -> Duration {
    if is_release() { Duration::from_millis(500) } else { Duration::from_secs(2) }
}

/// Whether the daemon under test is a release build.
fn is_release() -> bool {
    std::env::var_os("PORTSENTRY_PROGRAM").is_some()
}

/// Asks during `work`.
fn silence_during<T>(daemon: &Daemon<'_>, work: impl FnOnce() -> T) -> (Duration, u32, T) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| longest_silence(daemon, &is_over));
        // Over also when it panics: the scope waits for the other thread.
        let given = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        is_over.store(true, Ordering::Relaxed);
        let (longest, answers) = asks.join().unwrap();
        (longest, answers, given.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

// P14
#[test]
fn a_set_that_cannot_be_filled_keeps_neither_rules_nor_the_other_blocks_out() {
    let scene = scene!();
    let mut daemon = Daemon::start(&scene.host, "block: { total: 10 }");
    let old_chains = scene.chains();
    done(&daemon.ctl(&["block", SCANNER, "--for", "0"]));
    done(&daemon.ctl(&["block", "203.0.113.0/24"]));
    // 30 hosts as single addresses of the set of networks, which has no bound: they belong into the
    // set of hosts, which has room for 10.
    let hosts: Vec<String> = (0..30).map(|n| format!("198.51.100.{}", n * 2)).collect();
    scene.nft(&format!("add element inet portsentry blocked_nets4 {{ {} }}", hosts.join(", ")));
    daemon.wait_for_log("21 blocks could not be put into the kernel's sets");
    assert!(warnings(&daemon).contains("21 blocks are not in force"), "{}", warnings(&daemon));
    let look = |daemon: &Daemon<'_>, when: &str, chains: &str| {
        assert_eq!(scene.chains(), chains, "{when}\n{}", daemon.log());
        // In force is what the set has room for, and what is shown as blocked is in force. The
        // network waits for no host that is tried again.
        assert!(
            eventually(ANSWER_TIMEOUT, || scene.count(SetId::Blocked4) == 10),
            "{when}: {}\n{}",
            scene.count(SetId::Blocked4),
            daemon.log()
        );
        let has_network = || daemon.blocked().iter().any(|row| row == "203.0.113.0/24");
        assert!(
            eventually(Duration::from_secs(20), has_network),
            "{when}: {:?}\n{}",
            daemon.blocked(),
            daemon.log()
        );
        assert_eq!(daemon.blocked().len(), 11, "{when}: {:?}\n{}", daemon.blocked(), daemon.log());
    };
    look(&daemon, "at first", &old_chains);
    let reported = daemon.log().matches("could not be put into the kernel's sets").count();
    assert_eq!(reported, 1, "reported once, not with each attempt");
    // After the attempts of 1, 3 and 7 seconds the next one is far.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(
        daemon.log().matches("could not be put into the kernel's sets").count(),
        1,
        "{}",
        daemon.log()
    );
    // The table is lost: the rules are back although not all blocks fit.
    scene.flush(&daemon);
    look(&daemon, "after a flush", &old_chains);
    assert!(
        eventually(ANSWER_TIMEOUT, || warnings(&daemon).contains("21 blocks are not in force")),
        "{}\n{}",
        warnings(&daemon),
        daemon.log()
    );
    // A reload is in force as a whole, with new sets, though not all blocks fit.
    daemon.write_configuration("block: { total: 10, timeout: 3h }\nclosed_ports: answer");
    done(&daemon.ctl(&["reload"]));
    let chains = scene.chains();
    assert_ne!(chains, old_chains);
    look(&daemon, "after a reload", &chains);
    scene.flush(&daemon);
    look(&daemon, "after a flush that follows a reload", &chains);
    // Where there is room again the others follow.
    for host in &hosts[..25] {
        done(&daemon.ctl(&["unblock", host]));
    }
    let is_complete = || {
        daemon.blocked().len() == 7
            && scene.count(SetId::Blocked4) == 6
            && !warnings(&daemon).contains("not in force")
    };
    assert!(
        eventually(Duration::from_secs(70), is_complete),
        "{:?} {}\n{}",
        daemon.blocked(),
        warnings(&daemon),
        daemon.log()
    );
    daemon.wait_for_log("all blocks are in the kernel's sets again");
    assert!(!scene.reaches(), "{}", daemon.log());
    daemon.stop();
    daemon.restart("block: { total: 10 }");
    assert_eq!(daemon.blocked().len(), 7, "{}", daemon.log());
}

// P14
#[test]
fn a_foreign_verdict_map_keeps_neither_a_repair_nor_a_restart_back() {
    let scene = scene!();
    let foreign = "table inet portsentry {\nchain theirs { accept; }\nmap m { type ipv4_addr : verdict; elements = { 10.9.9.9 : jump theirs }; }\n\
                   chain gate { ip saddr vmap @m; }\n}\n";
    for yaml in ["", "own_table: false"] {
        let mut daemon = Daemon::start(&scene.host, yaml);
        let chains = scene.chains();
        done(&daemon.ctl(&["block", SCANNER, "--for", "0"]));
        done(&daemon.ctl(&["block", "203.0.113.0/24"]));
        let before = repairs(&daemon);
        let begun = Instant::now();
        scene.load(foreign);
        assert!(
            eventually(ANSWER_TIMEOUT, || repairs(&daemon) > before && scene.chains() == chains),
            "{yaml}\n{}\n{}",
            scene.chains(),
            daemon.log()
        );
        println!("{yaml:?}: repaired after {:?}", begun.elapsed());
        assert_eq!(daemon.blocked().len(), 2, "{yaml}\n{}", daemon.log());
        assert!(!scene.reaches());
        daemon.stop();
        scene.load(foreign);
        assert_ne!(scene.chains(), chains);
        daemon.restart(yaml);
        assert_eq!(scene.chains(), chains, "{yaml}\n{}", daemon.log());
        assert_eq!(daemon.blocked().len(), 2, "{yaml}\n{}", daemon.log());
        assert!(!scene.reaches());
        assert!(!daemon.log().contains("cannot be repaired"), "{}", daemon.log());
        done(&daemon.ctl(&["unblock", "--all"]));
        daemon.stop();
    }
}

// P15
#[test]
fn a_reload_with_a_bound_below_the_blocks_is_refused_and_changes_nothing() {
    let scene = scene!();
    let old = "block: { timeout: 2h }";
    let mut daemon = Daemon::start(&scene.host, old);
    let hosts: Vec<String> = (1..60).map(|n| format!("198.51.100.{n}")).collect();
    scene.nft(&format!("add element inet portsentry blocked4 {{ {} }}", hosts.join(", ")));
    done(&daemon.ctl(&["block", SCANNER, "--for", "0"]));
    assert!(eventually(ANSWER_TIMEOUT, || daemon.blocked().len() == 60), "{}", daemon.log());
    let before = daemon.log().len();
    let small = "block: { timeout: 3h, total: 10 }\nclosed_ports: answer";
    daemon.write_configuration(small);
    let rules = done(&daemon.ctl(&["rules"]));
    let chains = scene.chains();
    for _ in 0..2 {
        let refused = daemon.ctl(&["reload"]);
        assert_eq!(refused.status.code(), Some(78), "{}", output_text(&refused));
        let text = output_text(&refused);
        assert!(text.contains("block.total is 10, and 60 blocks are in force"), "{text}");
        assert!(
            text.contains("set it to 60 or more") && text.contains("unblock"),
            "the remedy: {text}"
        );
    }
    assert!(daemon.log()[before..].contains("block.total is 10"), "{}", daemon.log());
    let look = |when: &str| {
        assert_eq!(daemon.blocked().len(), 60, "{when}\n{}", daemon.log());
        assert_eq!(scene.count(SetId::Blocked4), 60, "{when}\n{}", daemon.log());
        assert!(!scene.reaches(), "{when}");
        assert_eq!(scene.chains(), chains, "{when}");
    };
    look("at once");
    assert!(!daemon.log()[before..].contains("is no longer blocked"), "{}", daemon.log());
    scene.flush(&daemon);
    look("after a flush");
    // The old configuration is the one in force, for every thread.
    assert_eq!(done(&daemon.ctl(&["rules"])), rules);
    done(&daemon.ctl(&["block", "203.0.113.9"]));
    let row = daemon
        .json(&["list"])
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["address"] == "203.0.113.9")
        .cloned()
        .unwrap();
    assert!(row["expires_in"].as_u64().is_some_and(|left| (7100..=7200).contains(&left)), "{row}");
    daemon.write_configuration(old);
    let again = done(&daemon.ctl(&["reload"]));
    assert!(again.contains("nothing has changed"), "{again}");
    // What can be refused at a reload cannot at a start: as many as fit stay, the others are lifted
    // with a line each.
    let before = daemon.log().len();
    daemon.stop();
    daemon.restart(small);
    let log = daemon.log()[before..].to_owned();
    assert_eq!((daemon.blocked().len(), scene.count(SetId::Blocked4)), (10, 10), "{log}");
    // The journal bounds the lines of a second; the sum says how many there were.
    assert!(log.matches("is no longer blocked: block.total allows no more").count() >= 20, "{log}");
    assert!(
        log.contains(
            "51 blocks that were in force or stored are lifted: block.total allows no more"
        ),
        "{log}"
    );
    assert!(
        log.contains("10 blocks found in the kernel, kept in force") && !log.contains("ipv6.first"),
        "{log}"
    );
    scene.flush(&daemon);
    assert_eq!(
        (daemon.blocked().len(), scene.count(SetId::Blocked4)),
        (10, 10),
        "{}",
        daemon.log()
    );
}

/// How long the kernel lets these hosts go on with a scan: from the first probe to the element, the
/// median.
fn time_to_block(scene: &Scene, daemon: &Daemon<'_>, last: std::ops::Range<u8>) -> Vec<Duration> {
    let mut times: Vec<Duration> = last
        .map(|last| {
            let from = format!("10.67.2.{last}");
            scene.scanner.run("ip", &["addr", "add", &format!("{from}/16"), "dev", DEVICE]);
            let key = Key::V4(from.parse().unwrap());
            let is_over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let watch = scope.spawn(|| {
                    scene.host.enter(|| {
                        let mut connection = Connection::open(SCHEMA).unwrap();
                        let begun = Instant::now();
                        while !is_over.load(Ordering::Relaxed) {
                            if connection.get_element(SetId::Unproven4, key).unwrap().is_some() {
                                return begun.elapsed();
                            }
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        panic!("{from} is not blocked\n{}", daemon.log());
                    })
                });
                scene.scan_from(&from, &["-sS", "-p1-20", &scene.target]);
                eventually(ANSWER_TIMEOUT, || watch.is_finished());
                is_over.store(true, Ordering::Relaxed);
                watch.join().unwrap()
            })
        })
        .collect();
    times.sort_unstable();
    times
}

#[test]
fn a_great_many_foreign_networks_delay_neither_a_block_nor_an_answer() {
    let scene = scene!();
    schedule::alone();
    // The release build, where its speed counts, takes five times as many.
    let count: u32 = if is_release() { 100_000 } else { 20_000 };
    let daemon = Daemon::start(&scene.host, "block: { unproven: { action: block } }");
    let (quiet, _, before) = silence_during(&daemon, || time_to_block(&scene, &daemon, 10..15));
    // Every other /30 from 100.64.0.0 on: none touches another.
    let networks: Vec<String> =
        (0..count).map(|n| format!("{}/30", Ipv4Addr::from(0x6440_0000 + n * 8))).collect();
    let text = format!("add element inet portsentry blocked_nets4 {{ {} }}\n", networks.join(", "));
    let begun = Instant::now();
    let adopted = format!("{count} added to the blocked sets, adopted as blocked by hand");
    let is_adopted = || daemon.log().contains(&adopted);
    let (silence, answers, times) = silence_during(&daemon, || {
        std::thread::scope(|scope| {
            let loads = scope.spawn(|| {
                scene.load(&text);
                begun.elapsed()
            });
            let mut times = Vec::new();
            let mut last = 100;
            while !(loads.is_finished() && is_adopted()) {
                assert!(
                    begun.elapsed() < Duration::from_secs(120),
                    "not adopted: {}\n{}",
                    daemon.json(&["status"])["blocked"],
                    daemon.log()
                );
                times.extend(time_to_block(&scene, &daemon, last..last + 1));
                last = last.saturating_add(1).min(240);
            }
            (loads.join().unwrap(), times)
        })
    });
    let (loaded, mut times) = times;
    times.sort_unstable();
    println!(
        "{count} foreign networks, loaded in {loaded:?}, adopted after {:?}; longest silence {silence:?} of {answers} answers, without them {quiet:?}; \
         blocks after {times:?}, without them {before:?}",
        begun.elapsed()
    );
    assert!(silence < quiet * 3 + slack(), "{silence:?}, otherwise {quiet:?}");
    assert!(
        times.last().unwrap() < &(*before.last().unwrap() * 3 + slack()),
        "{times:?}, otherwise {before:?}"
    );
    // The networks and the scanners that are blocked still.
    assert!(daemon.json(&["status"])["blocked"].as_u64().unwrap() >= u64::from(count));
    // One of them is lifted, the others stay.
    let in_kernel = scene.count(SetId::BlockedNets4);
    done(&daemon.ctl(&["unblock", &networks[count as usize / 2]]));
    assert_eq!(scene.count(SetId::BlockedNets4), in_kernel - 1);
    assert!(!daemon.log().contains("the kernel's queue overflowed"), "{}", daemon.log());
}

#[test]
fn an_address_change_beside_58000_allow_entries_delays_no_answer() {
    let scene = scene!();
    schedule::alone();
    let entries: Vec<String> =
        (0..58_000u32).map(|n| Ipv4Addr::from(0x6440_0000 + n * 2).to_string()).collect();
    let daemon = Daemon::start(&scene.host, &format!("allow: [{}]", entries.join(", ")));
    assert!(
        eventually(Duration::from_secs(60), || scene.count(SetId::Allowed4) >= 58_000),
        "{}\n",
        scene.count(SetId::Allowed4)
    );
    let (quiet, _, ()) = silence_during(&daemon, || std::thread::sleep(Duration::from_secs(3)));
    let is_exempt = |address: &str| {
        let key = Key::V4(address.parse().unwrap());
        scene.host.enter(|| {
            Connection::open(SCHEMA).unwrap().get_element(SetId::Allowed4, key).unwrap().is_some()
        })
    };
    let (silence, answers, ()) = silence_during(&daemon, || {
        for last in 1..=3 {
            let own = format!("192.0.2.{last}");
            assert!(!is_exempt(&own));
            scene.host.run("ip", &["addr", "add", &format!("{own}/32"), "dev", DEVICE]);
            assert!(eventually(ANSWER_TIMEOUT, || is_exempt(&own)), "{own} is not exempt");
        }
        std::thread::sleep(Duration::from_secs(1));
    });
    println!(
        "longest silence {silence:?} of {answers} answers with three changes of addresses, without {quiet:?}"
    );
    assert!(silence < quiet * 2 + slack(), "{silence:?}, otherwise {quiet:?}");
}
