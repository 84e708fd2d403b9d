//! What the rules remember of an earlier run: the ports that each source touched within the window.
//!
//! The store has the evidence of an orderly end, or is up to a minute old. The kernel's `seen` sets
//! have what came after. A thread of its own reads them, since the time of a dump grows with the
//! square of a set's size (some 10 ms for 10,000 elements, half a minute for a full set), and hands
//! them to the packet thread in pieces.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::command::Command;
use crate::engine::{MonoTime, Seen};
use crate::errors::error_chain;
use crate::nft::{Connection, ElementInfo, Error, Key};
use crate::probe::{Port, Transport};
use crate::ruleset::{SCHEMA, SetId};
use crate::store::clock::now;
use crate::sys::mailbox::Link;

/// Ports in one command: less than a millisecond of the packet thread's time.
const PER_COMMAND: usize = 500;

/// Commands that wait in the packet thread's queue at most; most of the queue stays free for others.
/// As many ports wait before that thread runs: all that there are, except after a flood.
const WAITING_MAX: usize = 16;

/// How long the start waits for the thread: enough for what the queue takes. Sets that are larger
/// are read while the packet thread runs.
const START_WAITS: Duration = Duration::from_millis(200);

/// The packet thread takes a piece at its next wake, unless it takes over a large table.
const TAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts to read the sets, and waits a little. Call it before the rules are installed: these
/// may replace the sets. What cannot be read is missing, as if this host had been rebooted.
pub(crate) fn read(packets: Link<Command>) {
    let (ended, end) = sync_channel::<()>(1);
    let reader = move || {
        let mut pieces = Pieces::new(packets, ended);
        let read = Connection::open(SCHEMA).and_then(|mut connection| {
            for set in [SetId::Seen4, SetId::Seen6] {
                match connection.each_element(set, |element| pieces.add(now(), &element)) {
                    // No earlier run, or its rules counted nothing.
                    Err(error) if error.is_not_found() => {}
                    read => read?,
                }
                if !pieces.send() {
                    break;
                }
            }
            Ok(())
        });
        report(read);
    };
    match std::thread::Builder::new().name("seen".to_owned()).spawn(reader) {
        // No message comes: the sender is dropped.
        Ok(_) => {
            let _ = end.recv_timeout(START_WAITS);
        }
        Err(error) => log::warn!("the ports that sources touched cannot be read: {error}"),
    }
}

fn report(read: Result<(), Error>) {
    if let Err(error) = read {
        log::warn!("the ports that sources touched cannot be read: {}", error_chain(&error));
    }
}

/// Hands what was read to the packet thread.
struct Pieces {
    packets: Link<Command>,
    seen: Vec<Seen>,
    waiting: usize,
    answer: SyncSender<()>,
    taken: Receiver<()>,
    /// Dropped when the packet thread's queue has all that it takes before it runs.
    ended: Option<SyncSender<()>>,
}

impl Pieces {
    fn new(packets: Link<Command>, ended: SyncSender<()>) -> Self {
        let (answer, taken) = sync_channel(WAITING_MAX);
        Self { packets, seen: Vec::new(), waiting: 0, answer, taken, ended: Some(ended) }
    }

    /// Adds an element. `false`: the packet thread takes nothing more.
    fn add(&mut self, now: MonoTime, element: &ElementInfo) -> bool {
        self.seen.extend(seen(now, element));
        self.seen.len() < PER_COMMAND || self.send()
    }

    fn send(&mut self) -> bool {
        let seen = std::mem::take(&mut self.seen);
        if seen.is_empty() {
            return true;
        }
        if self.waiting == WAITING_MAX {
            self.ended = None;
            if self.taken.recv_timeout(TAKE_TIMEOUT).is_err() {
                return false;
            }
            self.waiting -= 1;
        }
        self.waiting += 1;
        self.packets.send(Command::Seen(seen, self.answer.clone())).is_ok()
    }
}

/// What an element says; `None` if it is none of the rules'.
fn seen(now: MonoTime, element: &ElementInfo) -> Option<Seen> {
    let Key::Touch(source, protocol, number) = element.key else { return None };
    let transport = match protocol {
        6 => Transport::Tcp,
        17 => Transport::Udp,
        _ => return None,
    };
    let age = element.timeout?.saturating_sub(element.expires?);
    Some(Seen { source, port: Port { transport, number }, at: now.before(age) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mailbox;

    fn element(port: u16, left: u64) -> ElementInfo {
        ElementInfo {
            key: Key::Touch([192, 0, 2, 1].into(), 6, port),
            end: None,
            timeout: Some(Duration::from_secs(600)),
            expires: Some(Duration::from_secs(left)),
            packets: 0,
            bytes: 0,
            comment: None,
        }
    }

    #[test]
    fn the_age_of_a_touch_is_what_its_element_has_spent() {
        let now = MonoTime::from_millis(1_000_000);
        let touch = seen(now, &element(22, 590)).unwrap();
        assert_eq!(touch.at, MonoTime::from_millis(990_000));
        assert_eq!(touch.port, Port { transport: Transport::Tcp, number: 22 });
        let other = ElementInfo { key: Key::Touch([192, 0, 2, 1].into(), 47, 0), ..element(1, 1) };
        assert_eq!(seen(now, &other), None);
        assert_eq!(seen(now, &ElementInfo { expires: None, ..element(1, 1) }), None);
    }

    #[test]
    fn a_full_set_leaves_room_in_the_queue_and_none_of_it_is_lost() {
        let (packets, inbox) = mailbox::link().unwrap();
        let (ended, end) = sync_channel(1);
        let all = 40 * PER_COMMAND + 7;
        let reader = std::thread::spawn(move || {
            let mut pieces = Pieces::new(packets, ended);
            let now = MonoTime::from_millis(1_000_000);
            assert!((0..all).all(|n| pieces.add(now, &element((n % 65_536) as u16, 1))));
            assert!(pieces.send());
        });
        // The start waits no longer once the queue has its share.
        assert!(end.recv_timeout(Duration::from_secs(20)).is_err());
        assert!(!reader.is_finished());
        let mut taken = 0;
        while taken < all {
            match inbox.next() {
                Some(Command::Seen(seen, answer)) => {
                    assert!(seen.len() <= PER_COMMAND);
                    taken += seen.len();
                    // As the packet thread does: the reader may have ended.
                    let _ = answer.try_send(());
                }
                _ => std::thread::yield_now(),
            }
        }
        assert_eq!(taken, all);
        reader.join().unwrap();
    }
}
