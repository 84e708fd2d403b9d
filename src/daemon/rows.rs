//! Blocks as lists show them: what is true of each is the kernel's word; what the kernel does not keep, or has not got yet, is the books'.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::command::Command;
use super::link::{Link, Unresponsive};
use super::time;
use crate::control::{BlockRow, Kind, Refusal, Stamp, Target};
use crate::engine::{Moment, Reason, Subject};
use crate::nft::ElementInfo;
use crate::errors::error_chain as words;

/// What helps when the kernel does not know our sets.
pub(super) const MEND: &str = "\"portsentryctl reload\" builds the table anew";

/// The packet thread gave no answer.
pub(super) fn busy(error: Unresponsive) -> Refusal {
    Refusal::new(Kind::Busy, error.to_string(), "try again; if it stays so, see the log")
}

/// The kernel gave no answer.
pub(super) fn kernel(error: &crate::nft::Error) -> Refusal {
    Refusal::new(Kind::Failed, format!("the kernel's sets cannot be read: {}", words(error)), MEND)
}

/// What the books say of elements without a comment: after a repair or a start that follows the rest.
pub(super) fn reasons(sentry: &Link<Command>, blocked: &[(Subject, ElementInfo)]) -> Result<HashMap<Subject, Reason>, Refusal> {
    let bare: Vec<Subject> = blocked.iter().filter(|(_, info)| info.comment.is_none()).map(|(subject, _)| *subject).collect();
    if bare.is_empty() {
        return Ok(HashMap::new());
    }
    let known = sentry.ask(|answer| Command::Reasons(bare.clone(), answer)).map_err(busy)?;
    Ok(bare.into_iter().zip(known).filter_map(|(subject, reason)| Some((subject, reason?))).collect())
}

/// One line of the list; `since`: when the block began, as far as the books know; `reason`: why, for an element without a comment.
pub(super) fn row(subject: Subject, info: &ElementInfo, prefix: u8, since: Option<Moment>, reason: Option<&Reason>) -> BlockRow {
    let commented = info.comment.as_deref().and_then(|comment| comment.parse().ok());
    let reason = commented.or_else(|| reason.cloned()).unwrap_or(Reason::Foreign(String::new()));
    // The engine knows when a block began; the kernel only when its timeout was set last.
    let begun = since.map(time_of_day).or_else(|| {
        let age = info.timeout?.checked_sub(info.expires?)?;
        Some(Stamp(ago(age)))
    });
    BlockRow {
        address: Target::of(subject, prefix),
        scan: reason.scan().map(|scan| scan.to_string()),
        proven: reason.proven(),
        reason: reason.to_string(),
        since: begun,
        expires_in: info.expires.map(|left| left.as_secs()),
        packets: Some(info.packets),
    }
}

/// A moment of the past as a time of day.
pub(super) fn time_of_day(moment: Moment) -> Stamp {
    Stamp(ago(time::now().since(moment)))
}

fn ago(age: Duration) -> Timestamp {
    let now = Timestamp::now();
    SignedDuration::try_from(age).ok().and_then(|age| now.checked_sub(age).ok()).unwrap_or(now)
}
