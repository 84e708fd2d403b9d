//! The state store: blocks, offenders, evidence, administrators and services in an SQLite database,
//! which survives restarts and reboots.
//!
//! Owns `portsentry.db` in the state directory, its write-ahead log and its copy, locked against a
//! second daemon. Calls wait for the disk, so the packet thread must not make them. A call that returned
//! without an error is on the disk (`synchronous=FULL`, sqlite.org/pragma.html,
//! sqlite.org/wal.html).
//!
//! The engine decides what is blocked; this module only stores it. A damaged database is renamed,
//! never deleted; one of a newer version or of another program is not changed at all.

pub(crate) mod clock;
mod copy;
mod error;
pub mod events;
mod mark;
mod memory;
mod open;
mod rows;
mod shared;
mod thread;
mod worker;

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction};

use crate::engine::{Evidence, MonoTime, OFFENDERS_MAX, Offender, Reason, Source};
use crate::probe::Port;
use crate::sys::sqlite;
use rows::{Columns, RowWriter};

pub use self::error::{Error, Fault};
pub use self::mark::Mark;
pub use self::memory::Memory;
#[doc(hidden)]
pub use self::open::load;
pub use self::open::{Opened, make_directory, open, set_aside};
pub use self::shared::{EngineReader, Figures, Stored};
pub use self::thread::{StoreHandle, changed, stored};

/// File name of the database in the state directory.
pub const FILE: &str = "portsentry.db";

/// File name of its copy.
pub const COPY: &str = "portsentry-copy.db";

/// The version of the tables (`PRAGMA user_version`), raised by changes that an older daemon would
/// misread. Code that raises it in an existing file must run `PRAGMA wal_checkpoint` at once: it is
/// read from the file header.
pub const VERSION: i32 = 2;

/// Sources whose evidence is stored, suspects first: two megabytes with the default trigger. A
/// flood has more, but hardly more real scanners.
pub const EVIDENCE_MAX: usize = 16_384;

/// Bytes that the write-ahead log may keep between two checkpoints; a bulk change may need more for
/// a moment.
const LOG_KEPT: u32 = 4 << 20;

/// SQLite's page cache, in KiB.
const CACHE_KIB: i32 = 1024;

/// Free pages from which on the file is shortened: below half a megabyte it is not worth the work.
const FREE_PAGES: i64 = 128;

/// Ends of the same block this close count as equal: the kernel's timer and ours differ by
/// milliseconds.
const SAME_END: Duration = Duration::from_secs(2);

/// A stored block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Blocked source.
    pub source: Source,
    /// Exempt networks within it.
    pub exempt: Vec<IpNet>,
    /// Its start.
    pub since: MonoTime,
    /// Its end; `None`: permanent.
    pub expires: Option<MonoTime>,
    /// The port that crossed the trigger.
    pub port: Option<Port>,
    /// The evidence.
    pub reason: Reason,
}

/// One change to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A block is in force.
    Block(Block),
    /// A block has ended.
    Ended(Source),
    /// A verified source was blocked.
    Offender(Offender),
    /// Evidence about a source.
    Evidence(Evidence),
    /// The evidence about a source is deleted.
    Forgiven(Source),
}

/// The whole content of a database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// The mark of the last write.
    pub mark: Mark,
    /// Blocks in force.
    pub blocks: Vec<Block>,
    /// The latest first.
    pub offenders: Vec<Offender>,
    /// Evidence about sources.
    pub evidence: Vec<Evidence>,
    /// Administrators and services.
    pub memory: Memory,
}

impl Content {
    /// Converts all times to the clock of `now`; ended blocks are left out. After a reboot, services
    /// get time to start.
    #[must_use]
    pub fn carried(mut self, now: &Mark) -> Self {
        let mark = self.mark.clone();
        self.blocks.retain_mut(|block| {
            let end = block.expires.map(|end| mark.carry_end(block.since, end, now));
            block.since = mark.carry(block.since, now);
            block.expires = end.flatten();
            end != Some(None)
        });
        for offender in &mut self.offenders {
            offender.last = mark.carry(offender.last, now);
        }
        for evidence in &mut self.evidence {
            evidence.first = mark.carry(evidence.first, now);
            evidence.last = mark.carry(evidence.last, now);
            evidence.last_reported = evidence.last_reported.map(|at| mark.carry(at, now));
            for touch in &mut evidence.ports {
                touch.at = mark.carry(touch.at, now);
            }
        }
        self.memory.convert(|seen| mark.carry(seen, now));
        if !mark.is_same_boot(now) {
            self.memory.rebooted(now.clock);
        }
        self.mark = now.clone();
        self
    }
}

