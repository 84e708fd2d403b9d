//! What the daemon and its helper say to each other: a JSON object a line, over a socket pair that nobody else has an end of.
//!
//! Owns the forms and the cap on a line. Neither side trusts the other to keep it: a line that is too long or unreadable is an error, never a crash.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::journal::Response;

/// Longest line either way, in bytes. The longest order is the configuration: a command and a line of 4 KiB each, and paths of as much, with every
/// character escaped; lists go in pieces.
pub const LINE_MAX: usize = 128 << 10;

/// Blocks that one [`List`] holds: some 250 bytes each.
pub const LIST_PIECE: usize = 128;

/// What the daemon orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// These settings are in force from now on. The first order.
    Configure(Box<Settings>),
    /// Run the command.
    Run(Run),
    /// Look up the name of an address. Answered by [`Word::Name`], once.
    Resolve(IpAddr),
    /// A block is in force.
    Blocked(Blocked),
    /// A block is over.
    Unblocked(String),
    /// A piece of the list of all blocks that are in force.
    List(List),
    /// Are you there? Answered by [`Word::Pong`], after all orders before it were taken.
    Ping,
    /// End: running commands get this time, those that wait are dropped.
    End(Duration),
}

/// What the helper needs of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Settings {
    /// `respond.command`; empty: none.
    pub command: Vec<String>,
    /// `respond.command_timeout`.
    pub command_timeout: Duration,
    /// `respond.hosts_deny`, if it is enabled.
    pub hosts_deny: Option<HostsDeny>,
    /// `blocked_file`: the name without its mode word.
    pub blocked_file: Option<PathBuf>,
    /// The classic words of the modes that are in use.
    pub modes: Vec<String>,
}

/// `respond.hosts_deny`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsDeny {
    /// The file.
    pub path: PathBuf,
    /// The line, `{target}` in it.
    pub line: String,
}

/// For whom the command is run: what its macros and its environment say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// An address, or an IPv6 prefix as `portsentryctl list` shows it.
    pub target: String,
    /// The port that crossed the trigger.
    pub port: u16,
    /// The classic word of the mode in which that port was watched: `atcp`.
    pub mode: String,
    /// `tcp`, `udp`, `sctp`, `ip`.
    pub protocol: String,
    /// The kind of scan.
    pub scan: String,
    /// Why.
    pub reason: String,
}

/// A block, as text files show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// An address, an IPv6 prefix, or a network.
    pub target: String,
    /// The classic word of the mode that found it; `None` for a block by hand.
    pub mode: Option<String>,
    /// Since when, in seconds since 1970.
    pub at: i64,
    /// Its line of the history; `None` where there is none.
    pub line: Option<String>,
}

/// A piece of the list of all blocks that are in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The first piece.
    pub first: bool,
    /// The last piece: with it the list takes effect.
    pub last: bool,
    /// Nothing else is blocked. Otherwise there are more, which the list left off.
    pub whole: bool,
    /// The blocks.
    pub blocks: Vec<Blocked>,
}

/// What the helper tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// It is there.
    Ready,
    /// It has taken all orders up to [`Order::Ping`].
    Pong,
    /// What a response came to.
    Response(Response),
    /// The name of an address; `None`: it has none, or none that may be shown, or it could not be had in time.
    Name {
        /// The address.
        address: IpAddr,
        /// Its name.
        name: Option<String>,
    },
    /// Orders about files were lost: the list of all blocks is wanted.
    ListWanted,
    /// Something that the administrator should know.
    Warning(String),
    /// Something failed.
    Error(String),
}

/// A line for the other side, its end included. `None` when it would be too long, which nothing that is said is.
pub fn encode(value: &impl Serialize) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(value).ok()?;
    line.push(b'\n');
    (line.len() <= LINE_MAX).then_some(line)
}

/// Bytes as they come in, cut into lines.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Up to here there is no line end.
    searched: usize,
}

impl Lines {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line, read; `None` when there is none yet.
    ///
    /// # Errors
    /// `InvalidData` for a line that is too long or does not say anything known.
    pub fn next_line<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let end = self.bytes.iter().skip(self.searched).position(|byte| *byte == b'\n').map(|at| at + self.searched);
        let Some(end) = end else {
            self.searched = self.bytes.len();
            if self.bytes.len() > LINE_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            return Ok(None);
        };
        self.searched = 0;
        if end >= LINE_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
        }
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        serde_json::from_slice(&line).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
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
