//! Reports to AbuseIPDB: which sources, how often, and what is said of them. Pure.
//!
//! Their documentation (docs.abuseipdb.com, "REPORT Endpoint") asks for an address, one or more
//! categories, and a comment without personal data; a reporter may report an address once in 15
//! minutes.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;

use crate::helper::protocol::{Class, Incident};

/// Least time between two reports of one address.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(15 * 60);

/// Reports that wait: the free account's daily limit is 1,000.
pub(super) const REPORTS_MAX: usize = 256;

/// Addresses of the last quarter of an hour, in some 60 bytes each.
pub(super) const RECENT_MAX: usize = 4096;

/// Longest comment, in bytes; their limit is 1,024 characters.
pub(super) const COMMENT_MAX: usize = 1024;

/// "Port Scan", of the categories that they list.
pub(super) const PORT_SCAN: &str = "14";

/// A report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    /// The source.
    pub(super) address: IpAddr,
    /// When it was blocked, in seconds since 1970.
    pub(super) at: i64,
    /// What it did.
    pub(super) comment: String,
}

/// Reports that wait, and what was reported lately.
#[derive(Debug, Default)]
pub(super) struct Reports {
    queue: VecDeque<(Report, Instant)>,
    recent: HashMap<IpAddr, Instant>,
}

impl Reports {
    /// Queues a report of a proven source that was blocked; `false`: there is no room for it.
    pub(super) fn add(&mut self, incident: &Incident, now: Instant) -> bool {
        let host = incident.target.as_deref().and_then(host);
        let Some(address) = host.filter(|address| {
            incident.class == Class::Blocked && incident.is_proven && is_public(*address)
        }) else {
            return true;
        };
        self.recent.retain(|_, at| now < *at + REPORT_EVERY);
        if self.recent.contains_key(&address) {
            return true;
        }
        if self.queue.len() >= REPORTS_MAX || self.recent.len() >= RECENT_MAX {
            return false;
        }
        self.recent.insert(address, now);
        self.queue
            .push_back((Report { address, at: incident.at, comment: comment(incident) }, now));
        true
    }

    /// When the next one is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.queue.front().map(|(_, at)| *at)
    }

    /// The next one.
    pub(super) fn next(&mut self) -> Option<Report> {
        self.queue.pop_front().map(|(report, _)| report)
    }

    /// Reports that wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

impl Report {
    /// As a form (application/x-www-form-urlencoded).
    pub(super) fn form(&self) -> String {
        let at = Timestamp::from_second(self.at).unwrap_or_default().to_string();
        let fields = [
            ("ip", self.address.to_string()),
            ("categories", PORT_SCAN.to_owned()),
            ("timestamp", at),
            ("comment", self.comment.clone()),
        ];
        fields.map(|(key, value)| format!("{key}={}", encoded(&value))).join("&")
    }
}

/// What the source did, without addresses: ours are not to be published, and its own is the report's.
fn comment(incident: &Incident) -> String {
    let scan = incident.scan.as_deref().unwrap_or("port");
    let port = incident.port.as_deref().unwrap_or("a closed port");
    let text = format!("PortSentry: {scan} scan, last {port}: {}", incident.reason);
    let mut text = without_addresses(&text);
    while text.len() > COMMENT_MAX {
        text.pop();
    }
    text
}

/// The text without addresses, networks, and addresses with ports.
fn without_addresses(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_hexdigit() || ".:/".contains(c);
    let mut without = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
        // The end of a sentence.
        let bare = part.trim_end_matches(['.', '/']);
        let bare = bare.strip_suffix(':').filter(|bare| !bare.ends_with(':')).unwrap_or(bare);
        let is_address = bare.parse::<IpAddr>().is_ok()
            || bare.parse::<IpNet>().is_ok()
            || bare.parse::<SocketAddr>().is_ok();
        without.push_str(if is_address { "(address)" } else { part });
        let next = behind.chars().next();
        without.extend(next);
        rest = behind.get(next.map_or(0, char::len_utf8)..).unwrap_or_default();
    }
    without
}

/// Percent-encoding of a form's value.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// The address of a source that is one host.
fn host(target: &str) -> Option<IpAddr> {
    target.parse().ok().or_else(|| {
        let network: IpNet = target.parse().ok()?;
        (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
    })
}

/// Whether an address is one of the internet: theirs are refused otherwise, and a private one says
/// something of the administrator's network.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_documentation()
                || v4.is_multicast()
                || a == 0
                || a >= 240
                || (a == 100 && (b & 0xc0) == 64)
                || (a == 198 && (b & 0xfe) == 18)
                || (a, b, c) == (192, 0, 0))
        }
        // 2000::/3 is all that is assigned (RFC 4291), less what is for documentation (RFC 3849).
        IpAddr::V6(v6) => {
            let documentation = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
            u128::from(v6) >> 125 == 1 && u128::from(v6) >> 96 != u128::from(documentation) >> 96
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::notify::tests::incident;

    fn proven(target: &str) -> Incident {
        Incident { is_proven: true, ..incident(target, Class::Blocked) }
    }

    #[test]
    fn proven_public_hosts_alone_are_reported() {
        let (mut reports, now) = (Reports::default(), Instant::now());
        for other in [
            incident("8.8.4.4", Class::Blocked),
            Incident { is_proven: true, ..incident("8.8.4.4", Class::Slowed) },
            proven("10.1.2.3"),
            proven("100.64.0.1"),
            proven("192.0.2.1"),
            proven("2001:db8::1"),
            proven("fd00::1"),
            proven("2600::/64"),
        ] {
            assert!(reports.add(&other, now) && reports.len() == 0, "{other:?}");
        }
        reports.add(&proven("8.8.4.4"), now);
        reports.add(&proven("2600::1"), now);
        assert_eq!(reports.len(), 2);
    }

    #[test]
    fn an_address_is_reported_once_in_a_quarter_of_an_hour() {
        let (mut reports, now) = (Reports::default(), Instant::now());
        let second = Duration::from_secs(1);
        reports.add(&proven("8.8.4.4"), now);
        assert!(reports.next().is_some());
        reports.add(&proven("8.8.4.4"), now + REPORT_EVERY - second);
        assert!(reports.next().is_none());
        reports.add(&proven("8.8.4.4"), now + REPORT_EVERY + second);
        assert!(reports.next().is_some());
    }

    #[test]
    fn reports_that_wait_are_bounded() {
        let (mut reports, now) = (Reports::default(), Instant::now());
        let taken = (0..1000u32)
            .filter(|n| {
                reports.add(&proven(&IpAddr::V4((0x0808_0000 + n).into()).to_string()), now)
            })
            .count();
        assert_eq!((taken, reports.len()), (REPORTS_MAX, REPORTS_MAX));
    }

    #[test]
    fn a_comment_is_short_and_names_no_address() {
        let reason =
            format!("at 203.0.113.5, 2001:db8::7 and [203.0.113.5]:22 {}", "x ".repeat(2000));
        let comment = comment(&Incident { reason, ..proven("8.8.4.4") });
        assert!(
            comment.len() <= COMMENT_MAX && !comment.contains("203.0") && !comment.contains("db8")
        );
        let report =
            Report { address: "2600::1".parse().unwrap(), at: 0, comment: "a b&c=é".to_owned() };
        assert_eq!(
            report.form(),
            "ip=2600%3A%3A1&categories=14&timestamp=1970-01-01T00%3A00%3A00Z&comment=a%20b%26c%3D%C3%A9"
        );
    }
}
