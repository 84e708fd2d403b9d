//! Names in `interfaces`, and of interfaces in `allow`, over which no packet arrives.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Config, Loaded};
use crate::errors::error_chain;
use crate::netlink::route::{Link, Routes};

/// A name on which nothing is seen: the message, and what to write instead.
type Unseen = (String, String);

/// Where a name stands, and what does not happen over it.
type Use = (&'static str, &'static str);

const WATCHED: Use = ("interfaces", "nothing is seen on");
const ALLOWED: Use = ("allow", "it exempts nothing of");

/// Adds what is wrong with the names in `interfaces` and `allow`, on this host and at this time.
pub(crate) fn check(loaded: &mut Loaded) {
    let allowed = allowed(&loaded.config);
    if loaded.config.interfaces.is_empty() && allowed.is_empty() {
        return;
    }
    // Where the configuration is checked without a network, for another host, nothing is known.
    let Ok(links) = Routes::open().and_then(|mut routes| routes.links()) else { return };
    let mut found = unseen(WATCHED, &loaded.config.interfaces, &links);
    found.extend(unseen(ALLOWED, &allowed, &links));
    for (message, remedy) in found {
        loaded.warn(message, remedy);
    }
}

/// The same as sentences, for the log and the status of the daemon. An allowed interface that is not
/// there is no fault: a VPN's comes and goes.
pub(super) fn complaints(config: &Config, routes: &mut Routes) -> Vec<String> {
    let allowed = allowed(config);
    if config.interfaces.is_empty() && allowed.is_empty() {
        return Vec::new();
    }
    match routes.links() {
        Ok(links) => {
            let is_known = |name: &String| {
                let is = |link: &Link| {
                    link.name == *name || link.alternative_names.iter().any(|other| other == name)
                };
                links.iter().any(is)
            };
            let allowed: Vec<String> = allowed.into_iter().filter(is_known).collect();
            let mut found = unseen(WATCHED, &config.interfaces, &links);
            found.extend(unseen(ALLOWED, &allowed, &links));
            found.into_iter().map(|(message, remedy)| format!("{message}; {remedy}")).collect()
        }
        Err(error) => vec![format!(
            "cannot tell whether the interfaces of the configuration exist: {}",
            error_chain(&error)
        )],
    }
}

fn allowed(config: &Config) -> Vec<String> {
    config.allowed_interfaces(false).into_iter().map(str::to_owned).collect()
}

fn unseen(of: Use, names: &[String], links: &BTreeSet<Link>) -> Vec<Unseen> {
    let by_index: BTreeMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
    let names: BTreeSet<&str> =
        names.iter().map(String::as_str).filter(|name| *name != "lo").collect();
    names.into_iter().filter_map(|name| why_unseen(of, name, links, &by_index)).collect()
}

fn why_unseen(
    (key, nothing): Use,
    name: &str,
    links: &BTreeSet<Link>,
    by_index: &BTreeMap<u32, &Link>,
) -> Option<Unseen> {
    let Some(link) = links.iter().find(|link| link.name == name) else {
        let alias =
            links.iter().find(|link| link.alternative_names.iter().any(|other| other == name));
        return Some(match alias {
            Some(link) => (
                format!(
                    "`{key}`: {name} is another name of {}, and rules know only that one: {nothing} {name}",
                    link.name
                ),
                format!("write {}", link.name),
            ),
            None => (
                format!("`{key}`: there is no interface {name}: {nothing} it until it appears"),
                "`ip link` lists the names".to_owned(),
            ),
        });
    };
    let master = top(link, by_index)?;
    Some((
        format!(
            "`{key}`: {name} is a member of {0}, and its packets arrive on {0}: {nothing} {name}",
            master.name
        ),
        format!("write {}", master.name),
    ))
}

/// The bridge, bond or VRF on which the packets of a member arrive: the outermost. `None` if the
/// interface is not a member.
fn top<'a>(link: &Link, by_index: &BTreeMap<u32, &'a Link>) -> Option<&'a Link> {
    let master = |link: &Link| by_index.get(&link.master?).copied();
    // The kernel allows no loop, but the list is not of one moment.
    let members = std::iter::successors(master(link), |link| master(link));
    members.take(by_index.len()).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, master: Option<u32>, others: &[&str]) -> Link {
        let alternative_names = others.iter().map(|&name| name.to_owned()).collect();
        Link { index, name: name.to_owned(), alternative_names, master }
    }

    #[test]
    fn each_name_without_packets_has_its_remedy() {
        let links = BTreeSet::from([
            link(1, "lo", None, &[]),
            link(2, "eth0", Some(4), &["enp3s0"]),
            link(3, "eth1", None, &["enp4s0"]),
            link(4, "bond0", Some(5), &[]),
            link(5, "br0", None, &[]),
            // Lists of different moments.
            link(6, "x", Some(7), &[]),
            link(7, "y", Some(6), &[]),
            link(8, "eth2", Some(99), &[]),
        ]);
        for (name, remedy) in [
            ("lo", None),
            ("br0", None),
            ("eth1", None),
            ("eth2", None),
            ("eth0", Some("write br0")),
            ("bond0", Some("write br0")),
            ("enp4s0", Some("write eth1")),
            ("eth9", Some("`ip link` lists the names")),
        ] {
            let found = unseen(WATCHED, &[name.to_owned()], &links);
            let remedies: Vec<&str> = found.iter().map(|(_, remedy)| remedy.as_str()).collect();
            assert_eq!(remedies, Vec::from_iter(remedy), "{name}");
        }
        assert_eq!(unseen(WATCHED, &["x".to_owned()], &links).len(), 1);
    }
}
