//! ufw, which uses iptables: it has its own tables, and leaves ours alone whatever it does.

use std::path::{Path, PathBuf};

use super::scene::{
    Beside, CLIENT, DECOY, DECOYS, OPEN, SHUT, Scene, TOOLS, answered, orders, unpacked,
};
use crate::support::jail::Jail;
use crate::support::missing;

/// The effects of the packages' installation: the iptables that Debian chooses, and files in
/// /etc/ufw.
const START: &str = "set -e
    cd /usr/sbin
    for program in iptables ip6tables; do
        for what in '' -restore -save; do ln -sf xtables-nft-multi $program$what; done
    done
    cp /usr/share/ufw/iptables/*.rules /usr/share/ufw/*.init /usr/share/ufw/ufw.conf /etc/ufw/
    chmod 640 /etc/ufw/*.rules";

fn packages() -> Option<PathBuf> {
    if missing(TOOLS).is_some() {
        return None;
    }
    unpacked("ufw", &["ufw"])
}

/// Its machine, with one service allowed.
fn machine(scene: &Scene, packages: &Path) -> Jail {
    let machine = Jail::start(&scene.host, packages, &[], START).unwrap();
    orders(&machine, &format!("ufw allow {OPEN}/tcp"));
    machine
}

// P14
#[test]
fn no_action_of_ufw_loses_a_block() {
    let Some(packages) = packages() else { return };
    let scene = Scene::new();
    let machine = machine(&scene, &packages);
    let mut beside = Beside::start(&scene, "");
    let (handle, knocks) = (scene.handle(), scene.knocks());
    assert!(scene.lets_in(SHUT));
    // Its default is to drop. Our rules come first, and see the packets that it drops.
    orders(&machine, "ufw --force enable");
    beside.all_is_well("ufw enable");
    assert!(!scene.lets_in(SHUT), "ufw is not in force");
    orders(&machine, "ufw reload");
    beside.all_is_well("ufw reload");
    // It allows all watched ports: ours still drops packets to ports no service listens on.
    orders(&machine, "ufw allow 1:1023/tcp");
    beside.all_is_well("ufw allow");
    assert!(scene.lets_in(SHUT));
    orders(&machine, &format!("ufw insert 1 deny {SHUT}/tcp"));
    beside.all_is_well("ufw deny");
    assert!(!scene.lets_in(SHUT));
    orders(&machine, "ufw disable");
    beside.all_is_well("ufw disable");
    assert!(scene.lets_in(SHUT));
    orders(&machine, "ufw --force reset");
    beside.all_is_well("ufw reset");
    // The client that asked for a stopped service is not a scanner.
    assert_eq!(beside.left(CLIENT), None);
    assert_eq!(scene.handle(), handle, "the table was never another one");
    assert_eq!(answered(knocks), 0, "packets of a blocked source were answered");
}

// P14
#[test]
fn flushing_iptables_loses_no_block() {
    let Some(packages) = packages() else { return };
    let scene = Scene::new();
    let machine = machine(&scene, &packages);
    let mut beside = Beside::start(&scene, "");
    let (handle, knocks) = (scene.handle(), scene.knocks());
    // ufw then flushes the built-in chains too, and deletes those of others.
    orders(&machine, "sed -i s/^MANAGE_BUILTINS=.*/MANAGE_BUILTINS=yes/ /etc/default/ufw");
    orders(&machine, "ufw --force enable && ufw reload");
    beside.all_is_well("a reload of a ufw that manages the built-in chains");
    // As ufw.service and ufw's administrators do.
    for word in ["force-reload", "stop", "flush-all", "start"] {
        orders(&machine, &format!("/lib/ufw/ufw-init {word}"));
        beside.the_block_stands(word);
        beside.status_is_true(word);
    }
    // As netfilter-persistent does.
    orders(
        &machine,
        "iptables-save >/tmp/rules && iptables-restore </tmp/rules && iptables -F && iptables -X && iptables -P INPUT ACCEPT",
    );
    beside.all_is_well("iptables-restore");
    assert_eq!(scene.handle(), handle, "the table was never another one");
    assert_eq!(answered(knocks), 0, "packets of a blocked source were answered");
}

#[test]
fn a_decoy_answers_where_ufw_lets_it_in() {
    let Some(packages) = packages() else { return };
    let scene = Scene::new();
    let machine = machine(&scene, &packages);
    let mut beside = Beside::start(&scene, DECOYS);
    orders(&machine, "ufw --force enable");
    assert!(!scene.lets_in(DECOY));
    orders(&machine, &format!("ufw allow {DECOY}/tcp"));
    assert!(scene.lets_in(DECOY), "{}", beside.daemon.log());
    orders(&machine, &format!("ufw delete allow {DECOY}/tcp"));
    assert!(!scene.lets_in(DECOY));
    beside.all_is_well("ufw delete allow");
    orders(&machine, "ufw disable");
    assert!(scene.lets_in(DECOY), "{}", beside.daemon.log());
    beside.all_is_well("ufw disable");
}
