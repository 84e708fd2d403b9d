//! At the defaults: a client that tries ports without a service is slowed at most.

use crate::support;

use crate::slow::{HOST, honest, scene, serve, state_of, unharmed};
use support::TRAFFIC;
use support::daemon::{AT_DEFAULTS, Daemon};
use support::missing;

const SERVICE: &str = "8000";

/// Each with its address, and the ports that it tries again and again.
const CLIENTS: &[(&str, &str, &[&str])] = &[
    (
        "one user behind a gateway that makes 300 good connections",
        "10.69.1.3",
        &["21", "23", "111"],
    ),
    ("a mail program that guesses", "10.69.1.4", &["993", "995", "143", "110", "587", "465", "25"]),
    (
        "a member of a domain whose controller was here",
        "10.69.1.5",
        &["53", "88", "135", "139", "389", "445", "464", "636", "3268", "3269"],
    ),
    ("a client that mounts a file system", "10.69.1.6", &["111", "635", "2049", "20048"]),
];

// P3
#[test]
fn clients_with_wrong_ports_are_slowed_at_most_and_lose_no_connection() {
    if missing(&["ip", "nft", "python3"]).is_some() {
        return;
    }
    let scene = scene();
    let daemon = Daemon::start(&scene.host, AT_DEFAULTS);
    let _service = serve(&scene.host, HOST, &[SERVICE]);
    let many = ["clients", CLIENTS[0].1, HOST, SERVICE, "0", "32"];
    let experiences = std::thread::scope(|scope| {
        let scanner = &scene.scanner;
        let gateway =
            scope.spawn(move || scanner.run("python3", &[&[TRAFFIC][..], &many].concat()));
        let clients: Vec<_> = CLIENTS
            .iter()
            .map(|(_, address, ports)| {
                scope.spawn(move || {
                    honest(scanner, address, (HOST, SERVICE), 32, || {
                        // Good connections first, and fewer than excuse a port.
                        std::thread::sleep(std::time::Duration::from_secs(1));
                        let words = [&[TRAFFIC, "patient", address, HOST, "8"], *ports].concat();
                        scanner.run("python3", &words);
                    })
                })
            })
            .collect();
        assert!(gateway.join().unwrap().starts_with("0 "), "{}", daemon.log());
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    for ((who, address, _), experience) in CLIENTS.iter().zip(&experiences) {
        let state = state_of(&daemon, address);
        assert!(
            state.is_none() || state == Some(("slowed".to_owned(), false)),
            "{who}: {state:?}\n{}",
            daemon.log()
        );
        unharmed(experience);
    }
    // The trigger was exceeded: without it the test would say nothing.
    assert!(state_of(&daemon, CLIENTS[2].1).is_some(), "{}", daemon.log());
}
