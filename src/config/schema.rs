//! The structure of the file: which key sets which field.

use super::reader::{Reader, Section};
use super::tree::Node;
use super::{Config, Protocol};

/// The configuration in `root`, with defaults for missing keys. Valid only if `reader` has noted no
/// error.
pub(super) fn read(root: &Node, reader: &mut Reader<'_>) -> Config {
    let mut config = Config::default();
    reader.top(root, |top| fill(top, &mut config));
    config
}

fn fill(top: &mut Section<'_, '_, '_>, config: &mut Config) {
    top.word("mode", &mut config.mode);
    top.interfaces("interfaces", &mut config.interfaces);
    top.word("closed_ports", &mut config.closed_ports);
    top.table("capture", |capture| {
        capture.word("method", &mut config.capture.method);
        capture.switch("reflex", &mut config.capture.reflex);
        capture.number("group", &mut config.capture.group);
        capture.number("decoy_port", &mut config.capture.decoy_port);
    });
    top.table("tcp", |tcp| protocol(tcp, &mut config.tcp));
    top.table("udp", |udp| protocol(udp, &mut config.udp));
    top.number("scan_trigger", &mut config.scan_trigger);
    top.time("scan_window", &mut config.scan_window);
    top.table("block", |block| {
        block.time_or_zero("timeout", &mut config.block.timeout);
        block.table("escalate", |escalate| {
            escalate.number("factor", &mut config.block.escalate.factor);
            escalate.time("max", &mut config.block.escalate.max);
            escalate.time("memory", &mut config.block.escalate.memory);
        });
        block.number("ipv6_prefix", &mut config.block.ipv6_prefix);
        block.table("unproven", |unproven| {
            unproven.word("action", &mut config.block.unproven.action);
            unproven.time("timeout", &mut config.block.unproven.timeout);
            unproven.number("per_minute", &mut config.block.unproven.per_minute);
        });
        block.number("total", &mut config.block.total);
    });
    top.table("never_block", |never| {
        never.switch("own_addresses", &mut config.never_block.own_addresses);
        never.switch("gateways", &mut config.never_block.gateways);
        never.switch("resolvers", &mut config.never_block.resolvers);
        never.switch("ssh_peers", &mut config.never_block.ssh_peers);
        never.ports("admin_ports", &mut config.never_block.admin_ports);
    });
    top.networks("allow", &mut config.allow);
    top.optional_path("ignore_file", &mut config.ignore_file);
    top.table("respond", |respond| {
        respond.command("command", &mut config.respond.command);
        respond.word("command_when", &mut config.respond.command_when);
        respond.time("command_timeout", &mut config.respond.command_timeout);
        respond.table("hosts_deny", |hosts_deny| {
            hosts_deny.switch("enabled", &mut config.respond.hosts_deny.enabled);
            hosts_deny.path("path", &mut config.respond.hosts_deny.path);
            hosts_deny.text("line", &mut config.respond.hosts_deny.line);
        });
        respond.text("banner", &mut config.respond.banner);
    });
    top.switch("resolve", &mut config.resolve);
    top.table("log", |log| {
        log.word("target", &mut config.log.target);
        log.word("format", &mut config.log.format);
        log.word("level", &mut config.log.level);
        log.word("facility", &mut config.log.facility);
    });
    top.optional_path("history_file", &mut config.history_file);
    top.optional_path("blocked_file", &mut config.blocked_file);
    top.path("state_dir", &mut config.state_dir);
    top.table("control", |control| {
        control.path("socket", &mut config.control.socket);
        control.group("group", &mut config.control.group);
    });
    top.word("on_exit", &mut config.on_exit);
    top.word("own_table", &mut config.own_table);
}

fn protocol(section: &mut Section<'_, '_, '_>, protocol: &mut Protocol) {
    section.word("mode", &mut protocol.mode);
    section.ports("ports", &mut protocol.ports);
    section.ports("advanced_ports", &mut protocol.advanced_ports);
    section.ports("exclude", &mut protocol.exclude);
    section.word("action", &mut protocol.action);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEYS;
    use crate::config::diagnostic::Findings;
    use std::path::Path;

    #[test]
    fn the_schema_reads_exactly_the_keys_of_the_table() {
        let mut reader = Reader::new(Findings::new(Path::new("x"), ""));
        let root = crate::config::tree::read("").unwrap();
        assert_eq!(read(&root, &mut reader), Config::default());
        assert_eq!(reader.asked(), KEYS.iter().map(|key| key.path).collect::<Vec<_>>());
        assert!(reader.findings.finish().is_empty());
    }
}
