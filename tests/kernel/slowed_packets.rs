//! What became of a slowed source's packets: `list`, `show` and the event say how many passed and how
//! many were dropped, and an independent counter agrees.

use crate::support;

use std::time::Duration;

use serde_json::Value;

use super::slow::{HONEST, HOST, STALLED, TOOLS, forge, honest, scene, serve, wait_for_state};
use support::daemon::{AT_DEFAULTS, Daemon};
use support::netns::Namespace;
use support::scene::Scene;
use support::{eventually, missing};

/// Counts the packets from a host or prefix as they arrive, before any rule of the daemon.
fn count_from(host: &Namespace, source: &str) {
    let family = if source.contains(':') { "ip6" } else { "ip" };
    host.run("nft", &[&format!(
        "table inet t {{ counter seen {{ }}; chain c {{ type filter hook prerouting priority -500; {family} saddr {source} counter name seen; }}; }}"
    )]);
}

fn arrived(host: &Namespace) -> u64 {
    let listing = host.run("nft", &["-j", "list", "counter", "inet", "t", "seen"]);
    let listing: Value = serde_json::from_str(&listing).unwrap();
    listing["nftables"][1]["counter"]["packets"].as_u64().unwrap()
}

fn row(daemon: &Daemon<'_>, address: &str) -> Value {
    let list = daemon.json(&["list"]);
    list.as_array().unwrap().iter().find(|row| row["address"] == address).unwrap().clone()
}

/// Dropped and passed packets of a row.
fn figures(row: &Value) -> (u64, u64) {
    (row["packets"].as_u64().unwrap(), row["passed"].as_u64().unwrap())
}

