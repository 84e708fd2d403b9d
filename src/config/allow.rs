//! `allow`: its entries, how they are read and printed, and the files that it names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::diagnostic::{Finding, Findings, Place, Severity, shown};
use super::field::{Field, Input};
use super::phrases::{describe, quoting};
use super::reader::Reader;
use super::tree::{Node, Value};
use super::values::{self, Wrong, wrong};
use super::{Config, written};

/// DNS names in `allow`: each is looked up again and again, and an administrator reads their list.
pub const ALLOW_NAMES_MAX: usize = 64;

/// Files in `allow`: one for each office or provider is far less.
pub const ALLOW_FILES_MAX: usize = 64;

/// Interfaces in `allow`: a host with a VPN for each customer has some dozens.
pub const ALLOW_INTERFACES_MAX: usize = 64;

/// What is never blocked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Allowed {
    /// What it is.
    pub what: Allowance,
    /// Its scans are not reported either.
    pub silent: bool,
}

/// How an entry of `allow` says what is never blocked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Allowance {
    /// An address or network.
    Network(IpNet),
    /// A DNS name, in lower case and without a dot at its end: the addresses that it has now.
    Name(String),
    /// A file of addresses and networks.
    File {
        /// Its path.
        path: PathBuf,
        /// What is in it; empty in a configuration that was parsed from text alone.
        networks: Vec<IpNet>,
    },
    /// An interface: whatever arrives over it.
    Interface(String),
}

impl From<IpNet> for Allowed {
    fn from(network: IpNet) -> Self {
        Self { what: Allowance::Network(network), silent: false }
    }
}

impl Allowed {
    /// Its addresses and networks that the configuration has: none of a name or an interface.
    pub fn networks(&self) -> &[IpNet] {
        match &self.what {
            Allowance::Network(network) => std::slice::from_ref(network),
            Allowance::File { networks, .. } => networks,
            Allowance::Name(_) | Allowance::Interface(_) => &[],
        }
    }

    /// Whether both are entries for the same thing.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.what, &other.what) {
            (Allowance::File { path: one, .. }, Allowance::File { path: other, .. }) => {
                one == other
            }
            (one, other) => one == other,
        }
    }
}

impl Allowance {
    fn name(&self) -> Option<&str> {
        if let Self::Name(name) = self { Some(name) } else { None }
    }

    fn interface(&self) -> Option<&str> {
        if let Self::Interface(name) = self { Some(name) } else { None }
    }
}

impl Config {
    /// Addresses and networks of `allow` and of its files.
    pub fn allowed_networks(&self) -> impl Iterator<Item = IpNet> {
        self.allow.iter().flat_map(|allowed| allowed.networks()).copied()
    }

    /// Those of which nothing is reported.
    pub fn silent_networks(&self) -> impl Iterator<Item = IpNet> {
        self.allow.iter().filter(|allowed| allowed.silent).flat_map(Allowed::networks).copied()
    }

    /// DNS names in `allow`, each once.
    pub fn allowed_names(&self) -> BTreeSet<&str> {
        self.allow.iter().filter_map(|allowed| allowed.what.name()).collect()
    }

    /// Interfaces in `allow`; `silent`: only those of which nothing is reported.
    pub fn allowed_interfaces(&self, silent: bool) -> BTreeSet<&str> {
        let entries = self.allow.iter().filter(|allowed| allowed.silent || !silent);
        entries.filter_map(|allowed| allowed.what.interface()).collect()
    }

    /// What the files of `allow` have.
    pub fn allowed_by_files(&self) -> Vec<IpNet> {
        let files = self.allow.iter();
        let files = files.filter(|allowed| matches!(allowed.what, Allowance::File { .. }));
        files.flat_map(Allowed::networks).copied().collect()
    }
}

impl Field for Vec<Allowed> {
    fn read(&mut self, input: &mut Input<'_, '_>) -> Result<(), Wrong> {
        let items = input.items()?.iter().map(|item| (item, item.place));
        let entries = input.list(items, entry, name_of);
        input.set(self, entries)
    }

    fn print(&self) -> String {
        let items = self.iter().map(|allowed| {
            let silent = if allowed.silent { ", silent: true" } else { "" };
            match &allowed.what {
                Allowance::Network(network) if !allowed.silent => {
                    written::quoted(&values::display(network))
                }
                what => {
                    let (key, text) = written_as(what);
                    format!("{{{key}: {}{silent}}}", written::quoted(&text))
                }
            }
        });
        format!("[{}]", items.collect::<Vec<_>>().join(", "))
    }
}

/// The key of an entry, and its value.
fn written_as(what: &Allowance) -> (&'static str, String) {
    match what {
        Allowance::Network(network) => ("network", values::display(network)),
        Allowance::Name(name) => ("name", name.clone()),
        Allowance::File { path, .. } => ("file", path.to_string_lossy().into_owned()),
        Allowance::Interface(name) => ("interface", name.clone()),
    }
}

