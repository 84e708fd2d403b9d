//! The modes in which the old program ran: from the import's command line, or from the settings of
//! an init script.

use std::path::Path;

use crate::config::PortMode;
use crate::config::classic::Modes;
use crate::config::classic::keys::OPTIONS;
use crate::config::classic::parse::Entry;
use crate::config::diagnostic::{Findings, shown};

use super::{Translator, origin};

/// A mode of one protocol, with its origin.
type Started = (PortMode, String);

/// The switches of PLD's file with their modes.
const SWITCHES: &[(&str, &str)] = &[
    ("PORTSENTRY_TCP", "tcp"),
    ("PORTSENTRY_STCP", "stcp"),
    ("PORTSENTRY_ATCP", "atcp"),
    ("PORTSENTRY_UDP", "udp"),
    ("PORTSENTRY_SUDP", "sudp"),
    ("PORTSENTRY_AUDP", "audp"),
];

impl Translator<'_, '_> {
    /// Finds out the modes of the old program for TCP and UDP, each with its origin.
    pub(super) fn modes(&mut self, findings: &mut Findings<'_>) -> [Started; 2] {
        let given = |mode: Option<PortMode>| {
            Some((mode?, "the mode that was given with the import".to_owned()))
        };
        let [tcp, udp] = self.started(findings);
        let known = [given(self.request.modes.tcp).or(tcp), given(self.request.modes.udp).or(udp)];
        let otherwise = if known.iter().any(Option::is_some) {
            (PortMode::Off, "no mode was given for this protocol: the old program did not watch it")
        } else if self.is_1_2() {
            self.findings.warning(
                None,
                "the modes stood on the command line of the old program, and no file says which",
                "stealth is written; give the words of that command line to the import: --mode atcp --mode audp",
            );
            (
                PortMode::Stealth,
                "the mode stood on the command line of the old program; this is what -stcp and -sudp are",
            )
        } else {
            (
                PortMode::Stealth,
                "the default of PortSentry 2.x; --connect on its command line is connect",
            )
        };
        known.map(|mode| mode.unwrap_or_else(|| (otherwise.0, otherwise.1.to_owned())))
    }

    /// The modes in which an init script started the old program.
    fn started(&self, findings: &mut Findings<'_>) -> [Option<Started>; 2] {
        let settings = self.old.settings;
        let mut all: Vec<(&Entry, Modes)> = Vec::new();
        let valued = |key| {
            let entry = settings.entries.get(key)?;
            Some((entry, entry.value.as_deref()?))
        };
        for (key, suffix, words) in
            [("TCP_MODE", "tcp", "tcp, stcp or atcp"), ("UDP_MODE", "udp", "udp, sudp or audp")]
        {
            let Some((entry, word)) = valued(key) else { continue };
            match Modes::of_word(word).filter(|_| word.ends_with(suffix)) {
                Some(modes) => all.push((entry, modes)),
                None => findings.error(
                    entry.at(0),
                    format!("{key} cannot be `{}`", shown(word)),
                    format!("write {words}"),
                ),
            }
        }
        if let Some((entry, words)) = valued("PORTSENTRY_MODES") {
            for word in words.split_whitespace() {
                match Modes::of_word(word) {
                    Some(modes) => all.push((entry, modes)),
                    None => findings.error(
                        entry.at(0),
                        format!("PORTSENTRY_MODES has `{}`, which is no mode", shown(word)),
                        "write tcp, stcp or atcp, and udp, sudp or audp",
                    ),
                }
            }
        }
        if let Some((entry, words)) = valued(OPTIONS) {
            let is_mode = |word: &&str| matches!(*word, "--connect" | "--stealth");
            let (modes, others): (Vec<&str>, Vec<&str>) =
                words.split_whitespace().partition(is_mode);
            all.extend(modes.into_iter().filter_map(|word| Some((entry, Modes::of_word(word)?))));
            if !others.is_empty() {
                findings.warning(
                    entry.at(0),
                    format!("`{}` of {OPTIONS} is not taken over", shown(&others.join(" "))),
                    "for -i write interfaces: [eth0]; for --logoutput syslog write log: {target: syslog}",
                );
            }
        }
        let is_on = |key| {
            let (entry, value) = valued(key)?;
            let word = value.to_ascii_lowercase();
            matches!(&*word, "yes" | "y" | "true" | "t" | "on" | "1").then_some(entry)
        };
        for (key, word) in SWITCHES {
            // Its script starts neither of the other two beside an advanced mode.
            let advanced =
                if word.ends_with("tcp") { "PORTSENTRY_ATCP" } else { "PORTSENTRY_AUDP" };
            let is_overridden = advanced != *key && is_on(advanced).is_some();
            let modes = is_on(key).filter(|_| !is_overridden).zip(Modes::of_word(word));
            all.extend(modes);
        }
        let words = settings.words.iter();
        all.extend(
            words.filter_map(|entry| Some((entry, Modes::of_word(entry.value.as_deref()?)?))),
        );
        let name = self.request.defaults.map_or(Path::new(""), |source| &source.name);
        [false, true].map(|udp| {
            let modes: Vec<_> = all
                .iter()
                .filter_map(|(entry, modes)| {
                    Some((if udp { modes.udp } else { modes.tcp }?, *entry))
                })
                .collect();
            one(&modes, findings).map(|(mode, entry)| (mode, origin(name, entry)))
        })
    }
}

/// The mode of a protocol for which the old program may have been started more than once: the one
/// that watches the most ports.
fn one<'e>(
    started: &[(PortMode, &'e Entry)],
    findings: &mut Findings<'_>,
) -> Option<(PortMode, &'e Entry)> {
    let rank = |mode: PortMode| match mode {
        PortMode::Off => 0,
        PortMode::Connect => 1,
        PortMode::Stealth => 2,
        PortMode::Advanced => 3,
    };
    let (mode, entry) = *started.iter().max_by_key(|(mode, _)| rank(*mode))?;
    if started.iter().any(|(other, _)| *other != mode) {
        findings.warning(
            entry.place,
            "more than one mode of a protocol was started, and one daemon has one mode for each",
            "advanced is taken before stealth, and stealth before connect; give --mode for another, and see whether advanced_ports has every port of `ports`",
        );
    }
    Some((mode, entry))
}
