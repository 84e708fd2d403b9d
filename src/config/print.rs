//! The configuration as YAML that reads back as the same configuration, and the difference between two.

use std::path::Path;
use std::time::Duration;

use super::diagnostic::{is_plain, shown};
use super::keys::KEYS;
use super::{Config, PortSet, Protocol, Words, pending, values};

impl Config {
    /// This configuration as a file (`--print-config`). Every key is in it; it reads back as the same configuration.
    ///
    /// A key whose default is not in force yet stands in a comment as long as it has its default, so that the text reads back without a warning.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        let mut open: Vec<&str> = Vec::new();
        let defaults = entries(&Self::default());
        for ((path, value), (_, default)) in entries(self).into_iter().zip(defaults) {
            let mut sections: Vec<&str> = path.split('.').collect();
            let name = sections.pop().unwrap_or_default();
            let common = sections.iter().zip(&open).take_while(|(a, b)| a == b).count();
            for (depth, section) in sections.iter().enumerate().skip(common) {
                line(&mut text, depth, section, "");
            }
            if value == default && pending::is_pending(path) {
                text.push_str("# ");
            }
            line(&mut text, sections.len(), name, &value);
            open = sections;
        }
        text
    }

    /// The keys that differ between this configuration and a newer one, a line each: `scan_trigger: 2 -> 5`. Long values are cut.
    pub fn changes(&self, newer: &Self) -> Vec<String> {
        entries(self)
            .into_iter()
            .zip(entries(newer))
            .filter(|((_, old), (_, new))| old != new)
            .map(|((path, old), (_, new))| format!("{path}: {} -> {}", shown(&old), shown(&new)))
            .collect()
    }
}

pub(super) fn line(text: &mut String, depth: usize, name: &str, value: &str) {
    for _ in 0..depth {
        text.push_str("  ");
    }
    text.push_str(name);
    text.push(':');
    if !value.is_empty() {
        text.push(' ');
        text.push_str(value);
    }
    text.push('\n');
}

/// Every key with its value as it is written in the file, in the order of the table of keys.
pub(super) fn entries(config: &Config) -> Vec<(&'static str, String)> {
    // All fields are named, so that a new one cannot be forgotten here.
    let Config {
        mode,
        interfaces,
        closed_ports,
        capture,
        tcp,
        udp,
        scan_trigger,
        scan_window,
        block,
        never_block,
        allow,
        ignore_file,
        respond,
        resolve,
        log,
        history_file,
        state_dir,
        control,
        on_exit,
    } = config;
    let path_or_none = |path: &Option<std::path::PathBuf>| path.as_deref().map_or_else(|| "\"\"".to_owned(), file);
    let mut values = vec![mode.word().to_owned(), list(interfaces.iter().map(|name| quoted(name))), closed_ports.word().to_owned()];
    values.extend([capture.method.word().to_owned(), capture.reflex.to_string(), capture.group.to_string()]);
    values.extend(protocol(tcp));
    values.extend(protocol(udp));
    values.extend([scan_trigger.to_string(), time(*scan_window)]);
    values.extend([
        time(block.timeout.unwrap_or_default()),
        block.escalate.factor.to_string(),
        time(block.escalate.max),
        time(block.escalate.memory),
        block.ipv6_prefix.to_string(),
        block.unproven.action.word().to_owned(),
        time(block.unproven.timeout),
        block.unproven.per_minute.to_string(),
        block.total.to_string(),
    ]);
    values.extend([
        never_block.own_addresses.to_string(),
        never_block.gateways.to_string(),
        never_block.resolvers.to_string(),
        never_block.ssh_peers.to_string(),
        ports(&never_block.admin_ports),
    ]);
    values.extend([list(allow.iter().map(|network| quoted(&values::display(network)))), path_or_none(ignore_file)]);
    values.extend([
        list(respond.command.iter().map(|word| quoted(word))),
        respond.command_when.word().to_owned(),
        time(respond.command_timeout),
        respond.hosts_deny.enabled.to_string(),
        file(&respond.hosts_deny.path),
        quoted(&respond.hosts_deny.line),
        quoted(&respond.banner),
    ]);
    values.push(resolve.to_string());
    values.extend([log.target.word().to_owned(), log.format.word().to_owned(), log.level.word().to_owned(), log.facility.word().to_owned()]);
    values.extend([path_or_none(history_file), file(state_dir), file(&control.socket), quoted(&control.group), on_exit.word().to_owned()]);
    KEYS.iter().map(|key| key.path).zip(values).collect()
}

fn protocol(protocol: &Protocol) -> [String; 5] {
    let Protocol { mode, ports: listed, advanced_ports, exclude, action } = protocol;
    [mode.word().to_owned(), ports(listed), ports(advanced_ports), ports(exclude), action.word().to_owned()]
}

pub(super) fn ports(ports: &PortSet) -> String {
    match ports.ranges() {
        [one] if one.start() != one.end() => ports.to_string(),
        _ => format!("[{ports}]"),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn file(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A double-quoted scalar (YAML 1.2.2, 7.3.1): nothing in it can end it or be taken for another type.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            ' '..='~' => quoted.push(character),
            // What YAML calls printable (5.1) and shows what it is; the rest by number.
            _ if character.is_alphanumeric() && is_plain(character) && character < '\u{10000}' => quoted.push(character),
            _ => quoted.push_str(&format!("\\U{:08x}", u32::from(character))),
        }
    }
    quoted.push('"');
    quoted
}

/// A time in the largest units that give it exactly: `1h 30m`; `0` for none.
pub(super) fn time(time: Duration) -> String {
    if time.is_zero() {
        return "0".to_owned();
    }
    let mut left = time.as_nanos();
    let mut parts = Vec::new();
    for (unit, nanos) in [
        ("d", 86_400_000_000_000_u128),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1000),
        ("ns", 1),
    ] {
        if left >= nanos {
            parts.push(format!("{}{unit}", left / nanos));
            left %= nanos;
        }
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_write_them() {
        for (seconds, text) in [(0, "0"), (60, "1m"), (3600, "1h"), (5400, "1h 30m"), (604_800, "7d"), (365 * 86_400, "365d"), (90, "1m 30s")] {
            assert_eq!(time(Duration::from_secs(seconds)), text);
        }
        assert_eq!(time(Duration::from_millis(1500)), "1s 500ms");
    }

    #[test]
    fn there_is_one_value_for_each_key() {
        // `zip` would cut the longer of the two.
        let entries = entries(&Config::default());
        assert_eq!(entries.len(), KEYS.len());
        assert_eq!(entries.last().map(|(path, value)| (*path, value.as_str())), Some(("on_exit", "keep")));
    }

    #[test]
    fn changes_name_the_key_and_both_values() {
        let old = Config::default();
        let mut new = old.clone();
        new.scan_trigger = 5;
        new.block.timeout = None;
        assert_eq!(old.changes(&new), ["scan_trigger: 2 -> 5", "block.timeout: 1h -> 0"]);
        assert!(old.changes(&old).is_empty());
    }

    #[test]
    fn the_defaults_print_as_text_that_reads_back_without_a_word() {
        let loaded = crate::config::parse(&Config::default().to_yaml(), "printed").unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}
