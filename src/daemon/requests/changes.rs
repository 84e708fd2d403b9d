//! Requests that change something: blocks, exemptions, what detection does, the configuration.

use std::time::Duration;

use super::super::protected::ProtectionReason;
use super::super::rows::MEND;
use super::super::supervisor::{NotSwitched, Order, Reloaded};
use super::super::switches::Switch;
use super::{RequestHandler, defect, failed};
use crate::config::{Config, DEFAULT_PATH, Keyword, Mode};
use crate::control::{Kind, Refusal, Reply, Request, Target};
use crate::enforce::{BlockError, UnblockedAll};
use crate::engine::{Source, Unblocked};
use crate::errors::error_chain;
use crate::helper::client::channels;
use crate::helper::protocol::TEST_TARGET;
use crate::journal::format::duration;
use crate::netlink::sock_diag::{Connection, SockDiag};
use crate::nft::TIMEOUT_DAYS_MAX;
use crate::packet::command::Command;

const SECONDS_PER_DAY: u64 = 86_400;

impl RequestHandler {
    /// Changes something: what was done, for people.
    pub(super) fn change(&mut self, request: Request) -> Result<String, Refusal> {
        match request {
            Request::Block { address, seconds, reason, force } => {
                self.block(address, seconds, reason, force)
            }
            Request::Unblock { address } => self.unblock(address),
            Request::UnblockAll {} => self.unblock_all(),
            Request::AllowAdd { address } => self.allow(address),
            Request::AllowRemove { address } => self.disallow(address),
            Request::Reload {} => self.reload(),
            Request::Enforce { seconds } => self.switch(Switch::Enforce(time(seconds)?)),
            Request::Observe {} => self.switch(Switch::Observe),
            Request::Off { seconds } => self.switch(Switch::Off(time(seconds)?)),
            Request::On {} => self.switch(Switch::On),
            Request::TestResponse {} => self.test_responses(),
            other => Err(defect(&other)),
        }
    }

    fn block(
        &mut self,
        target: Target,
        seconds: Option<u64>,
        text: String,
        force: bool,
    ) -> Result<String, Refusal> {
        let config = self.config();
        if config.mode == Mode::Observe {
            return Err(observing());
        }
        let source = target.source(config.block.ipv6.first);
        self.refuse_protected(source)?;
        if !force {
            refuse_sessions(&established_admins(&config), source)?;
        }
        let timeout = timeout_of(&config, seconds)?;
        let answer = self.packets.ask(|answer| Command::Block { source, timeout, text, answer })?;
        answer.map_err(|error| not_blocked(source, error))?;
        let kept = self.kept();
        let how_long = timeout.map_or_else(
            || "until it is unblocked".to_owned(),
            |timeout| format!("for {}", duration(timeout)),
        );
        Ok(format!("{source} is blocked {how_long}{kept}"))
    }

    /// Says which protected address stands against a block, and why.
    pub(super) fn refuse_protected(&self, source: Source) -> Result<(), Refusal> {
        let network = source.network();
        let view = self.view.lock();
        let Some((protected, because)) = view
            .protected
            .iter()
            .find(|(protected, _)| protected.contains(&network) || network.contains(*protected))
        else {
            return Ok(());
        };
        if *because == ProtectionReason::OwnAddress && *protected == network {
            return Err(Refusal::new(
                Kind::No,
                format!(
                    "{source} is an address of this host: a block of it would be of no use, and is never made"
                ),
                "block the address of the other side; \"portsentryctl list\" and \"history\" have those of scanners",
            ));
        }
        let mut message = format!("{} is never blocked ({because})", Source::from(*protected));
        if *protected != network {
            message.insert_str(0, &format!("{source} is not blocked: "));
        }
        let remedy = match because {
            ProtectionReason::AllowedByHand | ProtectionReason::Admin => {
                "portsentryctl allow remove it first"
            }
            ProtectionReason::AllowList => {
                "take it from the allow list of the configuration first, and reload"
            }
            ProtectionReason::Name => {
                "take the name from the allow list of the configuration first, and reload"
            }
            ProtectionReason::IgnoreFile => "take it from the ignore file first, and reload",
            _ => "name addresses that do not include it",
        };
        Err(Refusal::new(Kind::No, message, remedy))
    }

