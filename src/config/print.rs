//! Prints a configuration as YAML that reads back equal, and lists differences between two.

use super::diagnostic::shown;
use super::keys::{KEYS, Key, Reload};
use super::written::{file, line, list, ports, quoted, time};
use super::{Config, Keyword, Protocol, pending, values};

impl Config {
    /// This configuration as a file (`--print-config`), with every key; it reads back as the same
    /// configuration.
    ///
    /// A key without effect yet is a comment as long as it has its default, so that the text reads
    /// back without a warning.
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

    /// Keys that differ from a newer configuration, a line each: `scan_trigger: 2 -> 5`. Long
    /// values are cut.
    pub fn changes(&self, newer: &Self) -> Vec<String> {
        differences(self, newer)
            .map(|(path, old, new)| format!("{path}: {} -> {}", shown(&old), shown(&new)))
            .collect()
    }

    /// Keys that differ from a newer configuration and need a restart.
    pub fn needs_restart(&self, newer: &Self) -> Vec<&'static str> {
        let restart =
            |path: &str| KEYS.iter().any(|key| key.path == path && key.reload == Reload::Restart);
        differences(self, newer).map(|(path, _, _)| path).filter(|path| restart(path)).collect()
    }
}

impl Key {
    /// The default, in the file's notation.
    pub fn default_text(&self) -> String {
        entries(&Config::default())
            .into_iter()
            .find(|(path, _)| *path == self.path)
            .map(|(_, text)| text)
            .unwrap_or_default()
    }
}

fn differences(old: &Config, new: &Config) -> impl Iterator<Item = (&'static str, String, String)> {
    entries(old)
        .into_iter()
        .zip(entries(new))
        .filter(|((_, old), (_, new))| old != new)
        .map(|((path, old), (_, new))| (path, old, new))
}

/// Every key and its value in the file's notation, in the order of the table of keys.
fn entries(config: &Config) -> Vec<(&'static str, String)> {
    // All fields are named, so that a new one cannot be forgotten.
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
        blocked_file,
        state_dir,
        control,
        on_exit,
        own_table,
    } = config;
    let path_or_none =
        |path: &Option<std::path::PathBuf>| path.as_deref().map_or_else(|| "\"\"".to_owned(), file);
    let mut values = vec![
        mode.word().to_owned(),
        list(interfaces.iter().map(|name| quoted(name))),
        closed_ports.word().to_owned(),
    ];
    values.extend([
        capture.method.word().to_owned(),
        capture.reflex.to_string(),
        capture.group.to_string(),
        capture.decoy_port.to_string(),
    ]);
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
    values.extend([
        list(allow.iter().map(|network| quoted(&values::display(network)))),
        path_or_none(ignore_file),
    ]);
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
    values.extend([
        log.target.word().to_owned(),
        log.format.word().to_owned(),
        log.level.word().to_owned(),
        log.facility.word().to_owned(),
    ]);
    values.extend([path_or_none(history_file), path_or_none(blocked_file), file(state_dir)]);
    values.extend([
        file(&control.socket),
        quoted(&control.group),
        on_exit.word().to_owned(),
        own_table.word().to_owned(),
    ]);
    KEYS.iter().map(|key| key.path).zip(values).collect()
}

fn protocol(protocol: &Protocol) -> [String; 5] {
    let Protocol { mode, ports: listed, advanced_ports, exclude, action } = protocol;
    [
        mode.word().to_owned(),
        ports(listed),
        ports(advanced_ports),
        ports(exclude),
        action.word().to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_value_for_each_key() {
        // `zip` would cut the longer of the two.
        let entries = entries(&Config::default());
        assert_eq!(entries.len(), KEYS.len());
        assert_eq!(
            entries.last().map(|(path, value)| (*path, value.as_str())),
            Some(("own_table", "auto"))
        );
    }

    #[test]
    fn only_keys_used_once_need_a_restart() {
        let old = Config::default();
        let mut new = Config { scan_trigger: 9, ..Config::default() };
        new.capture.group = 5;
        new.block.ipv6_prefix = 56;
        assert_eq!(old.needs_restart(&new), [""; 0]);
        new.control.socket = "/run/other.sock".into();
        new.state_dir = "/srv/state".into();
        assert_eq!(old.needs_restart(&new), ["state_dir", "control.socket"]);
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
    fn the_printed_defaults_read_back_without_findings() {
        let loaded = crate::config::parse(&Config::default().to_yaml(), "printed").unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}
