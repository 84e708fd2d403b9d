//! What is measured of a contestant while it runs: one function a leg, each with a fresh source for
//! each run.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portsentry::engine::{MonoTime, Reason, Source};
use portsentry::store::{self, Block, Content, Mark};

use super::contestants::{Contestant, Running, Usage};
use super::customer::{self, Customer};
use super::scene::Scene;
use super::support::daemon::Daemon;
use super::support::eventually;
use super::support::flood::{Load, Wire as Veth};
use super::table::{Cell, median};
use super::target::{FORGED, HOST, SERVICES, order};
use super::wire::{Plan, Scan};

/// How long the block may take after a scan has ended. CrowdSec's needs some five seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Blocks to start with.
const MANY: u32 = 100_000;
/// Blocks that are looked up, evenly spread.
const SAMPLES: u32 = 256;

fn seconds(value: f64) -> String {
    match value {
        // Knocks come every millisecond at the most.
        ..0.001 => "< 1 ms".to_owned(),
        0.001..0.1 => format!("{:.0} ms", value * 1000.0),
        _ => format!("{value:.2} s"),
    }
}

fn patience(contestant: &Contestant) -> Duration {
    // What the kernel does alone it does at once or not at all.
    if contestant.is_a_program() { ANSWER_TIMEOUT } else { Duration::from_secs(2) }
}

/// The middle of several scans: ports answered, services given away; and the seconds until the
/// block.
fn scans(scans: &[Scan]) -> (Cell, Cell) {
    let runs = scans.len();
    let answered = median(&scans.iter().map(|scan| scan.answered).collect::<Vec<_>>()).unwrap_or(0);
    let open = median(&scans.iter().map(|scan| scan.open).collect::<Vec<_>>()).unwrap_or(0);
    let cut: Vec<f64> =
        scans.iter().filter_map(|scan| Some(scan.cut_after?.as_secs_f64())).collect();
    let block = match (median(&cut), runs - cut.len()) {
        (Some(middle), 0) => seconds(middle),
        (Some(middle), missed) => format!("{}, {missed} never", seconds(middle)),
        (None, _) => "never".to_owned(),
    };
    let never = if cut.is_empty() { ", never cut off" } else { "" };
    (Cell::Median(format!("{answered} / {open}{never}"), runs), Cell::Median(block, runs))
}

/// SYN scans at a fixed rate. Answered / given away; seconds to the block, which are exact where
/// the scan is accompanied by knocks.
pub fn at_rate(running: &Running<'_>, rate: u32, runs: usize, ports: usize) -> (Cell, Cell) {
    let knock = match rate {
        0..1000 => Some(Duration::from_millis(100)),
        1000 => Some(Duration::from_millis(1)),
        _ => None,
    };
    let one = |run: usize| {
        let order = order(run as u32 + 1);
        let source = running.scene.source();
        let plan = Plan {
            source,
            ports: &order[..ports],
            rate: Some(rate),
            knock,
            patience: patience(running.contestant),
            stop_when_cut: rate < 1000,
        };
        running.scene.scan(|wire| wire.scan(&plan))
    };
    scans(&(0..runs).map(one).collect::<Vec<_>>())
}

/// The first 15 seconds of `nmap -T5`: the longest that one takes that is not blocked is 2, and one
/// that is would go on for a minute.
pub fn nmap(running: &Running<'_>, runs: usize) -> Cell {
    let scene = running.scene;
    let one = |_| {
        let source = scene.source();
        let over = AtomicBool::new(false);
        let answers = std::thread::scope(|scope| {
            let ear = scope.spawn(|| {
                scene.scan(|wire| wire.overhear(source, || over.load(Ordering::Relaxed)))
            });
            let words = [
                "-n",
                "-Pn",
                "-sS",
                "-T5",
                "-p1-1000",
                "--host-timeout",
                "15s",
                "-e",
                "scan0",
                "-S",
                &source.to_string(),
                &HOST.to_string(),
            ];
            let output = scene.scanner.output("nmap", &words, Duration::from_secs(90));
            assert!(output.status.success(), "nmap: {}", String::from_utf8_lossy(&output.stderr));
            over.store(true, Ordering::Relaxed);
            ear.join().unwrap()
        });
        let plan = Plan {
            source,
            ports: &[],
            rate: None,
            knock: None,
            patience: patience(running.contestant),
            stop_when_cut: true,
        };
        let after = scene.scan(|wire| wire.scan(&plan));
        let scanned = answers.iter().filter(|(port, _)| **port <= 1000);
        Scan {
            answered: scanned.clone().count(),
            open: scanned.filter(|(_, open)| **open).count(),
            ..after
        }
    };
    scans(&(0..runs).map(one).collect::<Vec<_>>()).0
}

