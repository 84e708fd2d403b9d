//! Translates classic keys into ours, each with its origin and, where the meaning differs, with the
//! difference.

mod modes;
mod respond;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use ipnet::IpNet;

use super::super::diagnostic::{Finding, Findings, escaped, shown};
use super::super::trust::quoted as shell_quoted;
use super::super::written::{ports as port_list, quoted};
use super::super::{Config, Keyword, PortMode, PortSet, values as new_values};
use super::parse::{Defaults, Edition, Entries, Entry};
use super::write::{Document, Value};
use super::{Request, Source, ignore, keys, values};

/// Text at the head of every imported file.
pub(super) const DIFFERENCES: &[&str] = &[
    "A block is an element in an nftables set, for IPv4 and IPv6, and ends; the old program never took one back. Who has completed handshakes with \
     decoys (connect mode) is blocked for an hour, and for longer each further time; `block: {timeout: 0}` keeps that until \"portsentryctl unblock\". \
     Everybody else, whose address may be forged, is slowed until a minute after the last probe, and blocked when what it retransmits proves its \
     address; `block: {unproven: {action: block}}` blocks at once, as the old program did.",
    "Blocks that the old program made (routes, rules, lines of hosts.deny) are still there. Nobody takes them out but you.",
    "This host's own addresses, its gateways and name servers, and whoever is logged in on port 22 for minutes are never blocked.",
    "What a service listens on is never watched; no list has to say so.",
    "Different ports are counted, not packets, and they are forgotten after ten minutes (`scan_window`).",
    "Log lines keep the form of PortSentry 1.2 (`log: {format: classic}`).",
];

const HISTORY: &str = "HISTORY_FILE";
const BLOCKED: &str = "BLOCKED_FILE";

/// Directories in which all users may write (file-hierarchy(7)).
const PUBLIC: &[&str] = &["/tmp", "/var/tmp", "/dev/shm"];

/// What the files of the old program say.
#[derive(Clone, Copy)]
pub(super) struct Old<'r> {
    pub(super) edition: Edition,
    /// The configuration file.
    pub(super) entries: &'r Entries,
    /// The settings of the init script.
    pub(super) settings: &'r Defaults,
}

/// Translates one file.
pub(super) struct Translator<'r, 't> {
    request: &'r Request<'r>,
    old: Old<'r>,
    /// Findings about the configuration file.
    pub(super) findings: Findings<'t>,
    /// The new file.
    pub(super) document: Document,
    /// Findings about the ignore files.
    pub(super) ignored: Vec<Finding>,
    /// The ignore files that were read.
    pub(super) sources: Vec<PathBuf>,
}

impl<'r, 't> Translator<'r, 't> {
    /// Translates these entries, and those of the init script's settings.
    pub(super) fn run(
        request: &'r Request<'r>,
        old: Old<'r>,
        findings: Findings<'t>,
        defaults_findings: &mut Findings<'_>,
    ) -> Self {
        let mut translator = Self {
            request,
            old,
            findings,
            document: Document::default(),
            ignored: Vec::new(),
            sources: Vec::new(),
        };
        let [tcp, udp] = translator.modes(defaults_findings);
        translator.side("TCP", "tcp.mode", tcp);
        translator.side("UDP", "udp.mode", udp);
        translator.reported_only();
        translator.ignore();
        translator.respond();
        translator.rest();
        translator
    }