impl Content {
    /// Adds the rows of an older copy whose keys are missing.
    fn complete(&mut self, copy: Self) {
        fn add<T>(rows: &mut Vec<T>, copied: Vec<T>, source: impl Fn(&T) -> Source) {
            let known: HashSet<Source> = rows.iter().map(&source).collect();
            rows.extend(copied.into_iter().filter(|row| !known.contains(&source(row))));
        }
        let copy = copy.carried(&self.mark);
        add(&mut self.blocks, copy.blocks, |block| block.source);
        add(&mut self.offenders, copy.offenders, |offender| offender.source);
        add(&mut self.evidence, copy.evidence, |evidence| evidence.source);
        self.memory.merge(copy.memory);
    }
}

/// All blocks in pieces; `None`: the next one cannot be had.
pub trait Pieces: IntoIterator<Item = Option<Vec<Block>>> {}

impl<T: IntoIterator<Item = Option<Vec<Block>>>> Pieces for T {}

/// Row counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rows {
    /// Blocks in force.
    pub blocks: u64,
    /// Verified sources that were blocked.
    pub offenders: u64,
    /// Evidence about sources.
    pub evidence: u64,
}

impl Rows {
    /// Of content that was just read.
    fn of(content: &Content) -> Self {
        let Content { blocks, offenders, evidence, .. } = content;
        let [blocks, offenders, evidence] =
            [blocks.len(), offenders.len(), evidence.len()].map(|rows| rows as u64);
        Self { blocks, offenders, evidence }
    }
}

/// The open database.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    path: PathBuf,
    /// The database that is open.
    file: Option<Identity>,
    /// Its log, since the first write.
    log: Option<Identity>,
}

/// Device and inode of a file.
type Identity = (u64, u64);

impl Database {
    fn at(path: &Path, connection: Connection) -> Result<Self, Error> {
        let file = identity(path)?;
        Ok(Self { connection, path: path.to_owned(), file, log: None })
    }

    /// Checks that the database and its log are still where they were: another program may have
    /// deleted or replaced them, and SQLite goes on writing to what it has open.
    ///
    /// # Errors
    /// They are not. Nothing is written to files of that name when this database is closed.
    pub fn check_place(&mut self) -> Result<(), Error> {
        let log = identity(&open::with_suffix(&self.path, open::LOG))?;
        if identity(&self.path)? == self.file && (self.log.is_none() || self.log == log) {
            self.log = log;
            return Ok(());
        }
        // Without a checkpoint, SQLite does not delete the log either.
        self.connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map_err(|source| Error::sqlite("close", &self.path, source))?;
        Err(Fault::Gone.of(&self.path))
    }

    /// Path of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes changes in their order, in one transaction. They are on the disk when this returns.
    ///
    /// # Errors
    /// SQLite failed; nothing was written.
    pub fn apply(&mut self, mark: &Mark, changes: &[Change]) -> Result<(), Error> {
        self.write(mark, |transaction| {
            let mut writer = RowWriter::new(transaction)?;
            changes.iter().try_for_each(|change| writer.write(change))
        })
    }

