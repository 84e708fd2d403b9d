//! The helper: a second process that does what touches the world outside netlink, so that the first never waits for it.
//!
//! ```text
//!   daemon: client --Order--> socket pair --> reader --+--> commands: at most 4 at once, each with all that it starts
//!                   <--Word---                          +--> names: threads that wait for the system's resolver
//!                                                              +--> files: hosts.deny, files of what is blocked
//! ```
//!
//! It is this program again, started by [`process`] with one end of a socket pair as its standard input, and knows only what it is told over that.
//! It ends when the socket does, and everything that it started ends with it: whether the daemon stopped, crashed or was killed.

mod blocked_files;
pub mod client;
pub mod commands;
mod files;
mod hosts_deny;
mod mirror;
mod names;
pub mod process;
pub mod protocol;
mod run;
#[doc(hidden)]
pub mod section;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::sys;
use commands::Commands;
use files::{Change, Files};
use names::Names;
use protocol::{Lines, Order, Word};

/// The word after the program's name that makes it the helper. It is nobody's to write on a command line.
pub const WORD: &str = "helper";

/// What tells the daemon something.
pub type Tell = Arc<dyn Fn(Word) + Send + Sync>;

/// The daemon's end of the socket, if this process was started as the helper: its standard input.
pub fn socket() -> Option<UnixStream> {
    sys::process::socket_on_stdin()
}

/// Runs the helper until the daemon ends it, or ends.
pub fn main(socket: UnixStream) -> ExitCode {
    sys::process::set_name(c"portsentry-help");
    match serve(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "portsentry: the helper ends: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(socket: UnixStream) -> io::Result<()> {
    // The daemon ends it, in order. A handler and not SIG_IGN: that would be handed on to the commands.
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGUSR1] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    sys::process::adopt_orphans()?;
    let out = Mutex::new(socket.try_clone()?);
    let tell: Tell = Arc::new(move |word| {
        if let Some(line) = protocol::encode(&word) {
            // A daemon that is gone hears nothing, and the reader finds that out.
            let _ = out.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
        }
    });
    let commands = Commands::new(Arc::clone(&tell))?;
    let answer = Arc::clone(&tell);
    let names = Names::new(Box::new(move |address, name| answer(Word::Name { address, name })))?;
    let files = Files::start(Arc::clone(&tell))?;
    tell(Word::Ready);
    let grace = obey(socket, &tell, &commands, &names, &files);
    commands.end(grace.as_ref().copied().unwrap_or_default());
    files.end();
    grace.map(|_| ())
}

/// Takes orders until the end; how long running commands may go on.
fn obey(mut socket: UnixStream, tell: &Tell, commands: &Commands, names: &Names, files: &Files) -> io::Result<Duration> {
    let mut lines = Lines::default();
    let mut buffer = [0; 16 << 10];
    loop {
        while let Some(order) = lines.next_line::<Order>()? {
            match order {
                Order::Configure(settings) => {
                    commands.configure(&settings);
                    files.configure(&settings);
                }
                Order::Run(run) => commands.run(&run),
                Order::Resolve(address) => names.ask(address),
                Order::Blocked(block) => files.change(Change::Blocked(block)),
                Order::Unblocked(target) => files.change(Change::Unblocked(target)),
                Order::List(list) => files.change(Change::List(list)),
                Order::Ping => tell(Word::Pong),
                Order::End(grace) => return Ok(grace),
            }
        }
        let read = match socket.read(&mut buffer) {
            // The daemon is gone.
            Ok(0) => return Ok(Duration::ZERO),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        lines.push(buffer.get(..read).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    /// Asks until it holds; a test that waits longer hangs.
    pub(crate) fn eventually(mut condition: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }
}
