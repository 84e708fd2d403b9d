//! The database of events.

use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, Row, Statement, Transaction, params_from_iter};

use super::query::{Page, Place, Query, ends};
use super::{FILE, VERSION};
use crate::journal::Record;
use crate::journal::record::{Effect, Probed};
use crate::store::open::{self, APPLICATION, LOG};
use crate::store::{Database, Error, FREE_PAGES};

/// Bytes that the write-ahead log may keep between two checkpoints.
const LOG_KEPT: u32 = 1 << 20;

/// Pages of the write-ahead log after which it is written to the database.
const CHECKPOINT_PAGES: u32 = 128;

/// Events that one page of a search looks at: some 50 milliseconds.
const EXAMINED_MAX: u32 = 20_000;

/// Events that one page has: some 300 KB.
const PAGE_MAX: u32 = 512;

/// Events that are deleted in one transaction because of their age.
const AGED_MAX: u32 = 5000;

/// Of the events, the part that is deleted at a time when there is no room.
const DELETED_PART: u64 = 32;

const SCHEMA: &str = "
CREATE TABLE events (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, network TEXT, first BLOB, last BLOB, name TEXT, port TEXT,
    effect TEXT, scan TEXT, proven INTEGER, reason TEXT, until INTEGER, ended INTEGER, ending TEXT, probes INTEGER, first_seen INTEGER, touched TEXT,
    details TEXT, unproven INTEGER NOT NULL) STRICT;
CREATE INDEX events_at ON events (at);
CREATE INDEX events_open ON events (network) WHERE ended IS NULL AND kind IN ('blocked', 'slowed');
";

const COLUMNS: &str = "at, kind, network, name, port, effect, scan, proven, reason, until, ended, ending, probes, first_seen, touched, details, id";

const INSERT: &str = "INSERT INTO events (at, kind, network, first, last, name, port, effect, scan, proven, reason, until, ended, ending, probes,
    first_seen, touched, details, unproven) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// The rows of blocks and slowed sources without an end, of one network.
const OPEN: &str = "network = ?1 AND kind = ?2 AND ended IS NULL AND kind IN ('blocked', 'slowed')";

/// The open database.
#[derive(Debug)]
pub(super) struct EventDatabase {
    database: Database,
    counts: Counts,
}

/// Numbers of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    all: u64,
    /// Those that forged packets may have caused.
    unproven: u64,
}

