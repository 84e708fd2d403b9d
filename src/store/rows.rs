//! Conversion of rows from and to the database, with check sums.
//!
//! SQLite does not notice a page whose cells were altered on disk. A flipped bit in an address
//! would block another host, so each row has a sum over its content, and rows with a wrong sum are
//! ignored.

use std::collections::HashMap;

use ipnet::IpNet;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, Statement, Transaction};

use super::{Block, END_BLOCK, END_EXEMPTIONS, PUT_BLOCK, PUT_EXEMPTION};
use crate::engine::{Evidence, MonoTime, Offender, Source, TouchView};
use crate::probe::{Port, ScanKind, Transport};

pub(super) const ALL_BLOCKS: &str =
    "SELECT subject, prefix, since, expires, port, reason, sum FROM blocks";

/// Bytes of a stored touch.
const TOUCH: usize = 12;

/// Fowler/Noll/Vo, FNV-1a of 64 bits: detects flipped bits and swapped fields. Not a defence
/// against deliberate changes.
struct Sum(u64);

impl Sum {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a field with its length, so that adjacent fields cannot be confused.
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

/// A time as SQLite holds it: all of the daemon's are below 2^63.
pub(super) fn millis(moment: MonoTime) -> i64 {
    i64::try_from(moment.millis()).unwrap_or(i64::MAX)
}

fn moment(millis: i64) -> Option<MonoTime> {
    u64::try_from(millis).ok().map(MonoTime::from_millis)
}

/// A source from its name and prefix length. Version 1 wrote an IPv6 source as its address alone.
fn source(name: &str, prefix: i64) -> Option<Source> {
    if name.contains('/') {
        let network: IpNet = name.parse().ok()?;
        return (network == network.trunc()).then(|| Source::from(network));
    }
    Some(Source::of(name.parse().ok()?, u8::try_from(prefix).ok().filter(|bits| *bits <= 128)?))
}

fn port(text: &str) -> Option<Port> {
    let (transport, number) = text.split_once('/')?;
    let transport = [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip]
        .into_iter()
        .find(|known| known.name() == transport)?;
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

pub(super) fn block_sum(
    subject: &str,
    prefix: i64,
    since: i64,
    expires: Option<i64>,
    port: Option<&str>,
    reason: &str,
) -> i64 {
    Sum::new()
        .field(subject.as_bytes())
        .number(prefix)
        .number(since)
        .maybe(expires)
        .field(port.unwrap_or_default().as_bytes())
        .field(reason.as_bytes())
        .end()
}

/// Writes blocks with their exemptions.
pub(super) struct BlockWriter<'a> {
    put: Statement<'a>,
    end: Statement<'a>,
    put_exemption: Statement<'a>,
    end_exemptions: Statement<'a>,
}

impl<'a> BlockWriter<'a> {
    pub(super) fn new(transaction: &'a Transaction<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            put: transaction.prepare(PUT_BLOCK)?,
            end: transaction.prepare(END_BLOCK)?,
            put_exemption: transaction.prepare(PUT_EXEMPTION)?,
            end_exemptions: transaction.prepare(END_EXEMPTIONS)?,
        })
    }

    pub(super) fn put(&mut self, block: &Block) -> rusqlite::Result<()> {
        let (name, port, reason) = (
            block.source.to_string(),
            block.port.map(|port| port.to_string()),
            block.reason.to_string(),
        );
        let (prefix, since, expires) =
            (i64::from(block.source.prefix_len()), millis(block.since), block.expires.map(millis));
        let sum = block_sum(&name, prefix, since, expires, port.as_deref(), &reason);
        self.put.execute((&name, prefix, since, expires, port, reason, sum))?;
        self.end_exemptions.execute([&name])?;
        for exempt in &block.exempt {
            let exempt = exempt.to_string();
            let sum = exemption_sum(&name, &exempt);
            self.put_exemption.execute((&name, exempt, sum))?;
        }
        Ok(())
    }

    pub(super) fn end(&mut self, name: &str) -> rusqlite::Result<()> {
        self.end.execute([name])?;
        self.end_exemptions.execute([name]).map(drop)
    }
}

/// Exemptions by the name of their block.
pub(super) type Exemptions = HashMap<String, Vec<IpNet>>;

fn exemption_sum(name: &str, exempt: &str) -> i64 {
    Sum::new().field(name.as_bytes()).field(exempt.as_bytes()).end()
}

