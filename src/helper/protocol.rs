//! The protocol between daemon and helper: a JSON object a line, over a private socket pair.
//!
//! Neither side relies on the other: a line that is too long or unreadable is an error, never a
//! crash.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::journal::Response;

/// Longest line either way, in bytes. The longest order is the configuration: a command and a line
/// of 4 KiB each, and paths, with every character escaped; lists are sent in chunks.
pub const LINE_MAX: usize = 128 << 10;

/// The host for which responses are tested: of TEST-NET-1, from which no packet comes (RFC 5737).
pub const TEST_TARGET: &str = "192.0.2.1";

/// Addresses of one DNS name: a name with more is a service's with many hosts, which hand out some
/// of theirs in turns.
pub const ADDRESSES_MAX: usize = 16;

/// Blocks in one [`List`], about 250 bytes each.
pub const LIST_CHUNK: usize = 128;

/// What the daemon sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Use these settings. The first order.
    Configure(Box<Settings>),
    /// Run the command.
    Run(Run),
    /// Look up the name of an address. Answered once by [`Message::Name`].
    Resolve(IpAddr),
    /// Look up the addresses of a DNS name. Answered by [`Message::Addresses`].
    LookUp(String),
    /// A block is in force.
    Blocked(Blocked),
    /// A block is over.
    Unblocked(String),
    /// A chunk of the list of all blocks in force.
    List(List),
    /// Something that notifications are about.
    Incident(Box<Incident>),
    /// So many incidents were not sent.
    Missed(u64),
    /// Send a test by each channel of notifications.
    TestNotifications,
    /// Liveness check. Answered by [`Message::Pong`] after all earlier orders were taken.
    Ping,
    /// End: running commands get this time, queued ones are dropped.
    End(Duration),
}

/// The part of the configuration that the helper uses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings {
    /// `respond.command`; empty: none.
    pub command: Vec<String>,
    /// `respond.command_timeout`.
    pub command_timeout: Duration,
    /// `respond.hosts_deny`, if it is enabled.
    pub hosts_deny: Option<HostsDeny>,
    /// `blocked_file`: the name without its mode.
    pub blocked_file: Option<PathBuf>,
    /// `control.group`, whose members read the blocked files; empty: none.
    pub group: String,
    /// The classic names of the modes in use.
    pub modes: Vec<String>,
    /// `notify`; `None`: nothing is sent.
    pub notify: Option<Box<NotifySettings>>,
}

/// `notify`, as far as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NotifySettings {
    /// How long a digest collects.
    pub digest: Duration,
    /// What digests are about.
    pub on: Vec<Class>,
    /// Mail.
    pub sendmail: Option<Mail>,
    /// A POST of JSON.
    pub webhook: Option<Server>,
    /// ntfy.
    pub ntfy: Option<Server>,
    /// AbuseIPDB.
    pub abuseipdb: Option<Server>,
    /// Waits between attempts; `None`: the usual ones.
    pub times: Option<Times>,
}

/// Waits between attempts to send a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// The wait after a first failure, which doubles.
    pub first_retry: Duration,
    /// The longest wait.
    pub last_retry: Duration,
    /// Age at which a message is given up.
    pub give_up: Duration,
}

impl Default for Times {
    /// A server that restarts is back within a minute; one that is repaired after a night gets what
    /// waited.
    fn default() -> Self {
        Self {
            first_retry: Duration::from_secs(10),
            last_retry: Duration::from_secs(3600),
            give_up: Duration::from_secs(86_400),
        }
    }
}

/// `notify.sendmail`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mail {
    /// The program.
    pub program: PathBuf,
    /// The sender; empty: the program's default.
    pub from: String,
    /// Recipients.
    pub to: Vec<String>,
    /// Time of an attempt; `None`: the usual one.
    pub timeout: Option<Duration>,
}

/// A server that takes messages over HTTP. Secrets stay in their files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Server {
    /// Its URL; empty: it is in a file.
    pub url: String,
    /// The file that holds the URL.
    pub url_file: Option<PathBuf>,
    /// The file that holds the token or key.
    pub secret_file: Option<PathBuf>,
    /// Time of an attempt; `None`: the usual one.
    pub timeout: Option<Duration>,
}

