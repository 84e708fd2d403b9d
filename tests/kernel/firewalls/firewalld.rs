//! firewalld with its nftables backend, with iptables and ipset as Debian recommends: it has its
//! own tables, and leaves ours alone. The same with its older backend, which uses iptables.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use super::scene::{
    Beside, CLIENT, DECOY, DECOYS, OPEN, SHUT, Scene, TOOLS, answered, orders, unpacked,
};
use crate::support::jail::Jail;
use crate::support::{eventually, missing};

/// The effects of the packages' installation, and a private system bus.
const START: &str = "set -e
    cd /usr/sbin
    for program in iptables ip6tables ebtables; do
        for what in '' -restore -save; do ln -sf xtables-nft-multi $program$what; done
    done
    # For where the machine has polkit: the bus starts it, in there.
    ln -sf org.fedoraproject.FirewallD1.server.policy.choice /usr/share/polkit-1/actions/org.fedoraproject.FirewallD1.policy
    grep -q '^messagebus:' /etc/passwd || echo 'messagebus:x:1999:1999::/:/bin/false' >>/etc/passwd
    mkdir -p /run/dbus
    dbus-uuidgen --ensure=/etc/machine-id
    dbus-daemon --system --nopidfile --fork";
/// Time limit for its start and end.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

fn packages() -> Option<PathBuf> {
    if missing(TOOLS).is_some() {
        return None;
    }
    unpacked("firewalld", &["firewalld", "iptables", "ipset"])
}

/// Its machine, with one service allowed.
fn machine(scene: &Scene, packages: &Path) -> Jail {
    let machine = Jail::start(&scene.host, packages, &[], START).unwrap();
    orders(&machine, &format!("firewall-offline-cmd --add-port={OPEN}/tcp"));
    machine
}

/// Starts it as its unit does, and waits until it answers; dropping the result ends it.
fn start(machine: &Jail) -> Child {
    let firewalld = machine.also("exec firewalld --nofork");
    let answers = || machine.output(&["firewall-cmd", "--state"], ANSWER_TIMEOUT).status.success();
    assert!(
        eventually(ANSWER_TIMEOUT, answers),
        "firewalld does not answer: {}",
        machine.last_words()
    );
    firewalld
}

/// Ends it as its unit does: it then removes its rules.
fn stop(machine: &Jail, mut firewalld: Child) {
    orders(machine, "kill $(cat /run/firewalld.pid)");
    assert!(
        eventually(ANSWER_TIMEOUT, || firewalld.try_wait().unwrap().is_some()),
        "firewalld does not end"
    );
}

// P14
#[test]
fn no_action_of_firewalld_loses_a_block() {
    let Some(packages) = packages() else { return };
    let scene = Scene::new();
    let machine = machine(&scene, &packages);
    let mut beside = Beside::start(&scene, "");
    let (handle, knocks) = (scene.handle(), scene.knocks());
    let firewalld = start(&machine);
    beside.all_is_well("the start of firewalld");
    assert!(
        scene.handle_of("firewalld").is_some() && !scene.lets_in(SHUT),
        "firewalld is not in force"
    );
    orders(&machine, &format!("firewall-cmd --add-port={SHUT}/tcp"));
    beside.all_is_well("--add-port");
    assert!(scene.lets_in(SHUT));
    orders(&machine, &format!("firewall-cmd --remove-port={SHUT}/tcp"));
    beside.all_is_well("--remove-port");
    // It allows all watched ports: ours still drops packets to ports no service listens on.
    orders(&machine, "firewall-cmd --permanent --add-port=1-1023/tcp");
    orders(&machine, "firewall-cmd --reload");
    beside.all_is_well("--reload");
    assert!(scene.lets_in(SHUT));
    orders(&machine, "firewall-cmd --complete-reload");
    beside.all_is_well("--complete-reload");
    // As `systemctl reload firewalld` does.
    let before = scene.handle_of("firewalld");
    orders(&machine, "kill -HUP $(cat /run/firewalld.pid)");
    assert!(
        eventually(ANSWER_TIMEOUT, || scene
            .handle_of("firewalld")
            .is_some_and(|now| Some(now) != before)),
        "firewalld does not reload"
    );
    // It answers when it has finished.
    orders(&machine, "firewall-cmd --state");
    beside.all_is_well("SIGHUP");
    // A rule that it passes to iptables.
    orders(
        &machine,
        "firewall-cmd --direct --add-rule ipv4 filter INPUT 0 -s 192.0.2.0/24 -j DROP",
    );
    beside.all_is_well("a direct rule");
    stop(&machine, firewalld);
    assert_eq!(scene.handle_of("firewalld"), None);
    beside.all_is_well("its end");
    // The client that asked for a stopped service is not a scanner.
    assert_eq!(beside.left(CLIENT), None);
    assert_eq!(scene.handle(), handle, "the table was never another one");
    assert_eq!(answered(knocks), 0, "packets of a blocked source were answered");
}