    fn unblock(&mut self, target: Target) -> Result<String, Refusal> {
        // Exactly what was named: of a single IPv6 address the engine knows the account.
        let answer =
            self.packets.ask(|answer| Command::Unblock(target.network().into(), answer))?;
        let Unblocked { lifted, released, exempted, target: exempt } =
            answer.map_err(|error| failed(format!("{target} could not be unblocked: {error}")))?;
        let lifts = match lifted.as_slice() {
            [] => None,
            [source] => Some(format!("{source} is unblocked")),
            several => Some(format!("{} blocks in {target} are lifted", several.len())),
        };
        let releases = match released.as_slice() {
            [] => None,
            [source] => Some(format!("{source} is not slowed any more")),
            several => {
                Some(format!("{} sources in {target} are not slowed any more", several.len()))
            }
        };
        let around: Vec<String> = exempted.iter().map(ToString::to_string).collect();
        let exempt = exempt.map_or_else(|| target.to_string(), |exempt| exempt.to_string());
        let exempts = (!around.is_empty()).then(|| {
            format!(
                "{exempt} is exempt from the block of {}, the rest of which stays blocked",
                around.join(" and ")
            )
        });
        let done: Vec<String> = lifts.into_iter().chain(releases).chain(exempts).collect();
        if done.is_empty() {
            return Err(Refusal::new(Kind::No, format!("{target} is not blocked"), ""));
        }
        Ok(format!("{}{}", done.join("; "), self.kept()))
    }

    fn unblock_all(&mut self) -> Result<String, Refusal> {
        let (mut lifted, mut from) = (0, Some(0));
        while let Some(at) = from {
            let part = self.lift_part(None, None, at)?;
            (lifted, from) = (lifted + part.lifted, part.next);
        }
        self.unblock_rest(lifted)
    }

    /// Unblocks what is left after the blocks were lifted in parts, these many.
    pub(super) fn unblock_rest(&mut self, before: u64) -> Result<String, Refusal> {
        let answer = self.packets.ask(Command::UnblockAll)?;
        let UnblockedAll { lifted, released } = answer
            .map_err(|error| failed(format!("not everything could be unblocked: {error}")))?;
        let lifts = match before + lifted as u64 {
            0 => None,
            1 => Some("1 block is lifted".to_owned()),
            count => Some(format!("{count} blocks are lifted")),
        };
        let releases = match released {
            0 => None,
            1 => Some("1 source is not slowed any more".to_owned()),
            count => Some(format!("{count} sources are not slowed any more")),
        };
        let done: Vec<String> = lifts.into_iter().chain(releases).collect();
        if done.is_empty() {
            return Err(Refusal::new(Kind::No, "nothing is blocked", ""));
        }
        Ok(format!("{}{}", done.join("; "), self.kept()))
    }

    /// Waits until what was done is on the disk, so that what is said holds after a power loss;
    /// what to add where it is not.
    pub(super) fn kept(&self) -> String {
        match self.status.store.settle() {
            Ok(()) => String::new(),
            Err(why) => {
                format!("; a reboot would forget that, the state store cannot be written: {why}")
            }
        }
    }

    fn allow(&mut self, target: Target) -> Result<String, Refusal> {
        let network = target.network();
        if network.prefix_len() == 0 {
            let message = format!("{network} is everybody: nothing could be blocked any more");
            return Err(Refusal::new(Kind::No, message, "set mode: observe to block nothing"));
        }
        let answer = self.supervisor.ask(|answer| Order::AllowAdd(network, answer))?;
        let is_new = answer.map_err(|error| failed(format!("{target} is not allowed: {error}")))?;
        Ok(if is_new {
            format!("{target} is never blocked, until \"portsentryctl allow remove {target}\"")
        } else {
            format!("{target} was allowed already")
        })
    }

