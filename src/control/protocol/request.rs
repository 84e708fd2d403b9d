//! A client's request, read from its line. The server checks whether the client may ask it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::line::VERSION;
use super::refusal::{Kind, Refusal};
use super::stamp::Stamp;
use super::target::Target;

/// Longest request, in bytes, its line end included.
pub const REQUEST_MAX: usize = 64 << 10;

/// Longest reason of a manual block, in bytes: it goes into the element's comment behind a short prefix.
pub const REASON_MAX: usize = 100;

/// What a client asks; in JSON the key `do` has the name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The daemon's status. Answered by [`Reply::Status`](super::Reply::Status).
    Status {},
    /// What is blocked. Answered by [`Reply::Blocks`](super::Reply::Blocks).
    List {},
    /// What is known of an address. Answered by [`Reply::Shown`](super::Reply::Shown), or [`Kind::No`] when nothing is.
    Show {
        /// The address.
        address: Target,
    },
    /// Block. Answered by [`Reply::Done`](super::Reply::Done) once the kernel has acknowledged it.
    Block {
        /// What.
        address: Target,
        /// For how many seconds; 0: until it is unblocked; absent: as long as the configuration says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u64>,
        /// The administrator's reason, or empty.
        #[serde(default)]
        reason: String,
    },
    /// Unblock. Answered by [`Reply::Done`](super::Reply::Done) once the kernel has acknowledged it; [`Kind::No`] when it is not blocked.
    Unblock {
        /// What.
        address: Target,
    },
    /// Unblock everything. Answered by [`Reply::Done`](super::Reply::Done); [`Kind::No`] when nothing is blocked.
    UnblockAll {},
    /// What is never blocked. Answered by [`Reply::Allowed`](super::Reply::Allowed).
    AllowList {},
    /// Never block this until it is removed; a block of it is lifted. Answered by [`Reply::Done`](super::Reply::Done).
    AllowAdd {
        /// What.
        address: Target,
    },
    /// Undo [`Request::AllowAdd`]. Answered by [`Reply::Done`](super::Reply::Done); [`Kind::No`] when it was not added.
    AllowRemove {
        /// What.
        address: Target,
    },
    /// The ruleset as nft text. Answered by [`Reply::Rules`](super::Reply::Rules).
    Rules {},
    /// Read the configuration again. Answered by [`Reply::Done`](super::Reply::Done) when it is in force; [`Kind::Configuration`] when it was refused.
    Reload {},
    /// Blocks of the past. Answered by [`Reply::History`](super::Reply::History).
    History {
        /// Not older than this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Stamp>,
        /// Of this address or network only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<Target>,
    },
    /// Events as they happen. Answered by [`Reply::Watching`](super::Reply::Watching), then [`Reply::Event`](super::Reply::Event)s without end. The
    /// server does this itself.
    Watch {},
}

impl Request {
    /// Whether it changes something: that is for root alone.
    pub fn changes(&self) -> bool {
        match self {
            Self::Block { .. } | Self::Unblock { .. } | Self::UnblockAll {} | Self::AllowAdd { .. } | Self::AllowRemove { .. } | Self::Reload {} => {
                true
            }
            Self::Status {} | Self::List {} | Self::Show { .. } | Self::AllowList {} | Self::Rules {} | Self::History { .. } | Self::Watch {} => {
                false
            }
        }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// A [`Refusal`] for the client: no JSON, another version, an unknown request, a key that is missing, unknown or of the wrong form.
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let bad = |message: String| Refusal::new(Kind::BadRequest, message, "use portsentryctl of the same version as the daemon");
        let mut value: Value = serde_json::from_slice(line).map_err(|error| bad(format!("the request is no JSON object: {error}")))?;
        let Some(object) = value.as_object_mut() else { return Err(bad("the request is no JSON object".to_owned())) };
        match object.remove("v").as_ref().and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(other) => return Err(bad(format!("the request is of protocol version {other}; this daemon speaks version {VERSION}"))),
            None => return Err(bad("the request has no version: \"v\" is missing".to_owned())),
        }
        let request: Self = serde_json::from_value(value).map_err(|error| bad(format!("the request is not understood: {error}")))?;
        if let Self::Block { reason, .. } = &request
            && (reason.len() > REASON_MAX || reason.chars().any(char::is_control))
        {
            return Err(Refusal::new(
                Kind::BadRequest,
                format!("the reason is longer than {REASON_MAX} bytes, or has control characters in it"),
                "say it in one short line",
            ));
        }
        Ok(request)
    }
}
