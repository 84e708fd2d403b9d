//! What is not in force yet is said in portsentry.yaml(5), and of nothing else.

use std::collections::BTreeSet;

use super::pending::PENDING;
use crate::mdoc;

#[test]
fn what_is_not_in_force_yet_is_said_in_the_manual_and_of_nothing_else() {
    let keys = mdoc::items(&mdoc::section(&mdoc::page("portsentry.yaml.5"), "KEYS"));
    let told: BTreeSet<String> =
        keys.iter().filter(|item| item.body.iter().any(|line| line.contains("Not in force yet"))).map(|item| mdoc::pattern(&item.head)).collect();
    let pending: BTreeSet<String> = PENDING.iter().map(|row| row.path.to_owned()).collect();
    assert_eq!(told, pending);
}
