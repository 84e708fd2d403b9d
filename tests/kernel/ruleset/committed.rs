//! The text of named configurations: those in rules/ equal the program's output, and all of them
//! load and have the intended effect in the kernel.

use std::path::{Path, PathBuf};

use portsentry::config::{
    Allowance, Allowed, CampaignAction, ClosedPorts, Config, Method, Mode, PortMode, PortSet,
    ProtocolAction, UnprovenAction,
};
use portsentry::nft::text::Form;
use portsentry::nft::{Connection, QueueBy};
use portsentry::ruleset::{self, SCHEMA};

use super::{EPHEMERAL, file};
use crate::support::missing;
use crate::support::netns::Namespace;

/// The files of rules/: one for each thing that differs for a reader.
const COMMITTED: [&str; 7] =
    ["answer", "block", "connect", "default", "full-range", "nfqueue", "observe"];

/// The configurations by name, including those whose text differs from another's in a few lines
/// only.
fn named() -> Vec<(&'static str, Config)> {
    let with = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config
    };
    vec![
        ("default", Config::default()),
        ("block", with(|config| config.block.unproven.action = UnprovenAction::Block)),
        ("no-reflex", with(|config| config.capture.reflex = false)),
        ("trigger-0", with(|config| config.scan_trigger = 0)),
        ("udp-blocks", with(|config| config.udp.action = ProtocolAction::Block)),
        (
            "nfqueue",
            with(|config| {
                config.capture.method = Method::Nfqueue;
                config.capture.reflex = false;
            }),
        ),
        (
            "nfqueue-reflex",
            with(|config| (config.capture.method, config.capture.reflex) = (Method::Nfqueue, true)),
        ),
        ("campaign-slow", with(|config| config.campaign.action = CampaignAction::Slow)),
        (
            "campaign-slow-alone",
            with(|config| {
                config.campaign.action = CampaignAction::Slow;
                config.block.unproven.action = UnprovenAction::Report;
            }),
        ),
        ("campaign-block", with(|config| config.campaign.action = CampaignAction::Block)),
        ("observe", with(|config| config.mode = Mode::Observe)),
        ("answer", with(|config| config.closed_ports = ClosedPorts::Answer)),
        ("tcp-only", with(|config| config.udp.mode = PortMode::Off)),
        (
            "classic",
            with(|config| {
                (config.tcp.mode, config.udp.mode) = (PortMode::Stealth, PortMode::Stealth)
            }),
        ),
        (
            "connect",
            with(|config| {
                (config.tcp.mode, config.udp.mode) = (PortMode::Connect, PortMode::Connect)
            }),
        ),
        (
            "full-range",
            with(|config| {
                (config.tcp.advanced_ports, config.udp.advanced_ports) =
                    (PortSet::range(0, 65535), PortSet::range(0, 65535))
            }),
        ),
        (
            "interfaces",
            with(|config| config.interfaces = vec!["eth0".to_owned(), "wlan0".to_owned()]),
        ),
        (
            "allowed-interfaces",
            with(|config| {
                let allowed = |name: &str, silent| Allowed {
                    what: Allowance::Interface(name.to_owned()),
                    silent,
                };
                config.allow.extend([allowed("wg0", false), allowed("lab0", true)]);
            }),
        ),
        (
            "nothing-watched",
            with(|config| (config.tcp.mode, config.udp.mode) = (PortMode::Off, PortMode::Off)),
        ),
    ]
}

fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rules").join(format!("{name}.nft"))
}

/// With PORTSENTRY_BLESS=1, writes them instead.
#[test]
fn committed_rulesets_are_what_the_model_renders() {
    let mut found = Vec::new();
    for (name, config) in named().into_iter().filter(|(name, _)| COMMITTED.contains(name)) {
        let text = ruleset::for_config(&config, EPHEMERAL).render(SCHEMA.table, Form::Replace);
        if std::env::var_os("PORTSENTRY_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(committed(name), text).unwrap();
        } else {
            let on_disk = std::fs::read_to_string(committed(name))
                .unwrap_or_else(|error| panic!("rules/{name}.nft: {error}"));
            assert!(
                on_disk == text,
                "rules/{name}.nft is not what the model renders: run with PORTSENTRY_BLESS=1 and look at the difference"
            );
        }
        found.push(name);
    }
    found.sort_unstable();
    assert_eq!(found, COMMITTED, "each has a configuration");
    let rules = committed("default").parent().unwrap().to_owned();
    let mut files: Vec<_> = std::fs::read_dir(&rules)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.retain(|file| file != "README.md");
    files.sort();
    assert_eq!(
        files,
        COMMITTED.map(|name| format!("{name}.nft")),
        "a rendering that no test makes"
    );
    let readme = std::fs::read_to_string(rules.join("README.md")).unwrap();
    let mut shown: Vec<&str> =
        readme.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    shown.sort_unstable();
    assert_eq!(shown, files, "rules/README.md says what each shows");
}

#[test]
fn committed_rulesets_load_and_load_again() {
    if missing(&["ip", "nft"]).is_some() {
        return;
    }
    let namespace = Namespace::new();
    for (name, config) in named() {
        let ruleset = ruleset::for_config(&config, EPHEMERAL);
        let rendered = file(&ruleset.render(SCHEMA.table, Form::Replace));
        let from =
            if COMMITTED.contains(&name) { committed(name) } else { rendered.path().to_owned() };
        let by = namespace.enter(|| Connection::open(SCHEMA).unwrap().queue_by().unwrap());
        if ruleset.queues_by().is_some() && by != Some(QueueBy::Native) {
            // nft cannot load this here; the daemon can.
            let ruleset = ruleset.queueing(by.expect("this kernel queues packets"));
            namespace.enter(|| Connection::open(SCHEMA).unwrap().install(&ruleset).unwrap());
            continue;
        }
        for _ in 0..2 {
            namespace.run("nft", &["-f", from.to_str().unwrap()]);
        }
        assert_eq!(
            namespace.enter(|| Connection::open(SCHEMA).unwrap().verify(&ruleset).unwrap()),
            None,
            "{name}"
        );
    }
}
