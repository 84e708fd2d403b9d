//! Checks for contradictions between values that are each in range.

use std::path::Path;

use super::diagnostic::Place;
use super::keys::IPV6_PREFIX;
use super::reader::Reader;
use super::values::{Wrong, wrong};
use super::{
    CommandOn, Config, Escalate, Ipv6Accounts, Keyword, Method, Mode, PortMode, PortSet, Protocol,
    ProtocolAction, UnprovenAction, allow, notify, values, written,
};

/// Notes contradictions as findings.
pub(super) fn check(config: &Config, reader: &mut Reader<'_>) {
    protocol("tcp", &config.tcp, reader);
    protocol("udp", &config.udp, reader);
    watched(config, reader);
    queues(config, reader);
    observed_decoys(config, reader);
    times(config, reader);
    ipv6(config, reader);
    never_block(config, reader);
    allow::check(config, reader);
    respond(config, reader);
    notify::check(config, reader);
    paths(config, reader);
}

/// NFQUEUE needs two queues; the second has the next number.
fn queues(config: &Config, reader: &mut Reader<'_>) {
    if reader.is_sound(&["capture.method", "capture.group"])
        && config.capture.method == Method::Nfqueue
        && config.capture.group == u16::MAX
    {
        reader.error(
            &["capture.group", "capture.method"],
            "`capture.group` is 65535, and nfqueue needs the next number too",
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
            let word = protocol.mode.word();
            if protocol.ports == none {
                reader.error(
                    &[&ports, &mode],
                    format!("`{ports}` is empty, and mode {word} watches nothing else"),
                    format!("list ports, or write {mode}: off"),
                );
            }
            if protocol.mode == PortMode::Connect && protocol.ports.contains(0) {
                reader.error(
                    &[&ports, &mode],
                    format!("`{ports}` has port 0, which nothing can listen on (bind(2))"),
                    "remove it, or use mode stealth or advanced",
                );
            }
            let both = protocol.ports.without(&protocol.ports.without(&protocol.exclude));
            if reader.is_given(&exclude) && both != none {
                let message = format!(
                    "`{exclude}` is for mode advanced only: mode {word} watches {both} all the same"
                );
                reader.warning(&[&exclude], message, format!("remove {both} from `{ports}`"));
            }
        }
        PortMode::Advanced => {
            if protocol.advanced_ports == none {
                reader.error(
                    &[&advanced, &mode],
                    format!("`{advanced}` is empty, and mode advanced watches nothing else"),
                    format!("write a range, 1-1023, or {mode}: off"),
                );
            } else if protocol.watched() == none {
                reader.error(
                    &[&exclude, &advanced, &mode],
                    format!("`{exclude}` leaves no port of `{advanced}` to be watched"),
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
        let message = format!(
            "`{path}` is connect, and mode observe answers nothing: the ports are watched as with stealth"
        );
        reader.warning(&[path, "mode"], message, "write mode: enforce for decoys that answer");
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
        let trigger = config.scan_trigger;
        let message = format!(
            "`scan_trigger` is {trigger}, but only {ports} ports are watched: a scan of all of them is not noticed"
        );
        reader.warning(&keys, message, format!("write at most {}, or watch more ports", ports - 1));
    }
}

fn times(config: &Config, reader: &mut Reader<'_>) {
    let Some(timeout) = config.block.timeout else { return };
    let Escalate { max, memory, factor } = config.block.escalate;
    let short = config.block.unproven.timeout;
    let [first, longest, forged, quiet] = [timeout, max, short, memory].map(written::time);
    if !reader.is_sound(&["block.timeout"]) {
        return;
    }
    if max < timeout && reader.is_sound(&["block.escalate.max"]) {
        reader.error(
            &["block.escalate.max", "block.timeout"],
            format!("`block.escalate.max` ({longest}) is shorter than `block.timeout` ({first}), the first block"),
            format!("write at least {first}, or a shorter block.timeout"),
        );
    }
    if short > timeout && reader.is_sound(&["block.unproven.timeout"]) {
        reader.error(
            &["block.unproven.timeout", "block.timeout"],
            format!("`block.unproven.timeout` ({forged}) is longer than `block.timeout` ({first}): a forged source would be blocked longer than a real one"),
            format!("write at most {first}, or a longer block.timeout"),
        );
    }
    let sound = reader.is_sound(&["block.escalate.memory", "block.escalate.factor"]);
    if memory < timeout && factor > 1 && sound {
        reader.warning(
            &["block.escalate.memory", "block.timeout"],
            format!("`block.escalate.memory` ({quiet}) is shorter than `block.timeout` ({first}): no block escalates"),
            format!("write more than {first}"),
        );
    }
}

fn ipv6(config: &Config, reader: &mut Reader<'_>) {
    let (first, then) = ("block.ipv6.first", "block.ipv6.then");
    if reader.is_given(IPV6_PREFIX) {
        if reader.is_given(first) || reader.is_given(then) {
            reader.error(
                &[IPV6_PREFIX],
                format!("`{IPV6_PREFIX}` sets `{first}` and `{then}`, which are here too"),
                format!("remove `{IPV6_PREFIX}`"),
            );
        }
        return;
    }
    let Ipv6Accounts { first: bits, then: prefix } = config.block.ipv6;
    if !reader.is_sound(&[IPV6_PREFIX, first, then]) {
        return;
    }
    if prefix > bits {
        reader.error(
            &[then, first],
            format!("`{then}` ({prefix}) is longer than `{first}` ({bits}): no prefix holds several accounts"),
            format!("write {then}: {bits} or less"),
        );
    } else if prefix < bits && prefix > Ipv6Accounts::THEN_MAX {
        reader.error(
            &[then, first],
            format!(
                "`{then}` is {prefix}: a prefix of several accounts has {} bits at most",
                Ipv6Accounts::THEN_MAX
            ),
            format!("write {} or less, or {bits} for no such prefixes", Ipv6Accounts::THEN_MAX),
        );
    }
}

fn never_block(config: &Config, reader: &mut Reader<'_>) {
    let sound = reader.is_sound(&["never_block.ssh_peers", "never_block.admin_ports"]);
    if sound && config.never_block.ssh_peers && config.never_block.admin_ports.is_empty() {
        reader.warning(
            &["never_block.admin_ports", "never_block.ssh_peers"],
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
            reader.error(
                &[path],
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
        reader.warning(
            &["respond.command"],
            format!("`respond.command` is never run: {why}"),
            remedy,
        );
    }
    slowed_command(config, reader);
    let has_decoys = config.has_decoys(&config.tcp) || config.has_decoys(&config.udp);
    let is_observed = config.mode == Mode::Observe;
    if !respond.banner.is_empty()
        && !has_decoys
        && !is_observed
        && reader.is_sound(&["respond.banner", "mode", "tcp.mode", "udp.mode"])
    {
        reader.warning(
            &["respond.banner"],
            "`respond.banner` is never sent: only decoys send it, and neither `tcp.mode` nor `udp.mode` is connect",
            "write tcp.mode: connect and list tcp.ports, or remove the banner",
        );
    }
    if let Err((message, remedy)) = hosts_deny_line(&respond.hosts_deny.line) {
        reader.error(
            &["respond.hosts_deny.line", "respond.hosts_deny.enabled"],
            format!("`respond.hosts_deny.line`{message}"),
            remedy,
        );
    }
}

/// The command is to run for slowed sources, and there are none.
fn slowed_command(config: &Config, reader: &mut Reader<'_>) {
    let keys = ["respond.command_on", "block.unproven.action"];
    let is_wanted = config.respond.command_on.contains(&CommandOn::Slowed);
    let action = config.block.unproven.action;
    if is_wanted && action != UnprovenAction::Slow && reader.is_sound(&keys) {
        let message = format!(
            "`respond.command_on` has slowed, and `block.unproven.action` is {}: no source is slowed",
            action.word()
        );
        reader.warning(&keys, message, "write block.unproven.action: slow");
    }
}

/// Checks a line of hosts.deny (hosts_access(5)); the message of an error follows the key.
fn hosts_deny_line(line: &str) -> Result<(), Wrong> {
    const REMEDY: &str = "write \"ALL: {target}\"";
    if line.contains(|c: char| c.is_control()) {
        return wrong(
            " has a control character in it",
            "write one line of hosts.deny (hosts_access(5))",
        );
    }
    values::macros(line).map_err(|(message, remedy)| (format!(": {message}"), remedy))?;
    let mut others = values::MACROS.iter().filter(|name| **name != "target");
    if let Some(other) = others.find(|name| line.contains(&format!("{{{name}}}"))) {
        return wrong(
            format!(" has {{{other}}}, which is replaced in `respond.command` only"),
            "write {target} alone: the line must be the same when it is taken out again",
        );
    }
    if line.ends_with('\\') || line.trim_start().starts_with('#') {
        return wrong(" would be a comment, or go on in the next line (hosts_access(5))", REMEDY);
    }
    if !line.contains("{target}") {
        return wrong(" has no {target}: it would deny the same to everybody", REMEDY);
    }
    Ok(())
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
            let message = format!("`{path}` and `{other}` are the same file");
            reader.findings.error(later(reader, path, other), message, "give each its own");
        }
    }
}

/// The later place of two contradicting keys.
fn later(reader: &Reader<'_>, one: &str, other: &str) -> Option<Place> {
    reader.place(&[one]).max(reader.place(&[other]))
}
