//! Requests of clients. The server checks the client's permission.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use humantime::format_duration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::line::{VERSION, line};
use super::refusal::{Kind, Refusal};
use super::selection::Selection;
use super::stamp::Stamp;
use super::target::Target;
use super::tested::PortName;
use crate::engine::ListName;
use crate::journal::record::Effect;

/// Longest request, in bytes, its line end included.
pub const REQUEST_MAX: usize = 64 << 10;

/// Longest reason of a manual block, in bytes: it follows a short prefix in the element's comment.
pub const REASON_MAX: usize = 100;

/// Most addresses and networks that one request blocks: longer ones than IPv6 networks there are
/// not, and so many fit [`REQUEST_MAX`].
pub const TARGETS_MAX: usize = 1000;

/// Most ports that one request tests.
pub const PORTS_MAX: usize = 100;

/// Most kinds that one request names.
pub const KINDS_MAX: usize = 50;

/// The key of the client's login, beside those of any request.
const LOGIN: &str = "login";

/// A request; its name is in the JSON key `do`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The daemon's status. Answered by [`Reply::Status`](super::Reply::Status).
    Status {},
    /// List the blocks. Answered by [`Reply::Blocks`](super::Reply::Blocks).
    List(Box<Selection>),
    /// List what observe mode would have slowed or blocked. Answered by
    /// [`Reply::Observed`](super::Reply::Observed).
    Observed {},
    /// Show the state of an address. Answered by [`Reply::Shown`](super::Reply::Shown), or
    /// [`Kind::No`] if nothing is known.
    Show {
        /// Address or network.
        address: Target,
    },
    /// Say what would happen to packets of an address. Answered by
    /// [`Reply::Tested`](super::Reply::Tested).
    Test {
        /// The address.
        address: IpAddr,
        /// Ports of this host that it would send them to, `tcp/22`; [`PORTS_MAX`] at most.
        #[serde(default)]
        ports: Vec<PortName>,
    },
    /// Block. Answered by [`Reply::Done`](super::Reply::Done) once the kernel has acknowledged it.
    Block {
        /// Address or network.
        address: Target,
        /// Seconds; 0: permanent; absent: the configured duration.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
        /// The administrator's reason, or empty.
        #[serde(default)]
        reason: String,
        /// Even if an administrator may be cut off.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Block a part of many. Answered by [`Reply::Several`](super::Reply::Several) once the kernel
    /// has acknowledged it.
    BlockSeveral(Box<Several>),
    /// Unblock a part of a list, or of everything. Answered by
    /// [`Reply::Lifted`](super::Reply::Lifted) once the kernel has acknowledged it; [`Kind::No`] when
    /// nothing of it is blocked.
    UnblockPart {
        /// The list; absent: everything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        list: Option<ListName>,
        /// Where the part begins: 0, or as the last reply says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
    },
    /// Name the databases of countries and autonomous systems. Answered by
    /// [`Reply::Geo`](super::Reply::Geo).
    Geo {},
    /// List the named lists. Answered by [`Reply::Lists`](super::Reply::Lists).
    Lists {},
    /// Unblock. Answered by [`Reply::Done`](super::Reply::Done) once the kernel has acknowledged
    /// it; [`Kind::No`] when it is not blocked.
    Unblock {
        /// Address or network.
        address: Target,
    },
    /// Unblock everything. Answered by [`Reply::Done`](super::Reply::Done); [`Kind::No`] if nothing
    /// is blocked.
    UnblockAll {},
    /// List what is never blocked. Answered by [`Reply::Allowed`](super::Reply::Allowed).
    AllowList {},
    /// Never block this until it is removed, and lift its block. Answered by
    /// [`Reply::Done`](super::Reply::Done).
    AllowAdd {
        /// Address or network.
        address: Target,
    },
    /// Undo [`Request::AllowAdd`], or forget an administrator. Answered by
    /// [`Reply::Done`](super::Reply::Done); [`Kind::No`] when it was neither added nor remembered.
    AllowRemove {
        /// Address or network.
        address: Target,
    },
    /// The ruleset as nft text. Answered by [`Reply::Rules`](super::Reply::Rules).
    Rules {},
    /// Reload the configuration. Answered by [`Reply::Done`](super::Reply::Done) when it is in
    /// force; [`Kind::Configuration`] if it was refused.
    Reload {},
    /// Block scans. Answered by [`Reply::Done`](super::Reply::Done); [`Kind::No`] if they are
    /// blocked already.
    Enforce {
        /// Seconds after which it observes again unless that is confirmed, by another request
        /// without a time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
    },
    /// Block nothing. Answered by [`Reply::Done`](super::Reply::Done); [`Kind::No`] if nothing is
    /// blocked already.
    Observe {},
    /// Watch nothing; blocks stay. Answered by [`Reply::Done`](super::Reply::Done); [`Kind::No`]
    /// if nothing is watched already.
    Off {
        /// Seconds after which it is on again by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
    },
    /// Watch again. Answered by [`Reply::Done`](super::Reply::Done); [`Kind::No`] if it is on.
    On {},
    /// Run the responses to a scan once, for [`TEST_TARGET`](crate::helper::protocol::TEST_TARGET).
    /// Answered by [`Reply::Testing`](super::Reply::Testing); what came of each is an event.
    TestResponse {},
    /// List what happened. Answered by [`Reply::History`](super::Reply::History).
    History(Box<Past>),
    /// Send events as they happen. Answered by [`Reply::Watching`](super::Reply::Watching), then
    /// endless [`Reply::Event`](super::Reply::Event)s, by the server itself.
    Watch {},
}

