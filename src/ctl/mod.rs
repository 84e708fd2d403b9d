//! `portsentryctl`: the command line, and what people and programs see of the daemon.
//!
//! Owns no state. Nothing that came from the daemon, and through it from a remote host, reaches a terminal unescaped.

mod args;
mod check;
mod failure;
mod import;
mod run;
mod show;
mod table;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

pub use args::{AllowCommand, Arguments, Command};
pub use show::Zone;

/// Exit statuses beside those of [`crate::control::Kind`] (sysexits(3head)).
mod status {
    /// Done.
    pub(super) const DONE: u8 = 0;
    /// The command line is wrong (EX_USAGE).
    pub(super) const USAGE: u8 = 64;
    /// Something of this program failed (EX_SOFTWARE).
    pub(super) const SOFTWARE: u8 = 70;
    /// The system does not allow it (EX_NOPERM).
    pub(super) const NOT_PERMITTED: u8 = 77;
    /// The configuration is wrong (EX_CONFIG).
    pub(super) const CONFIGURATION: u8 = 78;
}

/// The whole program.
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os(), &mut io::BufWriter::new(io::stdout().lock()), &mut io::stderr().lock(), &Zone::system()))
}

/// The program with its output given: the exit status.
pub fn run(arguments: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write, zone: &Zone) -> u8 {
    let arguments = match args::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // --help and --version are errors to clap that go to standard output.
            if error.use_stderr() {
                let _ = write!(err, "{error}").and_then(|()| err.flush());
                return status::USAGE;
            }
            let _ = write!(out, "{error}").and_then(|()| out.flush());
            return status::DONE;
        }
    };
    match run::run(&arguments, out, err, zone).and_then(|code| Ok(out.flush().map(|()| code)?)) {
        Ok(code) => code,
        // Whoever read the output has enough: `portsentryctl list | head` is no failure.
        Err(failure::Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => status::DONE,
        Err(failure) => {
            let _ = out.flush();
            // With standard error closed there is nowhere to tell it; the exit status tells.
            let _ = err.write_all(failure.text().as_bytes()).and_then(|()| err.flush());
            failure.exit_status()
        }
    }
}
