//! Blocks as lists show them: what is true of each is the kernel's word; what the kernel does not
//! keep, or has not got yet, is the engine's.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::control::{BlockRow, Kind, Refusal, Stamp, State};
use crate::engine::{MonoTime, Reason, SlowedView, Source};
use crate::errors::error_chain;
use crate::nft::ElementInfo;
use crate::packet::command::Command;
use crate::store::{Block, clock};
use crate::sys::mailbox::{Link, Unresponsive};

/// What helps when the kernel does not know our sets.
pub(super) const MEND: &str = "\"portsentryctl reload\" builds the table again";

/// The packet thread gave no answer.
impl From<Unresponsive> for Refusal {
    fn from(error: Unresponsive) -> Self {
        Self::new(Kind::Busy, error.to_string(), "try again; if it stays so, see the log")
    }
}

/// The kernel gave no answer.
pub(super) fn kernel(error: crate::nft::Error) -> Refusal {
    let message = format!("the kernel's sets cannot be read: {}", error_chain(&error));
    Refusal::new(Kind::Failed, message, MEND)
}

/// What the engine knows of elements without a comment: after a repair or a start that follows the
/// rest.
pub(super) fn reasons(
    sentry: &Link<Command>,
    blocked: &[(Source, ElementInfo)],
) -> Result<HashMap<Source, Reason>, Refusal> {
    let bare: Vec<Source> = blocked
        .iter()
        .filter(|(_, info)| info.comment.is_none())
        .map(|(source, _)| *source)
        .collect();
    if bare.is_empty() {
        return Ok(HashMap::new());
    }
    let known = sentry.ask(|answer| Command::Reasons(bare.clone(), answer))?;
    Ok(bare.into_iter().zip(known).filter_map(|(source, reason)| Some((source, reason?))).collect())
}

/// One line of the list; `since`: when the block began, as far as the engine knows; `reason`: why,
/// for an element without a comment.
pub(super) fn row(
    source: Source,
    info: &ElementInfo,
    since: Option<MonoTime>,
    reason: Option<&Reason>,
) -> BlockRow {
    let commented = info.comment.as_deref().and_then(|comment| comment.parse().ok());
    let reason = commented.or_else(|| reason.cloned()).unwrap_or(Reason::Foreign(String::new()));
    // The engine knows when a block began; the kernel only when its timeout was set last.
    let begun = since.map(time_of_day).or_else(|| {
        let age = info.timeout?.checked_sub(info.expires?)?;
        Some(Stamp(ago(age)))
    });
    BlockRow {
        address: source.into(),
        state: State::Blocked,
        scan: reason.scan().map(|scan| scan.to_string()),
        proven: reason.proven(),
        reason: reason.to_string(),
        since: begun,
        expires_in: info.expires.map(|left| left.as_secs()),
        packets: Some(info.packets),
        exempt: Vec::new(),
    }
}

/// The line of a slowed source. Its packets are not counted for it alone.
pub(super) fn slowed_row((view, reason): &(SlowedView, Reason)) -> BlockRow {
    BlockRow {
        address: view.source.into(),
        state: State::Slowed,
        scan: reason.scan().map(|scan| scan.to_string()),
        proven: false,
        reason: reason.to_string(),
        since: Some(time_of_day(view.since)),
        expires_in: Some(view.until.since(clock::now()).as_secs()),
        packets: None,
        exempt: Vec::new(),
    }
}

/// The slowed sources.
pub(super) fn slowed_rows(packets: &Link<Command>) -> Result<Vec<BlockRow>, Refusal> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = packets.ask(|answer| Command::Slowed(after, answer))?;
        rows.extend(page.iter().map(slowed_row));
        let Some((last, _)) = page.last() else { return Ok(rows) };
        after = Some(last.source);
    }
}

/// The line of a blocked network; `packets`: what the kernel counted for it alone.
pub(super) fn network_row(block: &Block, packets: Option<u64>) -> BlockRow {
    BlockRow {
        address: block.source.into(),
        state: State::Blocked,
        scan: block.reason.scan().map(|scan| scan.to_string()),
        proven: block.reason.proven(),
        reason: block.reason.to_string(),
        since: Some(time_of_day(block.since)),
        expires_in: block.expires.map(|end| end.since(clock::now()).as_secs()),
        packets,
        exempt: block.exempt.iter().map(|network| Source::from(*network).into()).collect(),
    }
}

/// A moment of the past as a time of day.
pub(super) fn time_of_day(moment: MonoTime) -> Stamp {
    Stamp(ago(clock::now().since(moment)))
}

fn ago(age: Duration) -> Timestamp {
    let now = Timestamp::now();
    SignedDuration::try_from(age).ok().and_then(|age| now.checked_sub(age).ok()).unwrap_or(now)
}
