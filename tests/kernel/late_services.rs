//! At the defaults: clients of services that start late, or restart, are no scanners.

use crate::support;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::slow::{HOST, STALLED, forge, scene, serve, state_of, wait_for_state};
use portsentry::engine::MonoTime;
use portsentry::store::{self, Mark};
use support::daemon::{AT_DEFAULTS, Daemon};
use support::netns::Namespace;
use support::scene::{DEVICE, Scene};
use support::{eventually, missing};

const TOOLS: &[&str] = &["ip", "nft", "python3"];
/// The scanner's first address, from which it connects.
const CLIENT: &str = "10.69.1.2";
const MAIL: [&str; 3] = ["25", "110", "143"];

/// How long a connection to each port takes; `None`: there is none.
fn try_each(scene: &Scene, ports: &[&str]) -> Vec<Option<Duration>> {
    let connect = |port: &&str| {
        let to: SocketAddr = format!("{HOST}:{port}").parse().unwrap();
        let begun = Instant::now();
        TcpStream::connect_timeout(&to, Duration::from_millis(300)).ok()?;
        Some(begun.elapsed())
    };
    scene.scanner.enter(|| ports.iter().map(connect).collect())
}

/// A client tries every port for some time.
fn poll(scene: &Scene, ports: &[&str], time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        try_each(scene, ports);
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Every port is open, and no connection waits for a retransmission.
fn all_answer(scene: &Scene, ports: &[&str]) {
    for (port, time) in ports.iter().zip(try_each(scene, ports)) {
        assert!(time.is_some_and(|time| time.as_secs_f64() < STALLED), "{port}: {time:?}");
    }
}

/// The state of a daemon that was stopped before the host was rebooted.
fn reboot(daemon: &Daemon<'_>) {
    let now = Mark { boot: String::new(), wall: 0, clock: MonoTime::default() };
    let opened = store::open(daemon.directory.path(), &now);
    let mut content = opened.content.unwrap();
    content.mark.boot = "another-boot".to_owned();
    opened.database.unwrap().replace(&content).unwrap();
}

// P5
#[test]
fn services_that_start_after_the_daemon_at_boot_may_be_polled() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let services = serve(&scene.host, HOST, &MAIL);
    let mut daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    drop(services);
    assert!(daemon.stop().success());
    scene.host.run("nft", &["delete", "table", "inet", "portsentry"]);
    reboot(&daemon);
    daemon.restart(AT_DEFAULTS);
    poll(&scene, &MAIL, Duration::from_secs(3));
    assert_eq!(state_of(&daemon, CLIENT), None, "{}", daemon.log());
    // The bound of the memory: ten minutes from the boot on.
    let set = scene.host.run("nft", &["list", "set", "inet", "portsentry", "services"]);
    assert_eq!(set.matches("expires 9m").count(), MAIL.len(), "{set}");
    let _services = serve(&scene.host, HOST, &MAIL);
    all_answer(&scene, &MAIL);
    assert_eq!(state_of(&daemon, CLIENT), None, "{}", daemon.log());
    // Other ports are watched.
    forge(&scene, "10.69.1.3", ["1", "4"], "1", "1");
    wait_for_state(&daemon, "10.69.1.3", "slowed", false);
}

// P5
#[test]
fn services_may_restart_while_a_client_polls() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    // They start after the daemon, and have no client before they restart.
    let services = serve(&scene.host, HOST, &MAIL);
    std::thread::sleep(Duration::from_secs(6));
    drop(services);
    poll(&scene, &MAIL, Duration::from_secs(5));
    let services = serve(&scene.host, HOST, &MAIL);
    all_answer(&scene, &MAIL);
    assert_eq!(state_of(&daemon, CLIENT), None, "{}", daemon.log());

    // Another program empties the ruleset while they are down.
    std::thread::sleep(Duration::from_secs(11));
    drop(services);
    scene.host.run("nft", &["flush", "ruleset"]);
    let is_back = || {
        let words = ["list", "set", "inet", "portsentry", "services"];
        let set = scene.host.output("nft", &words, Duration::from_secs(5));
        String::from_utf8_lossy(&set.stdout).contains("143")
    };
    assert!(eventually(Duration::from_secs(10), is_back), "{}", daemon.log());
    poll(&scene, &MAIL, Duration::from_secs(3));
    assert_eq!(state_of(&daemon, CLIENT), None, "{}", daemon.log());
}

/// Services start while a client of theirs is slowed or blocked for its first tries: within seconds
/// it is free.
fn client_is_freed(configuration: &str, state: &str, line: &str) {
    let scene = scene();
    let daemon = Daemon::start(&scene.host, configuration);
    try_each(&scene, &MAIL);
    wait_for_state(&daemon, CLIENT, state, false);
    let some = serve(&scene.host, HOST, &MAIL[..2]);
    std::thread::sleep(Duration::from_secs(6));
    wait_for_state(&daemon, CLIENT, state, false);
    let _last = serve(&scene.host, HOST, &MAIL[2..]);
    let is_free = || state_of(&daemon, CLIENT).is_none();
    assert!(eventually(Duration::from_secs(8), is_free), "{}", daemon.log());
    daemon.wait_for_log(&format!("Host {CLIENT} is no longer {line}"));
    all_answer(&scene, &MAIL);
    // The rules have forgotten its tries: two more wrong ports are below the trigger.
    try_each(&scene, &["1", "2"]);
    all_answer(&scene, &MAIL);
    assert_eq!(state_of(&daemon, CLIENT), None, "{}", daemon.log());
    drop(some);
}

