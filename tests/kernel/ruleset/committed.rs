//! The renderings in rules/: what they are made of, that they are what the model says, and that they load.

use std::path::{Path, PathBuf};

use portsentry::config::{ClosedPorts, Config, Method, Mode, PortMode, PortSet, ProtocolAction};
use portsentry::nft::text::Form;
use portsentry::nft::{Connection, QueueBy, Ruleset};

use super::EPHEMERAL;
use crate::support::missing;
use crate::support::netns::Namespace;

/// The configurations whose rulesets are committed.
fn named() -> Vec<(&'static str, Config)> {
    let with = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config
    };
    vec![
        ("default", Config::default()),
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
        ("nfqueue-reflex", with(|config| (config.capture.method, config.capture.reflex) = (Method::Nfqueue, true))),
        ("observe", with(|config| config.mode = Mode::Observe)),
        ("answer", with(|config| config.closed_ports = ClosedPorts::Answer)),
        ("tcp-only", with(|config| config.udp.mode = PortMode::Off)),
        ("classic", with(|config| (config.tcp.mode, config.udp.mode) = (PortMode::Stealth, PortMode::Stealth))),
        ("connect", with(|config| (config.tcp.mode, config.udp.mode) = (PortMode::Connect, PortMode::Connect))),
        ("full-range", with(|config| (config.tcp.advanced_ports, config.udp.advanced_ports) = (PortSet::range(0, 65535), PortSet::range(0, 65535)))),
        ("interfaces", with(|config| config.interfaces = vec!["eth0".to_owned(), "wlan0".to_owned()])),
        ("nothing-watched", with(|config| (config.tcp.mode, config.udp.mode) = (PortMode::Off, PortMode::Off))),
    ]
}

fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rules").join(format!("{name}.nft"))
}

/// With PORTSENTRY_BLESS=1, writes them instead.
#[test]
fn committed_rulesets_are_what_the_model_renders() {
    for (name, config) in named() {
        let text = Ruleset::for_config(&config, EPHEMERAL).render(Form::Replace);
        if std::env::var_os("PORTSENTRY_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(committed(name), text).unwrap();
        } else {
            let on_disk = std::fs::read_to_string(committed(name)).unwrap_or_else(|error| panic!("rules/{name}.nft: {error}"));
            assert!(on_disk == text, "rules/{name}.nft is not what the model renders: run with PORTSENTRY_BLESS=1 and look at the difference");
        }
    }
    let mut names: Vec<_> = named().iter().map(|(name, _)| format!("{name}.nft")).collect();
    let mut files: Vec<_> =
        std::fs::read_dir(committed("default").parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    files.sort();
    assert_eq!(files, names, "a rendering that nobody makes any more");
}

#[test]
fn committed_rulesets_load_and_load_again() {
    if missing(&["ip", "nft"]).is_some() {
        return;
    }
    let namespace = Namespace::new();
    for (name, config) in named() {
        let path = committed(name);
        let ruleset = Ruleset::for_config(&config, EPHEMERAL);
        let by = namespace.enter(|| Connection::open().unwrap().queue_by().unwrap());
        if ruleset.queues_by().is_some() && by != Some(QueueBy::Native) {
            // nft cannot load this here; the daemon can.
            let ruleset = ruleset.queueing(by.expect("this kernel queues packets"));
            namespace.enter(|| Connection::open().unwrap().install(&ruleset).unwrap());
            continue;
        }
        for _ in 0..2 {
            namespace.run("nft", &["-f", path.to_str().unwrap()]);
        }
        assert_eq!(namespace.enter(|| Connection::open().unwrap().verify(&ruleset).unwrap()), None, "rules/{name}.nft");
    }
}