    fn disallow(&mut self, target: Target) -> Result<String, Refusal> {
        let answer = self.supervisor.ask(|answer| Order::AllowRemove(target.network(), answer))?;
        let is_removed =
            answer.map_err(|error| failed(format!("{target} is still allowed: {error}")))?;
        let because = self.view.lock().protected.get(&target.network()).copied();
        if is_removed {
            let kept = self.kept();
            return Ok(match because {
                None => format!("{target} may be blocked again{kept}"),
                Some(because) => {
                    format!("{target} was removed, but is still exempt ({because}){kept}")
                }
            });
        }
        Err(match because {
            Some(because) => Refusal::new(
                Kind::No,
                format!("{target} was not allowed by portsentryctl ({because})"),
                "take it from the configuration, key allow or never_block, and reload",
            ),
            None => Refusal::new(Kind::No, format!("{target} is not allowed"), ""),
        })
    }

    fn switch(&self, switch: Switch) -> Result<String, Refusal> {
        self.supervisor.ask(|answer| Order::Switch(switch, answer))?.map_err(
            |error| match error {
                NotSwitched::Already(what) => Refusal::new(Kind::No, what, ""),
                NotSwitched::Failed(why) => failed(format!("nothing was switched: {why}")),
            },
        )?;
        let view = self.view.lock().clone();
        let written = view.loaded.config.mode;
        let file = match &view.loaded.from {
            Some(path) => path.display().to_string(),
            None => DEFAULT_PATH.to_owned(),
        };
        let for_good = |mode: Mode| {
            if mode == written {
                return "as configured".to_owned();
            }
            let (is, word) = (written.word(), mode.word());
            format!(
                "until the daemon starts again: {file} has mode: {is}, write mode: {word} there to keep it"
            )
        };
        Ok(match switch {
            Switch::Enforce(Some(time)) => format!(
                "scans are blocked now, and observed again in {} unless you confirm it with \"portsentryctl enforce\"; a restart before that starts with mode: {}",
                duration(time),
                written.word()
            ),
            Switch::Enforce(None) => format!("scans are blocked, {}", for_good(Mode::Enforce)),
            Switch::Observe => {
                format!("nothing is blocked any more, {}", for_good(Mode::Observe))
            }
            Switch::Off(Some(time)) => format!(
                "detection is off for {}: nothing is watched, blocks stay; \"portsentryctl on\" ends that",
                duration(time)
            ),
            Switch::Off(None) => "detection is off until \"portsentryctl on\" or the next start: nothing is watched, blocks stay".to_owned(),
            Switch::On => "detection is on".to_owned(),
        })
    }

    /// Which responses a test runs.
    pub(super) fn testing(&self) -> Reply {
        let config = self.config();
        let respond = &config.respond;
        Reply::Testing {
            command: (!respond.command.is_empty()).then_some(respond.command_timeout.as_secs()),
            hosts_deny: respond.hosts_deny.enabled,
            notify: tested_channels(&config).map(str::to_owned).collect(),
        }
    }

    fn test_responses(&self) -> Result<String, Refusal> {
        let config = self.config();
        if config.respond.command.is_empty()
            && !config.respond.hosts_deny.enabled
            && tested_channels(&config).next().is_none()
        {
            let message = "no response is configured";
            let remedy = "set respond.command, respond.hosts_deny or notify and reload";
            return Err(Refusal::new(Kind::No, message, remedy));
        }
        if !self.status.helper.test() {
            return Err(failed(
                "the helper process, which runs the responses, does not run".into(),
            ));
        }
        Ok(format!("the responses are run for {TEST_TARGET}"))
    }

