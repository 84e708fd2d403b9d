//! `portsentryctl`: command line, requests, and output for people and programs.
//!
//! Text from the daemon, and through it from remote hosts, is always escaped on a terminal.

mod allowed;
mod args;
mod check;
mod csv;
pub(crate) mod diagnostics;
mod exporter;
mod failure;
pub(crate) mod geo;
mod health;
mod import;
mod list;
mod metrics;
mod observed;
mod overview;
mod pager;
pub(crate) mod report;
mod responses;
pub(crate) mod run;
mod screen;
mod session;
pub(crate) mod several;
mod show;
mod table;
mod timeline;
mod top;
mod watch;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser as _;

use crate::journal::error_document::ErrorDocument;

pub use args::{
    AllowCommand, Arguments, Command, History, Import, List, ObserveCommand, Report, Sort,
};
pub use exporter::Place;
pub use show::Zone;

/// Exit statuses in addition to those of [`crate::control::Kind`] (sysexits(3head)).
mod status {
    /// Done.
    pub(super) const DONE: u8 = 0;
    /// No.
    pub(super) const NO: u8 = 1;
    /// The command line is wrong (EX_USAGE).
    pub(super) const USAGE: u8 = 64;
    /// The daemon does not answer (EX_UNAVAILABLE).
    pub(super) const UNREACHABLE: u8 = 69;
    /// An internal failure (EX_SOFTWARE).
    pub(super) const SOFTWARE: u8 = 70;
    /// The system refuses it (EX_NOPERM).
    pub(super) const NOT_PERMITTED: u8 = 77;
    /// The configuration is wrong (EX_CONFIG).
    pub(super) const CONFIGURATION: u8 = 78;
}

/// Runs the program.
pub fn main() -> ExitCode {
    crate::sys::process::abort_on_panic();
    screen::Screen::look();
    let mut err = io::stderr().lock();
    let zone = Zone::system().unwrap_or_else(|unknown| {
        // In JSON all times are in UTC.
        if !wants_json(std::env::args_os()) {
            let _ = writeln!(err, "portsentryctl: {unknown}");
        }
        Zone::utc()
    });
    let Some((mut pager, input)) = pager::start() else {
        let mut out = io::BufWriter::new(io::stdout().lock());
        return ExitCode::from(run(std::env::args_os(), &mut out, &mut err, &zone));
    };
    let code = run(std::env::args_os(), &mut io::BufWriter::new(input), &mut err, &zone);
    // Its input ends; it has the terminal until its user has read.
    let _ = pager.wait();
    ExitCode::from(code)
}

/// Whether a command line asks for JSON, even one that is wrong.
fn wants_json(arguments: impl IntoIterator<Item = OsString>) -> bool {
    let options = arguments.into_iter().take_while(|argument| argument != "--");
    options.skip(1).any(|argument| argument == "--json")
}

/// Runs the program with the given outputs; returns the exit status.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    err: &mut dyn Write,
    zone: &Zone,
) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let arguments = match Arguments::try_parse_from(&arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap reports --help and --version as errors that go to standard output.
            if error.use_stderr() {
                let text = if wants_json(arguments) {
                    ErrorDocument::of_command_line(&error.to_string(), status::USAGE).line()
                } else {
                    error.to_string()
                };
                let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
                return status::USAGE;
            }
            let _ = write!(out, "{error}").and_then(|()| out.flush());
            return status::DONE;
        }
    };
    match run::run(&arguments, out, err, zone).and_then(|code| Ok(out.flush().map(|()| code)?)) {
        Ok(code) => code,
        // The reader of the output has enough: `portsentryctl list | head` is not a failure.
        Err(failure::Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            status::DONE
        }
        Err(failure) => {
            let _ = out.flush();
            // If standard error is closed, the exit status is all that is left.
            let text = if arguments.json { failure.document().line() } else { failure.text() };
            let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
            failure.exit_status()
        }
    }
}
