//! `portsentry-notify`: one HTTP request, in a process that ends with it.
//!
//! It reads the request from its standard input, the secrets from their files, and writes what came
//! of it to its standard output. It starts no program, writes no file and has no capability. No secret
//! is in what it writes.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Error};

use crate::sys::{confine, files, process};

/// The program's name.
pub(super) const NAME: &str = "portsentry-notify";

/// Exit status of a start by hand (sysexits(3)).
const EX_USAGE: u8 = 64;

/// Characters of a reason for a failure.
const WHY_MAX: usize = 200;

/// Bytes read of a server's answer.
const ANSWER_MAX: u64 = 2048;

/// Bytes of a secret's file: a URL or a token.
const SECRET_MAX: u64 = 4096;

/// Bytes of a request: a digest of 500 sources takes some 400,000.
const JOB_MAX: u64 = 4 << 20;

/// Where distributions have the certificates that they trust.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What the secret in a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Secret {
    /// A token, behind `Authorization: Bearer`.
    Bearer,
    /// The value of `Key`, as AbuseIPDB has it.
    Key,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) url: String,
    /// The file that holds the URL instead.
    pub(super) url_file: Option<PathBuf>,
    pub(super) secret: Secret,
    pub(super) secret_file: Option<PathBuf>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
    pub(super) timeout: Duration,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reply {
    /// The server's status; `None`: it did not answer.
    pub(super) status: Option<u16>,
    /// Seconds of `Retry-After`.
    pub(super) after: Option<u64>,
    /// What it said, or what went wrong.
    pub(super) why: String,
}

