//! The configuration file: faults are refused with place and remedy, files that others can write
//! are not trusted, and the commented default equals the built-in one.
//!
//! Lines `# expect: LINE:COLUMN words of the message | words of the remedy` in
//! `tests/configuration/broken/*.yaml` (refused) and `odd/*.yaml` (accepted with a warning) give
//! the expected findings.

mod drop_ins;
mod files;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portsentry::config::{
    self, AbuseIpDb, Admins, Allowance, Allowed, Block, Campaign, Capture, CommandOn, CommandWhen,
    Config, Control, Endpoint, Escalate, Events, Finding, Geo, HostsDeny, Ipv6Accounts, KEYS,
    Keyword, Log, NeverBlock, Notify, NotifyOn, PortMode, PortSet, Protocol, ProtocolAction,
    Refused, Respond, Sendmail, Severity, Size, Unproven,
};
use proptest::prelude::*;

use files::mode;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The fixtures, copied to a directory that only this user can write: the checkout may have any
/// owner.
fn fixtures(kind: &str) -> (tempfile::TempDir, Vec<PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let copy = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let to = directory.path().join(entry.file_name());
        std::fs::write(&to, std::fs::read(entry.path()).unwrap()).unwrap();
        mode(&to, 0o644);
        to
    };
    let mut files: Vec<_> = std::fs::read_dir(repository().join("tests/configuration").join(kind))
        .unwrap()
        .map(copy)
        .collect();
    files.sort();
    (directory, files)
}

/// An expected finding of a fixture.
struct Expected {
    line: u32,
    column: u32,
    message: String,
    remedy: String,
}

fn expected(file: &Path) -> Vec<Expected> {
    let bytes = std::fs::read(file).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# expect: ")).collect();
    assert!(
        !lines.is_empty() && text.starts_with("# expect: "),
        "{}: no expectation in the first line",
        file.display()
    );
    let parse = |line: &str| {
        let (place, words) = line.split_once(' ').unwrap();
        let (line, column) = place.split_once(':').unwrap();
        let (message, remedy) = words.split_once(" | ").unwrap();
        Expected {
            line: line.parse().unwrap(),
            column: column.parse().unwrap(),
            message: message.to_owned(),
            remedy: remedy.to_owned(),
        }
    };
    lines.into_iter().map(parse).collect()
}

/// Each expectation is met by a finding of this severity, and there are no other findings of it.
fn hold(file: &Path, findings: &[Finding], severity: Severity) {
    let all: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    let mut of_it: Vec<_> =
        findings.iter().filter(|finding| finding.severity == severity).collect();
    for Expected { line, column, message, remedy } in expected(file) {
        let met = of_it.iter().position(|finding| {
            (finding.line, finding.column) == (line, column)
                && finding.message.contains(&message)
                && finding.remedy.contains(&remedy)
        });
        let met = met.unwrap_or_else(|| {
            panic!(
                "{}: no {severity} at {line}:{column} with `{message}` and `{remedy}` among\n{all}",
                file.display()
            )
        });
        let finding = of_it.remove(met);
        assert_eq!(finding.file, file);
    }
    assert!(of_it.is_empty(), "{}: found more than expected:\n{all}", file.display());
}

// D14
#[test]
fn every_broken_file_is_refused_with_its_place_and_a_remedy() {
    let (_directory, files) = fixtures("broken");
    assert!(files.len() >= 24, "{} kinds", files.len());
    for file in files {
        let Err(Refused { findings }) = config::load(&file) else {
            panic!("{} was taken", file.display())
        };
        hold(&file, &findings, Severity::Error);
        let places: Vec<_> =
            findings.iter().map(|finding| (finding.line, finding.column)).collect();
        assert!(places.is_sorted(), "{}: {places:?}", file.display());
    }
}

#[test]
fn every_odd_file_is_taken_with_a_warning_at_its_place() {
    let (_directory, files) = fixtures("odd");
    for file in files {
        let loaded = config::load(&file).unwrap_or_else(|refused| panic!("{refused}"));
        hold(&file, &loaded.warnings, Severity::Warning);
        assert_eq!(loaded.from.as_deref(), Some(file.as_path()));
    }
}

