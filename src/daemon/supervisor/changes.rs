//! What a reload changed, in words.

use std::collections::HashSet;
use std::fmt::Display;

use ipnet::IpNet;

use crate::config::Config;

/// How many entries of a list a reload added and removed.
pub(super) fn count_changes(what: &str, old: &[IpNet], new: &[IpNet]) -> Option<String> {
    let missing = |from: &[IpNet], of: &[IpNet]| {
        let from: HashSet<_> = from.iter().collect();
        of.iter().filter(|network| !from.contains(network)).count()
    };
    counted(what, missing(old, new), missing(new, old))
}

/// How many ports are watched that were not, and the other way round.
pub(super) fn watched_changes(old: &Config, new: &Config) -> impl Iterator<Item = String> {
    [("watched TCP ports:", &old.tcp, &new.tcp), ("watched UDP ports:", &old.udp, &new.udp)]
        .into_iter()
        .filter_map(|(what, old, new)| {
            let (old, new) = (old.watched(), new.watched());
            counted(what, new.without(&old).count(), old.without(&new).count())
        })
}

fn counted<N: Default + PartialEq + Display>(what: &str, added: N, removed: N) -> Option<String> {
    let is_same = added == N::default() && removed == N::default();
    (!is_same).then(|| format!("{what} {added} added, {removed} removed"))
}