/// An entry in a message.
fn name_of(allowed: &Allowed) -> String {
    shown(&written_as(&allowed.what).1)
}

/// The keys that say what is allowed.
const WHAT: [&str; 4] = ["network", "name", "file", "interface"];
const SILENT: &str = "silent";

/// Longest path of a file (PATH_MAX less its NUL, linux/limits.h).
const PATH_MAX: usize = 4095;

/// Reads one entry.
fn entry(input: &mut Input<'_, '_>, item: &Node, place: Place) -> Result<Allowed, Wrong> {
    let is_key = |key: &str| key == SILENT || WHAT.contains(&key);
    let entries = match &item.value {
        Value::Text(text) => {
            let what = match dotted_name(text) {
                Some(name) => Allowance::Name(name),
                None => network(input, text, place)?,
            };
            return Ok(Allowed { what, silent: false });
        }
        Value::Map(entries) if entries.iter().any(|entry| is_key(&entry.key)) => entries,
        other => return Err(input.mismatch(item, "texts in its list", quoting(other))),
    };
    let refused = |message: String| {
        let remedy = "write an address, a DNS name, or {network: 192.0.2.0/24, silent: true}, {name: office.example.net}, \
             {file: /etc/portsentry/allow.d/office.txt}, {interface: wg0}";
        Err((format!("an entry of `allow` {message}"), remedy.to_owned()))
    };
    let (mut what, mut silent): (Option<(&str, &str)>, _) = (None, None);
    for entry in entries {
        match (entry.key.as_str(), &entry.node.value) {
            (key, _) if what.is_some_and(|(other, _)| other == key) => {
                return refused(format!("has `{key}` twice"));
            }
            (SILENT, _) if silent.is_some() => return refused("has `silent` twice".to_owned()),
            (SILENT, Value::Bool(value)) => silent = Some(*value),
            (key, Value::Text(text)) if WHAT.contains(&key) => {
                if let Some((other, _)) = what {
                    return refused(format!("has `{other}` and `{key}`: make two entries of it"));
                }
                what = Some((key, text.as_str()));
            }
            (key, other) if is_key(key) => {
                let wanted = if key == SILENT { "true or false" } else { "a text" };
                return refused(format!("wants {wanted} for `{key}`, not {}", describe(other)));
            }
            (key, _) => return refused(format!("has the unknown key `{}`", shown(key))),
        }
    }
    let silent = silent.unwrap_or(false);
    let Some((key, text)) = what else {
        return refused("has no `network`, `name`, `file` or `interface`".to_owned());
    };
    let what = match key {
        "name" if silent => {
            return wrong(
                "an entry of `allow` with `name` cannot be silent: what is not reported is a part of the rules, and the addresses of a name come and go",
                "write its addresses: {network: 192.0.2.7, silent: true}",
            );
        }
        "name" => Allowance::Name(values::dns_name(text)?),
        "file" => {
            values::path(text, PATH_MAX)?;
            Allowance::File { path: PathBuf::from(text), networks: Vec::new() }
        }
        "interface" => {
            values::interface(text)?;
            Allowance::Interface(text.to_owned())
        }
        _ => network(input, text, place)?,
    };
    Ok(Allowed { what, silent })
}

/// A text that can only be a name: with a dot, and a letter behind the last one.
fn dotted_name(text: &str) -> Option<String> {
    let name = values::dns_name(text.trim()).ok()?;
    let (_, last) = name.rsplit_once('.')?;
    last.contains(|c: char| c.is_ascii_alphabetic()).then_some(name)
}

fn network(input: &mut Input<'_, '_>, text: &str, place: Place) -> Result<Allowance, Wrong> {
    let (network, odd) = values::network(text).map_err(|(message, remedy)| {
        let name = ", or a DNS name, office.example.net; one without a dot as {name: office}";
        (message, remedy.replace("; names are not looked up", name))
    })?;
    odd.into_iter().for_each(|odd| input.warning(place, odd));
    Ok(Allowance::Network(network))
}

/// Checks how many there are of each kind.
pub(super) fn check(config: &Config, reader: &mut Reader<'_>) {
    let files =
        config.allow.iter().filter(|allowed| matches!(allowed.what, Allowance::File { .. }));
    let counts = [
        ("DNS names", config.allowed_names().len(), ALLOW_NAMES_MAX),
        ("files", files.count(), ALLOW_FILES_MAX),
        ("interfaces", config.allowed_interfaces(false).len(), ALLOW_INTERFACES_MAX),
    ];
    for (what, count, most) in counts.into_iter().filter(|(_, count, most)| count > most) {
        reader.error(
            &["allow"],
            format!("`allow` has {count} {what}"),
            format!("write at most {most}, and networks for the rest"),
        );
    }
    if config.allowed_interfaces(false).contains("lo") {
        reader.warning(&["allow"], "the loopback interface is never watched", "remove `lo`");
    }
}