/// Reads the exemptions; the flag says whether every row was valid.
pub(super) fn exemptions(connection: &Connection) -> rusqlite::Result<(Exemptions, bool)> {
    let (mut all, mut whole) = (Exemptions::new(), true);
    let mut statement =
        connection.prepare("SELECT subject, exempt, sum FROM exemptions ORDER BY exempt")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let read = || -> rusqlite::Result<Option<(String, IpNet)>> {
            let (Some(name), Some(exempt), Some(sum)) =
                (text(row, 0)?, text(row, 1)?, number(row, 2)?)
            else {
                return Ok(None);
            };
            let network = exempt.parse().ok().filter(|_| exemption_sum(name, exempt) == sum);
            Ok(network.map(|network| (name.to_owned(), network)))
        };
        match read()? {
            Some((name, network)) => all.entry(name).or_default().push(network),
            None => whole = false,
        }
    }
    // In the engine's order.
    all.values_mut().for_each(|networks| networks.sort_unstable());
    Ok((all, whole))
}

/// Moves a block's exemptions into it.
pub(super) fn with_exemptions(mut block: Block, exemptions: &mut Exemptions) -> Block {
    if !exemptions.is_empty() {
        block.exempt = exemptions.remove(&block.source.to_string()).unwrap_or_default();
    }
    block
}

/// Reads a block; `None`: the row is invalid.
pub(super) fn block(row: &Row<'_>) -> rusqlite::Result<Option<Block>> {
    let (Some(name), Some(prefix), Some(since), expires) =
        (text(row, 0)?, number(row, 1)?, number(row, 2)?, number(row, 3)?)
    else {
        return Ok(None);
    };
    let (port_name, Some(reason), Some(sum)) = (text(row, 4)?, text(row, 5)?, number(row, 6)?)
    else {
        return Ok(None);
    };
    if block_sum(name, prefix, since, expires, port_name, reason) != sum {
        return Ok(None);
    }
    let read = || {
        Some(Block {
            source: source(name, prefix)?,
            exempt: Vec::new(),
            since: moment(since)?,
            expires: match expires {
                Some(expires) => Some(moment(expires)?),
                None => None,
            },
            port: match port_name {
                Some(name) => Some(port(name)?),
                None => None,
            },
            // Parsing a reason cannot fail.
            reason: reason.parse().ok()?,
        })
    };
    Ok(read())
}

fn offender_sum(name: &str, prefix: i64, times: i64, last: i64) -> i64 {
    Sum::new().field(name.as_bytes()).number(prefix).number(times).number(last).end()
}

/// Writes an offender: source, prefix, times, last, sum.
pub(super) fn put_offender(
    statement: &mut Statement<'_>,
    offender: &Offender,
) -> rusqlite::Result<()> {
    let Offender { source, times, last } = *offender;
    let (name, prefix, times, last) =
        (source.to_string(), i64::from(source.prefix_len()), i64::from(times), millis(last));
    let sum = offender_sum(&name, prefix, times, last);
    statement.execute((name, prefix, times, last, sum)).map(drop)
}

/// Reads an offender; `None`: the row is invalid.
pub(super) fn offender(row: &Row<'_>) -> rusqlite::Result<Option<Offender>> {
    let (Some(name), Some(prefix), Some(times), Some(last), Some(sum)) =
        (text(row, 0)?, number(row, 1)?, number(row, 2)?, number(row, 3)?, number(row, 4)?)
    else {
        return Ok(None);
    };
    if offender_sum(name, prefix, times, last) != sum {
        return Ok(None);
    }
    let read = || {
        Some(Offender {
            source: source(name, prefix)?,
            times: u32::try_from(times).ok()?,
            last: moment(last)?,
        })
    };
    Ok(read())
}

fn evidence_sum(
    name: &str,
    prefix: i64,
    first: i64,
    last: i64,
    told: Option<i64>,
    probes: i64,
    ports: &[u8],
) -> i64 {
    Sum::new()
        .field(name.as_bytes())
        .number(prefix)
        .number(first)
        .number(last)
        .maybe(told)
        .number(probes)
        .field(ports)
        .end()
}

/// Transport, kind of scan, ambiguous, reserved, number (2 bytes), age in milliseconds before
/// `last` (6 bytes), in network byte order.
fn touch_bytes(touch: &TouchView, last: MonoTime) -> [u8; TOUCH] {
    let [_, _, age @ ..] =
        u64::try_from(last.since(touch.at).as_millis()).unwrap_or(u64::MAX).to_be_bytes();
    let [high, low] = touch.port.number.to_be_bytes();
    let [a, b, c, d, e, f] = age;
    [
        touch.port.transport as u8,
        touch.scan as u8,
        u8::from(touch.ambiguous),
        0,
        high,
        low,
        a,
        b,
        c,
        d,
        e,
        f,
    ]
}

fn touch(bytes: &[u8], last: MonoTime) -> Option<TouchView> {
    let [transport, scan, ambiguous, _, high, low, a, b, c, d, e, f] = *bytes else { return None };
    let transport = *[Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip]
        .get(usize::from(transport))?;
    let age = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    Some(TouchView {
        port: Port { transport, number: u16::from_be_bytes([high, low]) },
        scan: *ScanKind::ALL.get(usize::from(scan))?,
        ambiguous: ambiguous != 0,
        at: MonoTime::from_millis(last.millis().saturating_sub(age)),
    })
}

