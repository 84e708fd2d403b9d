//! Conversion of rows from and to the database, with check sums.
//!
//! SQLite does not notice a page whose cells were altered on disk. A flipped bit in an address
//! would block another host, so each row has a sum over its content, and rows with a wrong sum are
//! ignored.

use std::collections::HashMap;
use std::time::Duration;

use ipnet::IpNet;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, Value, ValueRef};
use rusqlite::{Connection, Row, Statement, Transaction, params_from_iter};

use super::{Block, Change};
use crate::engine::{Evidence, LongTermBits, MonoTime, Offender, Source, TouchView};
use crate::probe::{Port, ScanKind, Transport};

// The columns in the order in which they are written and read; the last one is the sum.
pub(super) const ALL_BLOCKS: &str =
    "SELECT subject, prefix, since, expires, port, reason, sum FROM blocks";
pub(super) const ALL_EXEMPTIONS: &str = "SELECT subject, exempt, sum FROM exemptions";
pub(super) const ALL_OFFENDERS: &str =
    "SELECT source, prefix, times, last, sum FROM offenders ORDER BY last DESC";
pub(super) const ALL_EVIDENCE: &str =
    "SELECT source, prefix, first, last, told, probes, ports, sum FROM evidence ORDER BY last DESC";

/// Columns of the widest table.
const COLUMNS_MAX: usize = 8;

/// Of the sum.
const PRIME: u64 = 0x0100_0000_01b3;

/// Bytes of a stored touch.
const TOUCH: usize = 12;

/// The sum of a row: Fowler/Noll/Vo, FNV-1a of 64 bits, over each value with its length, so that
/// adjacent values cannot be confused; NULL is an empty value. Detects flipped bits and swapped
/// values. Not a defence against deliberate changes.
pub(super) fn sum<'a>(values: impl Iterator<Item = ValueRef<'a>>) -> i64 {
    let mut sum = 0xcbf2_9ce4_8422_2325;
    for value in values {
        sum = match value {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => {
                let add = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(PRIME);
                bytes.iter().fold(add_number(sum, bytes.len() as u64), add)
            }
            ValueRef::Integer(value) => add_number(add_number(sum, 8), value.cast_unsigned()),
            // No column holds a real number.
            ValueRef::Null | ValueRef::Real(_) => add_number(sum, 0),
        };
    }
    sum.cast_signed()
}

/// Adds the eight bytes of a number, the lowest first. Adding a byte that is zero only multiplies, so
/// that all zeros at the end are added at once.
fn add_number(mut sum: u64, mut number: u64) -> u64 {
    let zeros = number.leading_zeros() / 8;
    while number != 0 {
        sum = (sum ^ (number & 0xff)).wrapping_mul(PRIME);
        number >>= 8;
    }
    sum.wrapping_mul(PRIME.wrapping_pow(zeros))
}

/// The columns of a row, each of which is read once.
pub(super) struct Columns<'a>([ValueRef<'a>; COLUMNS_MAX]);

impl<'a> Columns<'a> {
    pub(super) fn of(row: &'a Row<'_>) -> Self {
        let mut columns = [ValueRef::Null; COLUMNS_MAX];
        // One that cannot be read is as if it were empty, and the sum another.
        for (at, column) in columns.iter_mut().enumerate().take(row.as_ref().column_count()) {
            *column = row.get_ref(at).unwrap_or(ValueRef::Null);
        }
        Self(columns)
    }

    pub(super) fn get<T: FromSql>(&self, at: usize) -> FromSqlResult<T> {
        T::column_result(self.value(at))
    }

    pub(super) fn text(&self, at: usize) -> FromSqlResult<&'a str> {
        self.value(at).as_str()
    }

    fn value(&self, at: usize) -> ValueRef<'a> {
        self.0.get(at).copied().unwrap_or(ValueRef::Null)
    }
}

