//! The manual pages and the program agree in both directions: keys, options, commands, rules, exit
//! statuses, JSON.
//!
//! Log lines and events are compared with portsentry(8) in src/journal/format/manual.rs.

#[path = "../support/mdoc.rs"]
mod mdoc;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::{Arg, CommandFactory, Parser};
use jiff::Timestamp;
use portsentry::config::{
    Allowance, Allowed, CampaignAction, ClassicMode, ClosedPorts, Config, KEYS, Keyword, Method,
    Mode, PortMode, PortSet, Reload, UnprovenAction,
};
use portsentry::control::protocol::line;
use portsentry::control::{
    AllowRow, AllowedName, BlockRow, CampaignFigures, Cause, Causes, ConfigLoaded, GeoFiles,
    HistoryRow, ListRow, Observed, Outcome, PortName, PortUse, Proof, Queues, Reflex, Reply,
    Rights, Shown, Stamp, Standing, State, Status, Target, Tested, TestedPort, TouchedRow, Tracked,
    Watching, WouldBeRow,
};
use portsentry::ctl::Arguments;
use portsentry::daemon::options::Options;
use portsentry::helper::protocol::ChannelStatus;
use portsentry::journal::Record;
use portsentry::nft::model::{Chain, Hook, Owner, Ruleset};
use portsentry::nft::text::Form;
use portsentry::ruleset::{self, SCHEMA, SetId};
use serde_json::{Value, json};

use mdoc::{Item, PAGES, arguments, items, page, pattern, section, split_words};

const PORTSENTRY: &str = env!("CARGO_BIN_EXE_portsentry");
const PORTSENTRYCTL: &str = env!("CARGO_BIN_EXE_portsentryctl");

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn set<I: IntoIterator<Item = impl Into<String>>>(names: I) -> BTreeSet<String> {
    names.into_iter().map(Into::into).collect()
}

/// Whether `program` can be run; otherwise the test is skipped, which is a failure in CI.
fn is_there(program: &str) -> bool {
    let there = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|output| output.status.success());
    if !there {
        assert!(std::env::var_os("CI").is_none(), "SKIP {program} is not installed: not in CI");
        // Past the test runner, which hides the output of passing tests.
        let _ = writeln!(std::io::stderr(), "\nSKIP {program} is not installed");
    }
    there
}

