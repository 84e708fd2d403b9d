//! The channels: how a message goes out by each, and what its answer means.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::outbox::{Message, Outcome};
use super::program::Program;
use super::render;
use super::send::{self, Job, Reply, Secret};
use crate::helper::protocol::{Mail, NotifySettings, Server};
use crate::helper::run::{self, Ground};
use crate::journal::Ended;
use crate::sys::process;

/// Longest text of an ntfy message, in bytes: beyond 4,096 their server makes it an attachment.
const NTFY_MAX: usize = 3800;

/// Time of an attempt: a server that is not done by then is as good as down.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Time after that until the process of an attempt is ended, which ends by itself otherwise.
const END_SLACK: Duration = Duration::from_secs(5);

/// PATH of sendmail(8).
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables for the process that speaks HTTP: proxies, and where certificates are (openssl(1)).
const HANDED_ON: [&str; 11] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "RES_OPTIONS",
    "LD_LIBRARY_PATH",
];

/// A way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Channel {
    /// sendmail(8).
    Sendmail(Mail),
    /// A POST of JSON.
    Webhook(Server),
    /// ntfy's HTTP interface.
    Ntfy(Server),
    /// AbuseIPDB's.
    AbuseIpDb(Server),
}

impl Channel {
    /// All that are configured.
    pub(super) fn all(settings: &NotifySettings) -> Vec<Self> {
        [
            settings.sendmail.clone().map(Self::Sendmail),
            settings.webhook.clone().map(Self::Webhook),
            settings.ntfy.clone().map(Self::Ntfy),
            settings.abuseipdb.clone().map(Self::AbuseIpDb),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Its key in the configuration.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Sendmail(_) => "sendmail",
            Self::Webhook(_) => "webhook",
            Self::Ntfy(_) => "ntfy",
            Self::AbuseIpDb(_) => "abuseipdb",
        }
    }

    /// What is missing to send by it; `None`: nothing is known to be.
    pub(super) fn fault(&self) -> Option<String> {
        match self {
            Self::Sendmail(_) => None,
            Self::Webhook(_) | Self::Ntfy(_) | Self::AbuseIpDb(_) => Program::get().err(),
        }
    }

    /// Sends a message once, and waits for what comes of it.
    pub(super) fn attempt(&self, ground: &Ground, message: &Message) -> Outcome {
        match (self, message) {
            (Self::Sendmail(mail), _) => sendmail(ground, mail, message),
            (Self::Webhook(server), _) => {
                let job = job(server, Secret::Bearer, "application/json", render::json(message));
                http(ground, with_id(job, message), false)
            }
            (Self::Ntfy(server), _) => {
                let text = render::text(message, NTFY_MAX);
                let mut job = job(server, Secret::Bearer, "text/plain; charset=utf-8", text);
                job.headers.push(("Title".to_owned(), render::title(message)));
                job.headers.push(("Tags".to_owned(), "shield".to_owned()));
                http(ground, with_id(job, message), false)
            }
            (Self::AbuseIpDb(server), Message::Report(report)) => {
                let form = "application/x-www-form-urlencoded";
                let mut job = job(server, Secret::Key, form, report.form());
                job.headers.push(("Accept".to_owned(), "application/json".to_owned()));
                http(ground, job, true)
            }
            // A report that is a test would be a lie about someone.
            (Self::AbuseIpDb(_), _) => Outcome::Sent,
        }
    }
}

fn job(server: &Server, secret: Secret, content: &str, body: String) -> Job {
    Job {
        url: server.url.clone(),
        url_file: server.url_file.clone(),
        secret,
        secret_file: server.secret_file.clone(),
        headers: vec![("Content-Type".to_owned(), content.to_owned())],
        body,
        timeout: server.timeout.unwrap_or(ATTEMPT_TIMEOUT),
    }
}

/// With the message's identifier, by which a receiver knows a repeated attempt.
fn with_id(mut job: Job, message: &Message) -> Job {
    if let Message::Digest(id, _) | Message::Test(id) = message {
        job.headers.push(("Idempotency-Key".to_owned(), id.clone()));
    }
    job
}

