//! Parser of the classic ignore file: an address or `address/bits` a line, comments; host bits are
//! masked. Pure.
//!
//! Handles CR LF and a last line without its line end. Host names are refused, never looked up: the
//! name's owner would decide which address is never blocked. Netmasks in dotted form are read as
//! PortSentry 1.2 read them, though the comment in its own file recommends them: behind a slash
//! they exempt nothing, behind a blank they are a comment. Each is a warning with the network in
//! CIDR form.

use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net};

use super::super::diagnostic::{Finding, Findings, Place, Severity, shown};
use super::super::values;
use super::parse::{lines_of, text_of};

/// A network that is never blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The network; an address has full length.
    pub network: IpNet,
    /// Line number, from 1.
    pub line: u32,
    /// Its text in the file.
    pub text: String,
}

/// The content of an ignore file.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// In the order of the file, without unreadable lines.
    pub entries: Vec<Entry>,
    /// Errors and warnings, by place.
    pub findings: Vec<Finding>,
}

impl List {
    /// Whether every line could be read.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Error)
    }
}

/// Parses an ignore file; `name` is its name in findings.
pub fn parse(bytes: &[u8], name: &Path) -> List {
    let text = text_of(bytes);
    let lines = lines_of(&text);
    let mut findings = Findings::of_lines(name, lines.clone());
    let mut entries = Vec::new();
    for (at, line) in lines.into_iter().enumerate() {
        let before_comment = line.split('#').next().unwrap_or_default();
        let Some(word) = before_comment.split_whitespace().next() else { continue };
        let start = before_comment.len() - before_comment.trim_start().len();
        let place = |byte| Place::in_line(at + 1, line, byte);
        let behind = before_comment.get(start + word.len()..).unwrap_or_default();
        if let Some(other) = behind.split_whitespace().next() {
            let at = place(start + word.len() + (behind.len() - behind.trim_start().len()));
            if let Some(network) = with_netmask(word, other) {
                findings.warning(
                    at,
                    format!("the netmask `{other}` behind the address is taken as a comment, as PortSentry 1.2 did: {word} alone is exempt"),
                    format!("write {network} if the network is meant"),
                );
            } else if values::network(other).is_ok() {
                findings.error(
                    at,
                    format!("a second address, `{}`, stands in this line", shown(other)),
                    "write each in a line of its own",
                );
            } else {
                let message =
                    format!("`{}` behind the address is taken as a comment", shown(behind.trim()));
                findings.warning(at, message, "begin a comment with #");
            }
        }
        let masked = word.split_once('/').and_then(|(address, mask)| with_netmask(address, mask));
        if let Some(network) = masked {
            findings.warning(
                place(start),
                format!("`{word}` has a netmask, where PortSentry 1.2 reads a number of bits: as there, the line exempts nothing"),
                format!("write {network}"),
            );
            continue;
        }
        match values::network(word) {
            Err((message, remedy)) => findings.error(place(start), message, remedy),
            Ok((network, odd)) => {
                if let Some((message, remedy)) = odd {
                    findings.warning(place(start), message, remedy);
                }
                entries.push(Entry { network, line: place(0).line, text: word.to_owned() });
            }
        }
    }
    List { entries, findings: findings.finish() }
}