impl EventDatabase {
    /// Opens or creates the database; the flag says whether it was created. Blocks and slowed
    /// sources whose time was over when no daemon ran have ended then.
    ///
    /// # Errors
    /// As [`crate::store::open()`]'s.
    pub(super) fn open(directory: &Path, now: Timestamp) -> Result<(Self, bool), Error> {
        let path = open::make_directory(directory)?.join(FILE);
        open::check_or_create(&path)?;
        let version = open::read_version_up_to(&path, VERSION)?;
        let mut database = Database::at(&path, open::connect(&path)?)?;
        if version.is_none() {
            database.run("PRAGMA auto_vacuum = INCREMENTAL;")?;
            let make = |connection: &mut Connection| {
                let transaction = connection.transaction()?;
                transaction.execute_batch(&format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; {SCHEMA}"))?;
                transaction.commit()
            };
            make(&mut database.connection)
                .map_err(|source| Error::sqlite("write", &path, source))?;
        }
        database.run(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = {LOG_KEPT}; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};"
        ))?;
        let counts = database
            .connection
            .query_row("SELECT count(*), total(unproven) FROM events", [], |row| {
                let unproven: f64 = row.get(1)?;
                // Both are whole numbers far below 2^53.
                Ok(Counts { all: row.get::<_, i64>(0)?.unsigned_abs(), unproven: unproven as u64 })
            })
            .map_err(|source| Error::sqlite("read", &path, source))?;
        let mut this = Self { database, counts };
        if version.is_some() {
            this.end_expired(now)?;
        }
        Ok((this, version.is_none()))
    }

    fn end_expired(&mut self, now: Timestamp) -> Result<(), Error> {
        let now = now.as_millisecond();
        self.database.transact(|transaction| {
            transaction.execute(
                "UPDATE events SET ended = until, ending = 'expired' WHERE ended IS NULL AND kind IN ('blocked', 'slowed') AND until <= ?",
                [now],
            )
        })?;
        Ok(())
    }

    /// Another program has deleted or replaced it.
    pub(super) fn check_place(&mut self) -> Result<(), Error> {
        self.database.check_place()
    }

    /// Stored events.
    pub(super) fn rows(&self) -> u64 {
        self.counts.all
    }

    /// Writes records in their order, in one transaction, and makes room for them: the database
    /// takes at most `max` bytes. A record about an end completes that of the beginning.
    ///
    /// # Errors
    /// SQLite failed; nothing was written.
    pub(super) fn write(&mut self, records: &[Record], max: u64) -> Result<(), Error> {
        let counts = self.counts;
        self.counts = self.database.transact(|transaction| {
            let mut counts = counts;
            let mut statement = transaction.prepare(INSERT)?;
            for record in records {
                complete(transaction, record)?;
                insert(&mut statement, record)?;
                counts.all += 1;
                counts.unproven += u64::from(record.is_unproven());
            }
            make_room(transaction, &mut counts, max)?;
            Ok(counts)
        })?;
        self.shorten()
    }

    /// Deletes some of the events from before `oldest`; whether there may be more.
    ///
    /// # Errors
    /// SQLite failed.
    pub(super) fn delete_before(&mut self, oldest: Timestamp) -> Result<bool, Error> {
        let counts = self.counts;
        let (counts, deleted) = self.database.transact(|transaction| {
            let mut counts = counts;
            let condition = format!("at < {}", oldest.as_millisecond());
            let deleted = delete(transaction, &mut counts, &condition, AGED_MAX.into())?;
            Ok((counts, deleted))
        })?;
        self.counts = counts;
        self.shorten()?;
        Ok(deleted >= u64::from(AGED_MAX))
    }

    /// Makes room after the limit was lowered.
    ///
    /// # Errors
    /// SQLite failed.
    pub(super) fn limit(&mut self, max: u64) -> Result<(), Error> {
        self.write(&[], max)
    }

    /// Bytes of the database file.
    pub(super) fn bytes(&self) -> u64 {
        size(&self.database.connection).map(|(_, bytes)| bytes).unwrap_or(0)
    }

    /// The next events that a query selects.
    ///
    /// # Errors
    /// SQLite failed.
    pub(super) fn find(&self, query: &Query, after: Option<Place>) -> Result<Page, Error> {
        self.search(query, after)
            .map_err(|source| Error::sqlite("read", self.database.path(), source))
    }

    fn search(&self, query: &Query, after: Option<Place>) -> rusqlite::Result<Page> {
        let connection = &self.database.connection;
        let first = query.since.map_or(i64::MIN, Timestamp::as_millisecond);
        let after = after.unwrap_or(Place { at: first, id: i64::MIN });
        // What is examined is bounded, whatever of it is found.
        let end = connection
            .prepare("SELECT at, id FROM events WHERE (at, id) > (?, ?) ORDER BY at, id LIMIT 1 OFFSET ?")?
            .query_row((after.at, after.id, EXAMINED_MAX - 1), place);
        let end = match end {
            Ok(place) => Some(place),
            Err(rusqlite::Error::QueryReturnedNoRows) => None,
            Err(error) => return Err(error),
        };
        let last = end.unwrap_or(Place { at: i64::MAX, id: i64::MAX });
        let (conditions, wanted) = query.conditions();
        let mut values: Vec<Value> =
            [after.at, after.id, last.at, last.id].map(Value::from).into_iter().collect();
        values.extend(wanted);
        let mut statement = connection.prepare(&format!(
            "SELECT {COLUMNS} FROM events WHERE (at, id) > (?, ?) AND (at, id) <= (?, ?) AND {conditions} ORDER BY at, id LIMIT {PAGE_MAX}"
        ))?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut page = Page { records: Vec::new(), next: end };
        let mut found = 0;
        while let Some(row) = rows.next()? {
            found += 1;
            if found == PAGE_MAX {
                page.next = Some(Place { at: row.get(0)?, id: row.get("id")? });
            }
            // A row that another program wrote is passed over.
            page.records.extend(record(row).ok());
        }
        let is_over =
            |place: Place| query.until.is_some_and(|until| place.at > until.as_millisecond());
        page.next = page.next.filter(|place| !is_over(*place));
        Ok(page)
    }

    /// Frees cached pages.
    pub(super) fn shrink_memory(&self) {
        // If it fails, they stay.
        let _ = self.database.run("PRAGMA shrink_memory");
    }

    /// Gives free pages back to the file system.
    fn shorten(&self) -> Result<(), Error> {
        let mut left: i64 = self.database.ask("PRAGMA freelist_count")?;
        if left <= FREE_PAGES {
            return Ok(());
        }
        // Each call gives back so many.
        while left > 0 {
            self.database
                .vacuum()
                .map_err(|source| Error::sqlite("shorten", self.database.path(), source))?;
            left -= FREE_PAGES;
        }
        // The file is shortened with this, and a log that held many deletions too.
        self.database.run("PRAGMA wal_checkpoint(TRUNCATE)")
    }
}

