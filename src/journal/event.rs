//! What the journal is told.

use std::time::Duration;

use jiff::Timestamp;

use crate::engine::Report;
use crate::probe::Transport;

/// Something that happened, with its time of day.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What.
    pub notice: Notice,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// The engine's report. These are what remote packets cause: their lines are rate limited.
    Engine(Report),
    /// The daemon starts (classic: `adminalert: PortSentry ... is starting.`).
    Starting,
    /// These ports are watched now, of this transport, in the words of the configuration.
    Watching {
        /// The transport.
        transport: Transport,
        /// `advanced`, `stealth`, `connect`.
        mode: &'static str,
        /// How many ports.
        ports: u32,
        /// The ports, as ranges.
        ranges: String,
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
    /// The never-block addresses changed.
    NeverBlock {
        /// How many networks and addresses.
        entries: usize,
    },
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
