//! Log targets: standard error, systemd's journal, syslog.
//!
//! Only the log's thread uses a target, which may hang. A line that cannot be written is an error
//! that the caller counts.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use log::{Level, Record};
use rustix::event::{PollFd, PollFlags};
use serde_json::Value;
use systemd_journal_logger::JournalLog;

use super::format::{Fact, offset};
use crate::config::{self, Facility, LogFormat, LogTarget};
use crate::sys::poll;

/// The socket of syslog(3).
const DEV_LOG: &str = "/dev/log";

/// The identifier of the daemon's lines in the journal and syslog; PortSentry 1.2's.
const IDENTIFIER: &str = "portsentry";

/// How long a write waits for a syslog daemon whose queue is full. The kernel queues 10 lines by
/// default (`net.unix.max_dgram_qlen`), and a start logs more. After a timeout the next writes do
/// not wait until it takes a line again.
const SYSLOG_TIMEOUT: Duration = Duration::from_millis(200);

/// A log target.
pub trait Sink: Send {
    /// Writes one line, given without its line end; `level` is its priority.
    ///
    /// # Errors
    /// The line is lost.
    fn write(&mut self, level: Level, module: &str, text: &str) -> io::Result<()>;

    /// Whether [`Self::write_event`] uses the facts.
    fn takes_facts(&self) -> bool {
        false
    }

    /// As [`Self::write`], with what is known of the event behind the line; nothing if there is none.
    ///
    /// # Errors
    /// The line is lost.
    fn write_event(
        &mut self,
        level: Level,
        module: &str,
        text: &str,
        _facts: &[Fact],
    ) -> io::Result<()> {
        self.write(level, module, text)
    }
}

/// Opens the configured target. `auto` is the journal when standard error leads there
/// (JOURNAL_STREAM, systemd.exec(5)), else standard error.
///
/// # Errors
/// `journal` is configured by name and cannot be reached.
pub fn open(log: &config::Log) -> io::Result<Box<dyn Sink>> {
    let connected = systemd_journal_logger::connected_to_journal();
    let stderr = || Box::new(Stderr { format: log.format, is_journal: connected });
    Ok(match log.target {
        LogTarget::Auto if connected => match journald(log.facility) {
            Ok(journal) => Box::new(journal),
            Err(_) => stderr(),
        },
        LogTarget::Auto | LogTarget::Stderr => stderr(),
        LogTarget::Journal => Box::new(journald(log.facility)?),
        LogTarget::Syslog => {
            let mut syslog = Syslog::new(PathBuf::from(DEV_LOG), log.facility);
            // syslog may start later, and the daemon does not wait for it. Until then only this
            // line says that there is no log.
            if let Err(error) = syslog.connect() {
                let _ = writeln!(
                    io::stderr(),
                    "portsentry: {DEV_LOG} cannot be reached: {error}; lines are lost until a syslog daemon listens there"
                );
            }
            Box::new(syslog)
        }
    })
}

/// The severity of syslog (RFC 5424, 6.2.1). `Info` is "notice", as all lines of PortSentry 1.2 and
/// as the journal's logger has it.
const fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 5,
        Level::Debug | Level::Trace => 7,
    }
}

fn record<T>(level: Level, module: &str, text: &str, with: impl FnOnce(&Record<'_>) -> T) -> T {
    with(&Record::builder().level(level).target(module).args(format_args!("{text}")).build())
}

/// Standard error: with local time on a terminal or in a file, with sd-daemon(3)'s level prefix
/// under systemd.
struct Stderr {
    format: LogFormat,
    /// It leads to the journal, which adds the time.
    is_journal: bool,
}

impl Sink for Stderr {
    fn write(&mut self, level: Level, _module: &str, text: &str) -> io::Result<()> {
        let start = if self.is_journal {
            format!("<{}>", severity(level))
        } else if self.format == LogFormat::Json {
            // The object contains its time.
            String::new()
        } else {
            let now = jiff::ZonedDateTime::now();
            format!("{}{} ", now.strftime("%Y-%m-%d %H:%M:%S"), offset(&now))
        };
        // In one write: other processes may write there too.
        io::stderr().write_all(format!("{start}{text}\n").as_bytes())
    }
}

/// systemd's journal, by its own protocol.
fn journald(facility: Facility) -> io::Result<JournalLog> {
    let journal = JournalLog::new()?.with_syslog_identifier(IDENTIFIER.to_owned());
    Ok(journal.add_extra_field("SYSLOG_FACILITY", (facility as u8).to_string()))
}

/// The MESSAGE_ID of an event (systemd.journal-fields(7)): the same for all of a kind, and found from
/// its name alone, since kinds are never renamed. A UUID of version 8 (RFC 9562, 5.8) with the FNV-1a
/// hash of the name in its last 62 bits.
fn message_id(kind: &str) -> String {
    const OURS: u128 = 0x7c1f_5a0e_92d4_8b36_8000_0000_0000_0000;
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = kind.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{:032x}", OURS | u128::from(hash & (u64::MAX >> 2)))
}

/// The journal's fields of an event.
fn fields(facts: &[Fact]) -> Vec<(String, String)> {
    let mut fields = Vec::with_capacity(facts.len() + 1);
    for (key, value) in facts {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if *key == "event" {
            fields.push(("MESSAGE_ID".to_owned(), message_id(&text)));
        }
        fields.push((format!("PORTSENTRY_{}", key.to_ascii_uppercase()), text));
    }
    fields
}

impl Sink for JournalLog {
    fn write(&mut self, level: Level, module: &str, text: &str) -> io::Result<()> {
        self.write_event(level, module, text, &[])
    }

    fn takes_facts(&self) -> bool {
        true
    }

    fn write_event(
        &mut self,
        level: Level,
        module: &str,
        text: &str,
        facts: &[Fact],
    ) -> io::Result<()> {
        let fields = fields(facts);
        record(level, module, text, |record| {
            self.journal_send(&record.to_builder().key_values(&fields).build())
        })
    }
}

/// syslog over a unix datagram socket: `<PRI>portsentry[pid]: text` (RFC 3164, 4.1; the receiving
/// daemon adds time and host).
pub struct Syslog {
    path: PathBuf,
    facility: Facility,
    socket: Option<UnixDatagram>,
    /// It took no line within [`SYSLOG_TIMEOUT`].
    unresponsive: bool,
}

impl Syslog {
    /// Connects at the first line, and again when the other end went away.
    pub fn new(path: PathBuf, facility: Facility) -> Self {
        Self { path, facility, socket: None, unresponsive: false }
    }

    fn connect(&mut self) -> io::Result<&UnixDatagram> {
        Ok(match &mut self.socket {
            Some(socket) => socket,
            empty => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(&self.path)?;
                empty.insert(socket)
            }
        })
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        let is_full = |sent: &io::Result<usize>| {
            sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        let unresponsive = self.unresponsive;
        let socket = self.connect()?;
        let mut sent = socket.send(line);
        if !unresponsive && is_full(&sent) {
            let mut fds = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::OUT)];
            // The second attempt shows the result.
            let _ = poll::wait(&mut fds, Some(SYSLOG_TIMEOUT));
            sent = socket.send(line);
        }
        self.unresponsive = is_full(&sent);
        sent.map(drop)
    }
}

