//! Durations, counts and names as several formats print them.

use std::time::Duration;

use crate::config::CampaignAction;
use crate::probe::{ScanKind, Transport};

/// A duration in its two largest units: `58 s`, `1h 2m`, `6d 23h`. Fractions of a second are
/// dropped.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let largest = units.windows(2).find(|pair| pair.first().is_some_and(|(large, _)| *large > 0));
    match largest {
        Some([(large, unit), (0, _)]) => format!("{large}{unit}"),
        Some([(large, unit), (small, smaller)]) => format!("{large}{unit} {small}{smaller}"),
        _ => format!("{seconds} s"),
    }
}

/// A scan's name in classic lines: PortSentry 1.2's, or one in its style for scans that 1.2 did not
/// detect.
///
/// The blank before `TCP NULL scan` is 1.2's; existing patterns match it.
pub(crate) fn scan_name(kind: ScanKind) -> &'static str {
    match kind {
        ScanKind::Connect => "Connect",
        ScanKind::Syn => "TCP SYN/Normal scan",
        ScanKind::Fin => "TCP FIN scan",
        ScanKind::Null => " TCP NULL scan",
        ScanKind::Xmas => "TCP XMAS scan",
        ScanKind::Maimon => "TCP MAIMON scan",
        ScanKind::Ack => "TCP ACK scan",
        ScanKind::CustomFlags => "TCP CUSTOM FLAGS scan",
        ScanKind::Udp => "UDP scan",
        ScanKind::SctpInit => "SCTP INIT scan",
        ScanKind::SctpCookieEcho => "SCTP COOKIE ECHO scan",
        ScanKind::IpProtocol => "IP PROTOCOL scan",
        ScanKind::Reply => "REPLY",
        ScanKind::Sweep => "ADDRESS SWEEP",
        ScanKind::PingSweep => "PING SWEEP",
    }
}

/// What is done about a campaign.
pub(crate) fn done(action: CampaignAction) -> &'static str {
    match action {
        CampaignAction::Report => "reported",
        CampaignAction::Slow => "slowed",
        CampaignAction::Block => "blocked",
    }
}

/// The transport in classic lines.
pub(super) fn transport(transport: Transport) -> String {
    transport.name().to_ascii_uppercase()
}

/// A number with its noun: `1 block`, `2 blocks`.
pub(super) fn count(n: u64, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
}

/// The offset of a local time, as RFC 3339 has it: `Z`, `+01:00`.
pub(crate) fn offset(local: &jiff::ZonedDateTime) -> String {
    match local.offset().is_zero() {
        true => "Z".to_owned(),
        false => local.strftime("%:z").to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (58, "58 s"),
            (60, "1m"),
            (61, "1m 1s"),
            (3600, "1h"),
            (3720, "1h 2m"),
            (3601, "1h"),
            (604_799, "6d 23h"),
            (86_400, "1d"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
