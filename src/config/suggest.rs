//! What somebody who wrote a wrong word may have meant.

use super::keys::KEYS;

/// Words longer than this are not compared: no key is half as long, and the comparison costs the product of both lengths.
const COMPARED_MAX: usize = 48;

/// Keys of the configuration of PortSentry 1.2 and 2.x, and where their meaning lives here.
const CLASSIC: &[(&str, &str)] = &[
    ("TCP_PORTS", "tcp.ports"),
    ("UDP_PORTS", "udp.ports"),
    ("ADVANCED_PORTS_TCP", "tcp.advanced_ports"),
    ("ADVANCED_PORTS_UDP", "udp.advanced_ports"),
    ("ADVANCED_EXCLUDE_TCP", "tcp.exclude"),
    ("ADVANCED_EXCLUDE_UDP", "udp.exclude"),
    ("IGNORE_FILE", "ignore_file"),
    ("HISTORY_FILE", "history_file"),
    ("BLOCKED_FILE", "state_dir"),
    ("RESOLVE_HOST", "resolve"),
    ("BLOCK_TCP", "tcp.action"),
    ("BLOCK_UDP", "udp.action"),
    ("KILL_ROUTE", "mode"),
    ("KILL_HOSTS_DENY", "respond.hosts_deny.line"),
    ("KILL_RUN_CMD", "respond.command"),
    ("KILL_RUN_CMD_FIRST", "respond.command_when"),
    ("SCAN_TRIGGER", "scan_trigger"),
    ("PORT_BANNER", "respond.banner"),
];

/// The one of `known` that is nearest to `word`, if it is near enough to be meant.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = normal(word)?;
    // A third of the letters may differ: enough for a slip, too little for another word.
    let allowed = (word.len() / 3).max(1);
    known
        .into_iter()
        .filter_map(|candidate| Some((distance(&word, &normal(candidate)?), candidate)))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What to write instead of the unknown key `key` in the section `section` ("" is the top), which has the keys `known`.
pub(super) fn key(key: &str, section: &str, known: &[&'static str]) -> String {
    if let Some(near) = nearest(key, known.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    if key == "<<" {
        return "merge keys are not supported: write the keys out".to_owned();
    }
    if let Some((_, path)) = CLASSIC.iter().find(|(classic, _)| *classic == key) {
        return format!("this key of PortSentry 1.2 and 2.x is `{path}` here{}", nesting(path));
    }
    if let Some(found) = KEYS.iter().find(|known| known.path == key) {
        return format!("a dotted path is no key{}", nesting(found.path));
    }
    let elsewhere: Vec<_> = KEYS
        .iter()
        .filter(|known| known.path.rsplit('.').next().is_some_and(|leaf| normal(leaf) == normal(key)))
        .map(|known| format!("`{}`", known.path))
        .collect();
    if !elsewhere.is_empty() {
        return format!("it belongs elsewhere: {}", elsewhere.join(", "));
    }
    let place = if section.is_empty() { "the keys at the top are".to_owned() } else { format!("the keys of `{section}` are") };
    format!("{place}: {}", known.join(", "))
}

/// How a dotted path is written in YAML.
fn nesting(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((section, leaf)) => format!("; write `{leaf}:` indented below `{}:`", section.replace('.', ": ")),
        None => String::new(),
    }
}

/// For comparison: letter case and the kind of dash do not count.
fn normal(word: &str) -> Option<Vec<char>> {
    (word.len() <= COMPARED_MAX).then(|| word.chars().map(|c| if c == '-' || c == ' ' { '_' } else { c.to_ascii_lowercase() }).collect())
}

/// Letters that must be changed, added, left out or swapped with their neighbour (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (row, &x) in a.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, &y) in b.iter().enumerate() {
            let at = |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut cost = (at(&above, column) + usize::from(x != y)).min(at(&above, column + 1) + 1).min(at(&line, column) + 1);
            let swapped = row > 0 && column > 0 && a.get(row - 1) == Some(&y) && b.get(column - 1) == Some(&x);
            if swapped {
                cost = cost.min(at(&before, column - 1) + 1);
            }
            line.push(cost);
        }
        before = std::mem::replace(&mut above, line);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let known = ["scan_trigger", "scan_window", "mode", "allow"];
        for (wrong, right) in [("scan_triger", "scan_trigger"), ("scan-window", "scan_window"), ("MODE", "mode"), ("mdoe", "mode"), ("alow", "allow")]
        {
            assert_eq!(nearest(wrong, known), Some(right), "{wrong}");
        }
        assert_eq!(nearest("timeout", known), None);
        assert_eq!(nearest(&"scan_trigger".repeat(1000), known), None);
    }

    #[test]
    fn classic_keys_and_misplaced_keys_are_led_home() {
        assert!(key("TCP_PORTS", "", &["mode"]).contains("`tcp.ports`"));
        assert!(key("timeout", "", &["mode"]).contains("`block.timeout`"));
        assert!(key("tcp.mode", "", &["tcp"]).contains("`mode:` indented below `tcp:`"));
    }

    #[test]
    fn every_classic_key_leads_to_a_key_that_exists() {
        for (_, path) in CLASSIC {
            assert!(KEYS.iter().any(|key| key.path == *path), "{path}");
        }
    }
}