// D12
#[test]
fn odd_networks_are_taken_masked() {
    let loaded =
        config::parse("allow: [192.0.2.7/24, \"2001:db8::1/32\", 10.1.2.3]\n", "x").unwrap();
    let allow: Vec<_> =
        loaded.config.allowed_networks().map(|network| network.to_string()).collect();
    assert_eq!(allow, ["192.0.2.0/24", "2001:db8::/32", "10.1.2.3/32"]);
    assert_eq!(loaded.warnings.len(), 2);
}

#[test]
fn a_refusal_prints_all_findings_with_line_caret_and_help() {
    let refused = config::parse("mode: on\nscan_triger: 3\n", "a.yaml").unwrap_err();
    let text = refused.to_string();
    assert_eq!(
        text,
        "a.yaml:1:7: error: `mode` cannot be `on`\n    mode: on\n          ^\n    help: write one of enforce, observe\n\
         a.yaml:2:1: error: unknown key `scan_triger`\n    scan_triger: 3\n    ^\n    help: did you mean `scan_trigger`?"
    );
}

// P13
#[test]
fn no_text_of_a_file_reaches_a_terminal_unescaped() {
    let refused = config::parse(
        "mode: \"\\e[2J\u{202e}\"\n\"\u{85}\\u001b]0;x\": 1\n# \u{9b}31m\nnone: \u{9b}31m\n",
        "a\u{1b}[2J.yaml",
    )
    .unwrap_err();
    let text = refused.to_string();
    assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    let long = format!("{}: 1\nmode: {}\n", "k".repeat(900), "v".repeat(100_000));
    let text = config::parse(&long, "x").unwrap_err().to_string();
    assert!(text.lines().all(|line| line.len() < 400), "{text}");
}

#[test]
fn a_scalar_and_a_list_of_ports_and_port_zero_are_taken() {
    let ports = |text: &str| {
        config::parse(&format!("tcp: {{mode: stealth, ports: {text}}}\n"), "x")
            .unwrap()
            .config
            .tcp
            .ports
    };
    assert_eq!(ports("0-1023"), PortSet::range(0, 1023));
    assert_eq!(
        ports("[80, 20-25, \"443\", \"1 - 3\"]"),
        [20..=25, 80..=80, 443..=443, 1..=3].into_iter().collect()
    );
    assert_eq!(ports("[0, 1, 2, 3, 4]"), PortSet::range(0, 4));
    assert_eq!(ports("1-65535"), PortSet::range(1, 65535));
    let none = config::parse("tcp: {mode: off, ports: []}\n", "x").unwrap().config;
    assert_eq!((none.tcp.mode, none.tcp.ports), (PortMode::Off, PortSet::default()));
}

#[test]
fn an_empty_file_a_section_of_comments_and_a_file_with_a_byte_order_mark_are_fine() {
    for text in [
        "",
        "# nothing\n",
        "tcp:\n  # mode: off\nudp:\n",
        "\u{feff}mode: enforce\n",
        "mode: enforce\r\nresolve: false\r\n",
    ] {
        let loaded = config::parse(text, "x").unwrap_or_else(|refused| panic!("{refused}"));
        assert_eq!((loaded.config, loaded.warnings), (Config::default(), Vec::new()), "{text:?}");
    }
}

#[test]
fn an_empty_path_switches_a_file_off() {
    let config = config::parse("history_file: \"\"\nignore_file: \"\"\n", "x").unwrap().config;
    assert_eq!((config.history_file, config.ignore_file), (None, None));
}

#[test]
fn ipv6_prefix_of_earlier_versions_sets_both_lengths() {
    let ipv6 = |text: &str| config::parse(text, "x").unwrap().config.block.ipv6;
    assert_eq!(ipv6("block: { ipv6_prefix: 56 }\n"), Ipv6Accounts::of_one_length(56));
    assert_eq!(ipv6("block: { ipv6: { then: 56 } }\n"), Ipv6Accounts { first: 128, then: 56 });
    // It is not printed.
    let printed = config::parse("block: { ipv6_prefix: 56 }\n", "x").unwrap().config.to_yaml();
    assert!(!printed.contains("ipv6_prefix"), "{printed}");
    assert_eq!(ipv6(&printed), Ipv6Accounts::of_one_length(56));
}