    /// Replaces the list of blocks, which comes in pieces, writing only the differences.
    ///
    /// # Errors
    /// SQLite failed, or a piece is `None`; nothing was changed.
    pub fn set_blocks(&mut self, mark: &Mark, pieces: impl Pieces) -> Result<(), Error> {
        self.write_list(mark, pieces, |transaction, pieces| {
            let mut exemptions = Vec::new();
            rows::read_into(&mut exemptions, transaction, rows::ALL_EXEMPTIONS, rows::exemption)?;
            let mut exemptions = rows::by_block(exemptions);
            let mut one =
                transaction.prepare(&format!("{} WHERE subject = ?", rows::ALL_BLOCKS))?;
            let mut writer = RowWriter::new(transaction)?;
            let mut wanted: Vec<Source> = Vec::new();
            for block in pieces.flatten() {
                let mut found = one.query([block.source.to_string()])?;
                let mut stored = found.next()?.and_then(|row| rows::valid(row, rows::block));
                rows::give_exemptions(stored.as_mut_slice(), &mut exemptions);
                if !stored.is_some_and(|stored| is_same(&stored, &block)) {
                    drop(found);
                    writer.put_block(&block)?;
                }
                wanted.push(block.source);
            }
            wanted.sort_unstable();
            let mut gone: Vec<String> = Vec::new();
            let mut all = transaction.prepare("SELECT subject, prefix FROM blocks")?;
            let mut found = all.query([])?;
            while let Some(row) = found.next()? {
                let is_wanted = rows::source_of(&Columns::of(row))
                    .is_ok_and(|source| wanted.binary_search(&source).is_ok());
                if !is_wanted {
                    gone.extend(row.get::<_, Option<String>>(0).unwrap_or_default());
                }
            }
            gone.iter().try_for_each(|name| writer.end_block(name))
        })
    }

    /// Replaces the whole content.
    ///
    /// # Errors
    /// SQLite failed; nothing was changed.
    pub fn replace(&mut self, content: &Content) -> Result<(), Error> {
        self.replace_with(content, [])
    }

    /// Replaces the whole content by this, and more blocks that come in pieces.
    ///
    /// # Errors
    /// SQLite failed, or a piece is `None`; nothing was changed.
    pub fn replace_with(&mut self, content: &Content, pieces: impl Pieces) -> Result<(), Error> {
        self.write_list(&content.mark, pieces, |transaction, pieces| {
            write_all(transaction, content)?;
            let mut writer = RowWriter::new(transaction)?;
            pieces.flatten().try_for_each(|block| writer.put_block(&block))
        })
    }

    /// Runs one transaction in which `change` writes blocks that come in pieces: a million of them
    /// at once would take more memory than all else.
    fn write_list(
        &mut self,
        mark: &Mark,
        pieces: impl Pieces,
        change: impl FnOnce(
            &Transaction<'_>,
            &mut dyn Iterator<Item = Vec<Block>>,
        ) -> rusqlite::Result<()>,
    ) -> Result<(), Error> {
        let mut is_whole = true;
        let written = self.write(mark, |transaction| {
            let mut pieces = pieces.into_iter().map_while(|piece| {
                is_whole = piece.is_some();
                piece
            });
            change(transaction, &mut pieces)?;
            // Undoes all of it.
            if is_whole { Ok(()) } else { Err(rusqlite::Error::QueryReturnedNoRows) }
        });
        if is_whole { written } else { Err(Fault::Unlisted.of(&self.path)) }
    }

    /// Replaces administrators and services.
    ///
    /// # Errors
    /// SQLite failed; nothing was changed.
    pub fn set_memory(&mut self, mark: &Mark, memory: &Memory) -> Result<(), Error> {
        self.write(mark, |transaction| memory.write(transaction, mark))
    }

    /// Upgrades a database of version 1, which had no exemptions and named IPv6 prefixes by their
    /// address alone, in one transaction.
    fn upgrade(&mut self, content: &Content) -> Result<(), Error> {
        self.write(&content.mark, |transaction| {
            transaction
                .execute_batch(&format!("{} PRAGMA user_version = {VERSION};", open::EXEMPTIONS))?;
            write_all(transaction, content)
        })?;
        self.run("PRAGMA wal_checkpoint(TRUNCATE)")
    }

