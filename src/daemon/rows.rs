//! Blocks as lists show them: what is true of each is the kernel's word; what the kernel does not
//! keep, or has not got yet, is the engine's.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::config::CampaignAction;
use crate::control::{
    BlockRow, CampaignFigures, Cause, Kind, ListRow, Proof, Refusal, Stamp, State, Target,
};
use crate::enforce::{Placement, slowed_packets};
use crate::engine::{
    self, CampaignView, ListView, MonoTime, ProofView, Reason, Shared, SlowedPackets, SlowedView,
    Source,
};
use crate::errors::error_chain;
use crate::nft::{Connection, ElementInfo};
use crate::packet::command::{BlockDetails, Command};
use crate::store::{Block, clock};
use crate::sys::mailbox::{Link, Unresponsive};

/// What helps when the kernel does not know our sets.
pub(super) const MEND: &str = "\"portsentryctl reload\" builds the table again";

/// Blocks whose details are asked for at a time: some hundred microseconds of the packet thread.
const DETAILS_PER_PAGE: usize = 500;

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

/// What the engine knows of the blocks of these hosts, in their order.
pub(super) fn known(
    packets: &Link<Command>,
    hosts: &[Source],
) -> Result<Vec<Option<BlockDetails>>, Refusal> {
    let mut known = Vec::with_capacity(hosts.len());
    for page in hosts.chunks(DETAILS_PER_PAGE) {
        known.extend(packets.ask(|answer| Command::Details(page.to_vec(), answer))?);
    }
    Ok(known)
}

/// The same by host.
pub(super) fn details(
    packets: &Link<Command>,
    hosts: &[Source],
) -> Result<HashMap<Source, BlockDetails>, Refusal> {
    let known = known(packets, hosts)?;
    let both = hosts.iter().copied().zip(known);
    Ok(both.filter_map(|(source, known)| Some((source, known?))).collect())
}

/// A line of the list with what its reason says; the text may say it in other words.
fn line(address: Target, state: State, reason: &Reason, text: String) -> BlockRow {
    BlockRow {
        address,
        state,
        cause: cause(reason),
        scan: reason.scan().map(|scan| scan.to_string()),
        proven: reason.proven(),
        reason: text,
        since: None,
        until: None,
        expires_in: None,
        packets: None,
        passed: None,
        renewals: 0,
        exempt: Vec::new(),
        campaign: None,
        list: reason.list().map(|list| list.as_str().to_owned()),
    }
}

/// One line of a list for which the kernel is not asked.
pub(super) fn uncounted_row(source: Source, known: &BlockDetails) -> BlockRow {
    let BlockDetails { reason, since, renewals, expires } = known;
    let left = expires.map(|end| end.since(clock::now()));
    BlockRow {
        since: Some(time_of_day(*since)),
        until: left.map(ahead),
        expires_in: left.map(|left| left.as_secs()),
        renewals: *renewals,
        ..line(source.into(), State::Blocked, reason, reason.to_string())
    }
}

/// One line of the list; `packets`: what was dropped because of it.
pub(super) fn row(
    source: Source,
    info: &ElementInfo,
    packets: u64,
    known: Option<&BlockDetails>,
) -> BlockRow {
    let commented: Option<Reason> =
        info.comment.as_deref().and_then(|comment| comment.parse().ok());
    let foreign = Reason::Foreign(Box::default());
    let reason = commented.as_ref().or(known.map(|known| &known.reason)).unwrap_or(&foreign);
    let begun = known.map(|known| time_of_day(known.since)).or_else(|| {
        let age = info.timeout?.checked_sub(info.expires?)?;
        Some(Stamp(ago(age)))
    });
    // What a comment is read as is written as the comment.
    let text = match (&commented, &info.comment) {
        (Some(_), Some(comment)) => comment.to_string(),
        _ => reason.to_string(),
    };
    BlockRow {
        since: begun,
        until: info.expires.map(ahead),
        expires_in: info.expires.map(|left| left.as_secs()),
        packets: Some(packets),
        renewals: known.map_or(0, |known| known.renewals),
        ..line(source.into(), State::Blocked, reason, text)
    }
}

/// The line of a slowed source.
pub(super) fn slowed_row(
    (view, reason): &(SlowedView, Reason),
    packets: Option<SlowedPackets>,
) -> BlockRow {
    let left = view.until.since(clock::now());
    BlockRow {
        proven: false,
        since: Some(time_of_day(view.since)),
        until: Some(ahead(left)),
        expires_in: Some(left.as_secs()),
        packets: packets.map(|packets| packets.dropped),
        passed: packets.map(|packets| packets.passed),
        ..line(view.source.into(), State::Slowed, reason, reason.to_string())
    }
}

