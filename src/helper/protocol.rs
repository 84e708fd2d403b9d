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
    /// A block is in force.
    Blocked(Blocked),
    /// A block is over.
    Unblocked(String),
    /// A chunk of the list of all blocks in force.
    List(List),
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
        };
        assert!(encode(&Order::Configure(Box::new(settings))).is_some());
    }

    proptest! {
        #[test]
        fn no_bytes_make_either_side_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)) {
            read_all(&chunks);
        }
    }
}