/// What was done about a source, the least first, or that there is trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// It is reported.
    Reported,
    /// It is slowed.
    Slowed,
    /// It is blocked.
    Blocked,
    /// The administrator should look at it.
    Trouble,
}

impl Class {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Slowed => "slowed",
            Self::Blocked => "blocked",
            Self::Trouble => "trouble",
        }
    }
}

/// Something that notifications are about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// When, in seconds since 1970.
    pub at: i64,
    /// The kind of event.
    pub kind: String,
    /// What was done.
    pub class: Class,
    /// The source: an address or a network.
    pub target: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Whether its address is proven.
    pub is_proven: bool,
    /// The port, `tcp/22`.
    pub port: Option<String>,
    /// The kind of scan.
    pub scan: Option<String>,
    /// Why, or what happened.
    pub reason: String,
}

/// What a channel of notifications did so far, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChannelStatus {
    /// Its key in the configuration: `webhook`.
    pub channel: String,
    /// Messages that the other side has.
    pub sent: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Entries that were not sent: there was no room, or they were given up.
    pub dropped: u64,
    /// Entries that wait.
    pub waiting: u64,
    /// Why the last attempt failed; null: it did not.
    pub error: Option<String>,
}

/// `respond.hosts_deny`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsDeny {
    /// Path of the file.
    pub path: PathBuf,
    /// The line, with `{target}` in it.
    pub line: String,
}

/// Values for the command's macros and environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// An address, or an IPv6 prefix as `portsentryctl list` shows it.
    pub target: String,
    /// The port that exceeded the trigger.
    pub port: u16,
    /// The classic name of the mode in which that port was watched: `atcp`.
    pub mode: String,
    /// `tcp`, `udp`, `sctp`, `ip`.
    pub protocol: String,
    /// Kind of scan, by its name.
    pub scan: String,
    /// Evidence, as text.
    pub reason: String,
    /// What is done about the source: `slowed`, `blocked`, or only `reported`.
    pub state: String,
}

/// A block as text files list it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// An address, an IPv6 prefix, or a network.
    pub target: String,
    /// The classic name of the mode that detected it; `None` for a manual block.
    pub mode: Option<String>,
    /// Its start, in seconds since 1970.
    pub at: i64,
    /// Its line of the history; `None` if there is none.
    pub line: Option<String>,
}

/// A chunk of the list of all blocks in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The first chunk.
    pub first: bool,
    /// The last chunk, with which the list takes effect.
    pub last: bool,
    /// Whether the list is complete; otherwise it was cut off.
    pub whole: bool,
    /// Blocks in this chunk.
    pub blocks: Vec<Blocked>,
}

/// What the resolver says of a DNS name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Addresses {
    /// The name.
    pub name: String,
    /// Its addresses, in their order, at most [`ADDRESSES_MAX`].
    pub addresses: Vec<IpAddr>,
    /// It has more.
    pub is_cut: bool,
    /// Its IPv4 addresses could not be found out.
    pub ipv4_failed: bool,
    /// Its IPv6 addresses could not be found out.
    pub ipv6_failed: bool,
    /// Why the answer is not whole, or has no address.
    pub error: Option<String>,
}

/// What the helper sends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// The helper has started.
    Ready,
    /// Answer to [`Order::Ping`]: all earlier orders were taken.
    Pong,
    /// The result of a response.
    Response(Response),
    /// The answer to a lookup; `None`: no name, none that may be logged, or none in time.
    Name {
        /// The address.
        address: IpAddr,
        /// Its name.
        name: Option<String>,
    },
    /// The answer to a lookup of a DNS name.
    Addresses(Addresses),
    /// What a channel of notifications did.
    Notified(ChannelStatus),
    /// Orders about files were lost: send the list of all blocks.
    ListWanted,
    /// A warning to the administrator.
    Warning(String),
    /// A failure.
    Error(String),
}

