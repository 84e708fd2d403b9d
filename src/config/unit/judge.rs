//! Compares a configuration with the unit: paths, capabilities, address families.

use std::path::Path;

use super::{Access, Unit, command, denied};
use crate::config::reader::Reader;
use crate::config::{Allowance, Config, PortMode};

const HOSTS_DENY: &str = "respond.hosts_deny.path";

/// The remedy that always works for the daemon's own files.
const INSIDE: &str = "let it lie in /var/lib/portsentry";

/// The remedy for responses that only root can do.
pub(super) const ENABLE: &str = "have responses run as root: systemctl enable --now portsentry-responses.socket, then restart portsentry";

/// How much an administrator loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// What the configuration wants cannot be had.
    Whole,
    /// One of its parts; the rest works.
    Part,
}

/// Notes what the unit refuses of this configuration.
///
/// It is an error only if that unit is installed and the loss is whole: under another supervisor the
/// configuration may be right.
pub(in crate::config) fn judge(config: &Config, unit: &Unit, reader: &mut Reader<'_>) {
    let mut judge = Judge { unit, reader };
    judge.written(config);
    judge.read(config);
    judge.notify(config);
    judge.rights(config);
    command::judge(config, &mut judge);
    command::judge_mail(config, &mut judge);
}

/// Collects what one unit refuses.
pub(super) struct Judge<'j, 't> {
    pub(super) unit: &'j Unit,
    reader: &'j mut Reader<'t>,
}

impl Judge<'_, '_> {
    /// Notes what is refused of `key`; the message goes on behind "under the unit".
    pub(super) fn refuse(&mut self, loss: Loss, key: &str, message: &str, remedy: &str) {
        if !self.reader.is_sound(&[key]) {
            return;
        }
        let message = format!("under {}, {message}", self.unit.name());
        // The path of hosts.deny has its default, mostly; the switch is in the file.
        let places = [key, if key == HOSTS_DENY { "respond.hosts_deny.enabled" } else { key }];
        if loss == Loss::Whole && self.unit.file.is_some() {
            self.reader.error(&places, message, remedy);
        } else {
            self.reader.warning(&places, message, remedy);
        }
    }

    /// Whether responses run as a user other than root.
    pub(super) fn needs_responses(&self) -> bool {
        self.unit.user().is_some() && self.unit.responses.is_none()
    }

    /// The remedy for a capability that the daemon lacks.
    fn grant(&self, name: &str) -> String {
        let bounding = capability(name);
        match self.unit.user() {
            Some(_) => format!("{bounding} and AmbientCapabilities={name}"),
            None => bounding,
        }
    }

    /// Files that the daemon writes.
    fn written(&mut self, config: &Config) {
        // hosts.deny and the blocked files are replaced by new ones in their directories.
        let directory = |file: &Path| file.parent().map(Path::to_owned);
        let hosts_deny = &config.respond.hosts_deny;
        let is_hidden = matches!(self.unit.access(&hosts_deny.path), Access::Hidden(_));
        let is_roots = hosts_deny.enabled && self.needs_responses() && !is_hidden;
        if is_roots {
            let message = format!(
                "{} (`{HOSTS_DENY}`) is not written: it is root's, and responses run as the user {}",
                hosts_deny.path.display(),
                self.unit.user().unwrap_or_default()
            );
            self.refuse(Loss::Part, HOSTS_DENY, &message, ENABLE);
        }
        let responses = self.unit.of_responses();
        let files = [
            (Loss::Part, "state_dir", Some(config.state_dir.clone())),
            (Loss::Whole, "history_file", config.history_file.clone()),
            (Loss::Part, "blocked_file", config.blocked_file.as_deref().and_then(directory)),
            (Loss::Whole, "control.socket", directory(&config.control.socket)),
            (
                Loss::Part,
                HOSTS_DENY,
                directory(&hosts_deny.path).filter(|_| hosts_deny.enabled && !is_roots),
            ),
        ];
        for (loss, key, path) in files {
            let Some(path) = path else { continue };
            let shown = path.display();
            let unit = match key {
                "blocked_file" | HOSTS_DENY => responses,
                _ => self.unit,
            };
            match unit.access(&path) {
                Access::Write => {}
                Access::Read => {
                    let (into, directory) = match path.parent().filter(|_| key == "history_file") {
                        Some(directory) => ("", directory),
                        None => ("into ", path.as_path()),
                    };
                    let grant =
                        format!("write into a drop-in: ReadWritePaths={}", directory.display());
                    let remedy = match key {
                        HOSTS_DENY => format!("{grant} (contrib/systemd/responses.conf)"),
                        _ => match self.unit.user() {
                            Some(user) => {
                                format!("{INSIDE}, or {grant}, and let the user {user} write there")
                            }
                            None => format!("{INSIDE}, or {grant}"),
                        },
                    };
                    let message = format!("the daemon cannot write {into}{shown} (`{key}`)");
                    self.refuse(loss, key, &message, &remedy);
                }
                Access::Hidden(setting) => self.refuse(
                    loss,
                    key,
                    &format!("{shown} (`{key}`) is hidden: {setting}"),
                    INSIDE,
                ),
                // A socket is made at each start.
                Access::Volatile(_) if key == "control.socket" => {}
                Access::Volatile(why) => self.refuse(
                    Loss::Part,
                    key,
                    &format!("what is written to {shown} (`{key}`) does not last: it {why}"),
                    INSIDE,
                ),
            }
        }
    }

