//! With `action: block`: what a block of a forged source stops, and for how long.

use std::time::Duration;

use crate::slow::{HONEST, HOST, STALLED, TOOLS, forge, publish, scene, serve, wait_for_state};
use crate::support::daemon::Daemon;
use crate::support::netns::Namespace;
use crate::support::{TRAFFIC, eventually, missing};

/// A block, and how long a client waits between two tries, seconds.
const BLOCK: f64 = 6.0;
const EVERY: f64 = 1.0;
/// What a loaded machine adds to the time until a client is back.
const SLACK: f64 = 3.0;

const SHORT: &str = "block: { unproven: { timeout: 6s } }";

/// What a client experiences: the time in which its new connections failed, and the longest round
/// trip on an established one, seconds.
struct Outage {
    new: f64,
    established: f64,
}

fn outage(
    from: &Namespace,
    address: &str,
    (to, port): (&str, &str),
    meanwhile: impl FnOnce(),
) -> Outage {
    let output = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let every = EVERY.to_string();
            from.run("python3", &[TRAFFIC, "outage", address, to, port, &every, "14"])
        });
        std::thread::sleep(Duration::from_millis(1500));
        meanwhile();
        client.join().unwrap()
    });
    println!("{address} to {to}:{port}: new connections fail and established ones stall {output}");
    let mut words = output.split_whitespace().map(|word| word.parse().unwrap());
    Outage { new: words.next().unwrap(), established: words.next().unwrap() }
}

fn members(host: &Namespace, set: &str) -> String {
    host.run("nft", &["list", "set", "inet", "portsentry", set])
}

// P3
#[test]
fn a_forged_client_is_out_for_one_block_and_its_connection_never_stalls() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, SHORT);
    let _service = serve(&scene.host, HOST, &["8000"]);
    let outage = outage(&scene.scanner, HONEST, (HOST, "8000"), || {
        forge(&scene, HONEST, ["110", "113"], "1", "1");
        wait_for_state(&daemon, HONEST, "blocked", false);
        assert!(members(&scene.host, "unproven4").contains(HONEST));
        assert!(!members(&scene.host, "blocked4").contains(HONEST));
    });
    assert!(outage.established < STALLED, "{}", outage.established);
    assert!(outage.new > BLOCK / 2.0 && outage.new < BLOCK + EVERY + SLACK, "{}", outage.new);
    daemon.wait_for_log(&format!("Host {HONEST} is no longer blocked: its time is up"));
}

// P3
#[test]
fn a_forged_server_of_ours_notices_no_block() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, SHORT);
    let _server = serve(&scene.scanner, HONEST, &["5432"]);
    let outage = outage(&scene.host, HOST, (HONEST, "5432"), || {
        forge(&scene, HONEST, ["110", "113"], "1", "1");
        wait_for_state(&daemon, HONEST, "blocked", false);
    });
    assert!(outage.established < STALLED && outage.new == 0.0);
}

// P3
#[test]
fn a_forged_client_of_a_published_port_is_out_for_one_block_only() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let container = publish(&scene);
    let daemon = Daemon::start(&scene.host, SHORT);
    let _service = serve(&container, "10.71.1.2", &["80"]);
    let outage = outage(&scene.scanner, HONEST, (HOST, "8080"), || {
        forge(&scene, HONEST, ["110", "113"], "1", "1");
        wait_for_state(&daemon, HONEST, "blocked", false);
    });
    assert!(outage.established < STALLED, "{}", outage.established);
    assert!(outage.new > BLOCK / 2.0 && outage.new < BLOCK + EVERY + SLACK, "{}", outage.new);
}

// P3, P14
#[test]
fn an_unproven_block_survives_a_flush_and_a_restart_and_stays_lenient() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let yaml = "block: { unproven: { timeout: 60s } }";
    let mut daemon = Daemon::start(&scene.host, yaml);
    let _service = serve(&scene.host, HOST, &["8000"]);
    let is_there = |daemon: &Daemon<'_>| {
        let is_back = || {
            let list = daemon.json(&["list"]);
            let row = list.as_array().and_then(|rows| rows.first().cloned());
            row.is_some_and(|row| row["address"] == HONEST && row["proven"] == false)
                && members(&scene.host, "unproven4").contains(HONEST)
        };
        assert!(eventually(Duration::from_secs(10), is_back), "{}", daemon.log());
        assert!(!members(&scene.host, "blocked4").contains(HONEST));
    };
    let outage = outage(&scene.scanner, HONEST, (HOST, "8000"), || {
        forge(&scene, HONEST, ["110", "113"], "1", "1");
        wait_for_state(&daemon, HONEST, "blocked", false);
        scene.host.run("nft", &["flush", "ruleset"]);
        is_there(&daemon);
        daemon.stop();
        daemon.restart(yaml);
        is_there(&daemon);
    });
    assert!(outage.established < STALLED, "{}", outage.established);
    assert!(daemon.ctl(&["unblock", HONEST]).status.success());
    assert!(!members(&scene.host, "unproven4").contains(HONEST));
}

// P3
#[test]
fn only_probes_of_closed_ports_renew_a_block_and_each_renewal_is_shown() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, SHORT);
    let _service = serve(&scene.host, HOST, &["443"]);
    forge(&scene, HONEST, ["110", "113"], "1", "1");
    wait_for_state(&daemon, HONEST, "blocked", false);
    for _ in 0..10 {
        std::thread::sleep(Duration::from_secs(1));
        forge(&scene, HONEST, ["114", "114"], "1", "1");
        forge(&scene, HONEST, ["443", "443"], "1", "1");
    }
    let row = daemon.json(&["list"])[0].clone();
    assert_eq!((&row["address"], &row["state"]), (&HONEST.into(), &"blocked".into()), "{row}");
    assert!(
        row["renewals"].as_u64().unwrap() >= 2 && row["packets"].as_u64().unwrap() >= 10,
        "{row}"
    );
    let show = String::from_utf8(daemon.ctl(&["show", HONEST]).stdout).unwrap();
    assert!(show.contains("renewed      "), "{show}");
    // What it sends to a service renews nothing.
    let is_over = || {
        forge(&scene, HONEST, ["443", "443"], "1", "1");
        daemon.blocked().is_empty()
    };
    assert!(eventually(Duration::from_secs(10), is_over), "{}", daemon.log());
}

#[test]
fn a_manual_block_ends_the_connections_that_an_unproven_one_lets_pass() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, SHORT);
    let _service = serve(&scene.host, HOST, &["8000"]);
    let outage = outage(&scene.scanner, HONEST, (HOST, "8000"), || {
        forge(&scene, HONEST, ["110", "113"], "1", "1");
        wait_for_state(&daemon, HONEST, "blocked", false);
        assert!(daemon.ctl(&["block", HONEST]).status.success());
        assert!(members(&scene.host, "blocked4").contains(HONEST));
        assert!(!members(&scene.host, "unproven4").contains(HONEST));
    });
    assert!(outage.established > 2.0 * STALLED, "{}", outage.established);
}