// P14
#[test]
fn firewalld_over_iptables_loses_no_block() {
    let Some(packages) = packages() else { return };
    let scene = Scene::new();
    let machine = machine(&scene, &packages);
    orders(
        &machine,
        "sed -i s/^FirewallBackend=.*/FirewallBackend=iptables/ /etc/firewalld/firewalld.conf",
    );
    let mut beside = Beside::start(&scene, "");
    let (handle, knocks) = (scene.handle(), scene.knocks());
    let firewalld = start(&machine);
    assert_eq!(
        (scene.handle_of("firewalld"), scene.lets_in(SHUT)),
        (None, false),
        "firewalld is not in force"
    );
    for order in ["--reload", "--complete-reload"] {
        orders(&machine, &format!("firewall-cmd {order}"));
        beside.all_is_well(order);
    }
    stop(&machine, firewalld);
    beside.all_is_well("its end");
    assert!(scene.lets_in(SHUT));
    assert_eq!(scene.handle(), handle, "the table was never another one");
    assert_eq!(answered(knocks), 0, "packets of a blocked source were answered");
}

// P14
#[test]
fn in_panic_mode_firewalld_drops_before_a_probe_is_seen_and_after_a_block_is_enforced() {
    let Some(packages) = packages() else { return };
    let scene = Scene::new();
    let machine = machine(&scene, &packages);
    let mut beside = Beside::start(&scene, "");
    let firewalld = start(&machine);
    orders(&machine, "firewall-cmd --panic-on");
    beside.the_block_stands("--panic-on");
    beside.status_is_true("--panic-on");
    let probes = || beside.daemon.json(&["status"])["probes"].as_u64().unwrap();
    let before = probes();
    scene.is_scanned_by(CLIENT);
    assert_eq!((probes(), scene.lets_in(OPEN)), (before, false));
    orders(&machine, "firewall-cmd --panic-off");
    beside.all_is_well("--panic-off");
    stop(&machine, firewalld);
}

#[test]
fn a_decoy_answers_where_firewalld_lets_it_in() {
    let Some(packages) = packages() else { return };
    let scene = Scene::new();
    let machine = machine(&scene, &packages);
    let mut beside = Beside::start(&scene, DECOYS);
    let firewalld = start(&machine);
    assert!(!scene.lets_in(DECOY));
    orders(&machine, &format!("firewall-cmd --add-port={DECOY}/tcp"));
    assert!(scene.lets_in(DECOY), "{}", beside.daemon.log());
    orders(&machine, "firewall-cmd --complete-reload");
    assert!(!scene.lets_in(DECOY));
    beside.all_is_well("--complete-reload");
    stop(&machine, firewalld);
    assert!(scene.lets_in(DECOY), "{}", beside.daemon.log());
    beside.all_is_well("its end");
}