/// Runs the program that speaks HTTP once. The request is its standard input, since others see a
/// process's arguments and environment. `once`: a request that is wrong is not repeated.
fn http(ground: &Ground, job: Job, once: bool) -> Outcome {
    let timeout = job.timeout + END_SLACK;
    let input = match serde_json::to_vec(&job).map_err(std::io::Error::other) {
        Ok(bytes) => process::input(&bytes),
        Err(error) => Err(error),
    };
    let input = match input {
        Ok(input) => input,
        Err(error) => return Outcome::later(format!("no memory for the request: {error}")),
    };
    let program = match Program::get() {
        Ok(program) => program,
        Err(why) => return Outcome::later(why),
    };
    let mut command = Command::new(program.path());
    command.arg0(send::NAME).env_clear().current_dir("/").stdin(input);
    for name in HANDED_ON {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    process::isolate(&mut command);
    let (ended, output) = run::run(ground, command, timeout);
    match serde_json::from_str::<Reply>(&output) {
        Ok(reply) => outcome(reply, once),
        Err(_) => Outcome::later(format!("{} ended: {ended}", send::NAME)),
    }
}

/// What an answer means.
fn outcome(reply: Reply, once: bool) -> Outcome {
    let Reply { status, after, why } = reply;
    let Some(status) = status else { return Outcome::later(why) };
    let said = if why.is_empty() { String::new() } else { format!(": {why}") };
    let why_not = format!("the server answers {status}{said}");
    // A key that is wrong may be mended; a busy server says when.
    let may_pass = matches!(status, 401..=403 | 408 | 425 | 429 | 500..=599);
    match status {
        200..=299 => Outcome::Sent,
        300..=399 => Outcome::later(format!(
            "the server answers {status}: it wants another URL, which is not followed"
        )),
        _ if once && (!may_pass || is_repeated(&why)) => Outcome::Never(why_not),
        _ => Outcome::Later { why: why_not, after: after.map(Duration::from_secs) },
    }
}

/// Whether AbuseIPDB says that it has the report: this process forgets at its end what was reported.
fn is_repeated(why: &str) -> bool {
    why.contains("same IP address")
}

/// Gives a mail to sendmail(8).
fn sendmail(ground: &Ground, mail: &Mail, message: &Message) -> Outcome {
    let input = match process::input(render::mail(mail, message).as_bytes()) {
        Ok(input) => input,
        Err(error) => return Outcome::later(format!("no memory for the mail: {error}")),
    };
    let mut command = Command::new(&mail.program);
    // A line with a dot alone ends no mail.
    command.arg("-i");
    if !mail.from.is_empty() {
        command.arg("-f").arg(&mail.from);
    }
    command.args(&mail.to);
    command.env_clear().env("PATH", PATH).env("LANG", "C").current_dir("/").stdin::<Stdio>(input);
    process::isolate(&mut command);
    match run::run(ground, command, mail.timeout.unwrap_or(ATTEMPT_TIMEOUT)) {
        (Ended::Success, _) => Outcome::Sent,
        (ended, output) => {
            let said = send::short(&output);
            let said = if said.is_empty() { said } else { format!(": {said}") };
            Outcome::later(format!("{} ends: {ended}{said}", mail.program.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: Option<u16>, after: Option<u64>, why: &str, once: bool) -> Outcome {
        outcome(Reply { status, after, why: why.to_owned() }, once)
    }

    #[test]
    fn an_answer_decides_whether_it_is_tried_again() {
        let is_later = |outcome| matches!(outcome, Outcome::Later { .. });
        for status in [200, 202, 204] {
            assert_eq!(of(Some(status), None, "", false), Outcome::Sent);
        }
        for status in [301, 307, 400, 401, 404, 408, 413, 429, 500, 503] {
            assert!(is_later(of(Some(status), None, "", false)), "{status}");
        }
        assert!(is_later(of(None, None, "connection refused", true)));
        let busy = of(Some(429), Some(90), "", true);
        assert!(matches!(busy, Outcome::Later { after: Some(time), .. } if time.as_secs() == 90));
        for (status, why) in [(422, "invalid"), (429, "the same IP address once in 15 minutes")] {
            assert!(matches!(of(Some(status), None, why, true), Outcome::Never(_)), "{status}");
        }
    }
}