/// Removes the database and its log, which must not be open.
pub(super) fn remove(directory: &Path) -> std::io::Result<()> {
    let path = directory.join(FILE);
    for path in [open::with_suffix(&path, LOG), path] {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Path of the database in a directory.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// Writes what a record says about an earlier one.
fn complete(transaction: &Transaction<'_>, record: &Record) -> rusqlite::Result<()> {
    let Some(network) = record.network.map(|network| network.to_string()) else { return Ok(()) };
    let at = record.at.as_millisecond();
    let ended = match record.kind.as_str() {
        "renewed" => {
            let until = record.until.map(Timestamp::as_millisecond);
            return transaction
                .prepare(&format!("UPDATE events SET until = ?3 WHERE {OPEN}"))?
                .execute((network, "blocked", until))
                .map(drop);
        }
        // The end of the one before was missed.
        kind @ ("blocked" | "slowed") if record.ended.is_none() => {
            return transaction
                .prepare(&format!(
                    "UPDATE events SET ended = min(coalesce(until, ?3), ?3), ending = iif(until <= ?3, 'expired', 'replaced') WHERE {OPEN}"
                ))?
                .execute((network, kind, at))
                .map(drop);
        }
        "unblocked" => "blocked",
        "released" | "proven" => "slowed",
        _ => return Ok(()),
    };
    transaction
        .prepare(&format!("UPDATE events SET ended = ?3, ending = ?4 WHERE {OPEN}"))?
        .execute((network, ended, at, &record.ending))
        .map(drop)
}

fn insert(statement: &mut Statement<'_>, record: &Record) -> rusqlite::Result<()> {
    let millis = |at: Option<Timestamp>| Value::from(at.map(Timestamp::as_millisecond));
    let (first, last) = record.network.map(ends).unzip();
    let touched: Vec<String> = record
        .touched
        .iter()
        .map(|Probed { age, port, scan, weight }| format!("{port} {scan} {age} {weight}"))
        .collect();
    let details = (!record.details.is_empty())
        .then(|| serde_json::Value::Object(record.details.clone()).to_string());
    let values: [Value; 19] = [
        record.at.as_millisecond().into(),
        record.kind.clone().into(),
        record.network.map(|network| network.to_string()).into(),
        first.into(),
        last.into(),
        record.name.clone().into(),
        record.port.clone().into(),
        record.effect.map(|effect| effect.word().to_owned()).into(),
        record.scan.clone().into(),
        record.proven.into(),
        record.reason.clone().into(),
        millis(record.until),
        millis(record.ended),
        record.ending.clone().into(),
        record.probes.and_then(|probes| i64::try_from(probes).ok()).into(),
        millis(record.first_seen),
        (!touched.is_empty()).then(|| touched.join(",")).into(),
        details.into(),
        record.is_unproven().into(),
    ];
    statement.execute(params_from_iter(values)).map(drop)
}

/// Deletes the oldest events until the database takes at most `max` bytes.
fn make_room(transaction: &Transaction<'_>, counts: &mut Counts, max: u64) -> rusqlite::Result<()> {
    while size(transaction)?.0 > max && counts.all > 0 {
        let condition = if counts.unproven > counts.all / 2 { "unproven" } else { "TRUE" };
        let count = (counts.all / DELETED_PART).max(16);
        if delete(transaction, counts, condition, count)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Deletes at most `most` events, the oldest of a condition; returns how many.
fn delete(
    transaction: &Transaction<'_>,
    counts: &mut Counts,
    condition: &str,
    most: u64,
) -> rusqlite::Result<u64> {
    let chosen = format!("SELECT id FROM events WHERE {condition} ORDER BY at, id LIMIT {most}");
    let unproven: i64 = transaction.query_row(
        &format!("SELECT count(*) FROM events WHERE unproven AND id IN ({chosen})"),
        [],
        |row| row.get(0),
    )?;
    let deleted =
        transaction.execute(&format!("DELETE FROM events WHERE id IN ({chosen})"), [])? as u64;
    counts.all = counts.all.saturating_sub(deleted);
    counts.unproven = counts.unproven.saturating_sub(unproven.unsigned_abs());
    Ok(deleted)
}

/// Bytes of the used pages, and of the file.
fn size(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let ask = |question: &str| -> rusqlite::Result<u64> {
        connection.query_row(question, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
    };
    let (pages, free, bytes) =
        (ask("PRAGMA page_count")?, ask("PRAGMA freelist_count")?, ask("PRAGMA page_size")?);
    Ok((pages.saturating_sub(free) * bytes, pages * bytes))
}

fn place(row: &Row<'_>) -> rusqlite::Result<Place> {
    Ok(Place { at: row.get(0)?, id: row.get(1)? })
}

/// Reads a row; values that are not ours are an error.
fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let foreign = || rusqlite::Error::InvalidQuery;
    let time = |at: i64| Timestamp::from_millisecond(at).map_err(|_| foreign());
    let moment = |column: usize| row.get::<_, Option<i64>>(column)?.map(time).transpose();
    let network: Option<String> = row.get(2)?;
    let effect: Option<String> = row.get(5)?;
    let touched: Option<String> = row.get(14)?;
    let details: Option<String> = row.get(15)?;
    Ok(Record {
        at: time(row.get(0)?)?,
        kind: row.get(1)?,
        network: network.map(|text| text.parse::<IpNet>().map_err(|_| foreign())).transpose()?,
        name: row.get(3)?,
        port: row.get(4)?,
        effect: effect.as_deref().and_then(Effect::of_word),
        scan: row.get(6)?,
        proven: row.get(7)?,
        reason: row.get(8)?,
        until: moment(9)?,
        ended: moment(10)?,
        ending: row.get(11)?,
        probes: row.get::<_, Option<i64>>(12)?.map(i64::unsigned_abs),
        first_seen: moment(13)?,
        touched: touched.iter().flat_map(|text| text.split(',').filter_map(probed)).collect(),
        details: details.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(),
    })
}

fn probed(text: &str) -> Option<Probed> {
    let mut words = text.split(' ');
    let (port, scan) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (age, weight) = (words.next()?.parse().ok()?, words.next()?.to_owned());
    Some(Probed { age, port, scan, weight })
}
