//! Blocks as lists show them: what is true of each is the kernel's word; what the kernel does not
//! keep, or has not got yet, is the engine's.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::control::{BlockRow, Cause, Kind, Proof, Refusal, Stamp, State};
use crate::engine::{MonoTime, ProofView, Reason, SlowedView, Source};
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
        cause: cause(&reason),
        scan: reason.scan().map(|scan| scan.to_string()),
        proven: reason.proven(),
        reason: reason.to_string(),
        since: begun,
        until: info.expires.map(ahead),
        expires_in: info.expires.map(|left| left.as_secs()),
        packets: Some(info.packets),
        exempt: Vec::new(),
    }
}

/// The line of a slowed source. Its packets are not counted for it alone: a counter of its element
/// counts each lookup, of which a probe has more than one, whether the packet passes or not.
pub(super) fn slowed_row((view, reason): &(SlowedView, Reason)) -> BlockRow {
    let left = view.until.since(clock::now());
    BlockRow {
        address: view.source.into(),
        state: State::Slowed,
        cause: cause(reason),
        scan: reason.scan().map(|scan| scan.to_string()),
        proven: false,
        reason: reason.to_string(),
        since: Some(time_of_day(view.since)),
        until: Some(ahead(left)),
        expires_in: Some(left.as_secs()),
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
    let left = block.expires.map(|end| end.since(clock::now()));
    BlockRow {
        address: block.source.into(),
        state: State::Blocked,
        cause: cause(&block.reason),
        scan: block.reason.scan().map(|scan| scan.to_string()),
        proven: block.reason.proven(),
        reason: block.reason.to_string(),
        since: Some(time_of_day(block.since)),
        until: left.map(ahead),
        expires_in: left.map(|left| left.as_secs()),
        packets,
        exempt: block.exempt.iter().map(|network| Source::from(*network).into()).collect(),
    }
}

/// A moment of the past as a time of day.
pub(super) fn time_of_day(moment: MonoTime) -> Stamp {
    Stamp(ago(clock::now().since(moment)))
}

fn cause(reason: &Reason) -> Cause {
    match reason {
        Reason::Scan { proven: true, .. } => Cause::Proven,
        Reason::Scan { proven: false, .. } => Cause::Unproven,
        Reason::Manual(_) => Cause::Order,
        Reason::Foreign(_) => Cause::Foreign,
    }
}

/// What a slowed source's retransmissions say about its address.
pub(super) fn proof(view: &SlowedView) -> Proof {
    let ProofView { bits, needed, silent, answered, is_blind } = view.proof;
    Proof { bits, needed, silent: silent as u64, answered: answered as u64, blind: is_blind }
}

/// The time of day after a while.
fn ahead(left: Duration) -> Stamp {
    let now = Timestamp::now();
    Stamp(
        SignedDuration::try_from(left)
            .ok()
            .and_then(|left| now.checked_add(left).ok())
            .unwrap_or(now),
    )
}

fn ago(age: Duration) -> Timestamp {
    let now = Timestamp::now();
    SignedDuration::try_from(age).ok().and_then(|age| now.checked_sub(age).ok()).unwrap_or(now)
}
