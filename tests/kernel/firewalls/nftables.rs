//! nftables.service: its reload reads a file that begins with `flush ruleset`, which deletes our
//! table each time.

use std::path::Path;
use std::time::Duration;

use super::scene::{Beside, DECOY, DECOYS, OPEN, SHUT, Scene, TOOLS, answered};
use crate::support::netns::Namespace;
use crate::support::{gap, linux, missing, skip};

/// The service's file, and the commands of its start and reload.
const FILE: &str = "/etc/nftables.conf";
const UNIT: &str = "/usr/lib/systemd/system/nftables.service";
/// Time without the table, on a busy machine. Some milliseconds are usual.
const BOUND: Duration = Duration::from_secs(2);

/// An ordinary firewall of a host, as an administrator writes it into that file.
fn firewall(ports: &str) -> String {
    format!(
        "#!/usr/sbin/nft -f\n\nflush ruleset\n\n\
        table inet filter {{\n\
        \tchain input {{\n\
        \t\ttype filter hook input priority filter; policy drop;\n\
        \t\tct state established,related accept\n\
        \t\tct state invalid drop\n\
        \t\tiif lo accept\n\
        \t\ticmp type echo-request accept\n\
        \t\tmeta l4proto ipv6-icmp accept\n\
        \t\ttcp dport {{ {ports} }} accept\n\
        \t}}\n\
        \tchain forward {{\n\t\ttype filter hook forward priority filter; policy drop;\n\t}}\n\
        \tchain output {{\n\t\ttype filter hook output priority filter;\n\t}}\n\
        }}\n"
    )
}

/// Whether the tests here cannot run; prints why.
fn cannot_run() -> bool {
    if !Path::new(FILE).exists() {
        skip("there is no /etc/nftables.conf: nftables is not Debian's package");
        return true;
    }
    missing(TOOLS).is_some()
}

