//! The output of the daemon's command line, loaded into the kernel.

use std::fs;
use std::time::Duration;

use crate::support::netns::Namespace;
use crate::support::{missing, output};

#[test]
fn the_printed_rules_load() {
    if missing(&["ip", "nft"]).is_some() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let yaml = file("portsentry.yaml", b"tcp: { advanced_ports: 1-1000 }\n");
    let rules = output(
        env!("CARGO_BIN_EXE_portsentry"),
        &["--config", &yaml, "--print-rules"],
        Duration::from_secs(10),
    )
    .stdout;
    let namespace = Namespace::new();
    namespace.run("nft", &["-f", &file("rules.nft", &rules)]);
    let listing = namespace.run("nft", &["list", "table", "inet", "portsentry"]);
    assert!(listing.contains("chain gate") && listing.contains("1-112"), "{listing}");
}