/// Reads a row whose sum is right; `None`: the row is invalid.
pub(super) fn valid<T>(
    row: &Row<'_>,
    read: impl Fn(&Columns<'_>) -> FromSqlResult<T>,
) -> Option<T> {
    let last = row.as_ref().column_count().saturating_sub(1);
    let columns = Columns::of(row);
    let is_whole = columns.value(last) == ValueRef::Integer(sum(columns.0.into_iter().take(last)));
    if is_whole { read(&columns).ok() } else { None }
}

/// Reads the valid rows of a table into `all`; whether every row was valid.
pub(super) fn read_into<T>(
    all: &mut Vec<T>,
    connection: &Connection,
    question: &str,
    read: impl Fn(&Columns<'_>) -> FromSqlResult<T>,
) -> rusqlite::Result<bool> {
    let mut whole = true;
    let mut statement = connection.prepare(question)?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        match valid(row, &read) {
            Some(one) => all.push(one),
            None => whole = false,
        }
    }
    Ok(whole)
}

impl FromSql for MonoTime {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let millis = value.as_i64()?;
        u64::try_from(millis).map(Self::from_millis).map_err(|_| FromSqlError::OutOfRange(millis))
    }
}

/// A time as SQLite holds it: all of the daemon's are below 2^63.
pub(super) fn millis(moment: MonoTime) -> i64 {
    i64::try_from(moment.millis()).unwrap_or(i64::MAX)
}

impl FromSql for Port {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        port(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

fn port(text: &str) -> Option<Port> {
    let (transport, number) = text.split_once('/')?;
    let transport = TRANSPORTS.into_iter().find(|known| known.name() == transport)?;
    Some(Port { transport, number: number.parse().ok()? })
}

/// The transports by the numbers that stored touches have.
const TRANSPORTS: [Transport; 4] = [Transport::Tcp, Transport::Udp, Transport::Sctp, Transport::Ip];

/// A source from its name and prefix length. Version 1 wrote an IPv6 source as its address alone.
fn source(name: &str, prefix: i64) -> Option<Source> {
    if name.contains('/') {
        let network: IpNet = name.parse().ok()?;
        return (network == network.trunc()).then(|| Source::from(network));
    }
    Some(Source::of(name.parse().ok()?, u8::try_from(prefix).ok().filter(|bits| *bits <= 128)?))
}

/// The source in the first two columns of a row.
pub(super) fn source_of(row: &Columns<'_>) -> FromSqlResult<Source> {
    source(row.text(0)?, row.get(1)?).ok_or(FromSqlError::InvalidType)
}

/// Writes rows of all tables.
pub(super) struct RowWriter<'a> {
    put_block: Statement<'a>,
    end_block: Statement<'a>,
    put_exemption: Statement<'a>,
    end_exemptions: Statement<'a>,
    put_offender: Statement<'a>,
    put_evidence: Statement<'a>,
    forgive: Statement<'a>,
}

impl<'a> RowWriter<'a> {
    pub(super) fn new(transaction: &'a Transaction<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            put_block: transaction.prepare(
                "INSERT OR REPLACE INTO blocks (subject, prefix, since, expires, port, reason, sum) VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?,
            end_block: transaction.prepare("DELETE FROM blocks WHERE subject = ?")?,
            put_exemption: transaction
                .prepare("INSERT INTO exemptions (subject, exempt, sum) VALUES (?, ?, ?)")?,
            end_exemptions: transaction.prepare("DELETE FROM exemptions WHERE subject = ?")?,
            put_offender: transaction.prepare(
                "INSERT OR REPLACE INTO offenders (source, prefix, times, last, sum) VALUES (?, ?, ?, ?, ?)",
            )?,
            put_evidence: transaction.prepare(
                "INSERT OR REPLACE INTO evidence (source, prefix, first, last, told, probes, ports, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )?,
            forgive: transaction.prepare("DELETE FROM evidence WHERE source = ?")?,
        })
    }

