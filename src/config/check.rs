//! Checks for contradictions between values that are each in range.

use std::path::Path;

use super::diagnostic::Place;
use super::pending::PENDING;
use super::reader::Reader;
use super::{
    Config, Escalate, Method, Mode, PortMode, PortSet, Protocol, ProtocolAction, values, written,
};

/// Notes contradictions as findings.
pub(super) fn check(config: &Config, reader: &mut Reader<'_>) {
    protocol("tcp", &config.tcp, reader);
    protocol("udp", &config.udp, reader);
    watched(config, reader);
    queues(config, reader);
    observed_decoys(config, reader);
    times(config, reader);
    never_block(config, reader);
    respond(config, reader);
    paths(config, reader);
}

/// Warns of keys in the file that have no effect yet. Defaults are silent.
pub(super) fn not_in_force(config: &Config, reader: &mut Reader<'_>) {
    for pending in PENDING {
        if reader.is_given(pending.path) && (pending.needed)(config) {
            let place = reader.place(&[pending.path]);
            reader.findings.warning(
                place,
                format!("`{}` is not in force yet", pending.path),
                format!("until then {}", pending.until_then),
            );
        }
    }
}

/// NFQUEUE needs two queues; the second has the next number.
fn queues(config: &Config, reader: &mut Reader<'_>) {
    if reader.is_sound(&["capture.method", "capture.group"])
        && config.capture.method == Method::Nfqueue
        && config.capture.group == u16::MAX
    {
        let place = reader.place(&["capture.group", "capture.method"]);
        reader.findings.error(
            place,
            "`capture.group` is 65535, and nfqueue needs the next number too".to_owned(),
            "write 65534 or less",
        );
    }
}

fn protocol(name: &str, protocol: &Protocol, reader: &mut Reader<'_>) {
    let [mode, ports, advanced, exclude] =
        ["mode", "ports", "advanced_ports", "exclude"].map(|key| format!("{name}.{key}"));
    if !reader.is_sound(&[&mode, &ports, &advanced, &exclude]) {
        return;
    }
    let none = PortSet::default();
    match protocol.mode {
        PortMode::Off => {}
        PortMode::Connect | PortMode::Stealth => {
            let word = super::Keyword::word(protocol.mode);
            if protocol.ports == none {
                let place = reader.place(&[&ports, &mode]);
                reader.findings.error(
                    place,
                    format!("`{ports}` is empty, and mode {word} watches nothing else"),
                    format!("list ports, or write {mode}: off"),
                );
            }
            if protocol.mode == PortMode::Connect && protocol.ports.contains(0) {
                let place = reader.place(&[&ports, &mode]);
                reader.findings.error(
                    place,
                    format!("`{ports}` has port 0, which nothing can listen on (bind(2))"),
                    "remove it, or use mode stealth or advanced",
                );
            }
            let both = protocol.ports.without(&protocol.ports.without(&protocol.exclude));
            if reader.is_given(&exclude) && both != none {
                let place = reader.place(&[&exclude]);
                let message = format!(
                    "`{exclude}` is for mode advanced only: mode {word} watches {both} all the same"
                );
                reader.findings.warning(place, message, format!("remove {both} from `{ports}`"));
            }
        }
        PortMode::Advanced => {
            if protocol.advanced_ports == none {
                let place = reader.place(&[&advanced, &mode]);
                reader.findings.error(
                    place,
                    format!("`{advanced}` is empty, and mode advanced watches nothing else"),
                    format!("write a range, 1-1023, or {mode}: off"),
                );
            } else if protocol.watched() == none {
                let place = reader.place(&[&exclude, &advanced, &mode]);
                let message = format!("`{exclude}` leaves no port of `{advanced}` to be watched");
                reader.findings.error(
                    place,
                    message,
                    format!("exclude fewer ports, or write {mode}: off"),
                );
            }
        }
    }
}

