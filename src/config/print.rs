//! Prints a configuration as YAML that reads back equal, and lists differences between two.

use super::diagnostic::shown;
use super::keys::{KEYS, Key, Reload};
use super::written::File;
use super::{Config, Loaded};

impl Config {
    /// This configuration as a file (`--print-config`), with every key; it reads back as the same
    /// configuration.
    pub fn to_yaml(&self) -> String {
        self.print(|_| "")
    }

    /// As a file; `comment` is put behind the value of a key.
    fn print<'c>(&self, comment: impl Fn(&Key) -> &'c str) -> String {
        let mut file = File::default();
        for key in KEYS {
            let (depth, name) = file.begin(key.path);
            let (value, comment) = (key.print(self), comment(key));
            let gap = if comment.is_empty() { "" } else { "  # " };
            file.line(depth, name, &format!("{value}{gap}{comment}"));
        }
        file.text
    }

    /// Keys that differ from a newer configuration, a line each: `scan_trigger: 2 -> 5`. Long
    /// values are cut.
    pub fn changes(&self, newer: &Self) -> Vec<String> {
        self.differences(newer)
            .map(|(key, old, new)| format!("{}: {} -> {}", key.path, shown(&old), shown(&new)))
            .collect()
    }

    /// Keys that differ from a newer configuration and need a restart.
    pub fn needs_restart(&self, newer: &Self) -> Vec<&'static str> {
        self.differences(newer)
            .filter(|(key, ..)| key.reload == Reload::Restart)
            .map(|(key, ..)| key.path)
            .collect()
    }

    pub(super) fn differences(
        &self,
        newer: &Self,
    ) -> impl Iterator<Item = (&'static Key, String, String)> {
        KEYS.iter()
            .map(|key| (key, key.print(self), key.print(newer)))
            .filter(|(_, old, new)| old != new)
    }
}

impl Loaded {
    /// The configuration as [`Config::to_yaml`], each value with where it comes from, `file:line`,
    /// as a comment.
    pub fn to_yaml(&self) -> String {
        self.config.print(|key| self.origin(key.path).unwrap_or("default"))
    }
}

impl Key {
    /// The default, in the file's notation.
    pub fn default_text(&self) -> String {
        self.print(&Config::default())
    }

    fn print(&self, config: &Config) -> String {
        (self.field)(config).print()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_used_once_need_a_restart() {
        let old = Config::default();
        let mut new = Config { scan_trigger: 9, ..Config::default() };
        new.capture.group = 5;
        new.block.ipv6.then = 56;
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
