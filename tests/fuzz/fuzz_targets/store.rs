//! Any rows of the state database, of any types, some with the right checksum: what is read from
//! them is in range, and is what is read again once it is written.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use portsentry::engine::MonoTime;
use portsentry::store::{Content, Mark, load};
use rusqlite::Connection;
use rusqlite::types::Value;

/// Rows of one input: enough for several of each table, and quick.
const ROWS_MAX: usize = 32;

/// Longest text or blob, bytes: a touch is 12 of them.
const FIELD_MAX: usize = 64;

/// Tables without types and constraints: a damaged file may hold anything anywhere. The last column
/// but for `mark` is the checksum.
const TABLES: [(&str, &[&str]); 7] = [
    ("mark", &["boot", "wall", "clock"]),
    ("blocks", &["subject", "prefix", "since", "expires", "port", "reason", "sum"]),
    ("offenders", &["source", "prefix", "times", "last", "sum"]),
    ("evidence", &["source", "prefix", "first", "last", "told", "probes", "ports", "sum"]),
    ("exemptions", &["subject", "exempt", "sum"]),
    ("admins", &["address", "seen", "sum"]),
    ("services", &["port", "seen", "sum"]),
];

/// Texts that are hard to guess.
const KNOWN: [&str; 12] = [
    "192.0.2.1",
    "2001:db8::1",
    "10.0.0.0/8",
    "2001:db8::/48",
    "::/0",
    "::ffff:192.0.2.1",
    "tcp/22",
    "udp/53",
    "ip/132",
    "by hand",
    "4 ports in 60s",
    "0.0.0.0/0",
];

struct Input<'b>(&'b [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }

    fn value(&mut self) -> Value {
        match self.byte() % 8 {
            0 => Value::Null,
            1 => Value::Integer(i64::from(self.byte())),
            2 => {
                let mut bytes = self.bytes(8);
                bytes.resize(8, 0);
                Value::Integer(i64::from_le_bytes(bytes.try_into().expect("8 bytes")))
            }
            3 => {
                let length = usize::from(self.byte()) % FIELD_MAX;
                Value::Text(String::from_utf8_lossy(&self.bytes(length)).into_owned())
            }
            4 => {
                let length = usize::from(self.byte()) % FIELD_MAX;
                Value::Blob(self.bytes(length))
            }
            5 => Value::Real(f64::from(self.byte()) / 2.0),
            6 => Value::Integer(1_700_000_000_000 + i64::from(self.byte()) * 1000),
            _ => Value::Text(KNOWN[usize::from(self.byte()) % KNOWN.len()].to_owned()),
        }
    }
}

/// The checksum as the store computes it: FNV-1a over each field with its length; NULL is an empty
/// field.
fn checksum(values: &[Value]) -> i64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for value in values {
        let field = match value {
            Value::Null => Vec::new(),
            Value::Integer(number) => number.to_le_bytes().to_vec(),
            Value::Real(number) => number.to_le_bytes().to_vec(),
            Value::Text(text) => text.clone().into_bytes(),
            Value::Blob(bytes) => bytes.clone(),
        };
        for byte in (field.len() as u64).to_le_bytes().iter().chain(&field) {
            sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    sum.cast_signed()
}

fn new_database() -> Connection {
    let connection = Connection::open_in_memory().expect("a database");
    for (name, columns) in TABLES {
        connection
            .execute_batch(&format!("CREATE TABLE {name} ({})", columns.join(", ")))
            .expect("a table");
    }
    connection
}

fn fill(connection: &Connection, input: &mut Input<'_>) {
    for (name, _) in TABLES {
        connection.execute_batch(&format!("DELETE FROM {name}")).expect("an empty table");
    }
    for _ in 0..ROWS_MAX {
        if input.0.is_empty() {
            break;
        }
        let head = input.byte();
        let (name, columns) = TABLES[usize::from(head % 7)];
        let mut values: Vec<Value> = columns.iter().map(|_| input.value()).collect();
        if head & 0x80 != 0 && name != "mark" {
            values.pop();
            values.push(Value::Integer(checksum(&values)));
        }
        let places = vec!["?"; columns.len()].join(", ");
        connection
            .prepare(&format!("INSERT INTO {name} VALUES ({places})"))
            .expect("a statement")
            .execute(rusqlite::params_from_iter(values))
            .expect("a row");
    }
}

fn assert_in_range(content: &Content) {
    for block in &content.blocks {
        assert!(
            block.source.prefix_len() <= if block.source.addr().is_ipv4() { 32 } else { 128 },
            "{block:?}"
        );
        assert_eq!(block.source.network(), block.source.network().trunc(), "{block:?}");
        let comment = block.reason.comment();
        assert!(comment.len() < 128 && !comment.chars().any(char::is_control), "{comment:?}");
        let _ = block.port.map(|port| port.to_string());
    }
    let memory = &content.memory;
    assert!(
        memory.admins.values().chain(memory.services.values()).all(|at| *at <= content.mark.clock)
    );
    for evidence in &content.evidence {
        assert!(evidence.ports.iter().all(|touch| touch.at <= evidence.last), "{evidence:?}");
    }
}

thread_local! {
    static DATABASE: Connection = new_database();
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let version = 1 + i32::from(input.byte() & 1);
    let now = Mark {
        boot: "now".to_owned(),
        wall: 1_700_000_500_000,
        clock: MonoTime::from_millis(u64::from(input.byte()) * 1000),
    };
    DATABASE.with(|connection| {
        fill(connection, &mut input);
        match load(connection, Path::new("fuzzed"), version) {
            Ok((content, whole)) => {
                let rows = |name: &str| {
                    connection
                        .query_row(&format!("SELECT count(*) FROM {name}"), [], |row| {
                            row.get::<_, i64>(0)
                        })
                        .expect("a count") as usize
                };
                let read = [content.blocks.len(), content.offenders.len(), content.evidence.len()];
                let there = [rows("blocks"), rows("offenders"), rows("evidence")];
                assert!(read.iter().zip(&there).all(|(read, there)| read <= there));
                // A store without a mark was never written to, and nothing in it counts.
                if whole && rows("mark") > 0 {
                    assert_eq!(read, there, "a row that was left out must be reported");
                }
                assert_in_range(&content);
                assert_in_range(&content.carried(&now));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
});
