//! `notify`: its types, and checks of addresses of mail, URLs, and the files that hold secrets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Config;
use super::diagnostic::{escaped, shown};
use super::reader::Reader;

/// `notify`: digests of what happened, and reports to AbuseIPDB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// How long a digest collects from its first event on.
    pub digest: Duration,
    /// What it is about.
    pub on: Vec<NotifyOn>,
    /// Mail.
    pub sendmail: Sendmail,
    /// A POST of JSON.
    pub webhook: Endpoint,
    /// A message of ntfy.
    pub ntfy: Endpoint,
    /// Reports of proven sources.
    pub abuseipdb: AbuseIpDb,
}

impl Notify {
    /// Whether anything is sent.
    pub fn is_on(&self) -> bool {
        !self.sendmail.to.is_empty()
            || self.webhook.is_on()
            || self.ntfy.is_on()
            || self.abuseipdb.key_file.is_some()
    }

    /// The files of secrets, by their keys.
    pub(crate) fn secrets(&self) -> [(&'static str, &Option<PathBuf>); 5] {
        [
            ("notify.webhook.url_file", &self.webhook.url_file),
            ("notify.webhook.token_file", &self.webhook.token_file),
            ("notify.ntfy.url_file", &self.ntfy.url_file),
            ("notify.ntfy.token_file", &self.ntfy.token_file),
            ("notify.abuseipdb.key_file", &self.abuseipdb.key_file),
        ]
    }
}

/// An item of `notify.on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotifyOn {
    /// A scan that is only reported.
    Reported,
    /// A source that is slowed.
    Slowed,
    /// A source that is blocked.
    Blocked,
    /// What the administrator should look at: a changed table, lost packets, a refused block.
    Trouble,
}

/// `notify.sendmail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sendmail {
    /// Recipients, with commas between them; empty: no mail.
    pub to: String,
    /// The sender; empty: the mail system's default.
    pub from: String,
    /// The program, with sendmail(8)'s options.
    pub program: PathBuf,
}

/// `notify.webhook` and `notify.ntfy`: an HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its URL, if that is no secret; empty: none.
    pub url: String,
    /// The file that holds the URL.
    pub url_file: Option<PathBuf>,
    /// The file that holds the bearer token.
    pub token_file: Option<PathBuf>,
}

impl Endpoint {
    /// Whether it has a URL.
    pub fn is_on(&self) -> bool {
        !self.url.is_empty() || self.url_file.is_some()
    }
}

/// `notify.abuseipdb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbuseIpDb {
    /// The file that holds the key of its interface; `None`: nothing is reported.
    pub key_file: Option<PathBuf>,
    /// Where reports go.
    pub url: String,
}

/// Characters of a part of a path from which on it may be a secret: an incoming hook's, a topic that
/// is hard to guess.
const SECRET_LENGTH: usize = 16;

/// Where systemd puts credentials; they are there while the service runs (systemd.exec(5)).
const CREDENTIALS: &str = "/run/credentials";

/// Notes contradictions as findings.
pub(super) fn check(config: &Config, reader: &mut Reader<'_>) {
    let notify = &config.notify;
    for (key, text) in [
        ("notify.sendmail.to", &notify.sendmail.to),
        ("notify.sendmail.from", &notify.sendmail.from),
    ] {
        if let Some(wrong) = recipients(text).find(|address| !is_address(address)) {
            reader.error(
                &[key],
                format!("`{key}` has `{}`, which is no address of mail", shown(wrong)),
                "write root, or admin@example.org; several with commas between them",
            );
        }
    }
    if recipients(&notify.sendmail.from).count() > 1 {
        reader.error(
            &["notify.sendmail.from"],
            "`notify.sendmail.from` has several addresses",
            "write one",
        );
    }
    endpoint("notify.webhook", &notify.webhook, reader);
    endpoint("notify.ntfy", &notify.ntfy, reader);
    if let Some((_, path)) = parts(&notify.ntfy.url)
        && path.trim_matches('/').is_empty()
    {
        reader.error(
            &["notify.ntfy.url"],
            "`notify.ntfy.url` has no topic",
            "write the topic behind the server: https://ntfy.example.org/alerts",
        );
    }
    let url = &notify.abuseipdb.url;
    if !url.starts_with("https://") && !parts(url).is_some_and(|(host, _)| is_loopback(host)) {
        reader.error(
            &["notify.abuseipdb.url"],
            "`notify.abuseipdb.url` is no https URL: the key would be readable on its way",
            "remove it: the default is right",
        );
    }
}

/// Addresses of a list.
pub(crate) fn recipients(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|address| !address.is_empty())
}

