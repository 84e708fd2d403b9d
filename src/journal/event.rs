//! The events that the journal logs, stores and sends to `portsentryctl watch`.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::names::HostName;
use crate::config::PortSet;
use crate::engine::{Report, Trace};
use crate::probe::Transport;

/// An event with its time of day.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Time of day.
    pub at: Timestamp,
    /// The kind of event and its data.
    pub notice: Notice,
    /// Reverse name of the event's host, if `resolve` is on and the name was found in time.
    pub name: Option<HostName>,
    /// What the source of an engine's report has done so far.
    pub trace: Option<Box<Trace>>,
}

impl Event {
    /// An event without a name.
    pub fn new(at: Timestamp, notice: Notice) -> Self {
        Self { at, notice, name: None, trace: None }
    }
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A report of the engine. Remote packets cause these, so their lines are rate limited.
    Engine(Report),
    /// The daemon starts (classic: `adminalert: PortSentry ... is starting.`).
    Starting,
    /// The ports of one transport that are watched from now on.
    Watching {
        /// The transport.
        transport: Transport,
        /// `advanced`, `stealth`, `connect`.
        mode: &'static str,
        /// Ports that the configuration names for this mode.
        ports: PortSet,
        /// Ports that are never watched: `exclude` in advanced mode, else none.
        excluded: PortSet,
        /// Ports that local services listen on, and that are therefore not watched.
        services: PortSet,
    },
    /// Everything is in place (classic: `adminalert: PortSentry is now active and listening.`).
    Active,
    /// The daemon ends; its blocks stay in the kernel, its other rules do not.
    Stopping {
        /// Elements that stay in the kernel.
        blocks_left: u64,
    },
    /// A new configuration is in force.
    Reloaded {
        /// What differs from the one before: `scan_trigger: 2 -> 5`.
        changes: Vec<String>,
    },
    /// The mode, or detection, was switched.
    Switched {
        /// The mode now: `enforce` or `observe`.
        mode: &'static str,
        /// `on`, `off` or `paused`.
        detection: &'static str,
        /// It observes again after this time unless enforcing is confirmed.
        confirm_within: Option<Duration>,
        /// Detection is on again after this time.
        on_within: Option<Duration>,
        /// Why, if by itself.
        why: Option<String>,
    },
    /// An administrator's command that changes something was carried out or refused.
    Control {
        /// The user id of the client.
        uid: u32,
        /// Its name.
        user: Option<String>,
        /// Its process.
        pid: Option<u32>,
        /// The user who logged in, if another one: the name or the id.
        login: Option<String>,
        /// The command as it is typed.
        command: String,
        /// It was carried out.
        is_done: bool,
        /// What was done, or why not; may have several lines.
        result: String,
    },
    /// A new configuration was refused.
    ReloadRefused {
        /// The findings, a line each.
        findings: String,
    },
    /// Packets were lost between the kernel and the daemon.
    Lost {
        /// Packets lost since the previous event.
        packets: u64,
        /// Packets lost since the start.
        total: u64,
    },
    /// Packets of unknown sources were dropped under load to leave time for those of known sources.
    Shed {
        /// Packets shed since the previous event.
        packets: u64,
        /// Packets shed since the start.
        total: u64,
    },
    /// The never-block addresses changed.
    NeverBlock {
        /// Number of networks and addresses.
        entries: usize,
    },
    /// A DNS name of the allow list has other addresses.
    AllowedName {
        /// The name.
        name: String,
        /// Addresses that it did not have.
        added: Vec<IpAddr>,
        /// Addresses that it does not have any more.
        removed: Vec<IpAddr>,
    },
    /// The result of a response beside the block.
    Response(Response),
    /// Another program changed the daemon's table.
    ForeignChange {
        /// Its process id, as the kernel reports it.
        pid: u32,
        /// Its name, as the kernel reports it.
        program: String,
        /// What was done about it.
        remedy: String,
    },
    /// Status, asked for by SIGUSR1: one line of text.
    Status(String),
    /// Blocks that were found in the kernel at the start and adopted.
    Adopted {
        /// Number of blocks.
        blocks: usize,
    },
    /// Stored blocks that were missing from the kernel and were restored at the start.
    Restored {
        /// Number of blocks.
        blocks: usize,
    },
    /// A warning to the administrator.
    Warning(String),
    /// A failure.
    Error(String),
    /// Lines that the rate limit held back.
    HeldBack {
        /// Number of lines.
        lines: u64,
        /// The time in which they were held back.
        within: Duration,
    },
}

/// The result of a response beside the block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// `respond.command` has ended, or could not be started.
    Command {
        /// The source, as it replaced `{target}`.
        target: String,
        /// Program and arguments, joined by blanks.
        command: String,
        /// How it ended.
        ended: Ended,
        /// How long it ran.
        took: Duration,
        /// The start of its standard output and error; may hold any characters.
        output: String,
    },
    /// A line was written to hosts.deny.
    Denied {
        /// The host or network that it denies.
        target: String,
        /// The line.
        line: String,
    },
    /// A line was removed from hosts.deny.
    NoLongerDenied {
        /// The host or network that it denied.
        target: String,
    },
    /// Commands were not run: too many were waiting.
    Dropped {
        /// Commands dropped since the previous event.
        commands: u64,
    },
    /// A notification was sent, or could not be.
    Notified {
        /// The key of its channel: `webhook`.
        channel: String,
        /// It was a test.
        is_test: bool,
        /// The other side has it.
        is_sent: bool,
        /// What was in it, or what went wrong.
        message: String,
    },
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// With status 0.
    Success,
    /// With another status.
    Status(i32),
    /// By a signal.
    Signal(i32),
    /// Killed after `respond.command_timeout`.
    TimedOut(Duration),
    /// It did not start; the system's error.
    NotStarted(String),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Success => f.write_str("done"),
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::TimedOut(after) => {
                write!(f, "killed, it ran longer than {}", humantime::format_duration(*after))
            }
            Self::NotStarted(why) => write!(f, "not started: {why}"),
        }
    }
}
