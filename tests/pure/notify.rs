//! Notifications: every channel of a real helper against a real local server or program that answers,
//! fails, hangs, closes, answers badly and floods.

mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use serde_json::Value;

use portsentry::helper::process::Process;
use portsentry::helper::protocol::{
    ChannelStatus, Class, Incident, Mail, Message, NotifySettings, Order, Server, Settings, Times,
};
use portsentry::journal::Response;

/// Of one digest, as contrib/bounds.md has it.
const SOURCES_MAX: usize = 500;

/// What a test may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bearer token, which nothing may show.
const TOKEN: &str = "tk_never_to_be_shown";

fn incident(target: &str, class: Class) -> Incident {
    Incident {
        at: 1_800_000_000,
        kind: class.word().to_owned(),
        class,
        target: Some(target.to_owned()).filter(|target| !target.is_empty()),
        name: None,
        is_proven: false,
        port: Some("tcp/23".to_owned()),
        scan: Some("syn".to_owned()),
        reason: "syn scan of 3 ports".to_owned(),
    }
}

/// How a server treats a request.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// This status, with these headers.
    Status(u16, &'static str),
    /// None, until the client gives up.
    Hang,
    /// The connection ends without an answer.
    Close,
    /// Bytes that are no HTTP.
    Garbage,
    /// Headers, and a body without an end.
    Flood,
}

/// A request as it came.
#[derive(Debug)]
struct Request {
    line: String,
    head: String,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A server that gives these answers in turn, the last one for ever.
fn server(answers: &[Answer]) -> (String, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/topic", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    let answers = answers.to_vec();
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let answer = answers[count.min(answers.len() - 1)];
            let sender = sender.clone();
            std::thread::spawn(move || serve(stream.unwrap(), answer, &sender));
        }
    });
    (url, requests)
}