    /// The line of a key, if it has a value, even a damaged one.
    fn entry(&self, key: &str) -> Option<&'r Entry> {
        self.old.entries.get(key)
    }

    /// Whether a key has a value, even a damaged one.
    fn is_set(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// `portsentry.conf:38: TCP_PORTS="1,2"`.
    fn origin(&self, entry: &Entry) -> String {
        origin(&self.request.config.name, entry)
    }

    fn is_1_2(&self) -> bool {
        self.old.edition == Edition::One
    }

    /// Sets a key of ours.
    fn set(&mut self, path: &'static str, value: impl Into<String>, comments: Vec<String>) {
        self.document.set(path, Value::Inline(value.into()), comments);
    }

    /// Sets the equivalent of a classic key.
    fn set_for(&mut self, key: &str, value: impl Into<String>, comments: Vec<String>) {
        if let Some((_, path)) = keys::KEYS.iter().find(|(known, _)| *known == key) {
            self.set(path, value, comments);
        }
    }

    /// Mode, ports and action of a protocol, whose mode is that of the key `mode_path`.
    fn side(&mut self, name: &str, mode_path: &'static str, (mode, origin): (PortMode, String)) {
        let (mut mode, mut comments) = (mode, vec![origin]);
        let mut off = |mode: &mut PortMode, why: String| {
            comments.push(format!("{why}: nothing is watched"));
            *mode = PortMode::Off;
        };
        let key = &format!("{name}_PORTS");
        let ports = self
            .entry(key)
            .and_then(|entry| Some((values::ports(key, entry, &mut self.findings)?, entry)));
        if matches!(mode, PortMode::Connect | PortMode::Stealth) && !self.is_set(key) {
            off(&mut mode, format!("{key} is not set"));
        }
        if let Some((set, entry)) = &ports {
            if mode == PortMode::Connect && set.contains(0) {
                self.findings.error(
                    entry.at(0),
                    format!("{key} has port 0, and the mode is connect"),
                    "remove it: nothing can listen on port 0 (bind(2))",
                );
            }
            self.set_for(key, port_list(set), vec![self.origin(entry)]);
        }

        let key = &format!("ADVANCED_PORTS_{name}");
        if let Some(entry) = self.entry(key) {
            // 65536 means every port: 0 to 65535.
            if let Some(count) = values::number(key, entry, 65_536, &mut self.findings) {
                let mut why = vec![self.origin(entry)];
                let last = count.checked_sub(1).and_then(|last| u16::try_from(last).ok());
                match last {
                    Some(last) => {
                        why.push(format!("the first {count} ports: 0 to {last}"));
                        self.set_for(key, port_list(&PortSet::range(0, last)), why);
                    }
                    None => {
                        self.findings.warning(
                            entry.at(0),
                            format!("{key} is 0: no port is watched in the advanced mode"),
                            "write 1024, or another mode",
                        );
                        if mode == PortMode::Advanced {
                            off(&mut mode, format!("{key} is 0"));
                        }
                        self.set_for(key, "[]", why);
                    }
                }
            }
        } else if mode == PortMode::Advanced {
            let why = format!("{key} is not set: the old program watches the first 1024 ports");
            self.set_for(key, "0-1023", vec![why]);
        }

        let key = &format!("ADVANCED_EXCLUDE_{name}");
        if let Some(entry) = self.entry(key) {
            if let Some(set) = values::ports(key, entry, &mut self.findings) {
                self.set_for(key, port_list(&set), vec![self.origin(entry)]);
            }
        } else if mode == PortMode::Advanced {
            let why = format!("{key} is not set: the old program excludes nothing");
            self.set_for(key, "[]", vec![why]);
        }
        self.set(mode_path, mode.word(), comments);
        self.action(&format!("BLOCK_{name}"));
    }

    fn action(&mut self, key: &str) {
        let Some(entry) = self.entry(key) else {
            let why = format!("{key} is not set: the old program reports only");
            return self.set_for(key, "log", vec![why]);
        };
        let Some(number) = values::number(key, entry, 2, &mut self.findings) else { return };
        let mut comments = vec![self.origin(entry)];
        let mut comment = |text: &str| comments.push(text.to_owned());
        let word = match number {
            0 => {
                comment("0: report only");
                "log"
            }
            1 => {
                comment(
                    "1: block, whatever KILL_ROUTE said, by the nftables set; run the other responses too",
                );
                if key == "BLOCK_UDP" {
                    comment(
                        "The source address of a UDP packet is trivially forged: such a block is short and bounded (`block: {unproven: ...}`)",
                    );
                }
                "block"
            }
            _ if self.has_command() => {
                comment("2: run the command only");
                "command"
            }
            _ => {
                let why = if self.is_set("KILL_RUN_CMD") {
                    "KILL_RUN_CMD cannot be taken over"
                } else {
                    "there is no KILL_RUN_CMD"
                };
                comment(&format!("2: run the command only; but {why}, so scans are reported only"));
                self.findings.warning(
                    entry.at(0),
                    format!("{key} is 2, run the command only, but {why}"),
                    "scans are reported only; write `action: command` when there is a `respond: command`",
                );
                "log"
            }
        };
        self.set_for(key, word, comments);
    }

    /// fail2ban's jail, which got a line of each scan from the old program, even of those that it
    /// only reported.
    fn reported_only(&mut self) {
        let blocks = |key| self.valued(key).is_some_and(|(_, value)| value == "1");
        let (tcp, udp) = (blocks("BLOCK_TCP"), blocks("BLOCK_UDP"));
        if !self.is_set(HISTORY) || (tcp && udp) {
            return;
        }
        let which = match (tcp, udp) {
            (true, _) => "of UDP are",
            (_, true) => "of TCP are",
            _ => "are",
        };
        let fed = if self.is_1_2() {
            "which fail2ban's jail reads, the old program called them blocked; here such a line ends with Reported, and the jail skips it"
        } else {
            "the old program had a line `Scan from:` for each, for its own fail2ban filter; here such a line has PortSentry 1.2's form and ends with Reported"
        };
        let first = if tcp { "BLOCK_UDP" } else { "BLOCK_TCP" };
        let place = self.entry(first).map(|entry| entry.place);
        self.findings.warning(
            place,
            format!("scans {which} not blocked, only reported: in the history, {fed}"),
            "with fail2ban, copy contrib/fail2ban/portsentry.local to /etc/fail2ban/filter.d/ and let the jail `portsentry` read history_file; or write action: block, and let this program block",
        );
    }

    /// The ignore file and its addresses.
    fn ignore(&mut self) {
        let key = "IGNORE_FILE";
        let Some(entry) = self.entry(key) else {
            self.missing(key);
            self.set("ignore_file", "\"\"", vec![format!("{key} is not set")]);
            return;
        };
        let Some(path) = values::path(key, entry, values::PATH_MAX, &mut self.findings) else {
            return;
        };
        self.set("ignore_file", quoted(&path), vec![self.origin(entry)]);
        let sources = match (self.request.ignore)(Path::new(&path)) {
            Ok(sources) => sources,
            Err(message) => {
                return self.findings.error(
                    entry.at(0),
                    format!("cannot read the ignore file: {message}"),
                    "make it readable, or take the line out of the configuration: it may name somebody who must not be blocked",
                );
            }
        };
        if sources.is_empty() {
            return self.findings.warning(
                entry.at(0),
                format!("the ignore file {} is not there", shown(&path)),
                "copy it to where it is looked for, or write its addresses into `allow`",
            );
        }
        // The daemon reads the file that the key names at its place. Entries of other files are
        // copied into the new file.
        let (in_place, others): (Vec<_>, Vec<_>) =
            sources.iter().partition(|source| source.name == Path::new(&path));
        let missing = in_place.is_empty();
        let mut known = BTreeSet::new();
        for source in in_place {
            let list = ignore::parse(&source.bytes, &source.name);
            known.extend(list.entries.iter().map(|entry| entry.network));
            self.ignored.extend(list.findings);
            self.sources.push(source.name.clone());
        }
        self.copy_ignored(entry, &path, &others, known, missing);
    }

    /// Copies entries of files that the daemon does not read into `allow`; those in `known` are in
    /// the file that it reads, unless that is `missing`.
    fn copy_ignored(
        &mut self,
        entry: &Entry,
        path: &str,
        others: &[&Source],
        known: BTreeSet<IpNet>,
        missing: bool,
    ) {
        let defaults: Vec<IpNet> = Config::default().allowed_networks().collect();
        let mut items: Vec<_> = defaults
            .iter()
            .map(|network| ("built-in default".to_owned(), Some(new_values::display(network))))
            .collect();
        let mut listed: BTreeSet<_> = defaults.into_iter().collect();
        let mut copied = 0;
        for source in others {
            let list = ignore::parse(&source.bytes, &source.name);
            for entry in &list.entries {
                let origin = format!("{}:{} {}", source.name.display(), entry.line, entry.text);
                if known.contains(&entry.network) {
                    items.push((format!("{origin}: is in the ignore file"), None));
                } else if listed.insert(entry.network) {
                    copied += 1;
                    items.push((origin, Some(new_values::display(&entry.network))));
                } else {
                    items.push((format!("{origin}: is in the list already"), None));
                }
            }
            self.ignored.extend(list.findings);
            self.sources.push(source.name.clone());
            let name = shown(&source.name.display().to_string());
            let path = shown(path);
            let (message, remedy) = if missing {
                (
                    format!("the ignore file {path} is not there; {name} was found"),
                    "what it names was copied into `allow`".to_owned(),
                )
            } else {
                let remedy = format!(
                    "what it names was copied into `allow`, unless {path} has it; edit {path} from now on"
                );
                (
                    format!("{name}, of which the old init script made {path}, is read no more"),
                    remedy,
                )
            };
            self.findings.warning(entry.at(0), message, remedy);
        }
        if copied > 0 {
            let comments = vec![
                "What stands in files that are not read any more, copied when this was imported."
                    .to_owned(),
            ];
            self.document.set("allow", Value::Items(items), comments);
        }
    }

    /// All other keys.
    fn rest(&mut self) {
        self.trigger();
        let (history, blocked) = (HISTORY, BLOCKED);
        self.same_file();
        match self.entry(history) {
            Some(entry) => self.own_file(entry, history, values::PATH_MAX, None),
            None if self.is_1_2() => self.missing(history),
            None => {
                let why = format!("{history} is not set: the old program writes none");
                self.set_for(history, "\"\"", vec![why]);
            }
        }
        match self.entry(blocked) {
            Some(entry) => {
                let comment =
                    "a file for each mode, as before (.atcp); a line leaves it when its block ends";
                self.own_file(entry, blocked, values::PATH_MAX - ".atcp".len(), Some(comment));
                self.findings.warning(
                    entry.at(0),
                    "the blocked files are for root, and others read them by a group only",
                    "for a program for monitoring write its group: control: {group: nagios}",
                );
            }
            None => self.missing(blocked),
        }
        if let Some(entry) = self.entry("RESOLVE_HOST")
            && let Some(on) = values::number("RESOLVE_HOST", entry, 1, &mut self.findings)
        {
            self.set("resolve", (on == 1).to_string(), vec![self.origin(entry)]);
        }
    }

    /// A file that the daemon writes. Only in the directory of its state: the shipped unit refuses
    /// all others, and users can create files in some of those first.
    fn own_file(&mut self, entry: &Entry, key: &str, max: usize, comment: Option<&str>) {
        let Some(file) = values::path(key, entry, max, &mut self.findings) else { return };
        let mut comments = vec![self.origin(entry)];
        comments.extend(comment.map(str::to_owned));
        let (old, state) = (Path::new(&file), Config::default().state_dir);
        let is_inside =
            old.starts_with(&state) && !old.components().any(|part| part == Component::ParentDir);
        if is_inside {
            return self.set_for(key, quoted(&file), comments);
        }
        let new_key = key.to_lowercase();
        let name = if key == HISTORY { "portsentry.history" } else { "portsentry.blocked" };
        let new = state.join(name).display().to_string();
        let public = PUBLIC.iter().find(|directory| old.parent() == Some(Path::new(directory)));
        let message = match public {
            Some(public) => {
                format!("{key} lies in {public}, where everybody can put a file of its name")
            }
            None => format!(
                "{key} lies outside {}, where the daemon's unit lets it write nothing",
                state.display()
            ),
        };
        let mut remedy = format!("{new_key} is {new}: let whatever reads it look there");
        if key == HISTORY {
            remedy.push_str(&format!(
                "; to keep what it has, before the first start: cp -p {} {new}",
                shell_quoted(&escaped(&file))
            ));
        }
        self.findings.warning(entry.at(0), message, remedy);
        comments.push(match public {
            Some(public) => format!("not in {public}, where everybody can put a file of its name"),
            None => "not where it was: the daemon's unit lets it write nothing there".to_owned(),
        });
        self.set_for(key, quoted(&new), comments);
    }

    /// Two keys that name one file, of which the daemon would use two.
    fn same_file(&mut self) {
        let keys = ["IGNORE_FILE", HISTORY, BLOCKED];
        for (at, key) in keys.iter().enumerate() {
            let Some((_, path)) = self.valued(key) else { continue };
            for other in keys.iter().skip(at + 1) {
                if let Some((entry, _)) = self.valued(other).filter(|(_, same)| *same == path) {
                    self.findings.error(
                        entry.at(0),
                        format!("{key} and {other} are the same file"),
                        "give each its own",
                    );
                }
            }
        }
    }

    /// Notes that a key is missing without which 1.2 did not start.
    fn missing(&mut self, key: &str) {
        if self.is_1_2() {
            self.findings.warning(
                None,
                format!("{key} is missing: PortSentry 1.2 does not start without it"),
                "the default is used, if there is one",
            );
        }
    }

    fn trigger(&mut self) {
        let key = "SCAN_TRIGGER";
        let Some(entry) = self.entry(key) else {
            let why = format!("{key} is not set: the old program reacts to the first packet");
            return self.set("scan_trigger", "0", vec![why]);
        };
        // scan_trigger goes to 1023.
        let Some(number) = values::number(key, entry, 1024, &mut self.findings) else { return };
        let meaning = match number {
            0 | 1 => format!(
                "{number}: the old program reacts to the first packet; 0 reacts to the first port"
            ),
            n => format!(
                "{n}: the old program reacts to packet number {n}; {} ports pass without reaction, and the next one counts",
                n - 1
            ),
        };
        let comments = vec![self.origin(entry), meaning];
        self.set("scan_trigger", number.saturating_sub(1).to_string(), comments);
    }
}

/// `FILE:LINE KEY="value"`.
fn origin(name: &Path, entry: &Entry) -> String {
    format!("{}:{} {}", name.display(), entry.place.line, entry.text)
}
