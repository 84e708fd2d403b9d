//! Durations, counts and names as several formats print them.

use std::time::Duration;

use crate::probe::{ScanKind, Transport};

/// A duration in its two largest units: `58 s`, `1h 2m`, `6d 23h`. Fractions of a second are
/// dropped.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes, rest) =
        (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let pair = |large: u64, unit: &str, small: u64, small_unit: &str| {
        if small == 0 {
            format!("{large}{unit}")
        } else {
            format!("{large}{unit} {small}{small_unit}")
        }
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => pair(minutes, "m", rest, "s"),
        (0, _, _) => pair(hours, "h", minutes, "m"),
        _ => pair(days, "d", hours, "h"),
    }
}

/// A scan's name in classic lines: PortSentry 1.2's, or one in its style for scans that 1.2 did not
/// detect.
///
/// The blank before `TCP NULL scan` is 1.2's; existing patterns match it.
pub fn scan_name(kind: ScanKind) -> &'static str {
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
    }
}

/// The transport in classic lines.
pub(super) fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
        Transport::Sctp => "SCTP",
        Transport::Ip => "IP",
    }
}

/// A number with its noun: `1 block`, `2 blocks`.
pub(super) fn count(n: u64, one: &str) -> String {
    format!("{n} {one}{}", if n == 1 { "" } else { "s" })
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