/// The slowed sources.
pub(super) fn slowed_rows(
    packets: &Link<Command>,
    connection: &mut Connection,
    placement: Placement,
) -> Result<Vec<BlockRow>, Refusal> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = packets.ask(|answer| Command::Slowed(after, answer))?;
        let sources: Vec<Source> = page.iter().map(|(view, _)| view.source).collect();
        let counted = slowed_packets::read(connection, placement, &sources).map_err(kernel)?;
        rows.extend(page.iter().zip(counted).map(|(row, packets)| slowed_row(row, packets)));
        let Some((last, _)) = page.last() else { return Ok(rows) };
        after = Some(last.source);
    }
}

/// The line of a campaign. Packets are not counted for it alone.
pub(super) fn campaign_row((view, action): &(CampaignView, CampaignAction)) -> BlockRow {
    let program = match view.shared {
        Shared::Network(_) => None,
        Shared::Signature(signature) => Some(signature.name().to_owned()),
    };
    let with = program.as_ref().map_or_else(String::new, |program| format!(" with {program}"));
    let left = view.until.map(|until| until.since(clock::now()));
    BlockRow {
        address: view.address().into(),
        state: match action {
            CampaignAction::Report => State::Reported,
            CampaignAction::Slow => State::Slowed,
            CampaignAction::Block => State::Blocked,
        },
        cause: Cause::Campaign,
        scan: None,
        proven: false,
        reason: format!("campaign{with}: {} sources, {} ports", view.sources, view.ports),
        since: Some(time_of_day(view.since)),
        until: left.map(ahead),
        expires_in: left.map(|left| left.as_secs()),
        packets: None,
        passed: None,
        renewals: 0,
        exempt: Vec::new(),
        list: None,
        campaign: Some(CampaignFigures {
            program,
            sources: view.sources,
            ports: view.ports,
            port: view.port.to_string(),
            scanner: view.scanner,
        }),
    }
}

/// The campaigns.
pub(super) fn campaign_rows(packets: &Link<Command>) -> Result<Vec<BlockRow>, Refusal> {
    Ok(packets.ask(Command::Campaigns)?.iter().map(campaign_row).collect())
}

/// The line of a blocked network; `packets`: what the kernel counted for it alone.
pub(super) fn network_row(block: &Block, packets: Option<u64>) -> BlockRow {
    let left = block.expires.map(|end| end.since(clock::now()));
    BlockRow {
        since: Some(time_of_day(block.since)),
        until: left.map(ahead),
        expires_in: left.map(|left| left.as_secs()),
        packets,
        exempt: block.exempt.iter().map(|network| Source::from(*network).into()).collect(),
        ..line(block.source.into(), State::Blocked, &block.reason, block.reason.to_string())
    }
}

/// The named lists with a block in force, by name.
pub(super) fn list_rows(figures: &engine::Status) -> Vec<ListRow> {
    let row = |list: &ListView| {
        let left = list.end.map(|end| end.since(clock::now()));
        ListRow {
            name: list.name.as_str().to_owned(),
            blocks: list.blocks as u64,
            until: left.map(ahead),
            expires_in: left.map(|left| left.as_secs()),
        }
    };
    let mut rows: Vec<ListRow> = figures.lists.iter().map(row).collect();
    rows.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    rows
}

/// A moment of the past as a time of day.
pub(super) fn time_of_day(moment: MonoTime) -> Stamp {
    Stamp(ago(clock::now().since(moment)))
}

/// A moment to come as a time of day.
pub(super) fn time_ahead(moment: MonoTime) -> Stamp {
    ahead(moment.since(clock::now()))
}

fn cause(reason: &Reason) -> Cause {
    match reason {
        Reason::Scan { proven: true, .. } => Cause::Proven,
        Reason::Scan { proven: false, .. } => Cause::Unproven,
        Reason::Manual(_) | Reason::Listed(_) => Cause::Order,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::Key;

    #[test]
    fn a_row_for_which_the_kernel_is_not_asked_differs_in_its_packets_alone() {
        let (hour, now) = (Duration::from_secs(3600), clock::now());
        for text in
            ["syn scan, proven: 3 ports in 0.2s: tcp/1 tcp/2 tcp/3", "by hand: ticket 7", "x"]
        {
            let address = std::net::Ipv4Addr::new(192, 0, 2, 7);
            let known = BlockDetails {
                reason: text.parse().unwrap(),
                since: now,
                renewals: 2,
                expires: Some(now.after(hour)),
            };
            let info = ElementInfo {
                key: Key::V4(address),
                end: None,
                timeout: Some(hour),
                expires: Some(hour),
                packets: 9,
                bytes: 0,
                comment: Some(text.into()),
            };
            let source = Source::of(address.into(), 128);
            let asked = row(source, &info, info.packets, Some(&known));
            assert_eq!((asked.packets, asked.reason.as_str()), (Some(9), text));
            let mut uncounted = uncounted_row(source, &known);
            assert_eq!(uncounted.packets, None);
            // A moment lies between the two.
            (uncounted.packets, uncounted.until) = (Some(9), asked.until);
            (uncounted.since, uncounted.expires_in) = (asked.since, asked.expires_in);
            assert_eq!(uncounted, asked);
        }
    }
}