/// The network of an IPv4 address and a netmask such as 255.255.255.252.
fn with_netmask(address: &str, mask: &str) -> Option<Ipv4Net> {
    let (address, mask): (Ipv4Addr, Ipv4Addr) = (address.parse().ok()?, mask.parse().ok()?);
    // An address whose leading bits happen to be ones is no netmask: 192.0.0.0.
    let network = Ipv4Net::with_netmask(address, mask).ok().filter(|_| mask.octets()[0] == 255)?;
    Some(network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(text: &str) -> Vec<String> {
        let list = parse(text.as_bytes(), Path::new("i"));
        assert!(list.is_sound(), "{:?}", list.findings);
        list.entries.iter().map(|entry| entry.network.to_string()).collect()
    }

    // D12
    #[test]
    fn the_last_line_without_its_end_loses_no_character() {
        assert_eq!(networks("127.0.0.1/32\n10.0.0.12"), ["127.0.0.1/32", "10.0.0.12/32"]);
    }

    // D12
    #[test]
    fn host_bits_are_masked_with_a_warning() {
        let list = parse(b"10.0.0.5/24\n2001:db8::1/32\n", Path::new("i"));
        assert_eq!(
            list.entries.iter().map(|entry| entry.network.to_string()).collect::<Vec<_>>(),
            ["10.0.0.0/24", "2001:db8::/32"]
        );
        assert_eq!(
            list.findings
                .iter()
                .map(|finding| (finding.line, finding.severity))
                .collect::<Vec<_>>(),
            [(1, Severity::Warning), (2, Severity::Warning)]
        );
    }

    // D12
    #[test]
    fn comments_blank_lines_and_foreign_line_ends_are_accepted() {
        let text = "\u{feff}# mine\r\n\r\n  192.0.2.1   # the office\r\n\t2001:db8::1#no blank\r\n   # indented\r\n192.0.2.0/25\t\r\n";
        assert_eq!(networks(text), ["192.0.2.1/32", "2001:db8::1/128", "192.0.2.0/25"]);
        assert_eq!(networks(""), [""; 0]);
    }

    #[test]
    fn host_names_are_refused_with_their_line() {
        let list = parse(b"127.0.0.1\nlocalhost\n192.0.2.1 192.0.2.2\n10.0.0.0/255.0.0.0\n192.0.2.300\n192.0.2.9 gateway\n", Path::new("i"));
        let places: Vec<_> =
            list.findings.iter().map(|finding| (finding.line, finding.column)).collect();
        assert_eq!(places, [(2, 1), (3, 11), (4, 1), (5, 1), (6, 11)]);
        assert!(!list.is_sound());
        assert!(
            list.findings[0].remedy.contains("not looked up")
                && list.findings[2].remedy.contains("10.0.0.0/8")
        );
        assert_eq!(
            list.findings[4].severity,
            Severity::Warning,
            "a comment without its # was fine before"
        );
        assert_eq!(list.entries.len(), 3, "what can be read is there");
    }

    #[test]
    fn a_netmask_behind_an_address_is_read_as_the_old_program_did() {
        let list = parse(
            b"192.0.2.5 255.255.255.252\n198.51.100.4/255.255.255.252\n203.0.113.1\n",
            Path::new("i"),
        );
        let networks: Vec<_> = list.entries.iter().map(|entry| entry.network.to_string()).collect();
        assert_eq!(networks, ["192.0.2.5/32", "203.0.113.1/32"]);
        let told: Vec<_> = list.findings.iter().map(ToString::to_string).collect();
        assert!(list.is_sound() && told.len() == 2, "{told:?}");
        assert!(told[0].starts_with("i:1:11: warning:") && told[0].contains("write 192.0.2.4/30"));
        assert!(told[1].starts_with("i:2:1: warning:") && told[1].contains("198.51.100.4/30"));
        assert!(!parse(b"192.0.2.1 192.0.0.0\n", Path::new("i")).is_sound(), "an address");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(&bytes, Path::new("i"));
        }

        #[test]
        fn every_network_comes_back_masked(address: std::net::IpAddr, bits in 0u8..=128) {
            let bits = if address.is_ipv4() { bits % 33 } else { bits };
            let network = IpNet::new(address, bits).unwrap();
            let list = parse(format!("{network}").as_bytes(), Path::new("i"));
            prop_assert!(list.is_sound());
            prop_assert_eq!(list.entries.len(), 1);
            let read = list.entries[0].network;
            prop_assert_eq!(read, read.trunc());
            prop_assert!(read == network.trunc() || address.to_string().contains("::ffff:"));
        }
    }
}