/// Observe mode changes nothing, so decoys do not answer either.
fn observed_decoys(config: &Config, reader: &mut Reader<'_>) {
    let wanted = [("tcp.mode", &config.tcp), ("udp.mode", &config.udp)]
        .into_iter()
        .find(|(_, protocol)| protocol.mode == PortMode::Connect);
    if let Some((path, _)) = wanted
        && config.mode == Mode::Observe
        && reader.is_sound(&["mode", "tcp.mode", "udp.mode"])
    {
        let place = reader.place(&[path, "mode"]);
        let message = format!(
            "`{path}` is connect, and mode observe answers nothing: the ports are watched as with stealth"
        );
        reader.findings.warning(place, message, "write mode: enforce for decoys that answer");
    }
}

fn watched(config: &Config, reader: &mut Reader<'_>) {
    if !reader.is_sound(&["tcp.mode", "udp.mode"]) {
        return;
    }
    if config.tcp.mode == PortMode::Off && config.udp.mode == PortMode::Off {
        let place = later(reader, "tcp.mode", "udp.mode");
        reader.findings.warning(
            place,
            "neither TCP nor UDP is watched: nothing is noticed",
            "leave tcp.mode or udp.mode at advanced",
        );
        return;
    }
    let keys = [
        "scan_trigger",
        "tcp.ports",
        "udp.ports",
        "tcp.advanced_ports",
        "udp.advanced_ports",
        "tcp.exclude",
        "udp.exclude",
        "tcp.mode",
        "udp.mode",
    ];
    let ports = config.tcp.watched().count() + config.udp.watched().count();
    if reader.is_sound(&keys) && ports > 0 && u32::from(config.scan_trigger) >= ports {
        let place = reader.place(&keys);
        let message = format!(
            "`scan_trigger` is {}, but only {ports} ports are watched: a scan of all of them is not noticed",
            config.scan_trigger
        );
        reader.findings.warning(
            place,
            message,
            format!("write at most {}, or watch more ports", ports - 1),
        );
    }
}

fn times(config: &Config, reader: &mut Reader<'_>) {
    let Some(timeout) = config.block.timeout else { return };
    let Escalate { max, memory, .. } = config.block.escalate;
    let text = written::time;
    if !reader.is_sound(&["block.timeout"]) {
        return;
    }
    if max < timeout && reader.is_sound(&["block.escalate.max"]) {
        let place = reader.place(&["block.escalate.max", "block.timeout"]);
        let message = format!(
            "`block.escalate.max` ({}) is shorter than `block.timeout` ({}), the first block",
            text(max),
            text(timeout)
        );
        reader.findings.error(
            place,
            message,
            format!("write at least {}, or a shorter block.timeout", text(timeout)),
        );
    }
    if config.block.unproven.timeout > timeout && reader.is_sound(&["block.unproven.timeout"]) {
        let place = reader.place(&["block.unproven.timeout", "block.timeout"]);
        let message = format!(
            "`block.unproven.timeout` ({}) is longer than `block.timeout` ({}): a forged source would be blocked longer than a real one",
            text(config.block.unproven.timeout),
            text(timeout)
        );
        reader.findings.error(
            place,
            message,
            format!("write at most {}, or a longer block.timeout", text(timeout)),
        );
    }
    if memory < timeout
        && config.block.escalate.factor > 1
        && reader.is_sound(&["block.escalate.memory", "block.escalate.factor"])
    {
        let place = reader.place(&["block.escalate.memory", "block.timeout"]);
        let message = format!(
            "`block.escalate.memory` ({}) is shorter than `block.timeout` ({}): no block escalates",
            text(memory),
            text(timeout)
        );
        reader.findings.warning(place, message, format!("write more than {}", text(timeout)));
    }
}

fn never_block(config: &Config, reader: &mut Reader<'_>) {
    let sound = reader.is_sound(&["never_block.ssh_peers", "never_block.admin_ports"]);
    if sound && config.never_block.ssh_peers && config.never_block.admin_ports.is_empty() {
        let place = reader.place(&["never_block.admin_ports", "never_block.ssh_peers"]);
        reader.findings.warning(
            place,
            "`never_block.admin_ports` is empty: `never_block.ssh_peers` protects nobody",
            "list the ports that administrators come in through, [22]",
        );
    }
}