/// Writes evidence: source, prefix, first, last, told, probes, ports, sum.
pub(super) fn put_evidence(
    statement: &mut Statement<'_>,
    evidence: &Evidence,
) -> rusqlite::Result<()> {
    let Evidence { source, first, last, last_reported, probes, ports } = evidence;
    let latest = ports.iter().map(|touch| touch.at).max().unwrap_or(*last).max(*last);
    let ports: Vec<u8> = ports.iter().flat_map(|touch| touch_bytes(touch, latest)).collect();
    let (name, prefix, first, last) =
        (source.to_string(), i64::from(source.prefix_len()), millis(*first), millis(latest));
    let (told, probes) = (last_reported.map(millis), i64::from(*probes));
    let sum = evidence_sum(&name, prefix, first, last, told, probes, &ports);
    statement.execute((name, prefix, first, last, told, probes, ports, sum)).map(drop)
}

/// Reads evidence; `None`: the row is invalid.
pub(super) fn evidence(row: &Row<'_>) -> rusqlite::Result<Option<Evidence>> {
    let (Some(name), Some(prefix), Some(first), Some(last)) =
        (text(row, 0)?, number(row, 1)?, number(row, 2)?, number(row, 3)?)
    else {
        return Ok(None);
    };
    let (told, Some(probes), ValueRef::Blob(ports), Some(sum)) =
        (number(row, 4)?, number(row, 5)?, row.get_ref(6)?, number(row, 7)?)
    else {
        return Ok(None);
    };
    if evidence_sum(name, prefix, first, last, told, probes, ports) != sum {
        return Ok(None);
    }
    let read = || {
        let last = moment(last)?;
        Some(Evidence {
            source: source(name, prefix)?,
            first: moment(first)?,
            last,
            last_reported: told.and_then(moment),
            probes: u32::try_from(probes).ok()?,
            ports: ports
                .chunks_exact(TOUCH)
                .map(|bytes| touch(bytes, last))
                .collect::<Option<_>>()?,
        })
    };
    Ok(read())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kinds_of_scans_and_transports_have_the_numbers_that_are_in_databases() {
        let names: Vec<_> =
            ScanKind::ALL.iter().map(|scan| format!("{} {}", *scan as u8, scan.name())).collect();
        let golden = "0 connect,1 syn,2 fin,3 null,4 xmas,5 maimon,6 ack,7 custom-flags,8 udp,9 sctp-init,10 sctp-cookie-echo,11 ip-protocol";
        assert_eq!(names.join(","), golden);
        assert_eq!(
            [
                Transport::Tcp as u8,
                Transport::Udp as u8,
                Transport::Sctp as u8,
                Transport::Ip as u8
            ],
            [0, 1, 2, 3]
        );
    }

    #[test]
    fn foreign_names_are_refused() {
        for name in ["", "x", "1.2.3", "10.0.0.1/8", "10.0.0.0/33", "2001:db8::/129"] {
            assert_eq!(source(name, 64), None, "{name}");
        }
        for text in ["", "tcp", "tcp/", "tcp/65536", "icmp/1"] {
            assert_eq!(port(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn sources_are_read_as_they_are_written(bits in any::<u128>(), length in 0u8..=128, form in 0u8..4) {
            let (v4, v6) = (std::net::Ipv4Addr::from_bits(bits as u32), std::net::Ipv6Addr::from_bits(bits));
            let written = match form {
                0 => Source::of(v4.into(), 64),
                1 => Source::of(v6.into(), length),
                2 => Source::from(IpNet::new(v4.into(), length % 33).unwrap()),
                _ => Source::from(IpNet::new(v6.into(), length).unwrap()),
            };
            prop_assert_eq!(source(&written.to_string(), i64::from(written.prefix_len())), Some(written));
        }

        #[test]
        fn touches_are_read_as_they_are_written(transport in 0usize..4, scan in 0usize..12, ambiguous in any::<bool>(), number in any::<u16>(), at in 0u64..1 << 40, later in 0u64..1 << 40) {
            let transport = [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip][transport];
            let view = TouchView { port: Port { transport, number }, scan: ScanKind::ALL[scan], ambiguous, at: MonoTime::from_millis(at) };
            let last = MonoTime::from_millis(at + later);
            prop_assert_eq!(touch(&touch_bytes(&view, last), last), Some(view));
        }

        #[test]
        fn no_bytes_make_the_reader_of_touches_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), last in any::<u64>()) {
            for chunk in bytes.chunks(TOUCH) {
                let _ = touch(chunk, MonoTime::from_millis(last));
            }
        }
    }
}