/// A local name or an address, without what a mail program reads as an option or a second header.
fn is_address(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_graphic() && !"\"'<>()[]\\;:`|$&*!{}".contains(c);
    !text.starts_with('-') && text.chars().all(is_plain)
}

/// Host with port, and path with all behind it, of an HTTP URL.
fn parts(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    (!host.is_empty() && url.chars().all(|c| c.is_ascii_graphic())).then_some((host, path))
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

fn endpoint(section: &str, endpoint: &Endpoint, reader: &mut Reader<'_>) {
    let [url, url_file, token_file] =
        ["url", "url_file", "token_file"].map(|key| format!("{section}.{key}"));
    if !reader.is_sound(&[&url, &url_file, &token_file]) {
        return;
    }
    if endpoint.token_file.is_some() && !endpoint.is_on() {
        reader.error(
            &[&token_file],
            format!("`{token_file}` is for a server, and there is no `{url}`"),
            format!("write {url}, or {url_file}"),
        );
    }
    if endpoint.url.is_empty() {
        return;
    }
    if endpoint.url_file.is_some() {
        reader.error(
            &[&url_file, &url],
            format!("`{url}` and `{url_file}` are both here"),
            "remove one of them",
        );
    }
    let into_file = format!(
        "write the URL into a file that the daemon alone can read, and name that file as {url_file}"
    );
    let Some((host, path)) = parts(&endpoint.url) else {
        return reader.error(
            &[&url],
            format!("`{url}` is no URL of HTTP"),
            "write https://HOST/PATH, without blanks",
        );
    };
    if host.contains('@') || path.contains('?') {
        return reader.error(
            &[&url],
            format!(
                "`{url}` has a password or a query, and the configuration is printed and logged"
            ),
            into_file,
        );
    }
    if path.split('/').any(is_secret) {
        reader.warning(
            &[&url],
            format!("`{url}` seems to have a secret in its path, and the configuration is printed and logged"),
            into_file,
        );
    }
    if endpoint.url.starts_with("http://") && endpoint.token_file.is_some() && !is_loopback(host) {
        reader.warning(
            &[&url, &token_file],
            format!("`{token_file}` is sent without encryption: `{url}` begins with http:"),
            "write https:, if the server has it",
        );
    }
}

fn is_secret(part: &str) -> bool {
    let has = |test: fn(&u8) -> bool| part.as_bytes().iter().any(test);
    part.len() >= SECRET_LENGTH && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
}

/// Notes files of secrets that are missing, or that all users can read, and a missing sendmail(8).
pub(super) fn check_files(config: &Config, reader: &mut Reader<'_>) {
    let notify = &config.notify;
    for (key, file) in notify.secrets() {
        let Some(file) = file.as_deref().filter(|file| !file.starts_with(CREDENTIALS)) else {
            continue;
        };
        let name = escaped(&file.to_string_lossy());
        match fs::metadata(file) {
            Ok(facts) if facts.permissions().mode() & 0o004 != 0 => reader.warning(
                &[key],
                format!("all users can read {name}, which holds a secret"),
                format!("chgrp portsentry '{name}'; chmod 0640 '{name}'"),
            ),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => reader.warning(
                &[key],
                format!("there is no file {name}: nothing is sent"),
                "make it, with the secret in its first line",
            ),
            _ => {}
        }
    }
    let program: &Path = &notify.sendmail.program;
    if !notify.sendmail.to.is_empty() && !program.exists() {
        reader.warning(
            &["notify.sendmail.program", "notify.sendmail.to"],
            format!("there is no {}: no mail is sent", escaped(&program.to_string_lossy())),
            "install a mail system that has sendmail(8), or write its path as notify.sendmail.program",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_mail_begin_no_option_and_end_no_header() {
        for good in ["root", "admin+ps@example.org", "a_b@xn--x.example"] {
            assert!(is_address(good), "{good}");
        }
        for bad in ["-oQ/tmp", "a b", "a\nBcc: b", "|/bin/sh", "<a@b>", "ä@b"] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn a_url_has_a_host_and_no_blanks() {
        assert_eq!(parts("https://h.example:8443/a/b"), Some(("h.example:8443", "/a/b")));
        assert_eq!(parts("http://h"), Some(("h", "")));
        for bad in ["h.example/a", "ftp://h/a", "https:///a", "https://h/a b", "https://h/ä"] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_looks_random_counts_as_a_secret() {
        assert!(is_secret("T0123456789abcdefG") && is_secret("xoxb123456789012"));
        assert!(!is_secret("portsentry-alerts-office") && !is_secret("api") && !is_secret("v2"));
    }
}
