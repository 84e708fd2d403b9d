//! `portsentryctl metrics --listen`: real clients, clients that hang, and a flood of them.

use crate::control::fake::{Daemon, FakeHandler, LONG};
use crate::support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use portsentry::control::Request;
use support::{eventually, missing, output_text};

/// The server; killed when it is dropped.
struct Exporter(Child, String);

impl Exporter {
    fn start(socket: &Path, words: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portsentryctl"))
            .arg("--socket")
            .arg(socket)
            .arg("metrics")
            .args(words)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let place = line.trim().strip_prefix("serving ").unwrap_or_else(|| panic!("{line}"));
        Self(child, place.to_owned())
    }

    fn address(&self) -> SocketAddr {
        let address = self.1.strip_prefix("http://").unwrap();
        address.strip_suffix("/metrics").unwrap().parse().unwrap()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    /// The answer to some bytes, with its head.
    fn ask(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn threads_and_memory(&self) -> (u64, u64) {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let value = |key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        (value("Threads:"), value("VmRSS:"))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

fn is_metrics(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\nportsentry_up 1\n")
}

#[test]
fn curl_and_python_read_the_metrics_in_both_forms() {
    if missing(&["curl", "python3"]).is_some() {
        return;
    }
    let daemon = Daemon::start(FakeHandler::default(), "");
    let directory = tempfile::tempdir().unwrap();
    let unix = directory.path().join("metrics.sock");
    let on_tcp = Exporter::start(&daemon.socket(), &["--listen", "127.0.0.1:0"]);
    let on_unix =
        Exporter::start(&daemon.socket(), &["--listen", &format!("unix:{}", unix.display())]);
    assert_eq!(on_unix.1, format!("/metrics on unix:{}", unix.display()));
    let curl = |words: &[&str]| {
        let output = Command::new("curl").args(["-sS", "-i", "-m", "20"]).args(words).output();
        output_text(&output.unwrap())
    };
    let open = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let socket = unix.to_str().unwrap();
    for answer in [curl(&[&on_tcp.1]), curl(&["--unix-socket", socket, "http://localhost/metrics"])]
    {
        assert!(is_metrics(&answer) && !answer.contains("# EOF"), "{answer}");
        assert!(answer.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
        assert!(answer.contains("portsentry_list_blocks{list=\"scanners\"} 3\n"), "{answer}");
    }
    let answer = curl(&["-H", open, &on_tcp.1]);
    let kind = "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(is_metrics(&answer) && answer.contains(kind) && answer.ends_with("# EOF\n"));
    assert!(curl(&["-I", &on_tcp.1]).starts_with("HTTP/1.1 405 "));
    assert!(curl(&["-d", "x=y", &on_tcp.1]).starts_with("HTTP/1.1 405 "));
    assert!(curl(&[on_tcp.1.strip_suffix("metrics").unwrap()]).starts_with("HTTP/1.1 404 "));
    let script = "import sys, urllib.request as u\nr = u.urlopen(sys.argv[1], timeout=20)\nprint(r.status, len(r.read()) == int(r.headers['Content-Length']))";
    let python = Command::new("python3").args(["-c", script, &on_tcp.1]).output().unwrap();
    assert_eq!(output_text(&python), "200 True\n");
}

// P11
#[test]
fn what_is_no_request_gets_its_answer_and_the_next_client_the_metrics() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let exporter = Exporter::start(&daemon.socket(), &["--listen", "[::1]:0"]);
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    for (bytes, status) in [
        (b"GET /metrics HTTP/1.1\r\n\r\n".as_slice(), "200"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400"),
        (b"SSH-2.0-x\r\n", "400"),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", "404"),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", "405"),
        (long.as_bytes(), "431"),
    ] {
        let answer = exporter.ask(bytes);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        assert!(status != "405" || answer.contains("\r\nAllow: GET\r\n"), "{answer}");
    }
    drop(exporter.connect());
    // In two parts, and a client that ends its own side.
    let mut stream = exporter.connect();
    stream.write_all(&GET[..9]).unwrap();
    assert!(is_metrics(&exporter.ask(GET)));
    stream.write_all(&GET[9..]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(is_metrics(&answer), "{answer}");
    // A request that never ends is given up.
    let begun = Instant::now();
    let mut half = exporter.connect();
    half.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    assert_eq!(half.read(&mut [0; 10]).unwrap_or(0), 0);
    assert!((4..10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

// P10, P11
#[test]
fn hanging_clients_and_a_flood_keep_no_client_from_the_metrics() {
    let daemon = Daemon::start(FakeHandler::default(), "");
    let exporter = Exporter::start(&daemon.socket(), &["--listen", "127.0.0.1:0"]);
    // Three times as many as there are places: silent, with half a request, and some that read no
    // answer.
    let mut hanging: Vec<TcpStream> = (0..200).map(|_| exporter.connect()).collect();
    for (n, stream) in hanging.iter_mut().enumerate() {
        let bytes: &[u8] = [b"".as_slice(), b"GET /met", GET][n % 3];
        // The oldest have given way.
        let _ = stream.write_all(bytes);
    }
    for _ in 0..20 {
        let begun = Instant::now();
        assert!(is_metrics(&exporter.ask(GET)));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
    let (is_over, floods) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(mut stream) = TcpStream::connect(exporter.address()) else { continue };
                    let _ = stream.write_all(b"GET");
                    floods.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let served = (0..50).filter(|_| is_metrics(&exporter.ask(GET))).count();
        let has_flooded = eventually(LONG, || floods.load(Ordering::Relaxed) > 1000);
        is_over.store(true, Ordering::Relaxed);
        assert_eq!((served, has_flooded), (50, true));
    });
    let (threads, memory) = exporter.threads_and_memory();
    assert!(threads == 2 && memory < 32 << 10, "{threads} threads, {memory} kB");
    drop(hanging);
    // However many fetch, the daemon is asked once a second at most.
    daemon.asked.lock().unwrap().clear();
    let begun = Instant::now();
    (0..100).for_each(|_| assert!(is_metrics(&exporter.ask(GET))));
    let asked = daemon.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|request| *request == Request::Status {}), "{asked:?}");
    assert!(asked.len() as u64 <= begun.elapsed().as_secs() + 1, "{}", asked.len());
}

#[test]
fn a_daemon_that_is_gone_is_not_up_and_other_hosts_read_nothing_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("control.sock");
    let exporter = Exporter::start(&nowhere, &["--listen", "127.0.0.1:0"]);
    let answer = exporter.ask(GET);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let names: Vec<&str> = answer.lines().filter(|line| line.starts_with("portsentry_")).collect();
    assert_eq!(names, ["portsentry_up 0"]);

    let ctl = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_portsentryctl"))
            .arg("--socket")
            .arg(&nowhere)
            .arg("metrics")
            .args(words)
            .output()
            .unwrap();
        (output.status.code(), output_text(&output))
    };
    for place in ["0.0.0.0:0", "[::]:0", "192.0.2.1:9477"] {
        let (code, text) = ctl(&["--listen", place]);
        assert!(code == Some(64) && text.contains("--anywhere"), "{place}: {text}");
    }
    let (code, text) = ctl(&["--listen", "192.0.2.1:9477", "--anywhere"]);
    assert!(code == Some(70) && text.contains("cannot listen at"), "{text}");
    let taken = exporter.address().to_string();
    assert_eq!(ctl(&["--listen", &taken]).0, Some(70));
    for wrong in [&["--listen", "9477"][..], &["--anywhere"], &["--listen", "localhost:1"]] {
        assert_eq!(ctl(wrong).0, Some(64), "{wrong:?}");
    }
    // With --anywhere it does.
    let open = Exporter::start(&nowhere, &["--listen", "0.0.0.0:0", "--anywhere"]);
    let mut stream = TcpStream::connect(("127.0.0.1", open.address().port())).unwrap();
    stream.write_all(GET).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("portsentry_up 0\n"), "{answer}");
    // A unix socket is its group's.
    let path = directory.path().join("metrics.sock");
    let place = format!("unix:{}", path.display());
    let first = Exporter::start(&nowhere, &["--listen", &place]);
    assert_eq!(ctl(&["--listen", &place]).0, Some(70), "one listens there");
    drop(first);
    let _second = Exporter::start(&nowhere, &["--listen", &place]);
    assert!(UnixStream::connect(&path).is_ok());
}
