//! The program that speaks HTTP: what it trusts, what it may do, and what happens without it.

use super::*;

use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support;

const PROGRAM: &str = env!("CARGO_BIN_EXE_portsentry-notify");
const PORTSENTRY: &str = env!("CARGO_BIN_EXE_portsentry");

/// Runs openssl(1) in a directory.
fn openssl(directory: &Path, words: &str) {
    let ran = Command::new("openssl").args(words.split(' ')).current_dir(directory).output();
    let ran = ran.unwrap();
    assert!(ran.status.success(), "{words}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// A certificate authority in files of this name.
fn authority(directory: &Path, name: &str) -> PathBuf {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(
        directory,
        &format!("req -x509 {key} -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"),
    );
    directory.join(format!("{name}.pem"))
}

/// A server whose certificate of the authority `ca` is for this name (x509v3_config(5)), and the heads
/// of the requests that it got.
fn tls_server(directory: &Path, name: &str) -> (String, Receiver<String>) {
    std::fs::write(directory.join("names"), format!("subjectAltName={name}\n")).unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(directory, &format!("req {key} -keyout own.key -out own.csr -subj /CN=server"));
    let by = "-CA ca.pem -CAkey ca.key -CAcreateserial";
    openssl(directory, &format!("x509 -req -in own.csr {by} -days 2 -extfile names -out own.pem"));
    let certificate = CertificateDer::from_pem_file(directory.join("own.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("own.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/hook", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut reader = BufReader::new(StreamOwned::new(session, stream));
            let mut head = String::new();
            // A client that refuses the certificate sends an alert, and no line.
            while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
            if head.ends_with("\r\n\r\n") {
                let _ = sender.send(head);
                let _ = reader.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
            }
        }
    });
    (url, requests)
}

/// A program that is portsentry with these certificates as those that the host trusts.
fn trusting(directory: &Path, certificates: &Path) -> PathBuf {
    let program = directory.join("portsentry");
    let certificates = certificates.display();
    let script = format!("#!/bin/sh\nSSL_CERT_FILE='{certificates}' exec '{PORTSENTRY}' \"$@\"\n");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    program
}

// P29
#[test]
fn https_reaches_only_the_server_that_its_certificate_names() {
    if let Err(error) = Command::new("openssl").arg("version").output() {
        return support::skip(&format!(
            "https_reaches_only_the_server_that_its_certificate_names: openssl: {error}"
        ));
    }
    // The name in the certificate, who vouches for it in the client's eyes, and the refusal.
    let cases = [
        ("IP:127.0.0.1", "ca", None),
        ("IP:127.0.0.1", "other", Some("UnknownIssuer")),
        ("IP:127.0.0.2", "ca", Some("not valid for name")),
        ("DNS:localhost", "ca", Some("not valid for name")),
    ];
    for (name, trusted, refusal) in cases {
        let directory = tempfile::tempdir().unwrap();
        authority(directory.path(), "ca");
        authority(directory.path(), "other");
        let (url, requests) = tls_server(directory.path(), name);
        let certificates = directory.path().join(format!("{trusted}.pem"));
        let webhook = at(&url, token(directory.path()));
        let program = trusting(directory.path(), &certificates);
        let mut world = World::with(&program, NotifySettings { webhook, ..settings(SOON) });
        world.add(&incident("192.0.2.1", Class::Blocked));
        match refusal {
            None => {
                world.status(|status| status.sent == 1);
                let head = requests.recv_timeout(PATIENCE).unwrap();
                assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
                assert!(head.to_lowercase().contains(&format!("authorization: bearer {TOKEN}")));
            }
            Some(refusal) => {
                let is_refused = |status: &ChannelStatus| {
                    status.error.as_ref().is_some_and(|error| error.contains(refusal))
                };
                world.status(is_refused);
                assert!(requests.try_recv().is_err(), "{name} {trusted}: nothing is said to it");
            }
        }
    }
}

/// A line of /proc/PID/status.
fn status_of(pid: u32, key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
}

// P17, P29
#[test]
fn the_program_that_sends_has_no_rights_and_shows_no_secret() {
    let (url, requests) = server(&[Answer::Hang]);
    let secrets = tempfile::tempdir().unwrap();
    let url_file = secrets.path().join("url");
    std::fs::write(&url_file, format!("{url}/tk_path\n")).unwrap();
    let webhook = Some(Server {
        url_file: Some(url_file),
        secret_file: token(secrets.path()),
        timeout: Some(PATIENCE),
        ..Server::default()
    });
    let mut world = World::new(NotifySettings { webhook, ..settings(SOON) });
    world.add(&incident("192.0.2.1", Class::Blocked));
    // It waits for the answer now.
    assert!(requests.recv_timeout(PATIENCE).unwrap().line.contains("tk_path"));
    let helper = world.process.as_ref().unwrap().id().unwrap();
    let tasks = std::fs::read_dir(format!("/proc/{helper}/task")).unwrap().flatten();
    let children: Vec<u32> = tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|pids| {
            pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    let [pid] = children[..] else { panic!("{children:?}") };
    assert_eq!(status_of(pid, "Name"), "portsentry-noti");
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/exe")).unwrap(), Path::new(PROGRAM));
    for key in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(status_of(pid, key), format!("{:016x}", 0), "{key}");
    }
    assert_eq!((status_of(pid, "NoNewPrivs"), status_of(pid, "Seccomp")), ("1".into(), "2".into()));
    for file in ["cmdline", "environ"] {
        let shown = std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
        let shown = String::from_utf8_lossy(&shown);
        assert!(!shown.contains("tk_") && !shown.contains("192.0.2.1"), "{file}: {shown}");
    }
    // With the helper it ends.
    world.process.take().map(Process::end);
    let exe = format!("/proc/{pid}/exe");
    assert!(support::eventually(PATIENCE, || !Path::new(&exe).exists()));
}

// P29
#[test]
fn without_its_program_notifications_wait_and_the_remedy_is_said() {
    let (url, requests) = server(&[Answer::Status(204, "")]);
    let directory = tempfile::tempdir().unwrap();
    let alone = directory.path().join("portsentry");
    support::copy_program(PORTSENTRY, &alone);
    let webhook = at(&url, None);
    let mut world = World::with(&alone, NotifySettings { webhook, ..settings(SOON) });
    let warning = world.wait_for(|message| match message {
        Message::Warning(warning) => Some(warning.clone()),
        _ => None,
    });
    assert!(
        warning.contains("portsentry-notify cannot be started: No such file")
            && warning.contains("install the package again"),
        "{warning}"
    );
    world.add(&incident("192.0.2.1", Class::Blocked));
    world.status(|status| status.failed >= 2 && status.waiting == 1);
    support::copy_program(PROGRAM, &directory.path().join("portsentry-notify"));
    world.status(|status| status.sent == 1 && status.waiting == 0);
    assert!(requests.recv_timeout(PATIENCE).unwrap().body.contains("192.0.2.1"));
    assert!(requests.try_recv().is_err(), "nothing is sent twice");
    // What runs is what was there at the first time.
    std::fs::remove_file(directory.path().join("portsentry-notify")).unwrap();
    world.add(&incident("192.0.2.2", Class::Blocked));
    world.status(|status| status.sent == 2);
}

#[test]
fn started_by_hand_the_program_says_what_it_is_for() {
    let said = Command::new(PROGRAM).arg("--help").output().unwrap();
    assert_eq!(said.status.code(), Some(64));
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(text.starts_with("portsentry-notify ") && text.contains("`notify:`"), "{text}");
}