/// What two customers suffer while a scanner names the first as a decoy of its nmap, and
/// forges four SYNs in the name of the second: new connections that failed, and the longest stall
/// of an established one.
pub fn forged(running: &Running<'_>, lasting: Duration) -> [Customer; 2] {
    let scene = running.scene;
    let [decoy, innocent, scanner] = std::array::from_fn(|_| scene.source());
    let service = scene.host.enter(customer::service);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| customer::serve(&service, &over));
        let customers = [decoy, innocent].map(|source| {
            scope.spawn(move || scene.scanner.enter(|| customer::use_service(source, lasting)))
        });
        // Their established connections are first.
        std::thread::sleep(Duration::from_millis(200));
        scene.scan(|wire| wire.forge(innocent, &FORGED));
        let limit = format!("{}s", lasting.as_secs());
        let words = [
            "-n",
            "-Pn",
            "-sS",
            "-p1-1000",
            "--host-timeout",
            &limit,
            "-e",
            "scan0",
            "-S",
            &scanner.to_string(),
            "-D",
            &format!("{decoy},ME"),
            &HOST.to_string(),
        ];
        let output = scene.scanner.output("nmap", &words, Duration::from_secs(90));
        assert!(output.status.success(), "nmap: {}", String::from_utf8_lossy(&output.stderr));
        let found = customers.map(|customer| customer.join().unwrap());
        scene.host.enter(|| customer::end(&over));
        found
    })
}

/// A customer as a cell.
pub fn hurt(Customer { tried, failed, stalled }: &Customer) -> Cell {
    Cell::Median(format!("{failed} of {tried}, {}", seconds(stalled.as_secs_f64())), 1)
}

/// Memory, and processor time in ten seconds without a packet.
pub fn quiet(running: &Running<'_>, lasting: Duration) -> (Cell, Cell) {
    std::thread::sleep(lasting / 5);
    let before = running.usage();
    std::thread::sleep(lasting);
    let after = running.usage();
    (
        Cell::Median(format!("{:.1} MB", after.memory), 1),
        Cell::Median(format!("{:.2} s", after.cpu - before.cpu), 1),
    )
}

/// What the flood leg gives.
pub struct Flood {
    pub memory: Cell,
    pub cpu: Cell,
    pub caught: Cell,
}

/// 12,000 forged SYNs a second for seven seconds to the ports 1-1000; two seconds later a real
/// scanner asks 60 closed ports, 20 a second.
pub fn flood(running: &Running<'_>) -> Flood {
    let scene = running.scene;
    let source = scene.source();
    let closed: Vec<u16> =
        order(7).into_iter().filter(|port| !SERVICES.contains(port)).take(60).collect();
    let before = running.usage();
    let over = AtomicBool::new(false);
    let (peak, scan) = std::thread::scope(|scope| {
        let veth = Veth::between(&scene.scanner, &scene.host, "scan0");
        let load = Load::spoofed(HOST.into(), 1..=1000, 12_000, Duration::from_secs(7));
        let flood = scope.spawn(move || veth.flood(&load));
        let watch = scope.spawn(|| {
            let mut peak = 0.0_f64;
            while !over.load(Ordering::Relaxed) {
                peak = peak.max(running.usage().memory);
                std::thread::sleep(Duration::from_millis(250));
            }
            peak
        });
        std::thread::sleep(Duration::from_secs(2));
        let knock = Some(Duration::from_millis(50));
        let plan = Plan {
            source,
            ports: &closed,
            rate: Some(20),
            knock,
            patience: ANSWER_TIMEOUT,
            stop_when_cut: false,
        };
        let scan = scene.scan(|wire| wire.scan(&plan));
        flood.join().unwrap();
        std::thread::sleep(Duration::from_secs(5));
        over.store(true, Ordering::Relaxed);
        (watch.join().unwrap(), scan)
    });
    let after: Usage = running.usage();
    // In a flood packets are lost, knocks too: now that it is over the block must still be there.
    let plan = Plan {
        source,
        ports: &[],
        rate: None,
        knock: None,
        patience: Duration::from_secs(2),
        stop_when_cut: true,
    };
    let holds = scene.scan(|wire| wire.scan(&plan)).cut_after.is_some();
    let caught = match scan.cut_after {
        Some(after) if holds => format!("after {}", seconds(after.as_secs_f64())),
        Some(after) => format!("after {}, not to the end", seconds(after.as_secs_f64())),
        None => "no".to_owned(),
    };
    Flood {
        memory: Cell::Median(format!("{peak:.1} MB"), 1),
        cpu: Cell::Median(format!("{:.2} s", after.cpu - before.cpu), 1),
        caught: Cell::Median(caught, 1),
    }
}

