//! The helper: a second process for work outside netlink, so that the first never waits for it.
//!
//! ```text
//!   daemon: client --Order--> socket pair --> reader --+--> commands: at most 4 at once, with their children
//!                  <-Message-                          +--> names, addresses: threads that wait for the system's resolver
//!                                                      +--> files: hosts.deny, files of current blocks
//!                                                      +--> notify: digests, by a program for each attempt
//! ```
//!
//! It is this program again, started by [`process`] with one end of a socket pair as its standard
//! input, which is its only source of information. It ends when the socket closes, and all its
//! children end with it, whether the daemon stopped, crashed or was killed. Started by a unit of its
//! own it may run as root, while the daemon does not: [`untrusted`] says what it then believes.

pub(crate) mod addresses;
mod blocked_files;
pub mod client;
pub mod commands;
mod files;
mod hosts_deny;
mod mirror;
mod names;
pub mod notify;
pub mod process;
pub mod protocol;
mod run;
#[doc(hidden)]
pub mod section;
mod untrusted;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::sys::{self, signals};
use addresses::Forward;
use commands::Commands;
use files::{Change, Files};
use names::Names;
use notify::Notifier;
use protocol::{Lines, Message, Order};

/// The first argument that makes this program the helper. Not for use on a command line.
pub const ARGUMENT: &str = "helper";

/// Sends a message to the daemon.
pub type Notify = Arc<dyn Fn(Message) + Send + Sync>;

/// The socket to the daemon, if this process was started as the helper.
pub fn socket() -> Option<UnixStream> {
    sys::process::socket_on_stdin()
}

/// Runs the helper until the daemon ends it, or ends itself.
pub fn main(socket: UnixStream, arguments: &[OsString]) -> ExitCode {
    sys::process::set_name(c"portsentry-help");
    match untrusted::Orders::of(&socket, arguments).and_then(|orders| serve(socket, &orders)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "portsentry: the helper ends: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(socket: UnixStream, orders: &untrusted::Orders) -> io::Result<()> {
    // The daemon ends the helper in order.
    signals::disregard(&[SIGINT, SIGTERM, SIGHUP, SIGUSR1])?;
    signals::survive_file_size_limit()?;
    sys::process::adopt_orphans()?;
    let out = Mutex::new(socket.try_clone()?);
    let notify: Notify = Arc::new(move |message| {
        if let Some(line) = protocol::encode(&message) {
            // If the daemon is gone, the reader finds out.
            let _ = out.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line);
        }
    });
    let commands = Commands::new(Arc::clone(&notify))?;
    let answer = Arc::clone(&notify);
    let names = Names::new(Box::new(move |address, name| answer(Message::Name { address, name })))?;
    let answer = Arc::clone(&notify);
    let forward = Forward::new(Box::new(move |found| answer(Message::Addresses(found))));
    let files = Files::start(Arc::clone(&notify))?;
    let mut notifier = Notifier::new(commands.ground(), Arc::clone(&notify));
    notify(Message::Ready);
    let grace = handle_orders(
        (socket, orders),
        &notify,
        (&commands, &mut notifier),
        (&names, &forward),
        &files,
    );
    let left = grace.as_ref().copied().unwrap_or_default();
    let begun = Instant::now();
    notifier.end(left);
    commands.end(left.saturating_sub(begun.elapsed()));
    files.end();
    grace.map(|_| ())
}

/// Takes orders until the end; returns how long running commands may go on.
fn handle_orders(
    (mut socket, orders): (UnixStream, &untrusted::Orders),
    notify: &Notify,
    (commands, notifier): (&Commands, &mut Notifier),
    (names, forward): (&Names, &Forward),
    files: &Files,
) -> io::Result<Duration> {
    let mut lines = Lines::default();
    let mut buffer = [0; 16 << 10];
    let mut is_starting = false;
    loop {
        while let Some(order) = lines.next_line::<Order>()? {
            let order = match orders.checked(order) {
                Ok(order) => order,
                Err(why) => {
                    notify(Message::Error(why));
                    continue;
                }
            };
            match order {
                Order::Configure(settings) => {
                    commands.configure(&settings);
                    files.configure(&settings);
                    notifier.configure(&settings.notify.unwrap_or_default());
                    is_starting = true;
                }
                Order::Run(run) => commands.run(&run),
                Order::Resolve(address) => names.ask(address),
                Order::LookUp(name) => forward.ask(name),
                Order::Blocked(block) => files.change(Change::Blocked(block)),
                Order::Unblocked(target) => files.change(Change::Unblocked(target)),
                Order::List(list) => files.change(Change::List(list)),
                Order::Incident(incident) => notifier.add(&incident),
                Order::Missed(count) => notifier.add_missed(count),
                Order::TestNotifications => notifier.test(),
                Order::Ping => {
                    notify(Message::Pong);
                    // With the liveness check behind the configuration the start is over: from here
                    // on this process waits, most of the time.
                    if std::mem::take(&mut is_starting) {
                        sys::process::trim_code();
                    }
                }
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

    /// Polls until the condition holds or the test's limit is over.
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