/// As it is typed.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |seconds: u64| format_duration(Duration::from_secs(seconds)).to_string();
        match self {
            Self::Status {} => f.write_str("status"),
            Self::List(_) => f.write_str("list"),
            Self::Observed {} => f.write_str("observe report"),
            Self::Show { address } => write!(f, "show {address}"),
            Self::Test { address, .. } => write!(f, "test {address}"),
            Self::Block { address, seconds, reason, force } => {
                write!(f, "block {address}")?;
                f.write_str(&block_options(*seconds, reason, *force))
            }
            Self::BlockSeveral(several) => f.write_str(&several.command()),
            Self::UnblockPart { list: Some(list), .. } => write!(f, "unblock --list {list}"),
            Self::UnblockPart { list: None, .. } => f.write_str("unblock --all"),
            Self::Geo {} => f.write_str("geo"),
            Self::Lists {} => f.write_str("lists"),
            Self::Unblock { address } => write!(f, "unblock {address}"),
            Self::UnblockAll {} => f.write_str("unblock --all"),
            Self::AllowList {} => f.write_str("allow list"),
            Self::AllowAdd { address } => write!(f, "allow add {address}"),
            Self::AllowRemove { address } => write!(f, "allow remove {address}"),
            Self::Rules {} => f.write_str("rules"),
            Self::Reload {} => f.write_str("reload"),
            Self::Enforce { seconds: None } => f.write_str("enforce"),
            Self::Enforce { seconds: Some(seconds) } => {
                write!(f, "enforce --confirm {:?}", time(*seconds))
            }
            Self::Observe {} => f.write_str("observe"),
            Self::Off { seconds: None } => f.write_str("off"),
            Self::Off { seconds: Some(seconds) } => write!(f, "pause {:?}", time(*seconds)),
            Self::On {} => f.write_str("on"),
            Self::TestResponse {} => f.write_str("test-response"),
            Self::History(_) => f.write_str("history"),
            Self::Watch {} => f.write_str("watch"),
        }
    }
}

/// The options of a block, as they are typed.
fn block_options(seconds: Option<u64>, reason: &str, force: bool) -> String {
    let mut options = match seconds {
        Some(0) => " --for 0".to_owned(),
        Some(seconds) => {
            format!(" --for {:?}", format_duration(Duration::from_secs(seconds)).to_string())
        }
        None => String::new(),
    };
    if !reason.is_empty() {
        options.push_str(&format!(" --reason {reason:?}"));
    }
    options.push_str(if force { " --force" } else { "" });
    options
}

/// A part of many that are to be blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Several {
    /// Addresses and networks; [`TARGETS_MAX`] at most.
    pub targets: Vec<Target>,
    /// Seconds; 0: permanent; absent: the configured duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// The administrator's reason, or empty.
    #[serde(default)]
    pub reason: String,
    /// Even if an administrator may be cut off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// The list that they are on; what is on it and in no part is unblocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<ListName>,
    /// What is on the list and in no part stays on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub add: bool,
    /// Another part follows.
    pub more: bool,
}

