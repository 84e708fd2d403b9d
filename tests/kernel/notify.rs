//! Notifications as an administrator sets them up: a test, what `status` shows, a scan that reaches a
//! server, and secrets that stay where they are. What servers do wrong is in the helper's own tests.

use crate::support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::Value;
use support::daemon::Daemon;
use support::netns::Namespace;
use support::scene::Scene;
use support::{eventually, missing, output_text};

const TOOLS: &[&str] = &["ip", "nft", "nmap"];

/// What a request may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const TOKEN: &str = "tk_never_to_be_shown";

/// A server on the loopback of a namespace: its URL, and head and body of each request.
fn server(namespace: &Namespace) -> (String, Receiver<(String, Value)>) {
    let listener = namespace.enter(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(&stream);
            let mut head = String::new();
            while reader.read_line(&mut head).unwrap() > 2 {}
            let head = head.to_ascii_lowercase();
            let length = head.split_once("content-length: ").unwrap().1;
            let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            let _ = (&stream).write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
            let _ = sender.send((head, serde_json::from_slice(&body).unwrap()));
        }
    });
    (url, requests)
}

// P29
#[test]
fn a_test_and_a_digest_reach_the_server_and_no_secret_is_shown() {
    if missing(TOOLS).is_some() {
        return;
    }
    let scene = Scene::new(&["10.80.1.1/24"], &["10.80.1.2/24"]);
    let (url, requests) = server(&scene.host);
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    // The daemon may have a user of its own.
    fs::set_permissions(secrets.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let webhook = format!("url: \"{url}\", token_file: {}", file.display());
    let yaml = format!(
        "notify: {{ digest: 1h, webhook: {{ {webhook} }}, ntfy: {{ url: \"http://127.0.0.1:1/topic\" }} }}"
    );
    let mut daemon = Daemon::start(&scene.host, &yaml);
    let tried = daemon.ctl(&["test-response"]);
    let told = output_text(&tried);
    assert_eq!(tried.status.code(), Some(1), "nothing listens for ntfy: {told}");
    assert!(told.contains("webhook: sent: a test of notifications"), "{told}");
    assert!(told.contains("ntfy: failed: ") && told.contains("refused"), "{told}");
    let (head, body) = requests.recv_timeout(PATIENCE).unwrap();
    assert!(head.contains(&format!("authorization: bearer {TOKEN}")), "{head}");
    assert_eq!(body["test"], true);

    scene.scan("1-30");
    daemon.wait_for_block("10.80.1.2");
    let waits = || {
        let status = daemon.json(&["status"]);
        let webhook = &status["notifications"][0];
        webhook["channel"] == "webhook" && webhook["waiting"] == 1
    };
    assert!(eventually(PATIENCE, waits), "{}", daemon.json(&["status"]));
    assert!(requests.try_recv().is_err(), "a digest collects for its time");
    let shown = format!("{}{}", output_text(&daemon.ctl(&["status"])), daemon.log());
    daemon.stop();
    // At the end it is sent at once.
    let (_, digest) = requests.recv_timeout(PATIENCE).unwrap();
    let sources = digest["sources"].as_array().unwrap();
    assert_eq!(sources.len(), 1, "{digest}");
    assert_eq!(
        (&sources[0]["address"], &sources[0]["state"]),
        (&"10.80.1.2".into(), &"blocked".into())
    );
    assert!(requests.try_recv().is_err(), "nothing is sent twice");
    assert!(!shown.contains(TOKEN) && !daemon.log().contains(TOKEN), "{shown}");
}