    pub(super) fn write(&mut self, change: &Change) -> rusqlite::Result<()> {
        match change {
            Change::Block(block) => self.put_block(block),
            Change::Ended(source) => self.end_block(&source.to_string()),
            Change::Offender(offender) => self.put_offender(offender),
            Change::Evidence(evidence) => self.put_evidence(evidence),
            Change::Forgiven(source) => self.forgive.execute([source.to_string()]).map(drop),
        }
    }

    /// Writes a block with its exemptions.
    pub(super) fn put_block(&mut self, block: &Block) -> rusqlite::Result<()> {
        let name = block.source.to_string();
        let values = [
            name.clone().into(),
            block.source.prefix_len().into(),
            millis(block.since).into(),
            block.expires.map(millis).into(),
            block.port.map(|port| port.to_string()).into(),
            block.reason.to_string().into(),
        ];
        put(&mut self.put_block, values)?;
        self.end_exemptions.execute([&name])?;
        for exempt in &block.exempt {
            put(&mut self.put_exemption, [name.clone().into(), exempt.to_string().into()])?;
        }
        Ok(())
    }

    pub(super) fn end_block(&mut self, name: &str) -> rusqlite::Result<()> {
        self.end_block.execute([name])?;
        self.end_exemptions.execute([name]).map(drop)
    }

    pub(super) fn put_offender(&mut self, offender: &Offender) -> rusqlite::Result<()> {
        let Offender { source, times, last } = *offender;
        let values = [
            source.to_string().into(),
            source.prefix_len().into(),
            times.into(),
            millis(last).into(),
        ];
        put(&mut self.put_offender, values)
    }

    pub(super) fn put_evidence(&mut self, evidence: &Evidence) -> rusqlite::Result<()> {
        let Evidence { source, first, last, last_reported, probes, ports, long } = evidence;
        let latest = ports.iter().map(|touch| touch.at).max().unwrap_or(*last).max(*last);
        let mut ports: Vec<u8> =
            ports.iter().flat_map(|touch| touch_bytes(touch, latest)).collect();
        // Behind the touches, where earlier versions read nothing.
        ports.extend([long.current, long.previous].into_iter().flat_map(u32::to_be_bytes));
        let values = [
            source.to_string().into(),
            source.prefix_len().into(),
            millis(*first).into(),
            millis(latest).into(),
            last_reported.map(millis).into(),
            (*probes).into(),
            ports.into(),
        ];
        put(&mut self.put_evidence, values)
    }
}

/// Executes a statement with these values and their sum.
pub(super) fn put<const N: usize>(
    statement: &mut Statement<'_>,
    values: [Value; N],
) -> rusqlite::Result<()> {
    let sum = sum(values.iter().map(ValueRef::from));
    statement.execute(params_from_iter(values.into_iter().chain([sum.into()]))).map(drop)
}

/// Exemptions by the name of their block.
pub(super) type Exemptions = HashMap<String, Vec<IpNet>>;

/// Reads an exemption: the name of its block, and the exempt network.
pub(super) fn exemption(row: &Columns<'_>) -> FromSqlResult<(String, IpNet)> {
    let exempt = row.text(1)?.parse().map_err(|_| FromSqlError::InvalidType)?;
    Ok((row.get(0)?, exempt))
}

pub(super) fn by_block(exemptions: Vec<(String, IpNet)>) -> Exemptions {
    let mut all = Exemptions::new();
    for (name, exempt) in exemptions {
        all.entry(name).or_default().push(exempt);
    }
    // In the engine's order.
    all.values_mut().for_each(|networks| networks.sort_unstable());
    all
}

/// Moves exemptions into their blocks.
pub(super) fn give_exemptions(blocks: &mut [Block], exemptions: &mut Exemptions) {
    if !exemptions.is_empty() {
        for block in blocks {
            block.exempt = exemptions.remove(&block.source.to_string()).unwrap_or_default();
        }
    }
}

