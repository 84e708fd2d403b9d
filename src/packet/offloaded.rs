//! Ends the connections of blocked sources that a flowtable forwards past all rules.
//!
//! Packets of an offloaded connection never reach our chains. When its entry in the connection
//! tracking is deleted, the flowtable forgets it within a second, and its packets take the usual way
//! again, where they are dropped. Without a flowtable the rules are enough.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::engine::{Engine, Source};
use crate::errors::error_chain;
use crate::netlink::conntrack::{Conntrack, Ends};
use crate::netlink::dump::Error;

/// Blocks that may wait for the thread.
const QUEUE: usize = 4096;

/// Between two dumps of all connections, of which a busy router has a million. Blocks that come
/// meanwhile share one.
const PAUSE: Duration = Duration::from_millis(250);

/// The way to the thread, which starts with the first block.
#[derive(Default)]
pub(super) struct Offloaded(Option<SyncSender<Ends>>);

impl Offloaded {
    /// Ends all offloaded connections of a blocked source.
    pub(super) fn end(&mut self, engine: &Engine, source: Source) {
        let ends = Ends { network: source.network(), exempt: engine.exempt_within(source) };
        if self.0.is_none() {
            let (sender, receiver) = sync_channel(QUEUE);
            let thread = std::thread::Builder::new().name("offloaded".to_owned());
            if let Err(error) = thread.spawn(move || run(&receiver)) {
                log::warn!("offloaded connections of {source} go on: no thread: {error}");
                return;
            }
            self.0 = Some(sender);
        }
        if let Some(sender) = &self.0
            && let Err(TrySendError::Full(_)) = sender.try_send(ends)
        {
            log::warn!("offloaded connections of {source} go on: {QUEUE} blocks wait already");
        }
    }
}

fn run(blocks: &Receiver<Ends>) {
    let mut reported = false;
    while let Ok(first) = blocks.recv() {
        let ends: Vec<Ends> = std::iter::once(first).chain(blocks.try_iter()).collect();
        match delete(&ends) {
            Ok(0) => {}
            Ok(deleted) => log::info!(
                "{deleted} connections of blocked sources deleted from the connection tracking, for flowtables"
            ),
            Err(error) if !reported => {
                reported = true;
                log::warn!(
                    "offloaded connections of blocked sources go on: {}",
                    error_chain(&error)
                );
            }
            Err(_) => {}
        }
        std::thread::sleep(PAUSE);
    }
}

fn delete(ends: &[Ends]) -> Result<usize, Error> {
    // A socket each time: blocks are rare, and most hosts have no flowtable.
    let mut conntrack = Conntrack::open()?;
    if conntrack.has_flowtables()? { conntrack.delete(ends) } else { Ok(0) }
}
