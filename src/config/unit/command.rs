//! What the unit refuses of `respond.command`, as far as the command line and the program's file
//! show it. What a script does inside cannot be known.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::judge::{ENABLE, Judge, Loss, capability};
use super::{Access, denied};
use crate::config::Config;
use crate::config::diagnostic::shown;

const KEY: &str = "respond.command";

/// Shells, whose argument after `-c` is looked at word by word.
const SHELLS: &[&str] = &["sh", "bash", "dash", "ash", "busybox", "ksh", "zsh"];

/// Programs that give mail to a local queue, which a setgid or setuid program writes.
const MAILERS: &[&str] = &["mail", "mailx", "s-nail", "bsd-mailx", "mutt", "sendmail", "exim4"];

/// Languages whose runtime generates code.
const COMPILERS: &[&str] = &["java", "node", "nodejs", "deno", "bun", "dotnet", "pwsh", "luajit"];

/// Programs with the capabilities that they need.
const PRIVILEGED: &[(&[&str], &[&str])] = &[
    (
        &[
            "ping",
            "ping6",
            "arping",
            "traceroute",
            "nmap",
            "hping3",
            "tcpdump",
            "iptables-legacy",
            "ip6tables-legacy",
        ],
        &["CAP_NET_RAW"],
    ),
    (
        &["nft", "iptables", "ip6tables", "ipset", "ip", "route", "tc", "conntrack", "ebtables"],
        &["CAP_NET_ADMIN"],
    ),
    (&["sudo", "su", "runuser", "setpriv", "chpst", "gosu"], &["CAP_SETUID", "CAP_SETGID"]),
];

/// Notes what the unit refuses of the command.
pub(super) fn judge(config: &Config, judge: &mut Judge<'_, '_>) {
    let Some((program, arguments)) = config.respond.command.split_first() else { return };
    let path = Path::new(program);
    let hidden = match judge.unit.of_responses().access(path) {
        Access::Hidden(setting) => Some(setting),
        Access::Volatile(why) if path.starts_with("/tmp") || path.starts_with("/var/tmp") => {
            Some(why)
        }
        _ => None,
    };
    if let Some(why) = hidden {
        judge.refuse(
            Loss::Part,
            KEY,
            &format!("the command {} is not found: its directory is hidden, {why}", shown(program)),
            "put it into /usr/local/sbin",
        );
    }
    let runs = Runs::of(path, arguments);
    for name in &runs.programs {
        program_needs(name, judge);
    }
    for file in runs.written {
        if judge.unit.of_responses().access(Path::new(file)) == Access::Read {
            let directory = Path::new(file).parent().unwrap_or(Path::new("/")).display();
            judge.refuse(
                Loss::Part,
                KEY,
                &format!("the command cannot write to {}", shown(file)),
                &format!("write below /var/lib/portsentry, or write into a drop-in: ReadWritePaths={directory}"),
            );
        }
    }
    let mode = fs::metadata(path).map_or(0, |facts| facts.mode());
    let is_given_rights = mode & 0o6000 != 0;
    if is_given_rights && judge.unit.of_responses().is_on("NoNewPrivileges") {
        judge.refuse(
            Loss::Part,
            KEY,
            &format!("the command {} is setuid or setgid, and does not get the rights of its owner or group", shown(program)),
            "write NoNewPrivileges=no into a drop-in (contrib/systemd/responses.conf)",
        );
    }
}

/// What a command runs and writes.
struct Runs<'c> {
    /// Names of programs, without their directories.
    programs: Vec<&'c str>,
    /// Absolute paths behind `>`.
    written: Vec<&'c str>,
}

impl<'c> Runs<'c> {
    fn of(path: &'c Path, arguments: &'c [String]) -> Self {
        let name = |word: &'c str| word.rsplit('/').next().unwrap_or(word);
        let program = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut runs = Self { programs: vec![program], written: Vec::new() };
        if !SHELLS.contains(&program) {
            return runs;
        }
        for text in arguments.iter().skip_while(|word| !word.starts_with('-')).skip(1) {
            // A word at the start of a command is a program.
            for command in text.split(['|', ';', '&', '(', ')', '\n', '`']) {
                let mut words = command.split_whitespace().filter(|word| !word.contains('='));
                runs.programs.extend(words.next().map(name));
            }
            for behind in text.split('>').skip(1) {
                let file = behind.split_whitespace().next().unwrap_or_default();
                let file = file.trim_matches(['"', '\'', ';', '|', '&', ')']);
                if file.starts_with('/') && !file.contains(['$', '*', '{']) {
                    runs.written.push(file);
                }
            }
        }
        runs
    }
}

/// Notes that mail of `notify` cannot reach a local queue.
pub(super) fn judge_mail(config: &Config, judge: &mut Judge<'_, '_>) {
    const MAIL: &str = "notify.sendmail.to";
    let program = &config.notify.sendmail.program;
    let mode = fs::metadata(program).map_or(0, |facts| facts.mode());
    // Postfix's sendmail has the rights of its user, and starts one that has more.
    let needs_rights = mode & 0o6000 != 0 || Path::new("/usr/sbin/postdrop").exists();
    if config.notify.sendmail.to.is_empty()
        || !needs_rights
        || !judge.unit.of_responses().is_on("NoNewPrivileges")
    {
        return;
    }
    let first = if judge.needs_responses() { format!("{ENABLE}; ") } else { String::new() };
    judge.refuse(
        Loss::Part,
        MAIL,
        &format!("{} cannot give mail to a local queue (`{MAIL}`): that takes a setgid or setuid program", program.display()),
        &format!("{first}write NoNewPrivileges=no and ReadWritePaths=/var/spool/postfix, or the directory of another queue, into a drop-in (contrib/systemd/responses.conf)"),
    );
}

/// Notes what a known program needs and does not get.
fn program_needs(name: &str, judge: &mut Judge<'_, '_>) {
    if MAILERS.contains(&name) && judge.unit.of_responses().is_on("NoNewPrivileges") {
        judge.refuse(
            Loss::Part,
            KEY,
            &format!("{} cannot give mail to a local queue: that takes a setgid or setuid program", shown(name)),
            "write NoNewPrivileges=no and ReadWritePaths=/var/spool/postfix, or the directory of another queue, into a drop-in (contrib/systemd/responses.conf)",
        );
    }
    if COMPILERS.contains(&name) && judge.unit.of_responses().is_on("MemoryDenyWriteExecute") {
        judge.refuse(
            Loss::Part,
            KEY,
            &format!("{} cannot generate code", shown(name)),
            "write MemoryDenyWriteExecute=no into a drop-in (contrib/systemd/responses.conf)",
        );
    }
    for (_, capabilities) in PRIVILEGED.iter().filter(|(names, _)| names.contains(&name)) {
        let is_user = judge.needs_responses();
        let missing = match is_user {
            true => capabilities.iter().copied().collect(),
            false => denied(judge.unit.of_responses(), "CapabilityBoundingSet", capabilities),
        };
        if !missing.is_empty() {
            let list = missing.into_iter().collect::<Vec<_>>().join(" ");
            let message = format!("{} lacks {list}", shown(name));
            let remedy = if is_user { ENABLE.to_owned() } else { capability(&list) };
            judge.refuse(Loss::Part, KEY, &message, &remedy);
        }
    }
}