    /// Deletes evidence last touched before `evidence`, offenders last blocked before `offenders`,
    /// and rows beyond the limits. Shortens the file when much of it is free.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn prune(
        &mut self,
        mark: &Mark,
        evidence: MonoTime,
        offenders: MonoTime,
    ) -> Result<(), Error> {
        self.write(mark, |transaction| {
            for (table, from, most) in [("evidence", evidence, EVIDENCE_MAX), ("offenders", offenders, OFFENDERS_MAX)] {
                transaction.execute(&format!("DELETE FROM {table} WHERE last < ?"), [rows::millis(from)])?;
                let count: i64 = transaction.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
                let excess = count.saturating_sub(i64::try_from(most).unwrap_or(i64::MAX));
                if excess > 0 {
                    let oldest = format!("DELETE FROM {table} WHERE source IN (SELECT source FROM {table} ORDER BY last LIMIT ?)");
                    transaction.execute(&oldest, [excess])?;
                }
            }
            Ok(())
        })?;
        let free: i64 = self.ask("PRAGMA freelist_count")?;
        if free > FREE_PAGES {
            // In small transactions, so that a block to be written waits for one of them only.
            self.vacuum().map_err(|source| Error::sqlite("shorten", &self.path, source))?;
        }
        Ok(())
    }

    /// Counts the rows.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn rows(&self) -> Result<Rows, Error> {
        let count = |table: &str| {
            self.ask(&format!("SELECT count(*) FROM {table}"))
                .map(|rows| u64::try_from(rows).unwrap_or(0))
        };
        Ok(Rows {
            blocks: count("blocks")?,
            offenders: count("offenders")?,
            evidence: count("evidence")?,
        })
    }

    /// Runs one transaction, which also writes the mark.
    fn write(
        &mut self,
        mark: &Mark,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), Error> {
        self.transact(|transaction| {
            change(transaction)?;
            let wall = i64::try_from(mark.wall).unwrap_or(i64::MAX);
            transaction
                .prepare(
                    "INSERT OR REPLACE INTO mark (one, boot, wall, clock) VALUES (1, ?, ?, ?)",
                )?
                .execute((&mark.boot, wall, rows::millis(mark.clock)))
                .map(drop)
        })
    }

    /// Runs one transaction.
    fn transact<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        self.check_place()?;
        let Self { connection, path, .. } = self;
        let write = || {
            let transaction = connection.transaction()?;
            let result = change(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        write().map_err(|source| match sqlite::io_error(connection, &source) {
            Some(error) => Error::file("write", path, error),
            None => Error::sqlite("write", path, source),
        })
    }

    /// Frees a page with each step.
    fn vacuum(&self) -> rusqlite::Result<()> {
        let mut statement =
            self.connection.prepare(&format!("PRAGMA incremental_vacuum({FREE_PAGES})"))?;
        let mut steps = statement.query([])?;
        while steps.next()?.is_some() {}
        Ok(())
    }

    fn ask(&self, question: &str) -> Result<i64, Error> {
        self.connection
            .query_row(question, [], |row| row.get(0))
            .map_err(|source| Error::sqlite("read", &self.path, source))
    }

    fn run(&self, statements: &str) -> Result<(), Error> {
        // Some pragmas return rows, which execute_batch ignores.
        self.connection
            .execute_batch(statements)
            .map_err(|source| Error::sqlite("change", &self.path, source))
    }
}

/// The file at `path`; `None`: there is none.
fn identity(path: &Path) -> Result<Option<Identity>, Error> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::file("look at", path, source)),
    }
}

fn write_all(transaction: &Transaction<'_>, content: &Content) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "DELETE FROM blocks; DELETE FROM exemptions; DELETE FROM offenders; DELETE FROM evidence",
    )?;
    let mut writer = RowWriter::new(transaction)?;
    content.blocks.iter().try_for_each(|block| writer.put_block(block))?;
    content.offenders.iter().try_for_each(|offender| writer.put_offender(offender))?;
    content.evidence.iter().try_for_each(|evidence| writer.put_evidence(evidence))?;
    content.memory.write(transaction, &content.mark)
}

/// Whether the stored row need not be rewritten.
fn is_same(stored: &Block, wanted: &Block) -> bool {
    let ends = match (stored.expires, wanted.expires) {
        (None, None) => true,
        (Some(one), Some(other)) => one.since(other).max(other.since(one)) <= SAME_END,
        _ => false,
    };
    ends && Block { since: wanted.since, expires: wanted.expires, ..stored.clone() } == *wanted
}

#[cfg(test)]
mod tests;
