//! What stands in a row, and its check sum.
//!
//! SQLite does not notice a page that a disk has altered within its cells. A block whose address has a flipped bit is one of somebody else, so each row
//! carries a sum over all that it says, and a row whose sum is wrong says nothing.

use ipnet::IpNet;
use rusqlite::types::ValueRef;
use rusqlite::{Row, Statement};

use super::{Block, Known, Repeated};
use crate::engine::{Evidence, Moment, Offender, Source, Subject, TouchView};
use crate::probe::{Port, ScanKind, Transport};

/// Bytes of one touch.
const TOUCH: usize = 12;

/// Fowler/Noll/Vo, FNV-1a of 64 bits: a flipped bit or a swapped field gives another number. It is no defence against who can write the file.
struct Sum(u64);

impl Sum {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// A field, with its length, so that none runs into the next.
    fn field(mut self, bytes: &[u8]) -> Self {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self
    }

    fn number(self, number: i64) -> Self {
        self.field(&number.to_le_bytes())
    }

    fn maybe(self, number: Option<i64>) -> Self {
        match number {
            Some(number) => self.number(number),
            None => self.field(&[]),
        }
    }

    fn end(self) -> i64 {
        self.0.cast_signed()
    }
}

/// A moment as SQLite holds it: all of the daemon's lie below 2^63.
pub(super) fn millis(moment: Moment) -> i64 {
    i64::try_from(moment.millis()).unwrap_or(i64::MAX)
}

fn moment(millis: i64) -> Option<Moment> {
    u64::try_from(millis).ok().map(Moment::from_millis)
}

/// The name of a subject: an address, or a network with its length.
pub(super) fn subject_name(subject: Subject) -> String {
    match subject {
        Subject::Host(source) => source.address().to_string(),
        Subject::Network(network) => network.to_string(),
    }
}

fn subject(name: &str) -> Option<Subject> {
    if name.contains('/') {
        let network: IpNet = name.parse().ok()?;
        return (network == network.trunc()).then_some(Subject::Network(network));
    }
    source(name).map(Subject::Host)
}

fn prefix_length(bits: i64) -> Option<u8> {
    u8::try_from(bits).ok().filter(|bits| *bits <= 128)
}

fn source(name: &str) -> Option<Source> {
    Some(Source::of(name.parse().ok()?, 128))
}

fn port(text: &str) -> Option<Port> {
    let (transport, number) = text.split_once('/')?;
    let transport = [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip].into_iter().find(|known| known.name() == transport)?;
    Some(Port { transport, number: number.parse().ok()? })
}

