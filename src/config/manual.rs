//! Tests that portsentry.yaml(5) marks exactly the keys that have no effect yet.

use std::collections::BTreeSet;

use super::pending::PENDING;
use crate::mdoc;

#[test]
fn the_manual_marks_exactly_the_keys_without_effect() {
    let keys = mdoc::items(&mdoc::section(&mdoc::page("portsentry.yaml.5"), "KEYS"));
    let told: BTreeSet<String> = keys
        .iter()
        .filter(|item| item.body.iter().any(|line| line.contains("Not in force yet")))
        .map(|item| mdoc::pattern(&item.head))
        .collect();
    let pending: BTreeSet<String> = PENDING.iter().map(|row| row.path.to_owned()).collect();
    assert_eq!(told, pending);
}
