//! Keys that are read and checked but have no effect yet. Remove the row with the feature's commit,
//! and this file with the last row.

use super::{Config, UnprovenAction};

/// A key without its feature.
pub(super) struct Pending {
    pub(super) path: &'static str,
    /// Whether the configuration uses the feature.
    pub(super) needed: fn(&Config) -> bool,
    /// What happens instead.
    pub(super) until_then: &'static str,
}

pub(super) const PENDING: &[Pending] = &[Pending {
    path: "block.unproven.action",
    needed: |config| config.block.unproven.action == UnprovenAction::Slow,
    until_then: "unproven sources are reported as with `report`",
}];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KEYS, Loaded, parse};

    /// Texts that use each row.
    const TEXTS: &[(&str, &str)] =
        &[("block.unproven.action", "block: {unproven: {action: slow}}")];

    fn warnings(loaded: &Loaded) -> Vec<String> {
        loaded.warnings.iter().map(|finding| finding.message.clone()).collect()
    }

    #[test]
    fn each_key_without_effect_warns_at_its_place() {
        for (path, text) in TEXTS {
            let loaded = parse(text, "x").unwrap();
            let finding = loaded
                .warnings
                .iter()
                .find(|finding| finding.message.contains(&format!("`{path}` is not in force yet")));
            assert!(
                finding.is_some_and(|finding| finding.line > 0),
                "{path}: {:?}",
                loaded.warnings
            );
        }
    }

    #[test]
    fn the_test_has_a_text_for_every_row() {
        let mut rows: Vec<_> = PENDING.iter().map(|pending| pending.path).collect();
        let mut texts: Vec<_> = TEXTS.iter().map(|(path, _)| *path).collect();
        rows.sort_unstable();
        texts.sort_unstable();
        assert_eq!(rows, texts);
        assert!(PENDING.iter().all(|pending| KEYS.iter().any(|key| key.path == pending.path)));
    }

    #[test]
    fn values_without_the_feature_do_not_warn() {
        let text = "capture: {method: nflog, reflex: true}\ntcp: {mode: stealth, action: log}\nrespond: {command: [], banner: \"\", hosts_deny: {enabled: false}}\nresolve: false\n";
        assert_eq!(warnings(&parse(text, "x").unwrap()), [""; 0]);
    }
}