/// Sends the request on standard input.
pub fn main() -> ExitCode {
    process::abort_on_panic();
    // Started by a descriptor, it would have that as its name; 15 bytes are shown.
    process::set_name(c"portsentry-noti");
    if std::env::args_os().len() > 1 || std::io::stdin().is_terminal() {
        let _ = writeln!(
            std::io::stderr(),
            "{NAME} {}: portsentry's helper starts it, with a request as its standard input, for `notify:`",
            env!("CARGO_PKG_VERSION")
        );
        return ExitCode::from(EX_USAGE);
    }
    let reply = match run() {
        Ok(reply) => reply,
        Err(why) => Reply { status: None, after: None, why: short(&why) },
    };
    let line = serde_json::to_string(&reply).unwrap_or_default();
    match std::io::stdout().write_all(line.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> Result<Reply, String> {
    let mut text = String::new();
    std::io::stdin()
        .take(JOB_MAX)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot read the request: {error}"))?;
    let mut job: Job =
        serde_json::from_str(&text).map_err(|_| "cannot read the request".to_owned())?;
    let mut secrets = Vec::new();
    if let Some(file) = &job.url_file {
        job.url = secret(file)?;
        secrets.push(job.url.clone());
    }
    if let Some(file) = &job.secret_file {
        let value = secret(file)?;
        job.headers.push(match job.secret {
            Secret::Bearer => ("Authorization".to_owned(), format!("Bearer {value}")),
            Secret::Key => ("Key".to_owned(), value.clone()),
        });
        secrets.push(value);
    }
    let roots = if job.url.starts_with("https:") { certificates()? } else { Vec::new() };
    // The certificates may be root's, and the server may answer anything.
    confine::sender().map_err(|error| error.to_string())?;
    let reply = post(&job, roots).unwrap_or_else(|why| Reply { status: None, after: None, why });
    Ok(Reply { why: short(&without(&reply.why, &secrets)), ..reply })
}

/// The first line of a secret's file.
fn secret(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    files::open(file)
        .and_then(|file| file.take(SECRET_MAX).read_to_string(&mut text))
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let line = text.lines().next().unwrap_or_default().trim();
    let is_good = !line.is_empty() && line.chars().all(|c| c.is_ascii_graphic());
    is_good.then(|| line.to_owned()).ok_or_else(|| {
        format!("{} has no line of printable characters without blanks", file.display())
    })
}

/// The certificates that this host trusts.
fn certificates() -> Result<Vec<Certificate<'static>>, String> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let found = named.into_iter().chain(CERTIFICATES.map(PathBuf::from)).find(|file| file.exists());
    let file = found.ok_or("no certificates are installed: install ca-certificates")?;
    let pem =
        std::fs::read(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let of = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    Ok(ureq::tls::parse_pem(&pem).filter_map(of).collect())
}

fn post(job: &Job, roots: Vec<Certificate<'static>>) -> Result<Reply, String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(job.timeout))
        .http_status_as_error(false)
        // A redirection might send a secret elsewhere.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("portsentry/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(roots))).build())
        .build()
        .into();
    let mut request = agent.post(&job.url);
    for (name, value) in &job.headers {
        request = request.header(name, value);
    }
    let mut response = request.send(job.body.as_bytes()).map_err(|error| said(&error))?;
    let status = response.status().as_u16();
    let after = response.headers().get("retry-after").and_then(|value| {
        let value = value.to_str().ok()?.trim();
        value.parse::<u64>().ok().or_else(|| seconds_until(value))
    });
    let mut answer = Vec::new();
    if status >= 300 {
        // An answer that is cut or never ends says enough by its start.
        let _ = response.body_mut().as_reader().take(ANSWER_MAX).read_to_end(&mut answer);
    }
    Ok(Reply { status: Some(status), after, why: String::from_utf8_lossy(&answer).into_owned() })
}

/// The seconds until a date of HTTP (RFC 9110, 5.6.7).
fn seconds_until(date: &str) -> Option<u64> {
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    u64::try_from(at.as_second() - jiff::Timestamp::now().as_second()).ok()
}

/// An error without the URL.
fn said(error: &Error) -> String {
    match error {
        Error::Timeout(_) => "no answer in time".to_owned(),
        Error::HostNotFound => "the name of the server is not found".to_owned(),
        Error::BadUri(_) => "the URL is wrong".to_owned(),
        Error::Http(_) => "the URL or a header is wrong".to_owned(),
        Error::InvalidProxyUrl => "the URL of the proxy is wrong".to_owned(),
        Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// The text without secrets, and without what a URL that is secret has behind its host.
fn without(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        text = text.replace(secret, "(secret)");
        let rest = secret.split_once("://").map_or("", |(_, rest)| rest);
        for part in rest.split(['/', '?', '&', '=', ':', '@']).skip(1).filter(|part| part.len() > 3)
        {
            text = text.replace(part, "(secret)");
        }
    }
    text
}

/// A text in one line, without characters that a terminal obeys.
pub(super) fn short(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().filter(|c| !c.is_control()).take(WHY_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_stays_in_a_text() {
        let secrets =
            ["https://user:hunter22@h.example/hook/T0KEN?key=K3YKEY".into(), "tk_abc".into()];
        let text = "cannot open https://user:hunter22@h.example/hook/T0KEN?key=K3YKEY with tk_abc: hunter22 T0KEN K3YKEY";
        let text = without(text, &secrets);
        for secret in ["hunter22", "T0KEN", "K3YKEY", "tk_abc"] {
            assert!(!text.contains(secret), "{text}");
        }
    }

    #[test]
    fn a_secret_is_the_first_line_of_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "tk_1\nnot this\n").unwrap();
        assert_eq!(secret(&file).unwrap(), "tk_1");
        for bad in ["", "\n", "a b\n", "\u{1}\n"] {
            std::fs::write(&file, bad).unwrap();
            assert!(secret(&file).is_err(), "{bad:?}");
        }
        assert!(secret(Path::new("/nowhere")).unwrap_err().contains("/nowhere"));
    }

    #[test]
    fn a_text_of_a_server_is_one_short_line() {
        assert_eq!(short("a\n\u{1b}[31m b"), "a [31m b");
        assert_eq!(short(&"x".repeat(1000)).len(), WHY_MAX);
    }
}