fn text<'a>(row: &'a Row<'_>, at: usize) -> rusqlite::Result<Option<&'a str>> {
    Ok(match row.get_ref(at)? {
        ValueRef::Text(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    })
}

fn number(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<i64>> {
    Ok(match row.get_ref(at)? {
        ValueRef::Integer(number) => Some(number),
        _ => None,
    })
}

fn block_sum(subject: &str, prefix: i64, since: i64, expires: Option<i64>, port: Option<&str>, reason: &str) -> i64 {
    Sum::new()
        .field(subject.as_bytes())
        .number(prefix)
        .number(since)
        .maybe(expires)
        .field(port.unwrap_or_default().as_bytes())
        .field(reason.as_bytes())
        .end()
}

/// Writes a block: subject, prefix, since, expires, port, reason, sum.
pub(super) fn put_block(statement: &mut Statement<'_>, block: &Block) -> rusqlite::Result<()> {
    let (name, port, reason) = (subject_name(block.subject), block.port.map(|port| port.to_string()), block.reason.to_string());
    let (prefix, since, expires) = (i64::from(block.prefix), millis(block.since), block.expires.map(millis));
    let sum = block_sum(&name, prefix, since, expires, port.as_deref(), &reason);
    statement.execute((name, prefix, since, expires, port, reason, sum)).map(drop)
}

/// Reads one; `None`: it says nothing.
pub(super) fn block(row: &Row<'_>) -> rusqlite::Result<Option<Block>> {
    let (Some(name), Some(prefix), Some(since), expires) = (text(row, 0)?, number(row, 1)?, number(row, 2)?, number(row, 3)?) else {
        return Ok(None);
    };
    let (port_name, Some(reason), Some(sum)) = (text(row, 4)?, text(row, 5)?, number(row, 6)?) else { return Ok(None) };
    if block_sum(name, prefix, since, expires, port_name, reason) != sum {
        return Ok(None);
    }
    let read = || {
        Some(Block {
            subject: subject(name)?,
            prefix: prefix_length(prefix)?,
            since: moment(since)?,
            expires: match expires {
                Some(expires) => Some(moment(expires)?),
                None => None,
            },
            port: match port_name {
                Some(name) => Some(port(name)?),
                None => None,
            },
            // Reading a reason cannot fail.
            reason: reason.parse().ok()?,
        })
    };
    Ok(read())
}

fn offender_sum(name: &str, prefix: i64, times: i64, last: i64) -> i64 {
    Sum::new().field(name.as_bytes()).number(prefix).number(times).number(last).end()
}

/// Writes an offender: source, prefix, times, last, sum.
pub(super) fn put_offender(statement: &mut Statement<'_>, repeated: &Repeated) -> rusqlite::Result<()> {
    let Offender { source, times, last } = repeated.offender;
    let (name, prefix, times, last) = (source.address().to_string(), i64::from(repeated.prefix), i64::from(times), millis(last));
    let sum = offender_sum(&name, prefix, times, last);
    statement.execute((name, prefix, times, last, sum)).map(drop)
}

/// Reads one; `None`: it says nothing.
pub(super) fn offender(row: &Row<'_>) -> rusqlite::Result<Option<Repeated>> {
    let (Some(name), Some(prefix), Some(times), Some(last), Some(sum)) =
        (text(row, 0)?, number(row, 1)?, number(row, 2)?, number(row, 3)?, number(row, 4)?)
    else {
        return Ok(None);
    };
    if offender_sum(name, prefix, times, last) != sum {
        return Ok(None);
    }
    let read = || {
        let offender = Offender { source: source(name)?, times: u32::try_from(times).ok()?, last: moment(last)? };
        Some(Repeated { offender, prefix: prefix_length(prefix)? })
    };
    Ok(read())
}

fn evidence_sum(name: &str, prefix: i64, first: i64, last: i64, told: Option<i64>, probes: i64, ports: &[u8]) -> i64 {
    Sum::new().field(name.as_bytes()).number(prefix).number(first).number(last).maybe(told).number(probes).field(ports).end()
}

/// Transport, kind of scan, imitable, nothing, number (2 bytes), age in milliseconds before `last` (6 bytes), the highest byte first.
fn touch_bytes(touch: &TouchView, last: Moment) -> [u8; TOUCH] {
    let [_, _, age @ ..] = u64::try_from(last.since(touch.at).as_millis()).unwrap_or(u64::MAX).to_be_bytes();
    let [high, low] = touch.port.number.to_be_bytes();
    let [a, b, c, d, e, f] = age;
    [touch.port.transport as u8, touch.scan as u8, u8::from(touch.imitable), 0, high, low, a, b, c, d, e, f]
}

fn touch(bytes: &[u8], last: Moment) -> Option<TouchView> {
    let [transport, scan, imitable, _, high, low, a, b, c, d, e, f] = *bytes else { return None };
    let transport = *[Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip].get(usize::from(transport))?;
    let age = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    Some(TouchView {
        port: Port { transport, number: u16::from_be_bytes([high, low]) },
        scan: *ScanKind::ALL.get(usize::from(scan))?,
        imitable: imitable != 0,
        at: Moment::from_millis(last.millis().saturating_sub(age)),
    })
}

/// Writes what is known of a source: source, prefix, first, last, told, probes, ports, sum.
pub(super) fn put_evidence(statement: &mut Statement<'_>, known: &Known) -> rusqlite::Result<()> {
    let Evidence { source, first, last, told, probes, ports } = &known.evidence;
    let latest = ports.iter().map(|touch| touch.at).max().unwrap_or(*last).max(*last);
    let ports: Vec<u8> = ports.iter().flat_map(|touch| touch_bytes(touch, latest)).collect();
    let (name, prefix, first, last) = (source.address().to_string(), i64::from(known.prefix), millis(*first), millis(latest));
    let (told, probes) = (told.map(millis), i64::from(*probes));
    let sum = evidence_sum(&name, prefix, first, last, told, probes, &ports);
    statement.execute((name, prefix, first, last, told, probes, ports, sum)).map(drop)
}

/// Reads it; `None`: it says nothing.
pub(super) fn evidence(row: &Row<'_>) -> rusqlite::Result<Option<Known>> {
    let (Some(name), Some(prefix), Some(first), Some(last)) = (text(row, 0)?, number(row, 1)?, number(row, 2)?, number(row, 3)?) else {
        return Ok(None);
    };
    let (told, Some(probes), ValueRef::Blob(ports), Some(sum)) = (number(row, 4)?, number(row, 5)?, row.get_ref(6)?, number(row, 7)?) else {
        return Ok(None);
    };
    if evidence_sum(name, prefix, first, last, told, probes, ports) != sum {
        return Ok(None);
    }
    let read = || {
        let last = moment(last)?;
        let evidence = Evidence {
            source: source(name)?,
            first: moment(first)?,
            last,
            told: told.and_then(moment),
            probes: u32::try_from(probes).ok()?,
            ports: ports.chunks_exact(TOUCH).map(|bytes| touch(bytes, last)).collect::<Option<_>>()?,
        };
        Some(Known { evidence, prefix: prefix_length(prefix)? })
    };
    Ok(read())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kinds_of_scans_and_transports_have_the_numbers_that_are_in_databases() {
        let names: Vec<_> = ScanKind::ALL.iter().map(|scan| format!("{} {}", *scan as u8, scan.name())).collect();
        let golden = "0 connect,1 syn,2 fin,3 null,4 xmas,5 maimon,6 ack,7 custom-flags,8 udp,9 sctp-init,10 sctp-cookie-echo,11 ip-protocol";
        assert_eq!(names.join(","), golden);
        assert_eq!([Transport::Tcp as u8, Transport::Udp as u8, Transport::Sctp as u8, Transport::Ip as u8], [0, 1, 2, 3]);
    }

    #[test]
    fn a_name_that_was_not_written_by_us_is_none() {
        for name in ["", "x", "1.2.3", "10.0.0.1/8", "10.0.0.0/33", "2001:db8::/129"] {
            assert_eq!(subject(name), None, "{name}");
        }
        for text in ["", "tcp", "tcp/", "tcp/65536", "icmp/1"] {
            assert_eq!(port(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn subjects_are_read_as_they_are_written(bits in any::<u128>(), length in 0u8..=128, form in 0u8..4) {
            let (v4, v6) = (std::net::Ipv4Addr::from_bits(bits as u32), std::net::Ipv6Addr::from_bits(bits));
            let written = match form {
                0 => Subject::Host(Source::V4(v4)),
                1 => Subject::Host(Source::V6(v6)),
                2 => Subject::Network(IpNet::new(v4.into(), length % 33).unwrap().trunc()),
                _ => Subject::Network(IpNet::new(v6.into(), length).unwrap().trunc()),
            };
            prop_assert_eq!(subject(&subject_name(written)), Some(written));
        }

        #[test]
        fn touches_are_read_as_they_are_written(transport in 0usize..4, scan in 0usize..12, imitable in any::<bool>(), number in any::<u16>(), at in 0u64..1 << 40, later in 0u64..1 << 40) {
            let transport = [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip][transport];
            let view = TouchView { port: Port { transport, number }, scan: ScanKind::ALL[scan], imitable, at: Moment::from_millis(at) };
            let last = Moment::from_millis(at + later);
            prop_assert_eq!(touch(&touch_bytes(&view, last), last), Some(view));
        }

        #[test]
        fn no_bytes_make_the_reader_of_touches_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), last in any::<u64>()) {
            for chunk in bytes.chunks(TOUCH) {
                let _ = touch(chunk, Moment::from_millis(last));
            }
        }
    }
}
