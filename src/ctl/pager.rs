//! Long output on a terminal goes through a pager: PAGER, or less(1). It is run without a shell.

use std::io::{self, IsTerminal};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser as _;

use super::args::{AllowCommand, Arguments, Command, ObserveCommand};

/// Without LESS: end at once if all fits on the screen, pass colours on, leave the text there.
const LESS: &str = "FRX";

/// Starts the pager where the output is long and a person reads it; `None`: without one.
pub(super) fn start() -> Option<(Child, ChildStdin)> {
    if !io::stdout().is_terminal() || std::env::var_os("TERM").is_none_or(|term| term == "dumb") {
        return None;
    }
    // What is wrong with the command line is said without a pager.
    let arguments = Arguments::try_parse_from(std::env::args_os()).ok()?;
    if arguments.no_pager || !is_long(&arguments.command) {
        return None;
    }
    let pager = std::env::var("PAGER").ok().unwrap_or_else(|| "less".to_owned());
    let mut words = pager.split_whitespace();
    let mut process = std::process::Command::new(words.next()?);
    process.args(words).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        process.env("LESS", LESS);
    }
    let mut child = process.spawn().ok()?;
    let input = child.stdin.take()?;
    // An interrupt is the pager's: it needs the terminal until it ends.
    let _ =
        signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::new(AtomicBool::new(false)));
    Some((child, input))
}

/// Whether a command may print more than a screen.
fn is_long(command: &Command) -> bool {
    match command {
        Command::List(_)
        | Command::Show { .. }
        | Command::Rules
        | Command::Allow { command: AllowCommand::List }
        | Command::Observe { command: Some(ObserveCommand::Report) } => true,
        Command::History(options) => !options.csv,
        _ => false,
    }
}