    fn reload(&mut self) -> Result<String, Refusal> {
        let remedy = "the configuration in force goes on; mend the file and reload again";
        let Reloaded { changes, warnings } = self
            .supervisor
            .ask(Order::Reload)?
            .map_err(|findings| Refusal::new(Kind::Configuration, findings, remedy))?;
        let mut lines = if changes.is_empty() {
            "reloaded; nothing has changed".to_owned()
        } else {
            format!("reloaded:\n  {}", changes.join("\n  "))
        };
        warnings.iter().for_each(|warning| lines.push_str(&format!("\nwarning: {warning}")));
        Ok(lines)
    }
}

/// Channels of notifications that a test uses: a report that is a test would be a lie.
fn tested_channels(config: &Config) -> impl Iterator<Item = &'static str> {
    channels(config).filter(|channel| *channel != "abuseipdb")
}

/// In observe mode nothing is blocked.
pub(super) fn observing() -> Refusal {
    Refusal::new(
        Kind::No,
        "in observe mode nothing is blocked",
        "\"portsentryctl enforce\" blocks scans, and lets you block",
    )
}

/// The timeout of a block for so many seconds; `None`: until it is unblocked.
pub(super) fn timeout_of(
    config: &Config,
    seconds: Option<u64>,
) -> Result<Option<Duration>, Refusal> {
    let days = seconds.unwrap_or(0).div_ceil(SECONDS_PER_DAY);
    if days > TIMEOUT_DAYS_MAX {
        return Err(Refusal::new(
            Kind::BadRequest,
            format!("{days}d is too long: a timeout in the kernel ends at {TIMEOUT_DAYS_MAX}d"),
            format!("write at most {TIMEOUT_DAYS_MAX}d; 0 is until it is unblocked"),
        ));
    }
    Ok(seconds.map_or(config.block.timeout, |seconds| {
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }))
}

/// Why a block is not in force.
pub(super) fn not_blocked(source: Source, error: BlockError) -> Refusal {
    match error {
        BlockError::Refused(why) => Refusal::new(Kind::No, format!("cannot {why}"), ""),
        BlockError::Kernel { error, stays: false } => {
            Refusal::new(Kind::Failed, format!("{source} is not blocked: {error}"), MEND)
        }
        BlockError::Kernel { error, stays: true } => {
            let message = format!("the block of {source} stays as it was: {error}");
            Refusal::new(Kind::Failed, message, MEND)
        }
    }
}

/// The connections to administrators' ports. One who logged in is never blocked; a connection whose
/// login is not known counts too, and `never_block.ssh_peers` may be off.
pub(super) fn established_admins(config: &Config) -> Vec<Connection> {
    let found = SockDiag::open()
        .and_then(|mut sockets| sockets.established(&config.never_block.admin_ports));
    found.unwrap_or_else(|error| {
        log::warn!("administrators' connections are not known: {}", error_chain(&error));
        Vec::new()
    })
}

/// Refuses to cut off an administrator who is connected.
pub(super) fn refuse_sessions(connections: &[Connection], source: Source) -> Result<(), Refusal> {
    let network = source.network();
    match connections.iter().find(|found| network.contains(&found.peer.ip())) {
        None => Ok(()),
        Some(found) => Err(Refusal::new(
            Kind::No,
            format!(
                "{source} is not blocked: {} has a connection to port {}, which may be an administrator's",
                found.peer.ip(),
                found.local.port()
            ),
            "--force blocks it all the same",
        )),
    }
}

/// A time after which something is to end by itself.
fn time(seconds: Option<u64>) -> Result<Option<Duration>, Refusal> {
    match seconds {
        Some(0) => Err(Refusal::new(Kind::BadRequest, "0 is no time", "write it as 5m or 1h")),
        seconds => Ok(seconds.map(Duration::from_secs)),
    }
}