#[test]
fn a_port_list_can_be_used_twice() {
    let config =
        config::parse("tcp:\n  ports: &p [1, 2, 79]\nudp:\n  ports: *p\n", "x").unwrap().config;
    assert_eq!(config.tcp.ports, config.udp.ports);
    assert_eq!(config.udp.ports, PortSet::of(&[1, 2, 79]));
}

#[test]
fn the_commented_default_is_the_default_and_has_every_key() {
    let text = std::fs::read_to_string(repository().join("contrib/portsentry.yaml")).unwrap();
    let loaded = config::parse(&text, "contrib/portsentry.yaml")
        .unwrap_or_else(|refused| panic!("{refused}"));
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config, Config::default());

    // Keys with their values, including commented ones (`# reflex: true`), and nothing else that
    // looks like a key.
    let (mut open, mut keys): (Vec<(usize, String)>, BTreeSet<String>) =
        (Vec::new(), BTreeSet::new());
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let bare = line.trim_start().strip_prefix("# ").unwrap_or(line.trim_start());
        let Some((name, value)) = bare.split_once(':') else { continue };
        let commented = line.trim_start().starts_with('#');
        let is_name = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
        open.retain(|(depth, _)| *depth < indent);
        let path: String =
            open.iter().map(|(_, name)| format!("{name}.")).chain([name.to_owned()]).collect();
        let known = KEYS.iter().find(|key| key.path == path);
        match (is_name, commented, value.trim()) {
            (true, false, "") => open.push((indent, name.to_owned())),
            (true, false, _) => assert!(known.is_some() && keys.insert(path.clone()), "{path}"),
            (true, true, value) if known.is_some_and(|key| key.default_text() == value) => {
                assert!(keys.insert(path.clone()), "{path}")
            }
            _ => {}
        }
    }
    assert_eq!(keys, KEYS.iter().map(|key| key.path.to_owned()).collect());
}

#[test]
fn every_key_is_known_to_the_parser_and_no_other() {
    for key in KEYS {
        let mut parts: Vec<_> = key.path.split('.').collect();
        let name = parts.pop().unwrap();
        let head: String = parts.iter().map(|part| format!("{part}: {{")).collect();
        let text = |name: &str| {
            format!("{head}{name}: {}{}\n", key.default_text(), "}".repeat(parts.len()))
        };
        let loaded = config::parse(&text(name), "x")
            .unwrap_or_else(|refused| panic!("{}: {refused}", key.path));
        assert_eq!(loaded.config, Config::default(), "{}", key.path);
        let refused = config::parse(&text(&format!("{name}_x")), "x").unwrap_err();
        assert!(refused.findings[0].message.contains("unknown key"), "{refused}");
    }
}

#[test]
fn the_bounds_of_the_table_hold() {
    for key in KEYS {
        let try_value = |value: &str| {
            let mut parts: Vec<_> = key.path.split('.').collect();
            let name = parts.pop().unwrap();
            let head: String = parts.iter().map(|part| format!("{part}: {{")).collect();
            match config::parse(&format!("{head}{name}: {value}{}\n", "}".repeat(parts.len())), "x")
            {
                Ok(_) => false,
                Err(refused) => {
                    refused.findings.iter().any(|finding| finding.message.contains("out of range"))
                }
            }
        };
        match key.kind {
            config::Kind::Number { min, max, .. } => {
                assert!(
                    !try_value(&min.to_string()) && !try_value(&max.to_string()),
                    "{}",
                    key.path
                );
                assert!(
                    try_value(&(i64::from(min) - 1).to_string())
                        && try_value(&(i64::from(max) + 1).to_string()),
                    "{}",
                    key.path
                );
            }
            config::Kind::Time { min, max, zero, .. } => {
                assert!(
                    !try_value(&format!("{}ms", min.as_millis()))
                        && !try_value(&format!("{}s", max.as_secs())),
                    "{}",
                    key.path
                );
                assert!(
                    try_value(&format!("{}ms", min.as_millis() - 1))
                        && try_value(&format!("{}s", max.as_secs() + 1)),
                    "{}",
                    key.path
                );
                assert_eq!(try_value("0"), zero.is_none(), "{}", key.path);
            }
            config::Kind::Size { min, max, .. } => {
                let kibibytes = |size: Size| size.0 >> 10;
                for (size, is_wrong) in [
                    (kibibytes(min), false),
                    (kibibytes(max), false),
                    (kibibytes(min) - 1, true),
                    (kibibytes(max) + 1, true),
                ] {
                    assert_eq!(try_value(&format!("{size}K")), is_wrong, "{} {size}K", key.path);
                }
            }
            _ => {}
        }
    }
}