/// How long a source that was blocked gets answers after `nft flush ruleset`, at whose end the
/// static rules are loaded again; `never` after `limit`.
pub fn flush(running: &Running<'_>, runs: usize, limit: Duration) -> Cell {
    let scene = running.scene;
    let mut open = Vec::new();
    for run in 0..runs {
        let (source, ports) = (scene.source(), order(run as u32 + 20));
        let scan = |ports: &[u16]| {
            let patience = patience(running.contestant);
            let plan = Plan {
                source,
                ports,
                rate: Some(1000),
                knock: Some(Duration::from_millis(1)),
                patience,
                stop_when_cut: true,
            };
            scene.scan(|wire| wire.scan(&plan)).cut_after.is_some()
        };
        if !scan(&ports) {
            return Cell::Without("never blocked".to_owned());
        }
        let knocks = std::thread::scope(|scope| {
            scope.spawn(|| {
                // Some knocks before, so that the first moment is seen.
                std::thread::sleep(Duration::from_millis(100));
                scene.host.run("nft", &["flush", "ruleset"]);
                running.load_static_rules();
            });
            let plan = Plan {
                source,
                ports: &[],
                rate: None,
                knock: Some(Duration::from_millis(1)),
                patience: limit,
                stop_when_cut: true,
            };
            scene.scan(|wire| wire.scan(&plan))
        });
        if knocks.cut_after.is_none() {
            let again = if scan(&order(run as u32 + 40)) {
                "new scan: blocked"
            } else {
                "new scan: not blocked"
            };
            return Cell::Median(format!("never, {again}"), run + 1);
        }
        open.push(knocks.opened.map_or(-1.0, |opened| opened.as_secs_f64()));
    }
    let middle = median(&open).unwrap_or(-1.0);
    Cell::Median(if middle < 0.0 { "never open".to_owned() } else { seconds(middle) }, open.len())
}

/// The addresses of the leg with many blocks, and those of them that are asked.
fn many() -> (impl Iterator<Item = Ipv4Addr>, Vec<Ipv4Addr>) {
    let address = |n: u32| Ipv4Addr::from(u32::from_be_bytes([198, 18, 64, 0]) + n);
    (
        (0..MANY).map(address),
        (0..SAMPLES).map(|n| address(n * (MANY - 1) / (SAMPLES - 1))).collect(),
    )
}