fn complaints(output: &Output) -> String {
    // Missing pages of other programs are about this machine.
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text)
        .lines()
        .filter(|line| !line.contains("mandoc.db"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn mandoc_finds_nothing_wrong_with_the_pages() {
    if !is_there("mandoc") {
        return;
    }
    for name in PAGES {
        let output = Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(path("man").join(name))
            .output()
            .unwrap();
        assert!(
            output.status.success() && complaints(&output).is_empty(),
            "{name}:\n{}",
            complaints(&output)
        );
    }
}

#[test]
fn groff_finds_nothing_wrong_with_the_pages() {
    if !is_there("groff") {
        return;
    }
    for name in PAGES {
        let output = Command::new("groff")
            .args(["-mandoc", "-ww", "-b", "-Tutf8", "-z"])
            .arg(path("man").join(name))
            .output()
            .unwrap();
        assert!(
            output.status.success() && complaints(&output).is_empty(),
            "{name}:\n{}",
            complaints(&output)
        );
    }
}

#[test]
fn every_page_has_its_name_its_section_the_date_and_the_version_of_the_program() {
    let mut there = set(fs::read_dir(path("man"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap()));
    for name in PAGES {
        assert!(there.remove(name));
        let (title, number) = name.rsplit_once('.').unwrap();
        let page = page(name);
        let [date, names, system] = &page[..3] else { panic!("{name}") };
        assert_eq!(*names, format!(".Dt {} {number}", title.to_uppercase()));
        assert_eq!(*system, format!(".Os PortSentry {}", env!("CARGO_PKG_VERSION")));
        assert!(jiff::fmt::strtime::parse(".Dd %B %d, %Y", date).is_ok(), "{name}: {date}");
        assert!(page.contains(&format!(".Nm {title}")), "{name}");
    }
    assert!(there.is_empty(), "unknown to the tests: {there:?}");
}

#[test]
fn the_pages_lead_to_each_other_and_the_documents_to_them() {
    for name in PAGES {
        let page = page(name);
        let own = name.rsplit_once('.').unwrap();
        let named = |lines: &[String]| -> BTreeSet<(String, String)> {
            let macros = lines.iter().filter_map(|line| line.strip_prefix(".Xr ")).map(split_words);
            macros
                .map(|words| (words[0].clone(), words[1].clone()))
                .filter(|(title, _)| title.starts_with("portsentry"))
                .collect()
        };
        let others = PAGES
            .iter()
            .filter(|other| **other != name)
            .map(|other| other.rsplit_once('.').unwrap());
        let others: BTreeSet<_> =
            others.map(|(title, number)| (title.to_owned(), number.to_owned())).collect();
        assert_eq!(named(&section(&page, "SEE ALSO")), others, "{name}");
        assert!(
            named(&page).is_subset(&others),
            "{name} refers to {:?}",
            named(&page).difference(&others)
        );
        assert!(!own.0.is_empty());
        for document in ["README.md", "contrib/README.md"] {
            assert!(
                fs::read_to_string(path(document)).unwrap().contains(&format!("man/{name}")),
                "{document} does not name man/{name}"
            );
        }
    }
}

/// The text of a key's entry from `Type: ` or `Default: ` to the full stop before the next
/// paragraph.
fn stated(item: &Item, what: &str) -> String {
    let head: Vec<&str> =
        item.body.iter().map(String::as_str).take_while(|line| *line != ".Pp").collect();
    let paragraphs = head.split(|line| *line == ".br").map(|lines| lines.join(" "));
    let found: Vec<String> = paragraphs
        .filter_map(|text| Some(text.strip_prefix(what)?.strip_suffix('.')?.to_owned()))
        .collect();
    assert_eq!(found.len(), 1, "{}: {what}", item.head);
    found[0].clone()
}

/// The entries of KEYS, without the macros at the end.
fn keys() -> Vec<Item> {
    items(&section(&page("portsentry.yaml.5"), "KEYS"))
        .into_iter()
        .filter(|item| item.subsection != "Macros")
        .collect()
}

#[test]
fn every_key_has_its_entry_and_every_entry_is_a_key() {
    let entries = keys();
    let told: Vec<String> = entries.iter().map(|item| pattern(&item.head)).collect();
    let wanted: Vec<String> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    assert_eq!(told, wanted, "in the order of the file");
    for (item, key) in entries.iter().zip(KEYS) {
        assert_eq!(stated(item, "Type: "), key.kind.to_string(), "{}", key.path);
        assert_eq!(stated(item, "Default: "), key.default_text(), "{}", key.path);
        let restart = item.body.iter().any(|line| line == "Needs a restart.");
        assert_eq!(restart, key.reload == Reload::Restart, "{}", key.path);
        assert!(
            item.body.iter().skip_while(|line| *line != ".Pp").count() > 1,
            "{} says nothing",
            key.path
        );
    }
}

#[test]
fn every_keyword_of_a_key_is_explained() {
    for (item, key) in keys().iter().zip(KEYS) {
        let kind = key.kind.to_string();
        let words: Vec<&str> = kind.split(" | ").collect();
        // true and false, levels, facilities and targets explain themselves.
        if words.len() < 2
            || words[0] == "true"
            || key.path.starts_with("log.")
            || ["udp.mode", "udp.action", "respond.command_when"].contains(&key.path)
        {
            continue;
        }
        let explained = arguments(&item.body, "Ql");
        assert!(
            words.iter().all(|word| *word == "off" || explained.contains(*word)),
            "{}: {words:?}, {explained:?}",
            key.path
        );
    }
}

#[test]
fn the_macros_are_those_that_are_replaced() {
    let entries = items(&section(&page("portsentry.yaml.5"), "KEYS"));
    let told: Vec<String> = entries
        .iter()
        .filter(|item| item.subsection == "Macros")
        .map(|item| pattern(&item.head))
        .collect();
    let check = |word: &str| {
        portsentry::config::parse(&format!("respond: {{command: [/bin/true, \"{word}\"]}}"), "x")
    };
    let refused = check("{unknown}").unwrap_err().findings.remove(0);
    let (_, known) = refused.remedy.split_once("known are ").unwrap();
    assert_eq!(told, known.split(' ').collect::<Vec<_>>());
    let accepted = |word: &str| check(word).is_ok();
    assert!(told.iter().all(|word| accepted(word)) && !accepted("{other}"));
}

/// The literal displays of a section.
fn displays(lines: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for block in lines.split(|line| line.starts_with(".Bd")).skip(1) {
        found.push(
            block.iter().take_while(|line| *line != ".Ed").cloned().collect::<Vec<_>>().join("\n"),
        );
    }
    found
}

#[test]
fn the_examples_of_the_configuration_are_good() {
    let examples = displays(&section(&page("portsentry.yaml.5"), "EXAMPLES"));
    assert!(examples.len() >= 3);
    for example in examples {
        let loaded = portsentry::config::parse(&example, "example")
            .unwrap_or_else(|refused| panic!("{refused}"));
        assert_ne!(loaded.config, Config::default());
    }
    let ignored = displays(&section(&page("portsentry.yaml.5"), "THE IGNORE FILE")).concat();
    let list = portsentry::config::classic::ignore::parse(ignored.as_bytes(), Path::new("example"));
    assert!(list.findings.is_empty() && list.entries.len() == 3, "{list:?}");
}

fn long(arg: &Arg) -> Option<String> {
    arg.get_long().filter(|_| !arg.is_hide_set()).map(|name| format!("-{name}"))
}

/// The long options in the entries of a list, as `Fl` has them, and whether each takes a value.
fn told_options<'i>(entries: impl Iterator<Item = &'i Item>) -> BTreeMap<String, bool> {
    let flags = |head: &str| {
        arguments(&[format!(".{head}")], "Fl")
            .into_iter()
            .filter(|name| name.starts_with('-'))
            .collect::<Vec<_>>()
    };
    entries
        .flat_map(|item| {
            flags(&item.head)
                .into_iter()
                .map(|name| (name, split_words(&item.head).contains(&"Ar".to_owned())))
        })
        .collect()
}

fn options<'a>(args: impl Iterator<Item = &'a Arg>) -> BTreeMap<String, bool> {
    args.filter_map(|arg| Some((long(arg)?, arg.get_action().takes_values()))).collect()
}

/// Added by clap.
fn with_help(mut options: BTreeMap<String, bool>) -> BTreeMap<String, bool> {
    options.extend([("-help".to_owned(), false), ("-version".to_owned(), false)]);
    options
}

#[test]
fn every_option_and_mode_word_of_the_daemon_is_in_its_page_and_no_others() {
    let page = page("portsentry.8");
    let entries = items(&section(&page, "DESCRIPTION"));
    let command = Options::command();
    assert_eq!(command.get_subcommands().filter(|command| !command.is_hide_set()).count(), 0);
    let wanted = with_help(options(command.get_arguments()));
    assert_eq!(told_options(entries.iter().filter(|item| item.subsection == "Options")), wanted);
    let modes = set(entries
        .iter()
        .filter(|item| item.subsection == "Classic modes")
        .map(|item| format!("-{}", pattern(&item.head))));
    assert_eq!(modes, set(ClassicMode::ALL.map(|mode| format!("-{}", mode.word()))));
    let synopsis = arguments(&section(&page, "SYNOPSIS"), "Fl");
    let all: BTreeSet<String> =
        wanted.into_keys().chain(modes.iter().map(|word| word[1..].to_owned())).collect();
    assert_eq!(synopsis, all);
}

/// Keys that stand beside those in words: the page describes them once for all documents.
const TYPED: [&str; 6] = [
    "target_port",
    "target_ports",
    "service_ports",
    "port_ranges",
    "explanation",
    "not_blocked_because",
];

/// Every key of a JSON document.
fn json_keys(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(pairs) => {
            for (key, value) in pairs.iter().filter(|(key, _)| !TYPED.contains(&key.as_str())) {
                found.insert(key.clone());
                json_keys(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| json_keys(value, found)),
        _ => {}
    }
}

#[test]
fn options_statuses_and_keys_of_replay_are_those_of_its_page() {
    let page = page("portsentry-replay.1");
    let entries = items(&section(&page, "DESCRIPTION"));
    let wanted =
        with_help(options(portsentry::replay::options::Options::command().get_arguments()));
    assert_eq!(told_options(entries.iter().filter(|item| item.subsection == "Options")), wanted);
    assert_eq!(arguments(&section(&page, "SYNOPSIS"), "Fl"), wanted.into_keys().collect());
    let told = set(items(&section(&page, "EXIT STATUS")).into_iter().map(|item| item.head));
    let help = Command::new(PORTSENTRY).args(["replay", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let statuses = help.split("Exit status:").nth(1).unwrap().split(|c: char| !c.is_ascii_digit());
    assert_eq!(told, set(statuses.filter(|number| !number.is_empty())));

    // Three closed ports, and a record that is cut off.
    let mut capture = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0];
    capture.extend([101, 0, 0, 0]);
    for (second, port) in (0u8..).zip([21, 23, 25, 26]) {
        capture.extend([second * 20, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 40, 0, 0, 0]);
        capture.extend([0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 203, 0, 113, 9, 192, 0, 2, 1]);
        capture.extend([0x9c, 0x40, 0, port, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 4, 0, 0, 0, 0, 0]);
    }
    capture.push(0);
    let mut config = Config::default();
    config.block.unproven.action = UnprovenAction::Block;
    let report = portsentry::replay::report_on(&[&capture], &[], &config).unwrap();
    let mut keys = BTreeSet::new();
    json_keys(&serde_json::from_str(&report).unwrap(), &mut keys);
    assert!(keys.contains("until") && keys.contains("offset"), "{report}");
    assert_eq!(arguments(&section(&page, "JSON"), "Ic"), keys);
}

/// The commands of portsentryctl, including `allow add`, each with its options.
fn commands() -> BTreeMap<String, BTreeMap<String, bool>> {
    let mut found = BTreeMap::new();
    for command in Arguments::command().get_subcommands() {
        let below: Vec<_> = command.get_subcommands().collect();
        if below.is_empty() || !command.is_subcommand_required_set() {
            found.insert(command.get_name().to_owned(), options(command.get_arguments()));
        }
        for inner in below {
            found.insert(
                format!("{} {}", command.get_name(), inner.get_name()),
                options(inner.get_arguments()),
            );
        }
    }
    found
}

/// `allow add` of `Cm allow add Ar address`.
fn command_name(head: &str) -> String {
    let words = split_words(head);
    words[1..]
        .iter()
        .take_while(|word| {
            word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
        })
        .cloned()
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn every_command_and_option_of_portsentryctl_is_in_its_page_and_no_others() {
    let page = page("portsentryctl.8");
    let all = options(Arguments::command().get_arguments());
    assert_eq!(told_options(items(&section(&page, "DESCRIPTION")).iter()), with_help(all.clone()));
    let mut told: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    for item in items(&section(&page, "COMMANDS")).iter().filter(|item| item.depth == 1) {
        let inner = items(&item.body);
        let options = told_options(inner.iter());
        // Values in the synopsis are explained below it.
        let head = arguments(&[format!(".It {}", item.head)], "Fl");
        assert_eq!(head, options.keys().cloned().collect(), "{}", item.head);
        told.insert(command_name(&item.head), options);
    }
    // clap makes this one.
    assert!(told.remove("help").is_some());
    assert_eq!(told, commands());
    let synopsis = arguments(&section(&page, "SYNOPSIS"), "Fl");
    assert_eq!(
        synopsis,
        commands().into_values().flatten().chain(all).map(|(name, _)| name).collect()
    );
}

/// The words of a shell line, as far as the examples need it.
fn shell_words(line: &str) -> Vec<String> {
    split_words(&line.replace("\\(dq", "\"").replace("\\(aq", "'"))
        .into_iter()
        .take_while(|word| word != "|")
        .collect()
}

#[test]
fn every_command_of_portsentryctl_has_an_example_and_every_example_is_understood() {
    let mut shown = BTreeSet::new();
    let lines: Vec<String> = PAGES.iter().flat_map(|name| page(name)).collect();
    let examples = lines
        .iter()
        .filter_map(|line| line.strip_prefix(".Dl # ").or_else(|| line.strip_prefix("# ")));
    for example in examples.filter(|line| line.starts_with("portsentryctl ")) {
        let words = shell_words(example);
        Arguments::try_parse_from(&words).unwrap_or_else(|error| panic!("{example}: {error}"));
        let names: Vec<&str> =
            words[1..].iter().filter(|word| !word.starts_with('-')).map(String::as_str).collect();
        let both = names[..names.len().min(2)].join(" ");
        shown.insert(if commands().contains_key(&both) { both } else { names[0].to_owned() });
    }
    assert_eq!(shown, commands().into_keys().collect());
    let daemon = lines.iter().filter_map(|line| {
        line.strip_prefix(".Dl # portsentry ").or_else(|| line.strip_prefix("# portsentry "))
    });
    for example in daemon {
        let words =
            std::iter::once("portsentry".to_owned()).chain(shell_words(example)).map(Into::into);
        Options::parse_words(words).unwrap_or_else(|error| panic!("{example}: {error}"));
    }
}

#[test]
fn exit_statuses_are_those_of_the_programs() {
    let numbers = |text: &str| -> BTreeSet<u8> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
    };
    for (name, program) in [("portsentry.8", PORTSENTRY), ("portsentryctl.8", PORTSENTRYCTL)] {
        let told: BTreeSet<u8> = items(&section(&page(name), "EXIT STATUS"))
            .iter()
            .map(|item| item.head.parse().unwrap())
            .collect();
        let help = Command::new(program).arg("--help").output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        assert_eq!(told, numbers(help.split("Exit status:").nth(1).unwrap()), "{name}");
    }
    let source = fs::read_to_string(path("src/daemon/mod.rs")).unwrap();
    let constants = source
        .lines()
        .filter_map(|line| line.strip_prefix("const EX_")?.split_once(" = "))
        .map(|(_, value)| value);
    let mut wanted: BTreeSet<u8> = constants.flat_map(numbers).collect();
    wanted.insert(0);
    assert_eq!(
        items(&section(&page("portsentry.8"), "EXIT STATUS"))
            .iter()
            .map(|item| item.head.parse().unwrap())
            .collect::<BTreeSet<u8>>(),
        wanted
    );
}

#[test]
fn the_signals_are_those_that_the_daemon_hears() {
    let told: BTreeSet<String> = items(&section(&page("portsentry.8"), "SIGNALS"))
        .iter()
        .flat_map(|item| arguments(&[format!(".{}", item.head)], "Dv"))
        .collect();
    let source = fs::read_to_string(path("src/sys/signals.rs")).unwrap();
    let import = source.lines().find(|line| line.starts_with("use signal_hook::consts::")).unwrap();
    assert_eq!(
        told,
        set(import
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| word.starts_with("SIG")))
    );
}

#[test]
fn the_kinds_of_events_in_the_history_are_those_that_are_stored() {
    let history = items(&section(&page("portsentryctl.8"), "COMMANDS"));
    let kind = history.iter().find(|item| item.head.starts_with("Fl -kind")).unwrap();
    assert_eq!(
        arguments(&kind.body, "Ql"),
        set(portsentry::journal::record::KINDS.iter().copied())
    );
    let result = history.iter().find(|item| item.head.starts_with("Fl -result")).unwrap();
    let results = portsentry::journal::record::Effect::ALL.map(|effect| effect.word());
    assert_eq!(arguments(&result.body, "Ql"), set(results));
}

/// Where packages put a file of the tree.
fn packaged(file: &str) -> PathBuf {
    let list = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/packages/files");
    let list = fs::read_to_string(list).unwrap();
    let mut lines = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words.get(1) == Some(&file)).unwrap();
    line[2].into()
}

#[test]
fn the_files_are_where_the_configuration_has_them() {
    let config = Config::default();
    let page = page("portsentry.8");
    let told: BTreeSet<String> =
        items(&section(&page, "FILES")).iter().map(|item| pattern(&item.head)).collect();
    let wanted = [
        PathBuf::from(portsentry::config::DEFAULT_PATH),
        PathBuf::from(portsentry::config::DEFAULT_PATH).with_file_name("conf.d/*.yaml"),
        config.ignore_file.unwrap(),
        config.history_file.unwrap(),
        config.state_dir.join("allowed"),
        config.state_dir.join("allowed-names"),
        config.state_dir.join(portsentry::store::FILE),
        config.state_dir.join(portsentry::store::COPY),
        config.state_dir.join(portsentry::store::events::FILE),
        config.control.socket,
        // Where the package has it.
        packaged("release/portsentry-notify"),
    ];
    assert_eq!(told, set(wanted.iter().map(|path| path.to_str().unwrap())));
}

#[test]
fn the_errors_of_the_start_are_those_in_the_sources() {
    fn walk(directory: &Path, text: &mut String) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, text)
            } else {
                text.push_str(&fs::read_to_string(path).unwrap())
            }
        }
    }
    let mut sources = String::new();
    walk(&path("src"), &mut sources);
    let start = items(&section(&page("portsentry.8"), "DIAGNOSTICS"))
        .into_iter()
        .filter(|item| item.subsection == "When it does not start");
    let errors: Vec<Item> =
        start.chain(items(&section(&page("portsentryctl.8"), "DIAGNOSTICS"))).collect();
    assert!(errors.len() >= 8);
    for item in errors {
        // The page has the value of a constant as a number.
        let text = pattern(&item.head).replace("30 seconds", "\u{1} seconds");
        for piece in text.split(mdoc::WILD).map(str::trim).filter(|piece| !piece.is_empty()) {
            assert!(sources.contains(piece), "no source says {piece:?}");
        }
    }
}

