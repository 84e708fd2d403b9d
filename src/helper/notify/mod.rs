//! Notifications: digests by mail, webhook and ntfy, and reports to AbuseIPDB.
//!
//! ```text
//!   incidents --> outbox of each channel: what waits, what is being sent, when to try again
//!                    |  its thread
//!                    +--> sendmail(8), or portsentry-notify, which is [`send`]: one attempt, then it ends
//! ```
//!
//! A channel has at most one message under way, and one digest that collects meanwhile; both are
//! bounded. The client of HTTP and TLS is a program of its own, which runs while something is sent:
//! this process neither has their code in memory nor holds a secret.

mod abuse;
mod channel;
mod digest;
mod outbox;
mod program;
mod render;
pub mod send;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::channel::Channel;
use self::outbox::{Outbox, Outcome};
use super::Notify;
use super::protocol::{Incident, Message, NotifySettings};
use super::run::Ground;
use crate::journal::Response;

/// Least time between two messages to the daemon about how much waits.
const SHOW_EVERY: Duration = Duration::from_secs(1);

/// The daemon's notifications.
pub(super) struct Notifier {
    ground: Arc<Ground>,
    notify: Notify,
    posts: Vec<Arc<Post>>,
}

/// A channel with its outbox, and what its thread waits for.
struct Post {
    state: Mutex<State>,
    changed: Condvar,
    ground: Arc<Ground>,
    notify: Notify,
}

struct State {
    channel: Channel,
    outbox: Outbox,
    tests: u32,
    ending: bool,
    /// Its thread has ended.
    ended: bool,
}

impl Notifier {
    /// Without channels, and without a thread.
    pub(super) fn new(ground: Arc<Ground>, notify: Notify) -> Self {
        Self { ground, notify, posts: Vec::new() }
    }

    /// Applies settings. What waits for a channel that stays is kept, and tried again at once.
    pub(super) fn configure(&mut self, settings: &NotifySettings) {
        let wanted = Channel::all(settings);
        // Before there is something to send, and once for all channels.
        if let Some(fault) = wanted.iter().find_map(Channel::fault) {
            (self.notify)(Message::Warning(format!("notifications wait: {fault}")));
        }
        let (kept, gone): (Vec<_>, Vec<_>) = self
            .posts
            .drain(..)
            .partition(|post| wanted.iter().any(|new| new.name() == post.name()));
        gone.iter().for_each(|post| post.end());
        self.posts = kept;
        for channel in wanted {
            match self.posts.iter().find(|post| post.name() == channel.name()) {
                Some(post) => post.reconfigure(channel, settings),
                None => {
                    if let Some(post) = self.start(channel, settings) {
                        self.posts.push(post);
                    }
                }
            }
        }
    }

    fn start(&self, channel: Channel, settings: &NotifySettings) -> Option<Arc<Post>> {
        let outbox = Outbox::new(&channel, settings);
        let state = State { channel, outbox, tests: 0, ending: false, ended: false };
        let post = Arc::new(Post {
            state: Mutex::new(state),
            changed: Condvar::new(),
            ground: Arc::clone(&self.ground),
            notify: Arc::clone(&self.notify),
        });
        let own = Arc::clone(&post);
        match std::thread::Builder::new().name("notify".to_owned()).spawn(move || own.run()) {
            Ok(_) => Some(post),
            Err(error) => {
                (self.notify)(Message::Error(format!("nothing is sent: no thread: {error}")));
                None
            }
        }
    }

    /// Takes what happened.
    pub(super) fn add(&self, incident: &Incident) {
        self.each(|outbox, now| outbox.add(incident, now));
    }

    /// Takes how many incidents did not come.
    pub(super) fn add_missed(&self, count: u64) {
        self.each(|outbox, now| outbox.add_missed(count, now));
    }

    fn each(&self, change: impl Fn(&mut Outbox, Instant)) {
        let now = Instant::now();
        for post in &self.posts {
            change(&mut post.lock().outbox, now);
            post.changed.notify_one();
        }
    }