    /// Files of secrets that the helper reads, and the program that it gives mail to.
    fn notify(&mut self, config: &Config) {
        let program = Some(config.notify.sendmail.program.clone());
        let files = config.notify.secrets().into_iter();
        for (key, file) in files.chain([("notify.sendmail.program", &program)]) {
            if let Some(file) = file
                && let Access::Hidden(setting) = self.unit.of_responses().access(file)
            {
                let message = format!("{} (`{key}`) is hidden: {setting}", file.display());
                self.refuse(
                    Loss::Part,
                    key,
                    &message,
                    "let it lie in another directory: secrets in /etc/portsentry",
                );
            }
        }
    }

    /// The files that the daemon reads beside its configuration.
    fn read(&mut self, config: &Config) {
        let allowed = config.allow.iter().filter_map(|allowed| match &allowed.what {
            Allowance::File { path, .. } => Some(("allow", path)),
            _ => None,
        });
        for (key, file) in
            config.ignore_file.iter().map(|file| ("ignore_file", file)).chain(allowed)
        {
            let why = match self.unit.access(file) {
                Access::Hidden(setting) => setting,
                Access::Volatile(why)
                    if file.starts_with("/tmp") || file.starts_with("/var/tmp") =>
                {
                    why
                }
                _ => continue,
            };
            let message =
                format!("{} (`{key}`) is not seen, and exempts no host: {why}", file.display());
            self.refuse(Loss::Whole, key, &message, "let it lie in /etc/portsentry");
        }
    }

    /// Capabilities and address families.
    fn rights(&mut self, config: &Config) {
        let connect = |mode| mode == PortMode::Connect;
        let low_port = |ports: &crate::config::PortSet| {
            ports.ranges().first().is_some_and(|range| *range.start() < 1024)
        };
        if !self.unit.has_capability("CAP_NET_ADMIN") {
            self.refuse(
                Loss::Whole,
                "mode",
                "CAP_NET_ADMIN is missing",
                &self.grant("CAP_NET_ADMIN"),
            );
        }
        let bind = self.unit.has_capability("CAP_NET_BIND_SERVICE");
        if !bind && connect(config.udp.mode) && low_port(&config.udp.ports) {
            self.refuse(
                Loss::Part,
                "udp.mode",
                "decoys cannot answer datagrams from ports below 1024 (`udp.mode` is connect): CAP_NET_BIND_SERVICE is missing",
                &self.grant("CAP_NET_BIND_SERVICE"),
            );
        }
        if !bind
            && (config.has_decoys(&config.tcp) || config.has_decoys(&config.udp))
            && config.capture.decoy_port < 1024
        {
            self.refuse(
                Loss::Whole,
                "capture.decoy_port",
                "decoys cannot listen on a port below 1024 (`capture.decoy_port`): CAP_NET_BIND_SERVICE is missing",
                &self.grant("CAP_NET_BIND_SERVICE"),
            );
        }
        let group = &config.control.group;
        if !group.is_empty() {
            // The owner of a file gives it to a group of its own; root to any, with the capability.
            let (is_able, message, remedy) = match self.unit.user() {
                Some(user) => (
                    ["SupplementaryGroups", "Group"]
                        .iter()
                        .any(|key| self.unit.words(key).any(|word| word == group)),
                    format!("the user {user} is not in that group"),
                    format!("write into a drop-in: SupplementaryGroups={group}"),
                ),
                None => (
                    self.unit.allows("CapabilityBoundingSet", "CAP_CHOWN"),
                    "CAP_CHOWN is missing".to_owned(),
                    capability("CAP_CHOWN"),
                ),
            };
            if !is_able {
                let message = format!(
                    "the control socket cannot be given to a group (`control.group`): {message}"
                );
                self.refuse(Loss::Whole, "control.group", &message, &remedy);
            }
        }
        let mut needed = vec![("mode", &["AF_NETLINK", "AF_UNIX"][..])];
        if connect(config.tcp.mode) || connect(config.udp.mode) {
            let key = if connect(config.tcp.mode) { "tcp.mode" } else { "udp.mode" };
            needed.push((key, &["AF_INET", "AF_INET6"]));
        }
        if config.resolve {
            needed.push(("resolve", &["AF_INET"]));
        }
        let notify = &config.notify;
        let servers = [
            ("notify.webhook.url", notify.webhook.is_on()),
            ("notify.ntfy.url", notify.ntfy.is_on()),
            ("notify.abuseipdb.key_file", notify.abuseipdb.key_file.is_some()),
        ];
        let servers = servers.into_iter().filter(|(_, is_on)| *is_on);
        needed.extend(servers.map(|(key, _)| (key, &["AF_INET", "AF_INET6"][..])));
        for (key, families) in needed {
            let missing = denied(self.unit, "RestrictAddressFamilies", families);
            if missing.is_empty() {
                continue;
            }
            let list = missing.into_iter().collect::<Vec<_>>().join(" ");
            let is_extra = key == "resolve" || key.starts_with("notify.");
            let loss = if is_extra { Loss::Part } else { Loss::Whole };
            self.refuse(
                loss,
                key,
                &format!(
                    "sockets of {list} are refused, which `{key}` needs (RestrictAddressFamilies=)"
                ),
                &format!("write into a drop-in: RestrictAddressFamilies={list}"),
            );
        }
        if self.unit.is_on("PrivateNetwork") {
            self.refuse(
                Loss::Whole,
                "mode",
                "the daemon has a network of its own, and sees no packet of this host",
                "remove PrivateNetwork=yes",
            );
        }
    }
}

pub(super) fn capability(name: &str) -> String {
    format!("write into a drop-in: CapabilityBoundingSet={name}")
}
