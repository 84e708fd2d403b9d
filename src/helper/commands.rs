//! Running the administrator's command: how many at once, how many wait, what each is given, and what is told of it.
//!
//! Owns the queue. It never lets a packet say which program is run: macros stand in arguments only, the first word is fixed, and no shell reads any.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Tell;
use super::protocol::{Run, Settings, Word};
use super::run::{self, Ground};
use crate::journal::{Ended, Response};
use crate::sys::process;

/// Commands that run at once. A reaction is short (a mail, a firewall of another host): four keep a small machine usable even if each works hard.
pub const AT_ONCE: usize = 4;

/// Commands that wait. With the usual timeout of 10 s and commands that all hang, the last of them waits for under three minutes; a reaction that
/// comes later than that is none.
pub const WAITING_MAX: usize = 64;

/// Where programs that the command starts are looked for. The daemon's own PATH may be anything.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Characters of a command that are reported.
const REPORTED_MAX: usize = 2000;

/// One command as it is going to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Job {
    words: Vec<String>,
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
    /// A runner has ended.
    ended: Condvar,
    ground: Ground,
    tell: Tell,
}

/// The commands; clones are the same.
#[derive(Clone)]
pub struct Commands(Arc<Shared>);

impl Commands {
    /// None runs, none waits.
    ///
    /// # Errors
    /// What eventfd(2) says.
    pub fn new(tell: Tell) -> std::io::Result<Self> {
        Ok(Self(Arc::new(Shared { state: Mutex::default(), ended: Condvar::new(), ground: Ground::new()?, tell })))
    }

    /// From now on this is the command. Those that wait stay as they were ordered.
    pub fn configure(&self, settings: &Settings) {
        self.0.lock().settings = settings.clone();
    }

    /// Runs the command for somebody, at once or later; when too many wait it is dropped, and that is told.
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
            (self.0.tell)(Word::Response(Response::Dropped { commands: 1 }));
        }
    }

    /// A thread that runs this and then what waits. It stays as long as its command: a command dies with the thread that started it.
    fn start_runner(&self, job: Job) {
        let (shared, first) = (Arc::clone(&self.0), job.clone());
        let started = std::thread::Builder::new().name("command".to_owned()).spawn(move || shared.run_from(first));
        if let Err(error) = started {
            // Nothing waits behind it: only who has a runner for each of four commands lets others wait.
            self.0.lock().running -= 1;
            self.0.report(&job, Ended::NotStarted(format!("no thread: {error}")), Duration::ZERO, String::new());
        }
    }

    /// Drops what waits, gives what runs `grace`, then ends it. Nothing runs afterwards, if it can be killed at all.
    pub fn end(&self, grace: Duration) {
        let mut state = self.0.lock();
        state.ending = true;
        let dropped = std::mem::take(&mut state.waiting).len() as u64;
        if dropped > 0 {
            (self.0.tell)(Word::Response(Response::Dropped { commands: dropped }));
        }
        let state = self.0.wait_until_none_runs(state, grace);
        self.0.ground.hurry();
        let state = self.0.wait_until_none_runs(state, run::LAST_WORDS * 4);
        drop(state);
        self.0.ground.clear();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until_none_runs<'a>(&self, mut state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        let deadline = Instant::now() + limit;
        while state.running > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    fn run_from(&self, first: Job) {
        let mut next = Some(first);
        while let Some(job) = next.take() {
            let begun = Instant::now();
            let (ended, output) = match command(&job) {
                Some(command) => run::run(&self.ground, command, job.timeout),
                None => (Ended::NotStarted("there is no program".to_owned()), String::new()),
            };
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
        let command = job.words.join(" ").chars().take(REPORTED_MAX).collect();
        (self.tell)(Word::Response(Response::Command { target: job.target.clone(), command, ended, took, output }));
    }
}

/// Macros and variables of a run, by name.
fn values(run: &Run) -> [(&'static str, &'static str, String); 6] {
    [
        ("target", "PORTSENTRY_TARGET", run.target.clone()),
        ("port", "PORTSENTRY_PORT", run.port.to_string()),
        ("mode", "PORTSENTRY_MODE", run.mode.clone()),
        ("protocol", "PORTSENTRY_PROTOCOL", run.protocol.clone()),
        ("scan", "PORTSENTRY_SCAN", run.scan.clone()),
        ("reason", "PORTSENTRY_REASON", run.reason.clone()),
    ]
}

/// What is to be run; `None` without a command.
fn job(settings: &Settings, run: &Run) -> Option<Job> {
    let values = values(run);
    let (program, arguments) = settings.command.split_first()?;
    let words = std::iter::once(program.clone()).chain(arguments.iter().map(|word| replaced(word, &values))).collect();
    let variables = values.into_iter().map(|(_, variable, value)| (variable, value)).collect();
    Some(Job { words, variables, target: run.target.clone(), timeout: settings.command_timeout })
}

/// A word with its macros replaced, from left to right and once: what a value holds is never looked at again. Braces around anything else stay.
fn replaced(word: &str, values: &[(&'static str, &'static str, String)]) -> String {
    let mut text = String::with_capacity(word.len());
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let value = after.split_once('}').and_then(|(name, rest)| Some((values.iter().find(|value| value.0 == name)?, rest)));
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

/// The process as it is going to be: nothing of ours but what is said here.
fn command(job: &Job) -> Option<Command> {
    let (program, arguments) = job.words.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).env("LANG", "C").envs(job.variables.iter().map(|(name, value)| (name, value)));
    command.current_dir("/").stdin(Stdio::null());
    process::isolate(&mut command);
    Some(command)
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
        }
    }

    fn words(command: &[&str]) -> Vec<String> {
        let settings = Settings { command: command.iter().map(|word| (*word).to_owned()).collect(), ..Settings::default() };
        job(&settings, &scan()).unwrap().words
    }

    // P18
    #[test]
    fn every_macro_is_replaced_within_its_word_and_once() {
        assert_eq!(words(&["/bin/x", "{target}:{port}/{mode}/{protocol}/{scan}"]), ["/bin/x", "2001:db8::/64:22/atcp/tcp/syn"]);
        assert_eq!(words(&["/bin/x", "-r", "{reason}"]), ["/bin/x", "-r", "syn scan: {target} $(reboot) `x`"]);
        assert_eq!(
            words(&["/bin/x", "{{port}}", "{", "}", "{}", "{a b}", "{port", "a{port}{port}b"]),
            ["/bin/x", "{22}", "{", "}", "{}", "{a b}", "{port", "a2222b"]
        );
    }

    // P18
    #[test]
    fn the_program_is_never_what_a_packet_says() {
        assert_eq!(words(&["/bin/{reason}"]), ["/bin/{reason}"]);
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
        fn there_are_as_many_words_as_the_administrator_wrote(
            command in prop::collection::vec("[a-z{}$;|\"' ]{0,12}", 1..6), reason in any::<String>(), target in any::<String>()
        ) {
            let settings = Settings { command: command.clone(), ..Settings::default() };
            let job = job(&settings, &Run { reason, target, ..scan() }).unwrap();
            prop_assert_eq!(job.words.len(), command.len());
            prop_assert_eq!(&job.words[0], &command[0]);
        }
    }
}