    /// Sends a test by each channel at once.
    pub(super) fn test(&self) {
        for post in &self.posts {
            let mut state = post.lock();
            // A report that is a test would be a lie about a host.
            state.tests += u32::from(!matches!(state.channel, Channel::AbuseIpDb(_)));
            post.changed.notify_one();
        }
    }

    /// Tries to send what waits, for at most `grace`.
    pub(super) fn end(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.posts.iter().for_each(|post| post.end());
        for post in &self.posts {
            let left = deadline.saturating_duration_since(Instant::now());
            let state = post.lock();
            let waited = post.changed.wait_timeout_while(state, left, |state| !state.ended);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let unsent = state.outbox.waiting();
            if unsent > 0 {
                (self.notify)(Message::Warning(format!(
                    "notifications by {} end: {unsent} entries were not sent",
                    state.channel.name()
                )));
            }
        }
    }
}

impl Post {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> &'static str {
        self.lock().channel.name()
    }

    fn end(&self) {
        let mut state = self.lock();
        state.ending = true;
        state.outbox.hurry(Instant::now());
        self.changed.notify_all();
    }

    fn reconfigure(&self, channel: Channel, settings: &NotifySettings) {
        let mut state = self.lock();
        state.outbox.reconfigure(settings, Instant::now());
        state.channel = channel;
        self.changed.notify_all();
    }

    /// The channel's thread: one attempt after the other, until the end.
    fn run(&self) {
        let mut state = self.lock();
        let mut shown = (0, None::<Instant>);
        loop {
            let now = Instant::now();
            if state.tests > 0 {
                state.tests -= 1;
                let (channel, message) = (state.channel.clone(), render::test());
                drop(state);
                let outcome = channel.attempt(&self.ground, &message);
                self.report(&channel, true, &message, &outcome);
                state = self.lock();
                continue;
            }
            if let Some(message) = state.outbox.take(now) {
                let channel = state.channel.clone();
                drop(state);
                let outcome = channel.attempt(&self.ground, &message);
                state = self.lock();
                let is_news = state.outbox.on_outcome(&outcome, Instant::now());
                let status = state.outbox.status(channel.name());
                drop(state);
                (self.notify)(Message::Notified(status));
                if is_news {
                    self.report(&channel, false, &message, &outcome);
                }
                state = self.lock();
                if state.ending && outcome != Outcome::Sent {
                    break;
                }
                continue;
            }
            if state.ending {
                break;
            }
            // For `status`: in a flood not each source by itself.
            let show_at = shown.1.map(|at| at + SHOW_EVERY).filter(|at| *at > now);
            let is_shown = shown.0 == state.outbox.waiting();
            if !is_shown && show_at.is_none() {
                shown = (state.outbox.waiting(), Some(now));
                (self.notify)(Message::Notified(state.outbox.status(state.channel.name())));
            }
            let due = [state.outbox.next_at(), show_at.filter(|_| !is_shown)];
            let wait = due.into_iter().flatten().min().map_or(Duration::MAX, |at| {
                at.saturating_duration_since(now).max(Duration::from_millis(1))
            });
            state =
                self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.ended = true;
        self.changed.notify_all();
    }

    fn report(
        &self,
        channel: &Channel,
        is_test: bool,
        message: &outbox::Message,
        outcome: &Outcome,
    ) {
        let (is_sent, message) = match outcome {
            Outcome::Sent => (true, message.subject()),
            Outcome::Later { why, .. } | Outcome::Never(why) => (false, why.clone()),
        };
        (self.notify)(Message::Response(Response::Notified {
            channel: channel.name().to_owned(),
            is_test,
            is_sent,
            message,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::protocol::Class;

    /// Of a source, or of none.
    pub(super) fn incident(target: &str, class: Class) -> Incident {
        Incident {
            at: 1_800_000_000,
            kind: class.word().to_owned(),
            class,
            target: Some(target.to_owned()).filter(|target| !target.is_empty()),
            name: None,
            is_proven: false,
            port: Some("tcp/23".to_owned()),
            scan: Some("syn".to_owned()),
            reason: "syn scan of 3 ports".to_owned(),
        }
    }
}