/// Starts the contestant with 100,000 blocks after a reboot; seconds until the last of [`SAMPLES`]
/// of them is in force.
pub fn start(contestant: &Contestant, limit: Duration) -> Cell {
    let scene = Scene::new();
    let (addresses, samples) = many();
    let begin = |scene: &Scene| scene.scanner.enter(|| Watch::new(samples.clone(), limit));
    let lines = |addresses: &mut dyn Iterator<Item = Ipv4Addr>, end: &str| {
        addresses.map(|address| format!("{address}{end}")).collect::<String>()
    };
    let (mut addresses, directory) = (addresses, tempfile::tempdir().unwrap());
    if let Some(yaml) = contestant.yaml() {
        let mut daemon = Daemon::start(&scene.host, yaml);
        daemon.stop();
        store_blocks(daemon.directory.path(), &mut addresses);
        // As after a reboot: nothing of it is in the kernel.
        scene.host.run("nft", &["flush", "ruleset"]);
        let watch = begin(&scene);
        std::thread::scope(|scope| {
            let seen = scope.spawn(|| watch.run());
            daemon.restart(yaml);
            seen.join().unwrap()
        })
    } else if let Some(script) = contestant.file("many") {
        let running = match contestant.start(&scene) {
            Ok(running) => running,
            Err(reason) => return Cell::Without(reason),
        };
        let Some(jail) = running.jail() else { return Cell::Without("no program".to_owned()) };
        std::fs::write(jail.path("addresses"), lines(&mut addresses, "\n")).unwrap();
        let mut child = jail.also(&std::fs::read_to_string(script).unwrap());
        if !eventually(Duration::from_secs(300), || {
            jail.path("go").exists() || child.try_wait().is_ok_and(|status| status.is_some())
        }) {
            return Cell::Without("cannot be filled".to_owned());
        }
        let cell = begin(&scene).run();
        let _ = child.kill();
        let _ = child.wait();
        cell
    } else if let Some(rules) = contestant.file("rules.nft").filter(|_| !contestant.is_a_program())
    {
        let file = directory.path().join("saved.nft");
        let saved = format!(
            "{}add element inet beside blocked {{ {} }}\n",
            std::fs::read_to_string(rules).unwrap(),
            lines(&mut addresses, ",")
        );
        std::fs::write(&file, saved).unwrap();
        let watch = begin(&scene);
        std::thread::scope(|scope| {
            let seen = scope.spawn(|| watch.run());
            scene.host.run("nft", &["-f", file.to_str().unwrap()]);
            seen.join().unwrap()
        })
    } else {
        Cell::Without("keeps none".to_owned())
    }
}

/// Writes blocks of a day into the state store, as a daemon leaves them before a reboot. One by one
/// through the control socket would take minutes: each is on the disk before it is answered.
fn store_blocks(directory: &Path, addresses: &mut dyn Iterator<Item = Ipv4Addr>) {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    // Some moment of another boot's clock.
    let clock = MonoTime::from_millis(3_600_000);
    let mark = Mark { boot: "another-boot".to_owned(), wall, clock };
    let block = |address: Ipv4Addr| Block {
        source: Source::of(address.into(), 64),
        exempt: Vec::new(),
        since: clock,
        expires: Some(MonoTime::from_millis(clock.millis() + 86_400_000)),
        port: None,
        reason: Reason::Manual("stored".into()),
    };
    let content = Content {
        blocks: addresses.map(block).collect(),
        mark: mark.clone(),
        ..Content::default()
    };
    store::open(directory, &mark).database.unwrap().replace(&content).unwrap();
}

/// Knocks from many sources until none has an answer.
struct Watch {
    wire: super::wire::Wire,
    samples: Vec<Ipv4Addr>,
    begun: Instant,
    limit: Duration,
}

impl Watch {
    fn new(samples: Vec<Ipv4Addr>, limit: Duration) -> Self {
        Self { wire: super::wire::Wire::new(), samples, begun: Instant::now(), limit }
    }

    fn run(&self) -> Cell {
        let mut last = Vec::new();
        let mut quiet_since = None;
        while self.begun.elapsed() < self.limit {
            let now = Instant::now();
            last = self.wire.knock_from(&self.samples);
            if last.is_empty() {
                let since = *quiet_since.get_or_insert(now);
                // Longer than a program that starts may take between two of its steps.
                if now - since > Duration::from_secs(1) {
                    return Cell::Median(seconds((since - self.begun).as_secs_f64()), 1);
                }
            } else {
                quiet_since = None;
            }
        }
        let share = (self.samples.len() - last.len()) * 100 / self.samples.len();
        Cell::Median(format!("{share} % after {} s", self.limit.as_secs()), 1)
    }
}