fn word_of<T: Keyword + std::fmt::Debug>() -> impl Strategy<Value = T> {
    (0..T::KEYWORDS.len()).prop_map(|at| T::KEYWORDS[at].1)
}

fn ports() -> impl Strategy<Value = PortSet> {
    proptest::collection::vec((any::<u16>(), 0u16..200), 1..12).prop_map(|pairs| {
        pairs.into_iter().map(|(first, length)| first..=first.saturating_add(length)).collect()
    })
}

/// A stealth or advanced protocol that watches ports: contradictions have their own tests.
fn protocol() -> impl Strategy<Value = Protocol> {
    (word_of::<PortMode>(), ports(), ports(), ports(), word_of::<ProtocolAction>()).prop_map(
        |(mode, ports, advanced_ports, exclude, action)| {
            let ports =
                if mode == PortMode::Connect { ports.without(&PortSet::of(&[0])) } else { ports };
            let (ports, advanced_ports) = if ports.is_empty() {
                (PortSet::of(&[7]), advanced_ports)
            } else {
                (ports, advanced_ports)
            };
            let exclude = if advanced_ports.without(&exclude).is_empty() {
                PortSet::default()
            } else {
                exclude
            };
            Protocol { mode, ports, advanced_ports, exclude, action }
        },
    )
}

fn millis(from: u64, to: u64) -> impl Strategy<Value = Duration> {
    prop_oneof![
        (from..=to).prop_map(Duration::from_secs),
        (from * 1000..=to * 1000).prop_map(Duration::from_millis)
    ]
}

fn block() -> impl Strategy<Value = Block> {
    let times = (
        proptest::option::of(millis(1, 86_400)),
        millis(86_400, 365 * 86_400),
        millis(60, 365 * 86_400),
        millis(1, 3600),
    );
    (times, 1u32..=100, ipv6(), word_of(), 1u32..=100_000, 1u32..=10_000_000).prop_map(
        |((timeout, max, memory, unproven), factor, ipv6, action, per_minute, total)| Block {
            timeout,
            escalate: Escalate { factor, max, memory },
            ipv6,
            unproven: Unproven {
                action,
                timeout: timeout.map_or(unproven, |timeout| unproven.min(timeout)),
                per_minute,
            },
            total,
        },
    )
}

fn ipv6() -> impl Strategy<Value = Ipv6Accounts> {
    prop_oneof![
        (48u8..=128).prop_map(Ipv6Accounts::of_one_length),
        (48u8..=Ipv6Accounts::THEN_MAX, 1u8..=80)
            .prop_map(|(then, longer)| Ipv6Accounts { first: (then + longer).min(128), then }),
    ]
}

fn networks() -> impl Strategy<Value = Vec<ipnet::IpNet>> {
    let network = prop_oneof![
        (any::<std::net::Ipv4Addr>(), 0u8..=32).prop_map(|(address, bits)| ipnet::IpNet::new(
            address.into(),
            bits
        )
        .unwrap()
        .trunc()),
        (any::<std::net::Ipv6Addr>(), 0u8..=128).prop_map(|(address, bits)| ipnet::IpNet::new(
            address.into(),
            bits
        )
        .unwrap()
        .trunc()),
    ];
    proptest::collection::vec(network, 0..6).prop_map(|mut list| {
        let mut seen = BTreeSet::new();
        list.retain(|network| seen.insert(*network));
        list
    })
}

