//! Runs the administrator's command: bounds concurrency and queue, fills in macros, reports the
//! result.
//!
//! A packet never decides which program runs: macros are replaced in arguments only, the program is
//! fixed, and no shell is involved.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Notify;
use super::protocol::{Message, Run, Settings};
use super::run::{self, Ground};
use crate::journal::{Ended, Response};
use crate::sys::process;

/// Commands that run at once. A reaction is short (a mail, a firewall of another host): four keep a
/// small machine usable even if each works hard.
pub const AT_ONCE: usize = 4;

/// Commands that wait. If all commands hang until the usual timeout of 10 s, the last one waits for
/// under three minutes; later than that a reaction is useless.
pub const WAITING_MAX: usize = 64;

/// PATH of the command. The daemon's own may be anything.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Characters of a command that are reported.
const REPORTED_MAX: usize = 2000;

/// A command that is ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Job {
    program: String,
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    target: String,
    timeout: Duration,
}

#[derive(Default)]
struct State {
    settings: Settings,
    waiting: VecDeque<Job>,
    running: usize,
    ending: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Signalled when a runner has ended.
    ended: Condvar,
    ground: Arc<Ground>,
    notify: Notify,
}

/// The command queue; clones share it.
#[derive(Clone)]
pub struct Commands(Arc<Shared>);

impl Commands {
    /// An empty queue.
    ///
    /// # Errors
    /// eventfd(2) failed.
    pub fn new(notify: Notify) -> std::io::Result<Self> {
        Ok(Self(Arc::new(Shared {
            state: Mutex::default(),
            ended: Condvar::new(),
            ground: Arc::new(Ground::new()?),
            notify,
        })))
    }

    /// The children of this process, which others start too.
    pub(super) fn ground(&self) -> Arc<Ground> {
        Arc::clone(&self.0.ground)
    }

    /// Sets the command. Queued ones are not changed.
    pub fn configure(&self, settings: &Settings) {
        self.0.lock().settings = settings.clone();
    }

    /// Runs the command now or later; if too many are queued, it is dropped, and that is reported.
    pub fn run(&self, run: &Run) {
        let mut state = self.0.lock();
        let Some(job) = job(&state.settings, run) else { return };
        if !state.ending && state.running < AT_ONCE {
            state.running += 1;
            drop(state);
            self.start_runner(job);
        } else if !state.ending && state.waiting.len() < WAITING_MAX {
            state.waiting.push_back(job);
        } else {
            drop(state);
            (self.0.notify)(Message::Response(Response::Dropped { commands: 1 }));
        }
    }

    /// Starts a thread that runs this job and then queued ones. It lives as long as its commands: a
    /// command is killed when the thread that started it ends.
    fn start_runner(&self, job: Job) {
        let (shared, first) = (Arc::clone(&self.0), job.clone());
        let started = std::thread::Builder::new()
            .name("command".to_owned())
            .spawn(move || shared.run_from(first));
        if let Err(error) = started {
            // Nothing is queued behind it: commands are queued only when all runners exist.
            self.0.lock().running -= 1;
            self.0.report(
                &job,
                Ended::NotStarted(format!("no thread: {error}")),
                Duration::ZERO,
                String::new(),
            );
        }
    }

