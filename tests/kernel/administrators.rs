//! At the defaults: administrators are exempt from the moment when they have logged in, and
//! remembered after their last session.

use crate::support;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::slow::{
    HONEST, HOST, STALLED, forge, honest, scene, serve, state_of, unharmed, wait_for_state,
};
use support::daemon::{AT_DEFAULTS, Daemon};
use support::scene::Scene;
use support::{duration, eventually, missing};

const TOOLS: &[&str] = &["ip", "nft", "python3", "unshare"];

/// Administrators are looked for every five seconds, the list is gathered every fifteen.
const GATHERED: Duration = Duration::from_secs(25);

/// Opens a connection to the ssh port from an address of the scanner.
fn connect(scene: &Scene, from: &str) -> TcpStream {
    let from: SocketAddr = format!("{from}:0").parse().unwrap();
    scene.scanner.enter(|| {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )
        .unwrap();
        rustix::net::bind(&socket, &from).unwrap();
        rustix::net::connect(&socket, &format!("{HOST}:22").parse::<SocketAddr>().unwrap())
            .unwrap();
        TcpStream::from(socket)
    })
}

/// Why an address is never blocked, and whether the row says when it was seen last.
fn exempt_as(daemon: &Daemon<'_>, address: &str) -> Option<(String, bool)> {
    let list = daemon.json(&["allow", "list"]);
    let row = list.as_array()?.iter().find(|row| row["address"] == address)?.clone();
    Some((row["origin"].as_str()?.to_owned(), row["last_seen"].is_string()))
}

fn wait_until_exempt(daemon: &Daemon<'_>, address: &str, origin: &str, within: Duration) {
    let wanted = Some((origin.to_owned(), origin == "admins"));
    let is_there = || exempt_as(daemon, address) == wanted;
    assert!(eventually(within, is_there), "{:?}\n{}", exempt_as(daemon, address), daemon.log());
}

/// Logs in and out, and waits until the address is remembered only.
fn log_in_and_out(scene: &Scene, daemon: &Daemon<'_>, address: &str) {
    let connection = connect(scene, address);
    let session = daemon.log_in(address);
    wait_until_exempt(daemon, address, "ssh_peers", Duration::from_secs(10));
    std::fs::remove_file(session).unwrap();
    drop(connection);
    wait_until_exempt(daemon, address, "admins", GATHERED);
}

/// An administrator is forged and uses a service for some seconds meanwhile.
fn notices_nothing(scene: &Scene, daemon: &Daemon<'_>, seconds: u32) {
    let experience = honest(&scene.scanner, HONEST, (HOST, "8000"), seconds, || {
        forge(scene, HONEST, ["110", "113"], "1", "1");
    });
    unharmed(&experience);
    assert!(experience.slowest < STALLED, "{}", experience.slowest);
    assert_eq!(state_of(daemon, HONEST), None, "{}", daemon.log());
}

// P1, P2
#[test]
fn a_remembered_administrator_is_forged_and_notices_nothing() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let mut daemon = Daemon::start_with_logins(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, HOST, &["22", "8000"]);
    log_in_and_out(&scene, &daemon, HONEST);
    notices_nothing(&scene, &daemon, duration(3, 210));
    assert_eq!(daemon.json(&["status"])["admins"], 1);
    assert!(daemon.json(&["show", HONEST])["allowed"]["last_seen"].is_string());

    // After a restart, and without the table of before.
    assert!(daemon.stop().success());
    scene.host.run("nft", &["delete", "table", "inet", "portsentry"]);
    daemon.restart(AT_DEFAULTS);
    notices_nothing(&scene, &daemon, 3);

    // After another program has emptied the ruleset.
    scene.host.run("nft", &["flush", "ruleset"]);
    let is_back = || {
        let words = ["list", "set", "inet", "portsentry", "allowed4"];
        let set = scene.host.output("nft", &words, Duration::from_secs(5));
        String::from_utf8_lossy(&set.stdout).contains(HONEST)
    };
    assert!(eventually(Duration::from_secs(10), is_back), "{}", daemon.log());
    notices_nothing(&scene, &daemon, 3);

    // Forgotten, for good.
    let forgotten = daemon.ctl(&["allow", "remove", HONEST]);
    assert!(forgotten.status.success(), "{forgotten:?}");
    assert_eq!(daemon.ctl(&["allow", "remove", HONEST]).status.code(), Some(1));
    assert_eq!(exempt_as(&daemon, HONEST), None);
    let _ = daemon.child.kill();
    let _ = daemon.child.wait();
    daemon.restart(AT_DEFAULTS);
    assert_eq!(exempt_as(&daemon, HONEST), None);
    // More ports than are excused, if it has completed enough connections to be known.
    forge(&scene, HONEST, ["110", "125"], "1", "1");
    wait_for_state(&daemon, HONEST, "slowed", false);
}

// P2
#[test]
fn a_connection_that_never_logged_in_is_not_remembered() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start_with_logins(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, HOST, &["22", "8000"]);
    let bare = connect(&scene, HONEST);
    // A session whose end was not recorded, without a connection from there.
    let other = "10.69.1.4";
    daemon.log_in(other);
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!((exempt_as(&daemon, HONEST), exempt_as(&daemon, other)), (None, None));
    assert_eq!(daemon.json(&["status"])["admins"], 0);
    forge(&scene, HONEST, ["110", "113"], "1", "1");
    wait_for_state(&daemon, HONEST, "slowed", false);
    drop(bare);
}

// P2
#[test]
fn the_memory_of_an_administrator_ends_after_its_time() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let short = format!("never_block: {{ admins: {{ memory: 20s }} }}\n{AT_DEFAULTS}");
    let daemon = Daemon::start_with_logins(&scene.host, &short);
    let _service = serve(&scene.host, HOST, &["22", "8000"]);
    log_in_and_out(&scene, &daemon, HONEST);
    let is_forgotten = || exempt_as(&daemon, HONEST).is_none();
    assert!(eventually(Duration::from_secs(45), is_forgotten), "{}", daemon.log());
    forge(&scene, HONEST, ["110", "113"], "1", "1");
    wait_for_state(&daemon, HONEST, "slowed", false);

    // 0: only as long as the session lasts.
    daemon.write_configuration(&short.replace("20s", "0"));
    assert!(daemon.ctl(&["reload"]).status.success());
    let other = "10.69.1.4";
    let connection = connect(&scene, other);
    let session = daemon.log_in(other);
    wait_until_exempt(&daemon, other, "ssh_peers", Duration::from_secs(10));
    assert_eq!(daemon.json(&["status"])["admins"], 0);
    std::fs::remove_file(session).unwrap();
    drop(connection);
    let is_forgotten = || exempt_as(&daemon, other).is_none();
    assert!(eventually(GATHERED, is_forgotten), "{}", daemon.log());
}