/// Entries of `allow` that are no networks.
fn other_allowed() -> impl Strategy<Value = Vec<Allowed>> {
    let allowed = |what, silent| Allowed { what, silent };
    let name = "[a-z0-9]{1,9}(\\.[a-z0-9]{1,9}){0,2}"
        .prop_map(move |name| allowed(Allowance::Name(name), false));
    let file = (path("allow"), any::<bool>()).prop_map(move |(path, silent)| {
        allowed(Allowance::File { path, networks: Vec::new() }, silent)
    });
    let interface = ("[a-z]{1,5}[0-9]{1,3}", any::<bool>())
        .prop_map(move |(name, silent)| allowed(Allowance::Interface(name), silent));
    proptest::collection::btree_map("[a-z]{8}", prop_oneof![name, file, interface], 0..4).prop_map(
        |entries| {
            // Each once.
            let mut unique: Vec<Allowed> = Vec::new();
            for entry in entries.into_values() {
                if !unique.contains(&entry) {
                    unique.push(entry);
                }
            }
            unique
        },
    )
}

fn path(name: &'static str) -> impl Strategy<Value = PathBuf> {
    "[^\u{0}-\u{1f}\u{7f}-\u{9f}]{0,20}"
        .prop_map(move |text| PathBuf::from(format!("/{name}/{text}")))
}

/// Text with everything that YAML may misread; without macros, which have braces.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[^{}$]{0,30}",
        "[ \\t\\n\\r\"'\\\\#:&*!|>%@`,\\[\\]~-]{0,12}",
        Just("true".to_owned()),
        Just("1e3".to_owned()),
        Just("~".to_owned())
    ]
}

fn respond() -> impl Strategy<Value = Respond> {
    let command = proptest::option::of((
        path("bin").prop_filter("macro", |p| !p.to_string_lossy().contains('{')),
        proptest::collection::vec(text().prop_map(|t| t.replace('\0', "")), 0..4),
    ));
    let command = command.prop_map(|command| {
        command.map_or_else(Vec::new, |(program, words)| {
            [vec![program.to_str().unwrap().to_owned()], words].concat()
        })
    });
    (
        command,
        // In any order, each once, and at least one.
        proptest::sample::subsequence(vec![CommandOn::Slowed, CommandOn::Blocked], 1..=2)
            .prop_shuffle(),
        word_of::<CommandWhen>(),
        millis(1, 3600),
        any::<bool>(),
        path("etc"),
        "([^{}$\\p{C}\\s#][^{}$\\p{C}]{0,19})?",
        text(),
    )
        .prop_map(
            |(command, command_on, command_when, command_timeout, enabled, path, line, banner)| {
                Respond {
                    command,
                    command_on,
                    command_when,
                    command_timeout,
                    hosts_deny: HostsDeny {
                        enabled,
                        path,
                        line: format!("{line}{{target}} : \"x\""),
                    },
                    banner,
                }
            },
        )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let endpoint = (
        "(https?://[a-z]{1,9}(:[1-9][0-9]{0,3})?/[a-z]{1,9})?",
        proptest::option::of(path("url")),
        proptest::option::of(path("token")),
    );
    endpoint.prop_map(|(url, url_file, token_file)| Endpoint {
        // One of them, and no token for neither.
        url_file: url_file.filter(|_| url.is_empty()),
        token_file: token_file.filter(|_| !url.is_empty()),
        url,
    })
}