fn respond(config: &Config, reader: &mut Reader<'_>) {
    let respond = &config.respond;
    for (path, action) in [("tcp.action", config.tcp.action), ("udp.action", config.udp.action)] {
        if action == ProtocolAction::Command
            && respond.command.is_empty()
            && reader.is_sound(&["respond.command"])
        {
            let place = reader.place(&[path]);
            reader.findings.error(
                place,
                format!("`{path}` is command, but there is no `respond.command`"),
                "write respond: command: [/path/to/program, \"{target}\"]",
            );
        }
    }
    let nobody_runs_it = [&config.tcp, &config.udp]
        .iter()
        .all(|protocol| protocol.mode == PortMode::Off || protocol.action == ProtocolAction::Log);
    let sound =
        reader.is_sound(&["respond.command", "tcp.mode", "udp.mode", "tcp.action", "udp.action"]);
    if sound && !respond.command.is_empty() && nobody_runs_it {
        let place = reader.place(&["respond.command"]);
        let (why, remedy) = match [config.tcp.mode, config.udp.mode] {
            [PortMode::Off, PortMode::Off] => {
                ("tcp.mode and udp.mode are off", "write another mode for one of them")
            }
            [PortMode::Off, _] => (
                "tcp.mode is off, and udp.action is log",
                "write udp.action: block or udp.action: command",
            ),
            [_, PortMode::Off] => (
                "tcp.action is log, and udp.mode is off",
                "write tcp.action: block or tcp.action: command",
            ),
            _ => ("tcp.action and udp.action are log", "write action: block or action: command"),
        };
        reader.findings.warning(place, format!("`respond.command` is never run: {why}"), remedy);
    }
    let place = reader.place(&["respond.hosts_deny.line", "respond.hosts_deny.enabled"]);
    let line = &respond.hosts_deny.line;
    if line.contains(|c: char| c.is_control()) {
        reader.findings.error(
            place,
            "`respond.hosts_deny.line` has a control character in it",
            "write one line of hosts.deny (hosts_access(5))",
        );
    } else if let Err((message, remedy)) = values::macros(line) {
        reader.findings.error(place, format!("`respond.hosts_deny.line`: {message}"), remedy);
    } else if let Some(other) = values::MACROS
        .iter()
        .map(|name| format!("{{{name}}}"))
        .find(|name| name != "{target}" && line.contains(name))
    {
        let message = format!(
            "`respond.hosts_deny.line` has {other}, which is replaced in `respond.command` only"
        );
        reader.findings.error(
            place,
            message,
            "write {target} alone: the line must be the same when it is taken out again",
        );
    } else if line.ends_with('\\') || line.trim_start().starts_with('#') {
        let message = "`respond.hosts_deny.line` would be a comment, or go on in the next line (hosts_access(5))";
        reader.findings.error(place, message, "write \"ALL: {target}\"");
    } else if !line.contains("{target}") {
        reader.findings.error(
            place,
            "`respond.hosts_deny.line` has no {target}: it would deny the same to everybody",
            "write \"ALL: {target}\"",
        );
    }
}

fn paths(config: &Config, reader: &mut Reader<'_>) {
    let files: [(&str, Option<&Path>); 6] = [
        ("ignore_file", config.ignore_file.as_deref()),
        ("respond.hosts_deny.path", Some(&config.respond.hosts_deny.path)),
        ("history_file", config.history_file.as_deref()),
        ("blocked_file", config.blocked_file.as_deref()),
        ("state_dir", Some(&config.state_dir)),
        ("control.socket", Some(&config.control.socket)),
    ];
    for (at, (path, file)) in files.iter().enumerate() {
        for (other, _) in
            files.iter().skip(at + 1).filter(|(_, same)| file.is_some() && same == file)
        {
            if !reader.is_sound(&[path, other]) {
                continue;
            }
            let place = later(reader, path, other);
            reader.findings.error(
                place,
                format!("`{path}` and `{other}` are the same file"),
                "give each its own",
            );
        }
    }
}

/// The later place of two contradicting keys.
fn later(reader: &Reader<'_>, one: &str, other: &str) -> Option<Place> {
    reader.place(&[one]).max(reader.place(&[other]))
}