/// Reads a block, without its exemptions.
pub(super) fn block(row: &Columns<'_>) -> FromSqlResult<Block> {
    Ok(Block {
        source: source_of(row)?,
        exempt: Vec::new(),
        since: row.get(2)?,
        expires: row.get(3)?,
        port: row.get(4)?,
        // Parsing a reason cannot fail.
        reason: row.text(5)?.parse().map_err(|_| FromSqlError::InvalidType)?,
    })
}

/// Reads an offender.
pub(super) fn offender(row: &Columns<'_>) -> FromSqlResult<Offender> {
    Ok(Offender { source: source_of(row)?, times: row.get(2)?, last: row.get(3)? })
}

/// Reads evidence.
pub(super) fn evidence(row: &Columns<'_>) -> FromSqlResult<Evidence> {
    let last = row.get(3)?;
    let ports = row.value(6).as_blob()?.chunks_exact(TOUCH);
    Ok(Evidence {
        source: source_of(row)?,
        first: row.get(2)?,
        last,
        last_reported: row.get(4)?,
        probes: row.get(5)?,
        long: long_bits(ports.remainder()),
        ports: ports
            .map(|bytes| touch(bytes, last))
            .collect::<Option<_>>()
            .ok_or(FromSqlError::InvalidType)?,
    })
}

/// The long window's bits behind the touches; none in a row of an earlier version.
fn long_bits(bytes: &[u8]) -> LongTermBits {
    let Some((current, previous)) = bytes.split_first_chunk::<4>() else {
        return LongTermBits::default();
    };
    let previous = previous.first_chunk::<4>().copied().unwrap_or_default();
    LongTermBits { current: u32::from_be_bytes(*current), previous: u32::from_be_bytes(previous) }
}

/// Transport, kind of scan, ambiguous, reserved, number (2 bytes), age in milliseconds before
/// `last` (6 bytes), in network byte order.
fn touch_bytes(touch: &TouchView, last: MonoTime) -> [u8; TOUCH] {
    let Port { transport, number } = touch.port;
    let [high, low] = number.to_be_bytes();
    let [_, _, a, b, c, d, e, f] = last.millis().saturating_sub(touch.at.millis()).to_be_bytes();
    let (transport, scan) = (transport as u8, touch.scan as u8);
    [transport, scan, u8::from(touch.ambiguous), 0, high, low, a, b, c, d, e, f]
}

fn touch(bytes: &[u8], last: MonoTime) -> Option<TouchView> {
    let [transport, scan, ambiguous, _, high, low, a, b, c, d, e, f] = *bytes else { return None };
    let transport = *TRANSPORTS.get(usize::from(transport))?;
    let age = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    Some(TouchView {
        port: Port { transport, number: u16::from_be_bytes([high, low]) },
        scan: *ScanKind::ALL.get(usize::from(scan))?,
        ambiguous: ambiguous != 0,
        at: last.before(Duration::from_millis(age)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kinds_of_scans_and_transports_have_the_numbers_that_are_in_databases() {
        let names: Vec<_> =
            ScanKind::ALL.iter().map(|scan| format!("{} {}", *scan as u8, scan.name())).collect();
        let golden = "0 connect,1 syn,2 fin,3 null,4 xmas,5 maimon,6 ack,7 custom-flags,8 udp,9 sctp-init,10 sctp-cookie-echo,11 ip-protocol,12 reply,13 sweep,14 ping-sweep";
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
    fn sums_are_those_that_are_in_databases() {
        let text = |text: &'static str| ValueRef::Text(text.as_bytes());
        let (name, why) = ("11.0.0.0", "syn scan: 3 ports in 0.0s: tcp/0 tcp/0 tcp/0");
        let number = ValueRef::Integer;
        let row = [text(name), number(32), number(42_767_000), number(129_167_000)];
        let values = row.into_iter().chain([ValueRef::Null, text(why)]);
        assert_eq!(sum(values), -3_813_710_897_405_480_358);
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