/// The networks of a file of `allow`, one a line, and findings about it: a fault of a line loses no
/// other line, and refuses the configuration as a whole.
pub(super) fn parse_file(text: &str, path: &Path) -> (Vec<IpNet>, Vec<Finding>) {
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Findings::of_lines(path, lines.clone());
    let mut networks = Vec::new();
    for (at, line) in lines.into_iter().enumerate() {
        let entry = line.split('#').next().unwrap_or_default();
        let start = entry.len() - entry.trim_start().len();
        let place = |byte| Place::in_line(at + 1, line, byte);
        let entry = entry.trim();
        if entry.is_empty() {
            continue;
        }
        if let Some((first, second)) = entry.split_once(char::is_whitespace) {
            let byte = start + first.len() + 1;
            findings.error(
                place(byte),
                format!("`{}` stands behind the address", shown(second.trim())),
                "write one address or network a line, and begin a comment with #",
            );
            continue;
        }
        match values::network(entry) {
            Ok((network, odd)) => {
                if let Some((message, remedy)) = odd {
                    findings.warning(place(start), message, remedy);
                }
                networks.push(network);
            }
            Err((message, remedy)) => {
                let names = "; DNS names belong into `allow` of the configuration";
                let remedy = remedy.replace("; names are not looked up", names);
                findings.error(place(start), message, remedy);
            }
        }
    }
    let findings = findings.finish();
    if networks.is_empty() && findings.is_empty() {
        let message = "the file has no address: it allows no host";
        let remedy = "write one address or network a line";
        return (networks, vec![Finding::new(Severity::Warning, path, None, message, remedy)]);
    }
    (networks, findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn allow(text: &str) -> Vec<Allowed> {
        parse(&format!("allow: {text}\n"), "x").unwrap().config.allow
    }

    fn refusal(text: &str) -> String {
        parse(&format!("allow: {text}\n"), "x").unwrap_err().to_string()
    }

    #[test]
    fn each_kind_of_entry_is_read_and_printed() {
        let text = "[192.0.2.0/24, Office.Example.NET., {name: office}, {file: /etc/a.txt}, \
             {interface: wg0, silent: true}, {network: 192.0.2.9, silent: true}]";
        let entries = allow(text);
        assert_eq!(
            entries.print(),
            "[\"192.0.2.0/24\", {name: \"office.example.net\"}, {name: \"office\"}, {file: \"/etc/a.txt\"}, \
             {interface: \"wg0\", silent: true}, {network: \"192.0.2.9\", silent: true}]"
        );
        assert_eq!(allow(&entries.print()), entries);
    }

    #[test]
    fn what_may_be_a_damaged_address_is_no_name() {
        for text in ["192.0.2.300", "10.0.0.0/33", "fe80::1%eth0", "localhost", "1.2.3", "a..b"] {
            let found = refusal(&format!("[\"{text}\"]"));
            assert!(found.contains("neither an address nor a network"), "{found}");
        }
        assert!(refusal("[localhost]").contains("{name: office}"));
    }

    #[test]
    fn an_entry_says_one_thing() {
        for (text, what) in [
            ("{name: a.example, file: /x}", "has `name` and `file`"),
            ("{interface: a b}", "cannot be the name of an interface"),
            ("{interface: wg*}", "patterns"),
            ("{file: x.txt}", "relative"),
            ("{name: 'a b.example'}", "is not a DNS name"),
            ("{name: a.example, silent: true}", "cannot be silent"),
            ("{silent: true}", "has no `network`"),
            ("{name: 7}", "wants a text for `name`"),
        ] {
            let found = refusal(&format!("[{text}]"));
            assert!(found.contains(what), "{text}: {found}");
        }
    }

    #[test]
    fn the_number_of_names_is_bounded() {
        let names = |count: usize| {
            let names: Vec<_> = (0..count).map(|n| format!("n{n}.example")).collect();
            format!("[{}]", names.join(", "))
        };
        assert_eq!(allow(&names(ALLOW_NAMES_MAX)).len(), ALLOW_NAMES_MAX);
        assert!(refusal(&names(ALLOW_NAMES_MAX + 1)).contains("65 DNS names"));
    }

    #[test]
    fn a_file_has_a_network_a_line_and_each_fault_its_line() {
        let text = "# office\n192.0.2.1 # router\n\n  2001:db8::/32\r\n";
        let (networks, findings) = parse_file(text, Path::new("f"));
        assert_eq!((networks.len(), findings), (2, vec![]));
        let text = "192.0.2.300\n192.0.2.1 192.0.2.2\noffice.example.net\n192.0.2.7\n";
        let (networks, findings) = parse_file(text, Path::new("f"));
        let found: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(networks.len(), 1);
        assert!(found[0].starts_with("f:1:1: error: `192.0.2.300`"), "{found:?}");
        assert!(found[1].starts_with("f:2:11: error: `192.0.2.2` stands behind"), "{found:?}");
        assert!(found[2].contains("DNS names belong into `allow`"), "{found:?}");
        assert_eq!(parse_file("# none\n", Path::new("f")).1.len(), 1);
    }
}