impl Several {
    /// The command, without the addresses.
    pub fn command(&self) -> String {
        let list = self.list.as_ref().map_or_else(String::new, |list| format!(" --list {list}"));
        let add = if self.add { " --add" } else { "" };
        format!("block{list}{add}{}", block_options(self.seconds, &self.reason, self.force))
    }
}

/// What a [`Request::History`] selects; without a key, everything that is about a source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Past {
    /// Oldest time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Stamp>,
    /// Latest time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Stamp>,
    /// Only about this address or network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Target>,
    /// Only of this port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// Only of these kinds; [`KINDS_MAX`] at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Only with this effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Effect>,
    /// Only of this kind of scan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan: Option<String>,
    /// Also what is about no source: starts, reloads, lost packets.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

impl Request {
    /// Whether it changes something, which only root may do. All do that are not listed here.
    pub fn changes(&self) -> bool {
        !matches!(
            self,
            Self::Status {}
                | Self::List(_)
                | Self::Geo {}
                | Self::Lists {}
                | Self::Observed {}
                | Self::Show { .. }
                | Self::Test { .. }
                | Self::AllowList {}
                | Self::Rules {}
                | Self::History(_)
                | Self::Watch {}
        )
    }

    /// The line of this request, with the user whose login the client belongs to.
    ///
    /// # Errors
    /// As [`line()`].
    pub fn line(&self, login: Option<u32>) -> Result<String, Refusal> {
        let mut line = line(self)?;
        if let Some(login) = login {
            line.insert_str(1, &format!("\"{LOGIN}\":{login},"));
        }
        Ok(line)
    }

    /// The login that a client names in a line. It may name any: believe root, and ask the kernel
    /// first, which does not say where the service manager hides processes (ProtectProc=,
    /// systemd.exec(5)).
    pub fn login(line: &[u8]) -> Option<u32> {
        let value: Value = serde_json::from_slice(line).ok()?;
        value.get(LOGIN)?.as_u64().and_then(|login| u32::try_from(login).ok())
    }

    /// Parses a line.
    ///
    /// # Errors
    /// A [`Refusal`] for the client: not JSON, another version, an unknown request, or a missing,
    /// unknown or invalid key.
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let bad = |message: String| {
            Refusal::new(
                Kind::BadRequest,
                message,
                "use portsentryctl of the same version as the daemon",
            )
        };
        let mut value: Value = serde_json::from_slice(line)
            .map_err(|error| bad(format!("the request is no JSON object: {error}")))?;
        let Some(object) = value.as_object_mut() else {
            return Err(bad("the request is no JSON object".to_owned()));
        };
        object.remove(LOGIN);
        match object.remove("v").as_ref().and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => {
                return Err(bad(format!(
                    "the request is of protocol version {other}; this daemon speaks version {VERSION}"
                )));
            }
            None => return Err(bad("the request has no version: \"v\" is missing".to_owned())),
        }
        let request: Self = serde_json::from_value(value)
            .map_err(|error| bad(format!("the request is not understood: {error}")))?;
        let reason = match &request {
            Self::Block { reason, .. } => reason.as_str(),
            Self::BlockSeveral(several) => &several.reason,
            _ => "",
        };
        if reason.len() > REASON_MAX || reason.chars().any(char::is_control) {
            return Err(Refusal::new(
                Kind::BadRequest,
                format!(
                    "the reason is longer than {REASON_MAX} bytes, or has control characters in it"
                ),
                "say it in one short line",
            ));
        }
        if let Self::BlockSeveral(several) = &request
            && several.targets.len() > TARGETS_MAX
        {
            let count = several.targets.len();
            let message = format!("{count} addresses are more than a request has room for");
            let remedy = format!("send {TARGETS_MAX} at a time");
            return Err(Refusal::new(Kind::BadRequest, message, remedy));
        }
        if let Self::Test { ports, .. } = &request
            && ports.len() > PORTS_MAX
        {
            let message = format!("{} ports are more than a request has room for", ports.len());
            let remedy = format!("test {PORTS_MAX} at a time");
            return Err(Refusal::new(Kind::BadRequest, message, remedy));
        }
        if let Self::History(past) = &request
            && past.kinds.len() > KINDS_MAX
        {
            let message = format!("{} kinds are more than there are", past.kinds.len());
            return Err(Refusal::new(Kind::BadRequest, message, "name each once"));
        }
        Ok(request)
    }
}