/// A line with its line end; `None` if it is too long, which no order or message is.
pub fn encode(value: &impl Serialize) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(value).ok()?;
    line.push(b'\n');
    (line.len() <= LINE_MAX).then_some(line)
}

/// Splits incoming bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// There is no line end up to here.
    searched: usize,
}

impl Lines {
    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Parses the next whole line; `None` when there is none yet.
    ///
    /// # Errors
    /// `InvalidData` for a line that is too long or unknown.
    pub fn next_line<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut unsearched = self.bytes.iter().skip(self.searched);
        let end = unsearched.position(|byte| *byte == b'\n').map(|at| at + self.searched);
        if end.unwrap_or(self.bytes.len()) >= LINE_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
        }
        let Some(end) = end else {
            self.searched = self.bytes.len();
            return Ok(None);
        };
        self.searched = 0;
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(chunks: &[Vec<u8>]) -> (usize, bool) {
        let (mut lines, mut read) = (Lines::default(), 0);
        for chunk in chunks {
            lines.push(chunk);
            loop {
                match lines.next_line::<Order>() {
                    Ok(Some(_)) => read += 1,
                    Ok(None) => break,
                    Err(_) => return (read, true),
                }
            }
        }
        (read, false)
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let order = Order::Run(Run {
            target: "2001:db8::/64".into(),
            port: 7,
            mode: "atcp".into(),
            protocol: "tcp".into(),
            scan: "syn".into(),
            reason: "a\nb\u{1b}\"".into(),
            state: "blocked".into(),
        });
        let line = encode(&order).unwrap();
        let both = [line.clone(), line].concat();
        for size in 1..both.len() {
            let mut lines = Lines::default();
            let mut read = Vec::new();
            for chunk in both.chunks(size) {
                lines.push(chunk);
                while let Some(order) = lines.next_line::<Order>().unwrap() {
                    read.push(order);
                }
            }
            assert_eq!(read, [order.clone(), order.clone()]);
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_memory() {
        let mut lines = Lines::default();
        let mut refused = false;
        for _ in 0..=LINE_MAX / 1000 + 1 {
            lines.push(&[b'x'; 1000]);
            refused |= lines.next_line::<Order>().is_err();
        }
        assert!(refused);
        let mut lines = Lines::default();
        lines.push(&[b" ".repeat(LINE_MAX), b"\"are-you-there\"\n".to_vec()].concat());
        assert!(lines.next_line::<Order>().is_err(), "its end does not make it shorter");
        assert_eq!(encode(&Order::Unblocked("x".repeat(LINE_MAX))), None);
    }

    #[test]
    fn the_longest_settings_fit_a_line() {
        let text = "\u{1}".repeat(4096);
        let path = PathBuf::from(format!("/{}", "\u{1}".repeat(4094)));
        let settings = Settings {
            command: vec![text.clone()],
            command_timeout: Duration::MAX,
            hosts_deny: Some(HostsDeny { path: path.clone(), line: text }),
            blocked_file: Some(path),
            group: "\u{1}".repeat(32),
            modes: vec!["atcp".to_owned(), "audp".to_owned()],
            notify: Some(Box::new(longest_notify())),
        };
        assert!(encode(&Order::Configure(Box::new(settings))).is_some());
    }

    /// With the bounds of the configuration's keys.
    fn longest_notify() -> NotifySettings {
        let file = || Some(PathBuf::from(format!("/{}", "\u{1}".repeat(511))));
        let server = Server {
            url: "x".repeat(1024),
            url_file: file(),
            secret_file: file(),
            timeout: Some(Duration::MAX),
        };
        NotifySettings {
            digest: Duration::MAX,
            on: vec![Class::Reported, Class::Slowed, Class::Blocked, Class::Trouble],
            sendmail: Some(Mail {
                program: file().unwrap(),
                from: "x".repeat(1024),
                to: vec!["x".to_owned(); 512],
                timeout: Some(Duration::MAX),
            }),
            webhook: Some(server.clone()),
            ntfy: Some(server.clone()),
            abuseipdb: Some(server),
            times: Some(Times::default()),
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_either_side_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)) {
            read_all(&chunks);
        }
    }
}
