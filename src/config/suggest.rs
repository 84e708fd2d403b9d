//! Suggestions for unknown keys.

use super::classic;
use super::keys::KEYS;
use super::nearest::{nearest, normal};

/// What to write instead of the unknown `key` in `section`; "" is the top level.
pub(super) fn key(key: &str, section: &str) -> String {
    let in_section = KEYS.iter().filter_map(|known| match section {
        "" => Some(known.path),
        section => known.path.strip_prefix(section)?.strip_prefix('.'),
    });
    let mut known: Vec<&str> =
        in_section.map(|path| path.split('.').next().unwrap_or_default()).collect();
    known.dedup();
    if let Some(near) = nearest(key, known.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    if key == "<<" {
        return "merge keys are not supported: write the keys out".to_owned();
    }
    if let Some((_, path)) = classic::KEYS.iter().find(|(classic, _)| *classic == key) {
        return format!("this key of PortSentry 1.2 and 2.x is `{path}` here{}", nesting(path));
    }
    if let Some(found) = KEYS.iter().find(|known| known.path == key) {
        return format!("a dotted path is no key{}", nesting(found.path));
    }
    let elsewhere: Vec<_> = KEYS
        .iter()
        .filter(|known| {
            known.path.rsplit('.').next().is_some_and(|leaf| normal(leaf) == normal(key))
        })
        .map(|known| format!("`{}`", known.path))
        .collect();
    if !elsewhere.is_empty() {
        return format!("it belongs elsewhere: {}", elsewhere.join(", "));
    }
    let place = if section.is_empty() {
        "the keys at the top are".to_owned()
    } else {
        format!("the keys of `{section}` are")
    };
    format!("{place}: {}", known.join(", "))
}

/// A dotted path in YAML notation.
fn nesting(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((section, leaf)) => {
            format!("; write `{leaf}:` indented below `{}:`", section.replace('.', ": "))
        }
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classic_and_misplaced_keys_get_suggestions() {
        assert!(key("TCP_PORTS", "").contains("`tcp.ports`"));
        assert!(key("timeout", "").contains("`block.timeout`"));
        assert!(key("tcp.mode", "").contains("`mode:` indented below `tcp:`"));
    }

    #[test]
    fn every_classic_key_leads_to_a_key_that_exists() {
        for (_, path) in classic::KEYS {
            assert!(KEYS.iter().any(|key| key.path == *path), "{path}");
        }
    }
}