// P5
#[test]
fn a_service_that_starts_after_the_daemon_frees_its_slowed_clients() {
    if missing(TOOLS).is_some() {
        return;
    }
    client_is_freed(AT_DEFAULTS, "slowed", "slowed: services listen on all ports that it probed");
}

// P5
#[test]
fn a_service_that_starts_after_the_daemon_frees_its_blocked_clients() {
    if missing(TOOLS).is_some() {
        return;
    }
    client_is_freed("", "blocked", "blocked: services listen on all ports that it probed");
}

// P5
#[test]
fn containers_with_published_ports_may_restart_while_a_client_polls() {
    if missing(TOOLS).is_some() {
        return;
    }
    // Docker takes its rules out while a container is down.
    let publish = "table ip publish { chain c { type nat hook prerouting priority dstnat; tcp dport { 25, 110, 143 } dnat to 10.71.1.2; }; }";
    for configuration in [AT_DEFAULTS, ""] {
        let scene = scene();
        let container = Namespace::new();
        scene.host.join(&container, "inner0", &["10.71.1.1/24"], &["10.71.1.2/24"]);
        container.run("ip", &["route", "add", "default", "via", "10.71.1.1"]);
        scene.host.run("sysctl", &["-qw", "net.ipv4.ip_forward=1"]);
        scene.host.run("nft", &[publish]);
        let daemon = Daemon::start(&scene.host, configuration);
        let services = serve(&container, "10.71.1.2", &MAIL);
        all_answer(&scene, &MAIL);
        scene.host.run("nft", &["delete", "table", "ip", "publish"]);
        drop(services);
        poll(&scene, &MAIL, Duration::from_secs(3));
        assert_eq!(state_of(&daemon, CLIENT), None, "{}", daemon.log());
        scene.host.run("nft", &[publish]);
        let _services = serve(&container, "10.71.1.2", &MAIL);
        all_answer(&scene, &MAIL);
        assert_eq!(state_of(&daemon, CLIENT), None, "{}", daemon.log());
    }
}

/// Another node of the cluster had this address.
const VIRTUAL: &str = "10.69.1.100";

/// Tries each port of the virtual address in turn, for some time; returns how many connections failed in
/// the last round.
fn poll_virtual(scene: &Scene, time: Duration) -> usize {
    let end = Instant::now() + time;
    loop {
        let failed = scene.scanner.enter(|| {
            let connect = |port: &&str| {
                let to: SocketAddr = format!("{VIRTUAL}:{port}").parse().unwrap();
                TcpStream::connect_timeout(&to, Duration::from_millis(300)).is_err()
            };
            MAIL.iter().filter(|port| connect(port)).count()
        });
        if Instant::now() > end {
            return failed;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

// P5
#[test]
fn a_virtual_address_that_moves_here_brings_its_polling_clients() {
    if missing(TOOLS).is_some() {
        return;
    }
    let moves = |scene: &Scene| {
        scene.host.run("ip", &["addr", "add", &format!("{VIRTUAL}/24"), "dev", DEVICE]);
    };
    for configuration in [AT_DEFAULTS, ""] {
        // The services listen on all addresses: nothing happens.
        let ready = scene();
        let daemon = Daemon::start(&ready.host, configuration);
        let _services = serve(&ready.host, "0.0.0.0", &MAIL);
        std::thread::scope(|scope| {
            let client = scope.spawn(|| poll_virtual(&ready, Duration::from_secs(8)));
            std::thread::sleep(Duration::from_secs(2));
            moves(&ready);
            assert_eq!(client.join().unwrap(), 0);
        });
        assert_eq!(state_of(&daemon, CLIENT), None, "{}", daemon.log());
        assert!(!daemon.log().contains(CLIENT), "{}", daemon.log());

        // They start when it is here.
        let late = scene();
        let daemon = Daemon::start(&late.host, configuration);
        std::thread::scope(|scope| {
            let client = scope.spawn(|| poll_virtual(&late, Duration::from_secs(20)));
            std::thread::sleep(Duration::from_secs(2));
            moves(&late);
            std::thread::sleep(Duration::from_secs(2));
            assert!(state_of(&daemon, CLIENT).is_some(), "{}", daemon.log());
            let _services = serve(&late.host, VIRTUAL, &MAIL);
            let is_free = || state_of(&daemon, CLIENT).is_none();
            assert!(eventually(Duration::from_secs(12), is_free), "{}", daemon.log());
            daemon.wait_for_log("services listen on all ports that it probed");
            assert_eq!(client.join().unwrap(), 0);
        });
        assert_eq!(state_of(&daemon, CLIENT), None, "{}", daemon.log());
    }
}