/// Configurations that together need every part of the rules.
fn rulesets() -> Vec<Ruleset> {
    let with = |change: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        ruleset::for_config(&config, 32768..=60999)
    };
    vec![
        with(&|_| ()),
        with(&|config| config.mode = Mode::Observe),
        with(&|config| config.scan_trigger = 0),
        with(&|config| config.block.unproven.action = UnprovenAction::Block),
        with(&|config| config.capture.reflex = false),
        with(&|config| config.closed_ports = ClosedPorts::Answer),
        with(&|config| config.interfaces = vec!["eth0".to_owned()]),
        with(&|config| config.allow.iter_mut().for_each(|allowed| allowed.silent = true)),
        with(&|config| {
            let what = Allowance::Interface("wg0".to_owned());
            config.allow.push(Allowed { what, silent: true });
        }),
        with(&|config| config.udp.mode = PortMode::Off),
        with(&|config| config.campaign.action = CampaignAction::Slow),
        with(&|config| {
            (config.tcp.mode, config.tcp.ports) = (PortMode::Connect, PortSet::range(1, 9))
        }),
        with(&|config| (config.tcp.mode, config.udp.mode) = (PortMode::Connect, PortMode::Connect)),
    ]
}

#[test]
fn every_set_is_in_the_page_with_its_key_and_who_fills_it_and_no_others() {
    let entries = items(&section(&page("portsentry-rules.7"), "SETS"));
    let told: BTreeMap<String, String> =
        entries.iter().map(|item| (pattern(&item.head), item.body.join(" "))).collect();
    assert_eq!(told.keys().cloned().collect::<BTreeSet<_>>(), set(SetId::ALL.map(SetId::name)));
    let mut seen = BTreeSet::new();
    for ruleset in rulesets() {
        let text = ruleset.render(SCHEMA.table, Form::Table);
        for declared in &ruleset.sets {
            let name = declared.id.name;
            let kind = text
                .split(&format!("\tset {name} {{\n\t\ttype "))
                .nth(1)
                .unwrap()
                .lines()
                .next()
                .unwrap();
            let filler = match declared.owner {
                Owner::Config => "configuration",
                Owner::Daemon => "daemon",
                Owner::Rules => "rules",
            };
            assert!(
                told[name].starts_with(&format!("Key: {kind}. Filled by the {filler}.")),
                "{name}: {kind}, {filler}: {}",
                told[name]
            );
            seen.insert(name.to_owned());
        }
    }
    assert_eq!(seen, told.into_keys().collect(), "a set that none of these configurations has");
}