fn notify() -> impl Strategy<Value = Notify> {
    let all = vec![NotifyOn::Reported, NotifyOn::Slowed, NotifyOn::Blocked, NotifyOn::Trouble];
    (
        millis(60, 86_400),
        proptest::sample::subsequence(all, 1..=4).prop_shuffle(),
        ("([a-z]{1,9}(@[a-z]{1,9})?(, [a-z]{1,9})?)?", "([a-z]{1,9})?", path("sendmail")),
        [endpoint(), endpoint()],
        (proptest::option::of(path("key")), "https://[a-z]{1,9}/[a-z]{0,9}"),
    )
        .prop_map(|(digest, on, (to, from, program), [webhook, ntfy], (key_file, url))| {
            Notify {
                digest,
                on,
                sendmail: Sendmail { to, from, program },
                webhook,
                ntfy,
                abuseipdb: AbuseIpDb { key_file, url },
            }
        })
}

fn configurations() -> impl Strategy<Value = Config> {
    let head = (
        word_of(),
        proptest::collection::btree_set("[a-z][a-z0-9.@_-]{0,14}", 0..4),
        word_of(),
        word_of(),
        any::<bool>(),
        (any::<u16>(), 1..=u16::MAX),
        word_of(),
        word_of(),
    );
    let detection = (protocol(), protocol(), 0u16..=1023, 1u16..=100, millis(1, 7 * 86_400));
    let never = (
        any::<[bool; 4]>(),
        ports().prop_map(|ports| ports.without(&PortSet::of(&[0]))),
        proptest::option::of(millis(1, 365 * 86_400)),
    );
    let log = (word_of(), word_of(), word_of(), word_of());
    let files = (
        proptest::option::of(path("ignore")),
        (
            proptest::option::of(path("history")),
            proptest::option::of(path("blocked")),
            proptest::option::of(millis(3600, 3650 * 86_400)),
            (1u64 << 20)..=(64 << 30),
        ),
        path("state"),
        path("run"),
        "([a-z_][a-z0-9_-]{0,10})?",
    );
    (
        head,
        detection,
        block(),
        never,
        (networks(), other_allowed(), millis(30, 86_400)),
        respond(),
        log,
        files,
        (
            notify(),
            any::<bool>(),
            proptest::option::of(path("country")),
            proptest::option::of(path("asn")),
        ),
        (word_of(), word_of()),
    )
        .prop_map(
            |(
                head,
                detection,
                block,
                never,
                (allow, other_allowed, allow_refresh),
                mut respond,
                log,
                files,
                (notify, resolve, country, asn),
                (on_exit, own_table),
            )| {
                let (tcp, udp, scan_trigger, sweep_trigger, scan_window) = detection;
                if respond.command.is_empty()
                    && [tcp.action, udp.action].contains(&ProtocolAction::Command)
                {
                    respond.command = vec!["/bin/true".to_owned()];
                }
                Config {
                    mode: head.0,
                    interfaces: head.1.into_iter().collect(),
                    closed_ports: head.2,
                    unwatched: head.6,
                    capture: Capture {
                        method: head.3,
                        reflex: head.4,
                        group: head.5.0,
                        decoy_port: head.5.1,
                    },
                    tcp,
                    udp,
                    scan_trigger,
                    sweep_trigger,
                    scan_window,
                    block,
                    campaign: Campaign { action: head.7 },
                    never_block: NeverBlock {
                        own_addresses: never.0[0],
                        gateways: never.0[1],
                        resolvers: never.0[2],
                        ssh_peers: never.0[3],
                        admin_ports: never.1,
                        admins: Admins { memory: never.2 },
                    },
                    // Read as IPv4, with a warning: not the printed text.
                    allow: allow
                        .into_iter()
                        .filter(|network| !network.to_string().starts_with("::ffff:"))
                        .zip([false, true].into_iter().cycle())
                        .map(|(network, silent)| Allowed { silent, ..Allowed::from(network) })
                        .chain(other_allowed)
                        .collect(),
                    allow_refresh,
                    ignore_file: files.0,
                    respond,
                    notify,
                    resolve,
                    geo: Geo { country, asn },
                    log: Log { target: log.0, format: log.1, level: log.2, facility: log.3 },
                    history_file: files.1.0,
                    blocked_file: files.1.1,
                    events: Events { keep: files.1.2, max: Size(files.1.3 >> 10 << 10) },
                    state_dir: files.2,
                    control: Control { socket: files.3, group: files.4 },
                    on_exit,
                    own_table,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_printed_configuration_reads_back_as_itself(config in configurations()) {
        let text = config.to_yaml();
        match config::parse(&text, "printed") {
            Ok(loaded) => {
                prop_assert_eq!(loaded.config.changes(&config), Vec::<String>::new());
                prop_assert_eq!(loaded.config, config);
            }
            Err(refused) => prop_assert!(false, "{refused}\n{text}"),
        }
    }

    // P8
    #[test]
    fn no_text_makes_the_parser_panic_or_wait(text in any::<String>()) {
        bounded(&text);
    }

    #[test]
    fn no_yaml_of_sorts_makes_the_parser_panic_or_wait(pieces in proptest::collection::vec(prop_oneof![
        proptest::sample::select(KEYS).prop_map(|key| key.path.rsplit('.').next().unwrap().to_owned()),
        proptest::sample::select(vec![
            ": ", ":\n", "\n", "\n  ", "\n    ", "- ", "[", "]", "{", "}", ", ", "? ", "&a ", "*a", "!!str ", "!x ", "|\n", ">-\n", "\"", "'", "#", "---\n",
            "...\n", "<<: ", "~", "%YAML 1.2\n", "0", "-1", "1-1023", "65536", "99999999999999999999", "1e999", ".nan", "true", "10m", "::/0", "10.0.0.0/8",
            "tcp: ", "udp: ", "block: ", "capture: ", "\t", "\r", "\u{feff}", "\u{0}", "\u{2028}", "{target}", "\\x", "ä",
        ]).prop_map(str::to_owned),
    ], 0..60)) {
        bounded(&pieces.concat());
    }

    #[test]
    fn no_default_with_a_piece_replaced_makes_the_parser_panic_or_wait(at in any::<proptest::sample::Index>(), length in 0usize..40, piece in ".{0,12}") {
        let text = Config::default().to_yaml();
        let at = at.index(text.len());
        let end = (at + length).min(text.len());
        bounded(&format!("{}{piece}{}", &text[..at], &text[end..]));
    }
}

/// Parses, prints the findings, and checks the properties that hold for any text.
fn bounded(text: &str) {
    let findings = match config::parse(text, "x") {
        Ok(loaded) => {
            assert!(loaded.warnings.iter().all(|finding| finding.severity == Severity::Warning));
            loaded.warnings
        }
        Err(refused) => {
            assert!(
                refused.findings.iter().any(|finding| finding.severity == Severity::Error),
                "{refused}"
            );
            refused.findings
        }
    };
    for finding in findings {
        let shown = finding.to_string();
        assert!(
            shown.len() < 4000 && !shown.chars().any(|c| c.is_control() && c != '\n'),
            "{shown:?}"
        );
        assert!(!finding.message.is_empty() && !finding.remedy.is_empty(), "{shown}");
    }
}

// P12
#[test]
fn large_files_full_of_mistakes_are_checked_within_bounds() {
    // Room for the key before a list.
    let many = |line: &str| line.repeat(262_000 / line.len());
    let keys: String = (0..20_000).map(|n| format!("key_{n}: x\n")).collect();
    let names: String = (0..15_000).map(|n| format!("if{n}, ")).collect();
    let texts = [
        keys,
        format!("interfaces: [{names}]\n"),
        many("mode: x\n"),
        format!("tcp:\n  ports: [{}]\n", many("70000, ").trim_end_matches(", ")),
        format!("tcp:\n  ports: [{}]\n", &many("1, ")[..250_000]),
        format!("allow: [{}1]\n", &many("x, ")[..250_000].trim_end()),
    ];
    for text in texts {
        let shown = match config::parse(&text, "x") {
            Ok(loaded) => loaded.warnings.len(),
            Err(refused) => refused.findings.len(),
        };
        assert!(shown <= 201, "{shown} findings");
        assert!(shown > 100 || text.starts_with("interfaces"), "{shown} findings");
    }
}