fn serve(stream: TcpStream, answer: Answer, requests: &mpsc::Sender<Request>) {
    let mut reader = BufReader::new(&stream);
    let mut head = String::new();
    while reader.read_line(&mut head).unwrap() > 2 {}
    let (line, head) = head.split_once("\r\n").unwrap();
    let mut request = Request { line: line.to_owned(), head: head.to_owned(), body: String::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    request.body = String::from_utf8(body).unwrap();
    let _ = requests.send(request);
    let mut stream = &stream;
    let _ = match answer {
        // A server may say what it was sent.
        Answer::Status(status, headers) => stream.write_all(
            format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: 20\r\n\r\n{TOKEN}").as_bytes(),
        ),
        Answer::Hang => stream.read(&mut [0]).map(drop),
        Answer::Close => Ok(()),
        Answer::Garbage => stream.write_all(b"\x00\xffSSH-2.0-what\r\n\r\n"),
        Answer::Flood => {
            let _ = stream.write_all(b"HTTP/1.1 500 X\r\nContent-Type: text/plain\r\n\r\n");
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
            Ok(())
        }
    };
}

/// A helper, and what it says.
struct World {
    process: Option<Process>,
    statuses: Vec<ChannelStatus>,
    directory: tempfile::TempDir,
}

impl World {
    fn new(notify: NotifySettings) -> Self {
        Self::with(Path::new(env!("CARGO_BIN_EXE_portsentry")), notify)
    }

    /// The helper of this program.
    fn with(program: &Path, notify: NotifySettings) -> Self {
        let process = Some(Process::start(program).expect("the helper starts"));
        let directory = tempfile::tempdir().unwrap();
        let mut world = Self { process, statuses: Vec::new(), directory };
        world.configure(notify);
        world
    }

    fn configure(&mut self, notify: NotifySettings) {
        let notify = Some(Box::new(notify));
        self.send(&Order::Configure(Box::new(Settings { notify, ..Settings::default() })));
    }

    fn send(&mut self, order: &Order) {
        let process = self.process.as_mut().unwrap();
        process.send(order);
        while process.unsent() > 0 {
            process.flush().unwrap();
        }
    }

    fn add(&mut self, incident: &Incident) {
        self.send(&Order::Incident(Box::new(incident.clone())));
    }

    /// Receives until something has come of it, and shows that nothing has a secret in it.
    fn wait_for<T>(&mut self, wanted: impl Fn(&Message) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut found = None;
        while found.is_none() {
            assert!(Instant::now() < deadline, "not received: {:?}", self.statuses);
            let process = self.process.as_mut().unwrap();
            process.wait(Duration::from_millis(100));
            let statuses = &mut self.statuses;
            let goes_on = process.receive(|message| {
                assert!(!format!("{message:?}").contains("tk_"), "{message:?}");
                found = found.take().or_else(|| wanted(&message));
                if let Message::Notified(status) = message {
                    statuses.push(status);
                }
            });
            assert!(goes_on.unwrap() || found.is_some(), "the helper ends");
        }
        found.unwrap()
    }

    /// Waits until a channel's status is as wanted.
    fn status(&mut self, is_wanted: impl Fn(&ChannelStatus) -> bool) {
        self.wait_for(|message| match message {
            Message::Notified(status) if is_wanted(status) => Some(()),
            _ => None,
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.process.take().map(Process::end);
    }
}

fn settings(digest: Duration) -> NotifySettings {
    NotifySettings {
        digest,
        on: vec![Class::Slowed, Class::Blocked, Class::Trouble],
        times: Some(Times {
            first_retry: Duration::from_millis(50),
            last_retry: Duration::from_millis(200),
            give_up: PATIENCE,
        }),
        ..NotifySettings::default()
    }
}

fn at(url: &str, secret_file: Option<PathBuf>) -> Option<Server> {
    // Longer than an attempt takes on a machine that is busy.
    let timeout = Some(Duration::from_secs(4));
    Some(Server { url: url.to_owned(), url_file: None, secret_file, timeout })
}

fn token(directory: &Path) -> Option<PathBuf> {
    let file = directory.join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    Some(file)
}

const SOON: Duration = Duration::from_millis(20);

// P29
#[test]
fn a_webhook_gets_each_source_once_whatever_went_wrong_before() {
    let (url, requests) = server(&[
        Answer::Status(500, ""),
        Answer::Status(429, "Retry-After: 1\r\n"),
        Answer::Close,
        Answer::Garbage,
        Answer::Hang,
        Answer::Flood,
        Answer::Status(301, "Location: http://127.0.0.1:1/\r\n"),
        Answer::Status(204, ""),
    ]);
    let secrets = tempfile::tempdir().unwrap();
    let webhook = at(&url, token(secrets.path()));
    let mut world = World::new(NotifySettings { webhook, ..settings(SOON) });
    world.add(&incident("192.0.2.1", Class::Blocked));
    let first = requests.recv_timeout(PATIENCE).unwrap();
    assert_eq!(first.line, "POST /topic HTTP/1.1");
    assert_eq!(first.header("authorization"), Some(&*format!("Bearer {TOKEN}")));
    // While it is tried again, others happen.
    world.add(&incident("192.0.2.2", Class::Slowed));
    world.add(&incident("192.0.2.2", Class::Blocked));
    world.add(&incident("192.0.2.3", Class::Reported));
    let second = requests.recv_timeout(PATIENCE).unwrap();
    let asked = Instant::now();
    let third = requests.recv_timeout(PATIENCE).unwrap();
    assert!(asked.elapsed() >= Duration::from_millis(900), "the server asked for a second");
    world.status(|status| status.sent == 2 && status.waiting == 0 && status.error.is_none());
    let attempts: Vec<_> = [first, second, third].into_iter().chain(requests.try_iter()).collect();
    let sources = |request: &Request| -> Vec<String> {
        let document = request.json();
        let sources = document["sources"].as_array().unwrap().clone();
        sources.iter().map(|source| source["address"].as_str().unwrap().to_owned()).collect()
    };
    let (repeated, next) = attempts.split_at(8);
    for attempt in repeated {
        assert_eq!(sources(attempt), ["192.0.2.1"]);
        assert_eq!(attempt.header("idempotency-key"), attempts[0].header("idempotency-key"));
    }
    assert_eq!(next.len(), 1, "nothing is sent twice");
    assert_eq!(sources(&next[0]), ["192.0.2.2"], "what is not wanted is left out");
    assert_ne!(next[0].header("idempotency-key"), attempts[0].header("idempotency-key"));
}

// P29
#[test]
fn a_flood_is_one_bounded_message_that_says_what_is_missing() {
    let (url, requests) = server(&[Answer::Status(200, "")]);
    let hour = Duration::from_secs(3600);
    let mut world = World::new(NotifySettings { ntfy: at(&url, None), ..settings(hour) });
    let flood = 2 * SOURCES_MAX;
    for n in 0..flood {
        world.add(&incident(&format!("10.{}.{}.1", n / 200, n % 200), Class::Slowed));
    }
    world.send(&Order::Missed(7));
    world.send(&Order::End(PATIENCE));
    let request = requests.recv_timeout(PATIENCE).unwrap();
    assert!(request.body.len() <= 4096, "{}", request.body.len());
    let dropped = flood - SOURCES_MAX;
    let told = format!("{dropped} further events found no room here.\n7 further events did not");
    assert!(request.body.contains(&told), "{}", request.body);
    assert!(request.header("title").unwrap().starts_with("PortSentry on "));
    world.status(|status| status.sent == 1 && status.dropped == dropped as u64 + 7);
}

// P29
#[test]
fn what_is_given_up_is_counted_and_said_in_the_next_digest() {
    let (url, requests) = server(&[Answer::Status(500, ""), Answer::Status(200, "")]);
    let mut world = World::new(settings(SOON));
    let webhook = at(&url, token(world.directory.path()));
    let times = Some(Times { give_up: Duration::ZERO, ..Times::default() });
    let times = times.map(|times| Times { first_retry: Duration::from_millis(50), ..times });
    world.configure(NotifySettings { webhook, times, ..settings(SOON) });
    world.add(&incident("192.0.2.1", Class::Blocked));
    world.status(|status| status.dropped == 1 && status.error.is_some());
    world.status(|status| status.sent == 1);
    let told = requests.try_iter().last().unwrap().json();
    assert_eq!((&told["dropped"], told["sources"].as_array().unwrap().len()), (&1.into(), 0));
}

// P29
#[test]
fn abuseipdb_gets_one_report_of_a_proven_source() {
    let again = Answer::Status(429, "Retry-After: 1\r\n");
    let (url, requests) = server(&[again, Answer::Status(200, "")]);
    let secrets = tempfile::tempdir().unwrap();
    let abuseipdb = at(&url, token(secrets.path()));
    let mut world = World::new(NotifySettings { abuseipdb, ..settings(SOON) });
    let proven = Incident { is_proven: true, ..incident("2600::7", Class::Blocked) };
    world.add(&incident("8.8.4.4", Class::Blocked));
    world.add(&proven);
    world.add(&proven);
    world.status(|status| status.sent == 1 && status.waiting == 0);
    let all: Vec<_> = requests.try_iter().collect();
    assert_eq!(all.len(), 2);
    assert_eq!(all[1].header("key"), Some(TOKEN));
    assert!(all[1].body.starts_with("ip=2600%3A%3A7&categories=14&timestamp="), "{}", all[1].body);
}

// P29
#[test]
fn mail_goes_through_sendmail_and_waits_while_that_fails() {
    let mut world = World::new(settings(SOON));
    let path = |name: &str| world.directory.path().join(name);
    let (program, mail) = (path("sendmail"), path("mail"));
    // It fails the first time, hangs the second, and takes the third.
    let script = format!(
        "#!/bin/sh\ncd '{}'\nif [ ! -e one ]; then touch one; echo 'queue is full'; exit 75; fi\nif [ ! -e two ]; then touch two; sleep 600; fi\n(echo \"$@\"; cat) >new; mv new '{}'\n",
        world.directory.path().display(),
        mail.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let sendmail = Some(Mail {
        program,
        from: "ps@example.org".to_owned(),
        to: vec!["root".to_owned(), "admin@example.org".to_owned()],
        timeout: Some(Duration::from_secs(2)),
    });
    world.configure(NotifySettings { sendmail, ..settings(SOON) });
    world.add(&incident("192.0.2.1", Class::Blocked));
    world.status(|status| status.error.as_ref().is_some_and(|why| why.contains("queue is full")));
    world.status(|status| status.sent == 1 && status.failed == 2);
    let text = std::fs::read_to_string(mail).unwrap();
    assert!(
        text.starts_with("-i -f ps@example.org root admin@example.org\nFrom: PortSentry <ps@"),
        "{text}"
    );
    assert!(text.contains("192.0.2.1: blocked, its address may be forged"), "{text}");
}

// P29
#[test]
fn a_test_is_sent_at_once_and_its_failure_shows_no_secret() {
    let secrets = tempfile::tempdir().unwrap();
    let url_file = secrets.path().join("url");
    std::fs::write(&url_file, "http://user:tk_pass@127.0.0.1:1/hook/tk_path?k=tk_query\n").unwrap();
    let server = Server {
        url_file: Some(url_file),
        secret_file: token(secrets.path()),
        ..Server::default()
    };
    let hour = Duration::from_secs(3600);
    let mut world = World::new(NotifySettings { webhook: Some(server), ..settings(hour) });
    world.send(&Order::TestNotifications);
    let why = world.wait_for(|message| match message {
        Message::Response(Response::Notified {
            is_test: true, is_sent: false, message, ..
        }) => Some(message.clone()),
        _ => None,
    });
    assert!(why.contains("refused"), "{why}");
}

#[test]
fn what_waits_is_sent_at_the_end() {
    let (url, requests) = server(&[Answer::Status(200, "")]);
    let hour = Duration::from_secs(3600);
    let mut world = World::new(NotifySettings { webhook: at(&url, None), ..settings(hour) });
    world.add(&incident("192.0.2.1", Class::Blocked));
    world.send(&Order::End(PATIENCE));
    world.status(|status| status.sent == 1);
    assert_eq!(requests.try_iter().count(), 1);
}