#[test]
fn every_chain_is_in_the_page_with_its_hook_and_no_others() {
    let entries = items(&section(&page("portsentry-rules.7"), "CHAINS"));
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    for item in &entries {
        told.extend(
            arguments(&[format!(".{}", item.head)], "Ic")
                .into_iter()
                .map(|name| (name, item.body.join(" "))),
        );
    }
    let mut seen = BTreeSet::new();
    for Chain { name, base, .. } in rulesets().iter().flat_map(|ruleset| &ruleset.chains) {
        let body =
            told.get(*name).unwrap_or_else(|| panic!("portsentry-rules(7) has no chain {name}"));
        match base {
            None => assert!(!body.contains("Hook:"), "{name} has no hook"),
            Some(base) => {
                let hook = match base.hook {
                    Hook::Prerouting => "prerouting",
                    Hook::Input => "input",
                    Hook::Forward => "forward",
                    Hook::Output => "output",
                };
                assert!(
                    body.starts_with(&format!("Hook: {hook}, priority {}.", base.priority)),
                    "{name}: {body}"
                );
                // The picture of a packet's way has it too.
                let row = |line: &String| {
                    line.split_whitespace().take(3).eq([*name, hook, &base.priority.to_string()])
                };
                assert!(
                    section(&page("portsentry-rules.7"), "DESCRIPTION").iter().any(row),
                    "{name} is not in the picture"
                );
            }
        }
        seen.insert((*name).to_owned());
    }
    let extra: Vec<&String> = told.keys().filter(|name| !seen.contains(*name)).collect();
    assert!(extra.is_empty(), "chains that no configuration has: {extra:?}");
}