/// Runs the unit's command `key` on the host, with `text` in place of its configuration for this
/// process; returns its process id.
fn service(host: &Namespace, key: &str, text: &str) -> u32 {
    let unit = std::fs::read_to_string(UNIT).unwrap_or_default();
    let own =
        unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned);
    let command = own.unwrap_or_else(|| {
        if key == "ExecStop" { "nft flush ruleset".to_owned() } else { format!("nft -f {FILE}") }
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    // ip(8) gives each program its own mount namespace. The shell becomes nft, so that its process
    // id is known.
    let mut nft = host.spawn(
        "sh",
        &["-c", &format!("mount --bind {} {FILE} && exec {command}", file.path().display())],
    );
    assert!(nft.0.wait().unwrap().success(), "{key}");
    nft.0.id()
}

/// nft's listing of the other firewall, without counters.
fn shown(host: &Namespace) -> String {
    host.run("nft", &["-s", "list", "table", "inet", "filter"])
}

// P14
#[test]
fn a_reload_of_nftables_service_is_logged_and_every_block_restored() {
    if cannot_run() {
        return;
    }
    let (file, other) = (firewall(&OPEN.to_string()), firewall(&format!("{OPEN}, {SHUT}")));
    // The result of the file alone.
    let expected = [&file, &other].map(|file| {
        let alone = Namespace::new();
        service(&alone, "ExecStart", file);
        shown(&alone)
    });
    assert_ne!(expected[0], expected[1]);

    let scene = Scene::new();
    service(&scene.host, "ExecStart", &file);
    let mut beside = Beside::start(&scene, "");
    for (address, words) in [
        ("fd72:77:0:1::2", ["--for", "0"]),
        ("203.0.113.0/24", ["--for", "2h"]),
        ("198.51.100.9", ["--for", "30m"]),
    ] {
        assert!(beside.daemon.ctl(&[&["block", address], &words[..]].concat()).status.success());
        beside.blocked.push(address.to_owned());
    }
    beside.all_is_well("the start of nftables.service");
    let knocks = scene.knocks();
    let mut gaps = Vec::new();
    for (round, (file, expected)) in [
        (&file, &expected[0]),
        (&other, &expected[1]),
        (&other, &expected[1]),
        (&file, &expected[0]),
    ]
    .into_iter()
    .enumerate()
    {
        let listed =
            ["203.0.113.0/24", "198.51.100.9"].map(|address| beside.left(address).unwrap());
        let handle = scene.handle();
        let (gap, process) = gap(&scene.host, || service(&scene.host, "ExecReload", file));
        gaps.push(gap);
        beside.repairs += 1;
        is_told(&beside, process);
        let after = format!("reload {}", round + 1);
        assert_ne!(scene.handle(), handle, "{after}");
        assert_eq!(&shown(&scene.host), expected, "{after}");
        for (address, before) in ["203.0.113.0/24", "198.51.100.9"].into_iter().zip(listed) {
            let left = beside.left(address).unwrap();
            assert!(
                (before.saturating_sub(5)..=before).contains(&left),
                "{after}: {address} had {before} s left, and has {left}"
            );
        }
        assert_eq!(beside.left("fd72:77:0:1::2"), Some(u64::MAX), "{after}");
        assert_eq!(scene.lets_in(SHUT), expected.contains(&SHUT.to_string()), "{after}");
        // All earlier blocks, in one transaction with the rules.
        let blocks = format!("the rules and {} blocks were restored", beside.blocked.len());
        assert!(
            beside.daemon.log().contains(&blocks),
            "{after}: no {blocks:?} in {}",
            beside.daemon.log()
        );
        beside.all_is_well(&after);
    }
    // Its stop flushes, and loads nothing.
    let process = service(&scene.host, "ExecStop", &file);
    beside.repairs += 1;
    is_told(&beside, process);
    beside.all_is_well("the end of nftables.service");
    assert_eq!(scene.host.run("nft", &["list", "tables"]), "table inet portsentry\n");
    let passed = answered(knocks);
    println!(
        "reloads: the table was away for {gaps:.1?}; {passed} packets of a blocked source were answered in five, at 50 a second"
    );
    assert!(gaps.iter().all(|gap| *gap < BOUND), "{gaps:?}");
    assert!(passed < 50, "{passed}");
}

// P14
#[test]
fn the_recommended_setup_keeps_the_table_through_a_reload() {
    if cannot_run() {
        return;
    }
    let flushing = firewall(&OPEN.to_string());
    let sparing =
        flushing.replace("flush ruleset", "table inet filter {}\ndelete table inet filter");
    for (yaml, file, since) in [("", sparing, (0, 0)), ("own_table: true\n", flushing, (6, 9))] {
        if linux() < since {
            println!("{yaml:?} is left out: this kernel is older than {since:?}");
            continue;
        }
        let scene = Scene::new();
        service(&scene.host, "ExecStart", &file);
        let mut beside = Beside::start(&scene, yaml);
        let (handle, knocks) = (scene.handle(), scene.knocks());
        for _ in 0..3 {
            let filter = scene.handle_of("filter");
            service(&scene.host, "ExecReload", &file);
            assert_ne!(scene.handle_of("filter"), filter, "the other table is a new one");
        }
        beside.all_is_well("a reload");
        assert!(!scene.lets_in(SHUT));
        assert_eq!(scene.handle(), handle, "{yaml:?}: the table was never another one");
        assert_eq!(answered(knocks), 0, "{yaml:?}: packets of a blocked source were answered");
    }
}

#[test]
fn a_decoy_answers_where_the_file_of_nftables_service_lets_it_in() {
    if cannot_run() {
        return;
    }
    let (file, other) = (firewall(&OPEN.to_string()), firewall(&format!("{OPEN}, {DECOY}")));
    let scene = Scene::new();
    let mut beside = Beside::start(&scene, DECOYS);
    for (file, lets_in) in [(&file, false), (&other, true), (&file, false)] {
        let process = service(&scene.host, "ExecReload", file);
        beside.repairs += 1;
        is_told(&beside, process);
        assert_eq!(scene.lets_in(DECOY), lets_in, "{}", beside.daemon.log());
    }
    beside.all_is_well("three reloads");
}

/// The log and `status` name nft and its process.
fn is_told(beside: &Beside<'_>, process: u32) {
    beside
        .daemon
        .wait_for_log(&format!("nft (process {process}) changed the table inet portsentry: "));
    let repairs = &beside.daemon.json(&["status"])["repairs"];
    assert_eq!(
        (repairs["program"].as_str(), repairs["process"].as_u64(), repairs["fighting"].as_bool()),
        (Some("nft"), Some(process.into()), Some(false))
    );
}