    /// Drops queued commands, gives running ones `grace`, then kills them. Afterwards none runs,
    /// unless it cannot be killed.
    pub fn end(&self, grace: Duration) {
        let mut state = self.0.lock();
        state.ending = true;
        let dropped = std::mem::take(&mut state.waiting).len() as u64;
        if dropped > 0 {
            (self.0.notify)(Message::Response(Response::Dropped { commands: dropped }));
        }
        drop(state);
        self.0.wait_until_none_runs(grace);
        self.0.ground.hurry();
        self.0.wait_until_none_runs(run::TERM_TIMEOUT * 4);
        self.0.ground.clear();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until_none_runs(&self, limit: Duration) {
        let _ = self.ended.wait_timeout_while(self.lock(), limit, |state| state.running > 0);
    }

    fn run_from(&self, first: Job) {
        let mut next = Some(first);
        while let Some(job) = next.take() {
            let begun = Instant::now();
            let (ended, output) = run::run(&self.ground, command(&job), job.timeout);
            self.report(&job, ended, begun.elapsed(), output);
            let mut state = self.lock();
            next = state.waiting.pop_front();
            if next.is_none() {
                state.running -= 1;
                self.ended.notify_all();
            }
        }
    }

    fn report(&self, job: &Job, ended: Ended, took: Duration, output: String) {
        let words = std::iter::once(&job.program).chain(&job.arguments);
        let command = words.map(String::as_str).collect::<Vec<_>>().join(" ");
        (self.notify)(Message::Response(Response::Command {
            target: job.target.clone(),
            command: command.chars().take(REPORTED_MAX).collect(),
            ended,
            took,
            output,
        }));
    }
}

/// Macro and variable names of a run, with their values.
fn values(run: &Run) -> [(&'static str, &'static str, String); 7] {
    [
        ("target", "PORTSENTRY_TARGET", run.target.clone()),
        ("port", "PORTSENTRY_PORT", run.port.to_string()),
        ("mode", "PORTSENTRY_MODE", run.mode.clone()),
        ("protocol", "PORTSENTRY_PROTOCOL", run.protocol.clone()),
        ("scan", "PORTSENTRY_SCAN", run.scan.clone()),
        ("reason", "PORTSENTRY_REASON", run.reason.clone()),
        ("state", "PORTSENTRY_STATE", run.state.clone()),
    ]
}

/// The job for a run; `None` without a command.
fn job(settings: &Settings, run: &Run) -> Option<Job> {
    let values = values(run);
    let (program, arguments) = settings.command.split_first()?;
    Some(Job {
        program: program.clone(),
        arguments: arguments.iter().map(|word| replaced(word, &values)).collect(),
        variables: values.into_iter().map(|(_, variable, value)| (variable, value)).collect(),
        target: run.target.clone(),
        timeout: settings.command_timeout,
    })
}

/// Replaces macros from left to right and once: values are not searched for macros. Other braces
/// stay.
fn replaced(word: &str, values: &[(&'static str, &'static str, String)]) -> String {
    let mut text = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let value = after
            .split_once('}')
            .and_then(|(name, rest)| Some((values.iter().find(|value| value.0 == name)?, rest)));
        match value {
            Some(((_, _, value), behind)) => {
                text.push_str(value);
                rest = behind;
            }
            None => {
                text.push('{');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

/// The process: it inherits only what is set here.
fn command(job: &Job) -> Command {
    let mut command = Command::new(&job.program);
    command
        .args(&job.arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C")
        .envs(job.variables.iter().cloned())
        .current_dir("/")
        .stdin(Stdio::null());
    process::isolate(&mut command);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan() -> Run {
        Run {
            target: "2001:db8::/64".into(),
            port: 22,
            mode: "atcp".into(),
            protocol: "tcp".into(),
            scan: "syn".into(),
            reason: "syn scan: {target} $(reboot) `x`".into(),
            state: "slowed".into(),
        }
    }

    fn argv(command: &[&str]) -> Vec<String> {
        let settings = Settings {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..Settings::default()
        };
        let job = job(&settings, &scan()).unwrap();
        [vec![job.program], job.arguments].concat()
    }

    // P18
    #[test]
    fn every_macro_is_replaced_within_its_word_and_once() {
        assert_eq!(
            argv(&["/bin/x", "{target}:{port}/{mode}/{protocol}/{scan}/{state}"]),
            ["/bin/x", "2001:db8::/64:22/atcp/tcp/syn/slowed"]
        );
        assert_eq!(
            argv(&["/bin/x", "-r", "{reason}"]),
            ["/bin/x", "-r", "syn scan: {target} $(reboot) `x`"]
        );
        assert_eq!(
            argv(&["/bin/x", "{{port}}", "{", "}", "{}", "{a b}", "{port", "a{port}{port}b"]),
            ["/bin/x", "{22}", "{", "}", "{}", "{a b}", "{port", "a2222b"]
        );
    }

    // P18
    #[test]
    fn no_packet_chooses_the_program() {
        assert_eq!(argv(&["/bin/{reason}"]), ["/bin/{reason}"]);
    }

    #[test]
    fn the_macros_are_those_that_the_configuration_knows() {
        let names: Vec<_> = values(&scan()).iter().map(|value| value.0).collect();
        assert_eq!(names, crate::config::MACROS);
    }

    #[test]
    fn without_a_command_nothing_is_run() {
        assert_eq!(job(&Settings::default(), &scan()), None);
    }

    proptest! {
        // P18
        #[test]
        fn the_number_of_arguments_never_changes(
            command in prop::collection::vec("[a-z{}$;|\"' ]{0,12}", 1..6), reason in any::<String>(), target in any::<String>()
        ) {
            let settings = Settings { command: command.clone(), ..Settings::default() };
            let job = job(&settings, &Run { reason, target, ..scan() }).unwrap();
            prop_assert_eq!(1 + job.arguments.len(), command.len());
            prop_assert_eq!(&job.program, &command[0]);
        }
    }
}