/// The output of `portsentryctl --json` for one answer of a daemon.
fn shown(reply: &Reply, arguments: &[&str]) -> Value {
    shown_after(&[], reply, arguments)
}

/// The same where connections before it get these answers.
fn shown_after(earlier: &[Reply], reply: &Reply, arguments: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let answer = line(reply).unwrap();
    let earlier: Vec<String> = earlier.iter().map(|reply| line(reply).unwrap()).collect();
    let daemon = std::thread::spawn(move || {
        let mut open = Vec::new();
        for answer in earlier {
            let (mut client, _) = listener.accept().unwrap();
            BufReader::new(client.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
            client.write_all(answer.as_bytes()).unwrap();
            open.push(client);
        }
        let (mut client, mut requests) = loop {
            let (mut client, _) = listener.accept().unwrap();
            let (mut requests, mut request) =
                (BufReader::new(client.try_clone().unwrap()), String::new());
            requests.read_line(&mut request).unwrap();
            // Some ask that before what they are for.
            if !request.contains("\"geo\"") {
                break (client, requests);
            }
            let none = line(&Reply::Geo(GeoFiles::default())).unwrap();
            client.write_all(none.as_bytes()).unwrap();
        };
        client.write_all(answer.as_bytes()).unwrap();
        // `show` asks for the history as well.
        if requests.read_line(&mut String::new()).is_ok_and(|bytes| bytes > 0) {
            let none = line(&Reply::History { rows: Vec::new(), more: false }).unwrap();
            client.write_all(none.as_bytes()).unwrap();
        }
    });
    let output = Command::new(PORTSENTRYCTL)
        .args(["--json", "--socket"])
        .arg(&socket)
        .args(arguments)
        .output()
        .unwrap();
    daemon.join().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn import(arguments: &[&str]) -> Value {
    let output =
        Command::new(PORTSENTRYCTL).args(["--json", "import"]).args(arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The keys of an object, or of the first object of an array, including nested ones.
fn keys_of(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Array(rows) => keys_of(&rows[0]),
        Value::Object(object) => {
            let plain = || object.iter().filter(|(key, _)| !TYPED.contains(&key.as_str()));
            let inner = plain().map(|(_, value)| value).filter(|value| {
                value.is_object()
                    || value.as_array().is_some_and(|rows| rows.iter().any(Value::is_object))
            });
            plain().map(|(key, _)| key.clone()).chain(inner.flat_map(keys_of)).collect()
        }
        other => panic!("{other}"),
    }
}

/// `kernel::slowed` holds what it says of the customer.
#[test]
fn the_table_of_choices_has_each_that_changes_what_a_forged_address_suffers() {
    let section = section(&page("portsentry.8"), "SECURITY CONSIDERATIONS");
    let table = section.iter().skip_while(|line| *line != ".Bd -literal").skip(1);
    let table: Vec<&str> = table.take_while(|line| *line != ".Ed").map(String::as_str).collect();
    // The first column, a choice after each blank line.
    let column = |line: &&str| line.get(..18).unwrap_or(line).trim().to_owned();
    let choices: Vec<String> = table[2..]
        .split(|line| line.is_empty())
        .map(|rows| rows.iter().map(column).collect::<Vec<_>>().concat().replace(": ", ":"))
        .collect();
    let unproven = UnprovenAction::KEYWORDS;
    let mut wanted: Vec<String> =
        unproven.iter().map(|(word, _)| format!("block.unproven.action:{word}")).collect();
    wanted.push(format!("mode:{}", Mode::Observe.word()));
    wanted.push("scan_trigger:0".to_owned());
    wanted.push(format!("capture.method:{}", Method::Nfqueue.word()));
    wanted.push(format!("tcp.mode:{}", PortMode::Connect.word()));
    let told: Vec<String> = choices.iter().map(|of| of.replace("(default)", "")).collect();
    assert_eq!(set(told), set(wanted));
    let default: Vec<&String> = choices.iter().filter(|of| of.contains("(default)")).collect();
    let action = Config::default().block.unproven.action.word();
    assert_eq!(default, [&format!("block.unproven.action:{action}(default)")]);
}

#[test]
fn the_json_of_every_command_has_the_keys_of_the_page_and_no_others() {
    let stamp = Stamp(Timestamp::UNIX_EPOCH);
    let address = Target::Address(IpAddr::from([192, 0, 2, 7]));
    let block = BlockRow {
        address,
        state: State::Blocked,
        cause: Cause::Order,
        reason: "by hand".into(),
        scan: None,
        proven: true,
        since: Some(stamp),
        until: None,
        expires_in: None,
        packets: Some(0),
        passed: Some(0),
        renewals: 0,
        exempt: Vec::new(),
        campaign: Some(CampaignFigures {
            program: None,
            sources: 8,
            ports: 16,
            port: "tcp/22".into(),
            scanner: IpAddr::from([192, 0, 2, 7]),
        }),
        list: None,
    };
    let allowed = AllowRow::new(address, "allow");
    let watching =
        Watching { transport: "tcp".into(), mode: "stealth".into(), ports: 1, ranges: "1".into() };
    let status = Status {
        watching: vec![watching],
        reflex: Some(Reflex::default()),
        queues: Some(Queues::default()),
        causes: Some(Causes::default()),
        confinement: vec![Rights::default()],
        tracked: Some(Tracked::default()),
        loaded: Some(ConfigLoaded { at: stamp, ok: true }),
        notifications: vec![ChannelStatus::default()],
        allowed_names: vec![AllowedName::default()],
        ..Status::default()
    };
    let touched =
        TouchedRow { at: stamp, port: "tcp/1".into(), scan: "syn".into(), weight: "counts".into() };
    let record = Record::new(Timestamp::UNIX_EPOCH, "slowed");
    let history = HistoryRow { touched: vec![touched.clone()], ..HistoryRow::from(record) };
    let known = Shown {
        address,
        observed: false,
        block: None,
        exempt_from: None,
        allowed: None,
        allowed_in_prefix: None,
        ports: vec!["tcp/1".into()],
        touched: 1,
        scans: vec!["syn".into()],
        proven: false,
        first_seen: Some(stamp),
        last_seen: Some(stamp),
        blocks_before: 0,
        proof: Some(Proof { bits: 9, needed: 16, silent: 9, answered: 0, blind: false }),
        campaign: None,
        probes: vec![touched],
        trigger: 2,
        standing: Some(Standing::Counted),
    };
    let port = TestedPort {
        port: PortName("tcp/1".parse().unwrap()),
        use_of: PortUse::Watched,
        outcome: Outcome::Dropped,
        is_probe: true,
    };
    let tested = Tested {
        address,
        standing: Standing::Counted,
        observed: false,
        allowed: None,
        allowed_in_prefix: None,
        block: None,
        exempt_from: None,
        touched: 1,
        trigger: 2,
        interfaces: Vec::new(),
        ports: vec![port],
    };
    let would_be = WouldBeRow {
        address,
        would_be: State::Slowed,
        scan: None,
        proven: false,
        reason: "syn scan".into(),
        since: stamp,
        last_seen: stamp,
        probes: 1,
        network: None,
        services: Vec::new(),
        allowed: None,
    };
    let observed = Observed {
        mode: "observe".into(),
        since: stamp,
        slowed: 1,
        blocked: 0,
        forgotten: 0,
        sources: vec![would_be],
    };
    let list = ListRow { name: "l".into(), blocks: 1, until: None, expires_in: None };
    let done = Reply::Done { message: "done".into() };
    let classic = path("tests/classic/upstream.conf");
    let classic = classic.to_str().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let new = directory.path().join("new.yaml");
    let printed = import(&[classic, "--print"]);
    let written = import(&[classic, "--output", new.to_str().unwrap()]);
    assert_eq!(keys_of(&printed), keys_of(&written));
    assert!(printed["yaml"].is_string() && written["yaml"].is_null());
    let names = vec![AllowedName::default()];
    let allowed = Reply::Allowed { rows: vec![allowed], names, interfaces: Vec::new() };
    let documents = [
        ("status", shown(&Reply::Status(Box::new(status)), &["status"])),
        ("observe report", shown(&Reply::Observed(Box::new(observed)), &["observe", "report"])),
        ("list", shown(&Reply::Blocks { rows: vec![block], more: false }, &["list"])),
        ("show", shown(&Reply::Shown(Box::new(known)), &["show", "192.0.2.7"])),
        ("test", shown(&Reply::Tested(Box::new(tested)), &["test", "192.0.2.7", "1"])),
        ("lists", shown(&Reply::Lists { rows: vec![list] }, &["lists"])),
        ("allow list", shown(&allowed, &["allow", "list"])),
        ("history", shown(&Reply::History { rows: vec![history], more: false }, &["history"])),
        ("report", {
            let record = Record::new(Timestamp::UNIX_EPOCH, "scan");
            let row = HistoryRow { address: Some(address), ..HistoryRow::from(record) };
            let row = HistoryRow { port: 22, protocol: "TCP".into(), ..row };
            let reply = Reply::History { rows: vec![row], more: false };
            shown(&reply, &["report", "--since", "1970-01-01T00:00Z", "--until", "1970-01-02"])
        }),
        ("rules", shown(&Reply::Rules { text: "table".into() }, &["rules"])),
        ("check", {
            let output =
                Command::new(PORTSENTRYCTL).args(["--json", "check"]).arg(&new).output().unwrap();
            serde_json::from_slice(&output.stdout).unwrap()
        }),
        ("import", printed),
        ("block", shown(&done, &["block", "192.0.2.7"])),
        ("unblock", shown(&done, &["unblock", "192.0.2.7"])),
        ("allow add", shown(&done, &["allow", "add", "192.0.2.7"])),
        ("allow remove", shown(&done, &["allow", "remove", "192.0.2.7"])),
        ("enforce", shown(&done, &["enforce"])),
        ("observe", shown(&done, &["observe"])),
        ("off", shown(&done, &["off"])),
        ("pause", shown(&done, &["pause", "10m"])),
        ("on", shown(&done, &["on"])),
        ("reload", shown(&done, &["reload"])),
        (
            "test-response",
            shown_after(
                &[Reply::Watching {}],
                &Reply::Testing { command: None, hosts_deny: false, notify: Vec::new() },
                &["test-response"],
            ),
        ),
    ];
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    // The keys of an object may have their own list, within the entry of its command.
    for item in items(&section(&page("portsentryctl.8"), "JSON OUTPUT"))
        .into_iter()
        .filter(|item| item.depth == 1)
    {
        let names = item.head.strip_prefix("Ic ").unwrap();
        told.extend(names.split(" , ").map(|name| (name.to_owned(), arguments(&item.body, "Cm"))));
    }
    let typed = arguments(&section(&page("portsentryctl.8"), "JSON OUTPUT"), "Ql");
    assert!(TYPED.iter().all(|key| typed.contains(*key)), "{typed:?}");
    // Its objects are events: portsentry(8) has their keys.
    assert_eq!(told.remove("watch"), Some(BTreeSet::new()));
    // Its form is Prometheus'.
    assert_eq!(told.remove("metrics"), Some(BTreeSet::new()));
    // It is a screen.
    assert_eq!(told.remove("top"), Some(BTreeSet::new()));
    let wanted: BTreeMap<String, BTreeSet<String>> =
        documents.iter().map(|(name, document)| ((*name).to_owned(), keys_of(document))).collect();
    assert_eq!(told, wanted);
    assert_eq!(wanted.len() + 3, commands().len(), "a command without a document here");
    let (_, done) = documents.iter().find(|(name, _)| *name == "block").unwrap();
    assert_eq!(json!({"message": "done"}), *done);
}
