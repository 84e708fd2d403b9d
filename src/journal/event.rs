//! What the journal is told.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::names::HostName;
use crate::config::PortSet;
use crate::engine::Report;
use crate::probe::Transport;

/// Something that happened, with its time of day.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    pub notice: Notice,
    /// The name of the one host that it is about, where `resolve` is on and the name was found in time.
    pub name: Option<HostName>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// The engine's report. These are what remote packets cause: their lines are rate limited.
    Engine(Report),
    /// The daemon starts (classic: `adminalert: PortSentry ... is starting.`).
    Starting,
    /// These ports are watched now, of this transport.
    Watching {
        /// The transport.
        transport: Transport,
        /// `advanced`, `stealth`, `connect`.
        mode: &'static str,
        /// The ports that the configuration names for this mode.
        ports: PortSet,
        /// The ports that are never watched: `exclude` in advanced mode, else none.
        excluded: PortSet,
        /// The ports that local services take now, and which are no traps therefore.
        services: PortSet,
    },
    /// Everything is in place (classic: `adminalert: PortSentry is now active and listening.`).
    Active,
    /// The daemon ends; how many blocks it leaves in the kernel.
    Stopping {
        /// Elements that stay in the kernel.
        blocks_left: u64,
    },
    /// A new configuration is in force.
    Reloaded,
    /// A new configuration was refused; the findings, a line each.
    ReloadRefused {
        /// The findings.
        findings: String,
    },
    /// Packets were lost between the kernel and the daemon.
    Lost {
        /// How many since the last time this was told.
        packets: u64,
        /// How many in all.
        total: u64,
    },
    /// Packets of unknown sources were given up under load, so that those of known ones could be judged.
    Shed {
        /// How many since the last time this was told.
        packets: u64,
        /// How many in all.
        total: u64,
    },
    /// The never-block addresses changed.
    NeverBlock {
        /// How many networks and addresses.
        entries: usize,
    },
    /// What a response beside the block came to.
    Response(Response),
    /// Another program changed the daemon's table.
    ForeignChange {
        /// Its process id, as the kernel tells it.
        pid: u32,
        /// Its name, as the kernel tells it.
        program: String,
        /// What was done about it.
        remedy: String,
    },
    /// Status, asked for by SIGUSR1: one line of text.
    Status(String),
    /// Blocks found in the kernel at start and taken over.
    Adopted {
        /// How many.
        blocks: usize,
    },
    /// Blocks that were stored and gone from the kernel, put back at the start.
    Restored {
        /// How many.
        blocks: usize,
    },
    /// Something that the administrator should know.
    Warning(String),
    /// Something failed.
    Error(String),
    /// Lines that were held back, so that nobody can flood the log.
    HeldBack {
        /// How many lines.
        lines: u64,
        /// Within which time.
        within: Duration,
    },
}

/// What a response beside the block came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// `respond.command` has ended, or could not be started.
    Command {
        /// Whom it was run for, as it was written in place of `{target}`.
        target: String,
        /// Program and arguments, joined by blanks.
        command: String,
        /// How it ended.
        ended: Ended,
        /// How long it ran.
        took: Duration,
        /// The start of what it wrote, on either output; may hold any characters.
        output: String,
    },
    /// A line stands in hosts.deny.
    Denied {
        /// Whom it denies.
        target: String,
        /// The line.
        line: String,
    },
    /// A line was taken out of hosts.deny.
    NoLongerDenied {
        /// Whom it denied.
        target: String,
    },
    /// Commands were not run: too many were waiting.
    Dropped {
        /// How many since the last time this was told.
        commands: u64,
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
    /// It was killed when `respond.command_timeout` was over.
    TimedOut(Duration),
    /// It did not start; the system's words.
    NotStarted(String),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Success => f.write_str("done"),
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::TimedOut(after) => write!(f, "killed, it ran longer than {}", humantime::format_duration(*after)),
            Self::NotStarted(why) => write!(f, "not started: {why}"),
        }
    }
}