impl Sink for Syslog {
    fn write(&mut self, level: Level, _module: &str, text: &str) -> io::Result<()> {
        let priority = (self.facility as u8) << 3 | severity(level);
        let line = format!("<{priority}>{IDENTIFIER}[{}]: {text}", std::process::id());
        match self.send(line.as_bytes()) {
            Ok(()) => Ok(()),
            // The receiver is slow. A new connection would not help.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(_) => {
                self.socket = None;
                self.send(line.as_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver(path: &std::path::Path) -> UnixDatagram {
        let receiver = UnixDatagram::bind(path).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        receiver
    }

    fn next(receiver: &UnixDatagram) -> String {
        let mut buffer = [0; 8192];
        let length = receiver.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn syslog_gets_facility_level_name_and_pid_and_survives_a_restart_of_its_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut sink = Syslog::new(path.clone(), Facility::Daemon);
        assert!(sink.write(Level::Info, "", "nobody listens").is_err());
        let first = receiver(&path);
        sink.write(Level::Info, "", "adminalert: one").unwrap();
        assert_eq!(
            next(&first),
            format!("<29>portsentry[{}]: adminalert: one", std::process::id())
        );
        drop(first);
        std::fs::remove_file(&path).unwrap();
        let second = receiver(&path);
        Syslog::new(path.clone(), Facility::Local7).write(Level::Error, "", "x").unwrap();
        assert!(next(&second).starts_with("<187>portsentry["));
        sink.write(Level::Warn, "", "two").unwrap();
        assert!(next(&second).ends_with(": two"));
    }

    #[test]
    fn the_fields_of_an_event_are_its_facts() {
        let facts = [
            ("event", "blocked".into()),
            ("address", "192.0.2.7".into()),
            ("name", Value::Null),
            ("timeout", 3600.into()),
        ];
        let shown: Vec<String> =
            fields(&facts).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            shown,
            [
                "MESSAGE_ID=7c1f5a0e92d48b36befbf1594f60e733",
                "PORTSENTRY_EVENT=blocked",
                "PORTSENTRY_ADDRESS=192.0.2.7",
                "PORTSENTRY_TIMEOUT=3600"
            ]
        );
        assert_ne!(message_id("blocked"), message_id("slowed"));
    }

    #[test]
    fn a_syslog_daemon_that_is_slow_gets_every_line_of_a_long_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let slow = receiver(&path);
        let reader = std::thread::spawn(move || {
            let read = |_| {
                std::thread::sleep(Duration::from_millis(1));
                next(&slow)
            };
            (0..150).map(read).collect::<Vec<_>>()
        });
        let mut sink = Syslog::new(path, Facility::Daemon);
        for line in 0..150 {
            sink.write(Level::Info, "", &format!("line {line}.")).unwrap();
        }
        let read = reader.join().unwrap();
        assert!(
            read.iter().enumerate().all(|(at, line)| line.ends_with(&format!(": line {at}."))),
            "{read:?}"
        );
    }

    #[test]
    fn a_hanging_syslog_daemon_delays_no_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let mut sink = Syslog::new(path, Facility::Daemon);
        let failures = (0..5000).filter(|_| sink.write(Level::Info, "", "line").is_err()).count();
        assert!(failures > 0);
    }
}
