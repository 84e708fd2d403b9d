//! What is not in force yet is said in portsentry.yaml(5), and of nothing else.

use std::collections::BTreeSet;

use super::pending::PENDING;
use crate::mdoc;

/// Keys whose feature is finished within this version: the page describes them as they are then. The last one takes this list with it.
const NEARLY_THERE: &[&str] = &["tcp.action", "udp.action", "respond.command", "respond.hosts_deny.enabled", "resolve"];

#[test]
fn what_is_not_in_force_yet_is_said_in_the_manual_and_of_nothing_else() {
    let keys = mdoc::items(&mdoc::section(&mdoc::page("portsentry.yaml.5"), "KEYS"));
    let told: BTreeSet<String> =
        keys.iter().filter(|item| item.body.iter().any(|line| line.contains("Not in force yet"))).map(|item| mdoc::pattern(&item.head)).collect();
    let pending: BTreeSet<String> = PENDING.iter().map(|row| row.path.to_owned()).filter(|path| !NEARLY_THERE.contains(&path.as_str())).collect();
    assert_eq!(told, pending);
}
