//! The responses: routes, hosts.deny and commands.

use crate::config::classic::parse::Entry;
use crate::config::classic::{shell, values};
use crate::config::diagnostic::shown;
use crate::config::written::{list, quoted};

use super::Translator;

impl<'r> Translator<'r, '_> {
    /// Whether there is a usable command.
    pub(super) fn has_command(&self) -> bool {
        self.valued("KILL_RUN_CMD").is_some_and(|(_, text)| argv(text).is_ok())
    }

    /// The responses beside the block.
    pub(super) fn respond(&mut self) {
        self.route();
        self.hosts_deny();
        self.run_command();
        if let Some((entry, text)) = self.valued("PORT_BANNER") {
            self.set(
                "respond.banner",
                quoted(text),
                vec![self.origin(entry), "sent in mode connect only, as before".to_owned()],
            );
        }
    }

    /// A line and its value, unless it is damaged.
    pub(super) fn valued(&self, key: &str) -> Option<(&'r Entry, &'r str)> {
        let entry = self.entry(key)?;
        Some((entry, entry.value.as_deref()?))
    }

    fn route(&mut self) {
        let Some((entry, command)) = self.valued("KILL_ROUTE") else { return };
        let has = |names: &[&str]| {
            command.split([' ', '/', ';', '&', '|']).any(|word| names.contains(&word))
        };
        let what = if has(&[
            "iptables",
            "ip6tables",
            "nft",
            "nftables",
            "ipfwadm",
            "ipchains",
            "ipfw",
            "ipf",
            "pfctl",
            "ufw",
            "firewall-cmd",
        ]) {
            "a firewall rule for each source"
        } else if has(&["route", "ip"]) {
            "a route for each source"
        } else {
            "a command that blocks"
        };
        let mut remedy = format!(
            "an element in an nftables set takes its place where the action is block; take out what it left behind by hand: {}",
            undo(command)
        );
        if command.contains(['&', ';', '|']) {
            remedy.push_str("; what else it does (it has more than one command) belongs in a script that `respond: command` runs");
        }
        let blocks = ["BLOCK_TCP", "BLOCK_UDP"]
            .iter()
            .any(|key| self.valued(key).is_some_and(|(_, value)| value == "1"));
        if !blocks {
            remedy.push_str("; it was never run: neither BLOCK_TCP nor BLOCK_UDP is 1");
        }
        self.findings.warning(
            entry.place,
            format!("KILL_ROUTE, {what}, is not taken over"),
            remedy,
        );
        if !command.contains("$TARGET$") {
            self.findings.warning(
                entry.at(0),
                "KILL_ROUTE has no $TARGET$: the old program never ran it",
                "nothing is lost",
            );
        }
    }

    fn hosts_deny(&mut self) {
        let Some((entry, text)) = self.valued("KILL_HOSTS_DENY") else { return };
        let ours = match hosts_deny_line(text) {
            Ok(ours) => ours,
            Err(fault) => {
                return self.findings.warning(
                    entry.at(0),
                    format!("KILL_HOSTS_DENY is not taken over: {fault}"),
                    "write the line by hand: respond: {hosts_deny: {enabled: true, line: \"ALL: {target}\"}}",
                );
            }
        };
        let origin = self.origin(entry);
        if text.contains('%') {
            let remedy = "it is written as it stands: see hosts_access(5) for what % means there, and take out backslashes that were for the old program only";
            self.findings.warning(entry.at(0), "KILL_HOSTS_DENY has a `%` in it", remedy);
        }
        self.set(
            "respond.hosts_deny.enabled",
            "true",
            vec![origin.clone(), "the line goes when the block ends; under systemd the unit needs ReadWritePaths=/etc for it".to_owned()],
        );
        self.set("respond.hosts_deny.line", quoted(&ours), vec![origin]);
    }

    fn run_command(&mut self) {
        if let Some(entry) = self.entry("KILL_RUN_CMD_FIRST")
            && let Some(first) = values::number("KILL_RUN_CMD_FIRST", entry, 1, &mut self.findings)
        {
            let word = if first == 1 { "before" } else { "after" };
            self.set("respond.command_when", word, vec![self.origin(entry)]);
        }
        let Some((entry, text)) = self.valued("KILL_RUN_CMD") else { return };
        match argv(text) {
            Ok(words) => {
                let comments = vec![
                    self.origin(entry),
                    "run without a shell: each word is an argument, whatever a packet says"
                        .to_owned(),
                ];
                self.set("respond.command", list(words), comments);
            }
            Err(why) => {
                let remedy = "do it by hand: put the command into a script, in which \"$1\", \"$2\" and \"$3\", always in double quotes, are the address, the port and the mode, make it \
                              executable, and write respond: {command: [/usr/local/sbin/portsentry-alert, \"{target}\", \"{port}\", \"{mode}\"]}";
                let message =
                    format!("KILL_RUN_CMD is not taken over: {why}, and no shell runs here");
                self.findings.warning(entry.at(0), message, remedy);
            }
        }
    }
}

/// The line of hosts.deny with renamed macros, or why it cannot be one.
fn hosts_deny_line(text: &str) -> Result<String, String> {
    if !text.contains("$TARGET$") {
        return Err("it has no $TARGET$, and the old program skipped it".to_owned());
    }
    if text.contains(['{', '}']) {
        return Err("it has braces, which mean macros here".to_owned());
    }
    if let Some(other) = ["$PORT$", "$MODE$"].into_iter().find(|other| text.contains(other)) {
        return Err(format!(
            "it has {other}, and the line must be the same when it is taken out again"
        ));
    }
    if text.ends_with('\\') || text.trim_start().starts_with('#') {
        return Err("it would be a comment, or go on in the next line".to_owned());
    }
    // No other macro is left.
    let line = text.replace("$TARGET$", "{target}");
    if line.len() > 1024 { Err("it is longer than 1024 bytes".to_owned()) } else { Ok(line) }
}

/// The command as an argument list, or why it cannot be one.
fn argv(text: &str) -> Result<Vec<String>, String> {
    if text.contains(['{', '}']) {
        return Err("it has braces, which mean macros here".to_owned());
    }
    let words = shell::split(text)?;
    let program = words.first().ok_or("it is empty")?;
    if program.contains('{') {
        return Err("what a packet says would choose the program".to_owned());
    }
    if !program.starts_with('/') {
        return Err(format!("`{}` is no absolute path", shown(program)));
    }
    if words.iter().map(|word| word.len() + 1).sum::<usize>() > 4096 {
        return Err("it is longer than 4096 bytes".to_owned());
    }
    Ok(words)
}

/// How to list the effects of a KILL_ROUTE command.
fn undo(command: &str) -> &'static str {
    if command.contains("tables") {
        "\"iptables -S INPUT\" lists it"
    } else if command.contains("route") {
        "\"ip route show\" lists it"
    } else {
        "a reboot removes it if nothing saved it"
    }
}