#[test]
fn passed_and_dropped_packets_of_a_slowed_source_are_those_that_were_sent() {
    if missing(TOOLS).is_some() {
        return;
    }
    let four = |scene: &Scene, from: &str, [first, last]: [&str; 2]| {
        forge(scene, from, [first, last], "1", "1");
    };
    let six = |scene: &Scene, from: &str, ports: [&str; 2]| {
        scene.traffic("blind_six", from, "fd69:1::1", &ports);
    };
    type Send<'a> = &'a dyn Fn(&Scene, &str, [&str; 2]);
    struct Case<'a> {
        slowed: &'a str,
        client: &'a str,
        target: &'a str,
        send: Send<'a>,
        // In whose names it becomes slowed, and each one's ports.
        before: &'a [(&'a str, [&'a str; 2])],
        // The same for the probes that are counted, and how many they are.
        probes: (&'a str, [&'a str; 2], u64),
    }
    let cases = [
        Case {
            slowed: HONEST,
            client: HONEST,
            target: HOST,
            send: &four,
            before: &[(HONEST, ["110", "113"])],
            probes: (HONEST, ["20", "49"], 30),
        },
        Case {
            slowed: "fd69:77::2",
            client: "fd69:77::2",
            target: "fd69:1::1",
            send: &six,
            before: &[("fd69:77::2", ["110", "113"])],
            probes: ("fd69:77::2", ["20", "49"], 30),
        },
        // A prefix, and another one of its addresses.
        Case {
            slowed: "fd69:77::/64",
            client: "fd69:77::2",
            target: "fd69:1::1",
            send: &six,
            before: &[
                ("fd69:77::3", ["110", "110"]),
                ("fd69:77::4", ["111", "111"]),
                ("fd69:77::5", ["135", "135"]),
            ],
            probes: ("fd69:77::6", ["21", "22"], 2),
        },
    ];
    for Case { slowed, client, target, send, before, probes: (prober, ports, probes) } in cases {
        let scene = scene();
        assert!(scene.scanner.pings(&[target]));
        let daemon = Daemon::start(&scene.host, &format!("log: {{ format: json }} {AT_DEFAULTS}"));
        let _service = serve(&scene.host, target, &["8000"]);
        for (host, ports) in before {
            send(&scene, host, *ports);
        }
        wait_for_state(&daemon, slowed, "slowed", false);
        let (dropped, passed) = figures(&row(&daemon, slowed));
        assert!(dropped <= 3 && passed <= 1, "{slowed}: {dropped} dropped, {passed} passed");
        count_from(&scene.host, slowed);
        let expect = |more: u64| {
            let (all, dropped) = (arrived(&scene.host), dropped + more);
            let expected = (dropped, passed + all - more);
            let is_so = || figures(&row(&daemon, slowed)) == expected;
            assert!(
                eventually(Duration::from_secs(20), is_so),
                "{slowed}: {} instead of {expected:?} of {all}",
                row(&daemon, slowed)
            );
            expected
        };

        send(&scene, prober, ports);
        expect(probes);
        // Its first SYN is dropped, the second one passes, and the connection is established. The
        // service is called on two connections of `honest`.
        let experience = honest(&scene.scanner, client, (target, "8000"), 2, || {});
        assert!(experience.failed == 0 && experience.stalled < STALLED);
        let syns = 2;
        let expected = expect(probes + syns);
        assert!(expected.1 > 10, "{expected:?}");

        // A closed port that is not watched, where the kernel answers.
        scene.scanner.enter(|| {
            let closed = std::net::TcpStream::connect((target, 50_000)).unwrap_err();
            assert_eq!(closed.kind(), std::io::ErrorKind::ConnectionRefused);
        });
        let expected = expect(probes + syns);
        assert!(daemon.ctl(&["reload"]).status.success());
        expect(probes + syns);

        let shown = String::from_utf8(daemon.ctl(&["show", client]).stdout).unwrap();
        for (what, packets) in [("dropped", expected.0), ("passed", expected.1)] {
            let line = shown.lines().find(|line| line.trim_start().starts_with(what)).unwrap();
            assert!(line.ends_with(&format!(" {packets} packets")), "{shown}");
        }
        let listed = String::from_utf8(daemon.ctl(&["list"]).stdout).unwrap();
        assert!(listed.contains(&format!(" {} ", expected.1)), "{listed}");
        // The listing, with its counters, loads again.
        let listing = scene.host.run("nft", &["list", "table", "inet", "portsentry"]);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &listing).unwrap();
        let load = ["-f", file.path().to_str().unwrap()];
        let output = Namespace::new().output("nft", &load, Duration::from_secs(10));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complaint}{listing}");

        assert!(daemon.ctl(&["unblock", slowed]).status.success());
        let released = || {
            let log = daemon.log();
            let objects = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            objects
                .into_iter()
                .find(|event| event["event"] == "released" && event["address"] == slowed)
        };
        assert!(eventually(Duration::from_secs(20), || released().is_some()), "{}", daemon.log());
        let event = released().unwrap();
        assert_eq!((&event["dropped"], &event["passed"]), (&expected.0.into(), &expected.1.into()));

        // Slowed again, it is counted from zero.
        for (host, ports) in before {
            send(&scene, host, *ports);
        }
        wait_for_state(&daemon, slowed, "slowed", false);
        let (dropped, passed) = figures(&row(&daemon, slowed));
        assert!(dropped <= 3 && passed <= 1, "{slowed}: {dropped} dropped, {passed} passed");
    }
}

#[test]
fn the_end_of_the_time_says_what_became_of_the_packets() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = scene();
    let yaml = "block: { unproven: { action: slow, timeout: 3s } }";
    let daemon = Daemon::start(&scene.host, yaml);
    forge(&scene, HONEST, ["110", "112"], "1", "1");
    wait_for_state(&daemon, HONEST, "slowed", false);
    forge(&scene, HONEST, ["20", "24"], "1", "1");
    daemon.wait_for_log(&format!(
        "Host {HONEST} is no longer slowed: its time is up. Of its packets 0 passed and 5 were dropped."
    ));
}
