//! Whether this host is protected, and `status --check`: the status as a plugin of Nagios, Icinga
//! and others tells it.

use std::io::{self, Write};

use super::failure::Failure;
use super::show::count;
use super::status;
use crate::control::protocol::{RulesState, Status};
use crate::journal::format::printable;

/// Exit statuses of monitoring plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// All is well.
    Ok,
    /// An administrator should look at it.
    Warning,
    /// Scans are not blocked although they should be.
    Critical,
    /// The daemon was not asked.
    Unknown,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The exit status of the plugin.
    pub(super) fn exit_status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

/// Whether scans are blocked now.
pub(super) fn is_protecting(status: &Status) -> bool {
    status.detection == "on"
        && status.mode == "enforce"
        && !status.watching.is_empty()
        && status.rules != RulesState::Changed
}

/// What is wrong, the worst first.
fn problems(status: &Status) -> Vec<(Level, String)> {
    let mut problems = Vec::new();
    let mut add = |is_so: bool, level, text: String| {
        if is_so {
            problems.push((level, text));
        }
    };
    add(
        status.rules == RulesState::Changed,
        Level::Critical,
        "the rules in the kernel are not those in force".to_owned(),
    );
    add(status.repairs.fighting, Level::Critical, {
        let program = status.repairs.program.as_deref().unwrap_or("another program");
        format!("{program} changes the table again and again")
    });
    add(
        status.not_in_force > 0,
        Level::Critical,
        format!("{} not in force", count(status.not_in_force, "block")),
    );
    let is_on = status.detection == "on";
    add(is_on && status.watching.is_empty(), Level::Critical, "nothing is watched".to_owned());
    add(!is_on, Level::Warning, format!("detection is {}", status.detection));
    add(status.mode != "enforce", Level::Warning, format!("the mode is {}", status.mode));
    add(
        status.loaded.is_some_and(|loaded| !loaded.ok),
        Level::Warning,
        "the configuration that was read last was refused".to_owned(),
    );
    // Most have a warning too; the first of those stands for what has no figure of its own.
    if let (true, Some(warning)) = (problems.is_empty(), status.warnings.first()) {
        problems.push((Level::Warning, warning.clone()));
    }
    problems.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    problems
}

/// What is wrong, in words, the worst first.
pub(super) fn texts(status: &Status) -> Vec<String> {
    problems(status).into_iter().map(|(_, text)| text).collect()
}

/// Prints the line of a plugin, with performance data; returns what it says.
pub(super) fn check(out: &mut dyn Write, status: &Status) -> io::Result<Level> {
    let problems = problems(status);
    let level = problems.first().map_or(Level::Ok, |(level, _)| *level);
    let mut texts: Vec<&str> = problems.iter().map(|(_, text)| text.as_str()).collect();
    let (blocked, slowed) = (count(status.blocked, "block"), count(status.slowed, "slowed source"));
    let fine = format!("scans are blocked, {blocked}, {slowed}");
    if texts.is_empty() {
        texts.push(&fine);
    }
    line(out, level, &texts.join("; "))?;
    let lost = status.lost + status.shed;
    writeln!(
        out,
        " | blocked={};;;0;{} slowed={};;;0 sources={};;;0 probes={}c;;;0 lost={lost}c;;;0 not_in_force={};;;0 uptime={}s;;;0",
        status.blocked,
        status.blocked_most,
        status.slowed,
        status.sources,
        status.probes,
        status.not_in_force,
        status.uptime
    )?;
    Ok(level)
}

/// Prints the line where there is no status: a daemon that does not run blocks no new scan, and one
/// that may not be asked is unknown.
pub(super) fn unanswered(out: &mut dyn Write, failure: &Failure) -> io::Result<Level> {
    let level =
        if failure.exit_status() == status::UNREACHABLE { Level::Critical } else { Level::Unknown };
    let text = failure.text();
    let first = text.lines().next().unwrap_or_default();
    line(out, level, first.strip_prefix("portsentryctl: ").unwrap_or(first))?;
    writeln!(out)?;
    Ok(level)
}

/// A plugin's text ends at a vertical line.
fn line(out: &mut dyn Write, level: Level, text: &str) -> io::Result<()> {
    write!(out, "PORTSENTRY {} - {}", level.word(), printable(text).replace('|', "/"))
}
