//! `watch`: events as they happen, also after the daemon was started again.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use serde_json::{Value, json};

use super::failure::Failure;
use super::geo::Databases;
use super::show::{self, Zone};
use super::status;
use crate::control::client::{Client, ClientError};
use crate::control::protocol::{Kind, Reply, Request};
use crate::journal::format::{printable, printable_json};
use crate::sys::poll;

/// Between two attempts to connect again.
const EACH: Duration = Duration::from_secs(1);

/// Prints events until the output is closed. While the daemon is gone it waits, and says so on
/// standard error: what happens meanwhile is in the history.
pub(super) fn run(
    mut client: Client,
    (socket, json): (&Path, bool),
    geo: &Databases,
    (out, err): (&mut dyn Write, &mut dyn Write),
    zone: &Zone,
) -> Result<u8, Failure> {
    loop {
        match events(&mut client, json, geo, out, zone) {
            Failure::Client(error) if passes(&error) => {
                let error = error.to_string();
                writeln!(err, "portsentryctl: {}; waiting for the daemon", printable(&error))?;
                err.flush()?;
            }
            failure => return Err(failure),
        }
        client = loop {
            if !pause()? {
                return Ok(status::DONE);
            }
            match connect(socket) {
                Ok(client) => break client,
                Err(error) if passes(&error) => {}
                Err(error) => return Err(error.into()),
            }
        };
        writeln!(err, "portsentryctl: the daemon answers again")?;
        err.flush()?;
    }
}

/// Prints events until something fails.
fn events(
    client: &mut Client,
    json: bool,
    geo: &Databases,
    out: &mut dyn Write,
    zone: &Zone,
) -> Failure {
    loop {
        let mut event = match client.receive(None) {
            Ok(Reply::Event { event }) => event,
            Ok(_) => return Failure::Answer,
            Err(error) => return error.into(),
        };
        let address = event.get("address").and_then(Value::as_str);
        let geo = address.and_then(|address| geo.find(address.parse().ok()?));
        let printed = if json {
            if let (Some(geo), Some(event)) = (&geo, event.as_object_mut()) {
                event.insert("geo".to_owned(), json!(geo));
            }
            writeln!(out, "{}", printable_json(&event.to_string()))
        } else {
            show::event(out, &event, geo.as_ref(), zone)
        };
        if let Err(error) = printed.and_then(|()| out.flush()) {
            return error.into();
        }
    }
}

fn connect(socket: &Path) -> Result<Client, ClientError> {
    let mut client = Client::connect(socket)?;
    client.ask(&Request::Watch {})?;
    Ok(client)
}

/// Whether it is worth trying again: the daemon stops, is not there yet, or has no room for another
/// watcher or for one that reads so slowly.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. }
        | ClientError::Late
        | ClientError::Closed
        | ClientError::Lost(_) => true,
        ClientError::Refused(refusal) => refusal.kind == Kind::Busy,
        ClientError::NotPermitted { .. } | ClientError::Unintelligible(_) => false,
    }
}

/// Waits before the next attempt; `false`: nothing reads the output any more.
fn pause() -> io::Result<bool> {
    let out = io::stdout();
    let mut closed = [PollFd::from_borrowed_fd(out.as_fd(), PollFlags::empty())];
    match poll::wait(&mut closed, Some(EACH)) {
        Ok(count) => Ok(count == 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(error) => Err(error),
    }
}
