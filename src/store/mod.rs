//! The state store: blocks, repeated offenders and evidence in one SQLite database, so that a restart, a crash and a reboot forget none of it.
//!
//! Owns the file `portsentry.db` in the state directory, with its write-ahead log, locked against a second daemon. Whoever calls waits for the disk: never
//! the packet thread. What a call has written without an error is on the disk (`synchronous=FULL`, sqlite.org/pragma.html, sqlite.org/wal.html).
//!
//! Never here: what is blocked and why (the engine's), what is in the kernel. A database that makes no sense is renamed, never deleted; one of a newer
//! version, or of another program, is left as it is, to the byte.

pub mod clock;
mod error;
mod mark;
mod open;
mod rows;
mod shared;
mod thread;
mod worker;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use rusqlite::{Connection, Transaction};

use crate::engine::{Evidence, MonoTime, OFFENDERS_MAX, Offender, Reason, Source};
use crate::probe::Port;

pub use self::error::Error;
pub use self::mark::Mark;
#[doc(hidden)]
pub use self::open::load;
pub use self::open::{Opened, open, set_aside};
pub use self::shared::{EngineReader, Figures, Stored};
pub use self::thread::{StoreHandle, changed, stored};

/// The name of the database in the state directory.
pub const FILE: &str = "portsentry.db";

/// The version of what is in the tables (`PRAGMA user_version`). A change that an older daemon would misread makes it higher; whoever makes it higher in a
/// file that is there takes the log into it at once (`PRAGMA wal_checkpoint`), since it is read from the head of the file.
pub const VERSION: i32 = 2;

/// Sources whose evidence is stored, suspects first: two megabytes with the default trigger. A flood has more, but hardly more real scanners.
pub const EVIDENCE_MAX: usize = 16_384;

/// Bytes that the write-ahead log may keep between two checkpoints; a bulk may need more for a moment.
const LOG_KEPT: u32 = 4 << 20;

/// Bytes of the database that are kept in memory, in KiB as SQLite wants it.
const CACHE_KIB: i32 = 1024;

/// Pages that are free before the file is made shorter: below half a megabyte it is not worth the work.
const FREE_PAGES: i64 = 128;

/// Two ends of the same block that lie this close are one: the kernel's timer and ours never agree to the millisecond.
const SAME_END: Duration = Duration::from_secs(2);

/// A block as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What is blocked.
    pub source: Source,
    /// Networks within it that are not.
    pub exempt: Vec<IpNet>,
    /// Since when.
    pub since: MonoTime,
    /// Until when; `None`: until it is unblocked.
    pub expires: Option<MonoTime>,
    /// The port that crossed the trigger.
    pub port: Option<Port>,
    /// Why.
    pub reason: Reason,
}

/// One thing to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This block is in force.
    Block(Block),
    /// The source is not blocked.
    Ended(Source),
    /// A proven source was blocked.
    Offender(Offender),
    /// What is known of a source.
    Evidence(Evidence),
    /// The evidence against a source is forgiven.
    Forgiven(Source),
}

/// All that is in a database.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// When it was written last.
    pub mark: Mark,
    /// Blocks.
    pub blocks: Vec<Block>,
    /// Offenders, the latest first.
    pub offenders: Vec<Offender>,
    /// Evidence.
    pub evidence: Vec<Evidence>,
}

impl Content {
    /// The same by the clock of `now`; blocks that are over are left out.
    #[must_use]
    pub fn carried(mut self, now: &Mark) -> Self {
        let mark = self.mark.clone();
        self.blocks.retain_mut(|block| {
            let left = block.expires.map(|end| mark.carry_end(block.since, end, now));
            block.since = mark.carry(block.since, now);
            match left {
                None => true,
                Some(end) => {
                    block.expires = end;
                    end.is_some()
                }
            }
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
        self.mark = now.clone();
        self
    }
}

/// How many rows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rows {
    /// Blocks.
    pub blocks: u64,
    /// Offenders.
    pub offenders: u64,
    /// Sources with evidence.
    pub evidence: u64,
}

/// The open database.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    path: PathBuf,
}

const PUT_BLOCK: &str = "INSERT OR REPLACE INTO blocks (subject, prefix, since, expires, port, reason, sum) VALUES (?, ?, ?, ?, ?, ?, ?)";
const END_BLOCK: &str = "DELETE FROM blocks WHERE subject = ?";
const PUT_EXEMPTION: &str = "INSERT INTO exemptions (subject, exempt, sum) VALUES (?, ?, ?)";
const END_EXEMPTIONS: &str = "DELETE FROM exemptions WHERE subject = ?";
const PUT_OFFENDER: &str = "INSERT OR REPLACE INTO offenders (source, prefix, times, last, sum) VALUES (?, ?, ?, ?, ?)";
const PUT_EVIDENCE: &str = "INSERT OR REPLACE INTO evidence (source, prefix, first, last, told, probes, ports, sum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
const FORGIVE: &str = "DELETE FROM evidence WHERE source = ?";

impl Database {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes changes in their order, in one transaction. When this returns, they are on the disk.
    ///
    /// # Errors
    /// What SQLite says; nothing of them is written then.
    pub fn apply(&mut self, mark: &Mark, changes: &[Change]) -> Result<(), Error> {
        self.write(mark, |transaction| {
            let mut blocks = rows::BlockWriter::new(transaction)?;
            let mut put_offender = transaction.prepare(PUT_OFFENDER)?;
            let mut put_evidence = transaction.prepare(PUT_EVIDENCE)?;
            let mut forgive = transaction.prepare(FORGIVE)?;
            for change in changes {
                match change {
                    Change::Block(block) => blocks.put(block)?,
                    Change::Ended(source) => blocks.end(&source.to_string())?,
                    Change::Offender(offender) => rows::put_offender(&mut put_offender, offender)?,
                    Change::Evidence(evidence) => rows::put_evidence(&mut put_evidence, evidence)?,
                    Change::Forgiven(source) => drop(forgive.execute([source.to_string()])?),
                }
            }
            Ok(())
        })
    }

    /// Makes `blocks` all blocks that there are, and writes no more than what differs.
    ///
    /// # Errors
    /// What SQLite says; nothing is changed then.
    pub fn set_blocks(&mut self, mark: &Mark, blocks: Vec<Block>) -> Result<(), Error> {
        self.write(mark, |transaction| {
            let mut wanted: HashMap<Source, Block> = blocks.into_iter().map(|block| (block.source, block)).collect();
            let mut gone: Vec<String> = Vec::new();
            {
                let mut exemptions = rows::exemptions(transaction)?.0;
                let mut all = transaction.prepare(rows::ALL_BLOCKS)?;
                let mut found = all.query([])?;
                while let Some(row) = found.next()? {
                    match rows::block(row)?.map(|block| rows::with_exemptions(block, &mut exemptions)) {
                        Some(block) if wanted.get(&block.source).is_some_and(|wanted| is_same(&block, wanted)) => {
                            wanted.remove(&block.source);
                        }
                        Some(block) if wanted.contains_key(&block.source) => {}
                        _ => gone.extend(row.get::<_, Option<String>>(0).unwrap_or_default()),
                    }
                }
            }
            let mut blocks = rows::BlockWriter::new(transaction)?;
            gone.iter().try_for_each(|name| blocks.end(name))?;
            wanted.values().try_for_each(|block| blocks.put(block))
        })
    }

    /// Replaces everything.
    ///
    /// # Errors
    /// What SQLite says; nothing is changed then.
    pub fn replace(&mut self, content: &Content) -> Result<(), Error> {
        self.write(&content.mark, |transaction| write_all(transaction, content))
    }

    /// Brings a database of version 1, which knew no exemptions and named IPv6 prefixes by their address alone, to the version of now, in one transaction.
    fn upgrade(&mut self, content: &Content) -> Result<(), Error> {
        self.write(&content.mark, |transaction| {
            transaction.execute_batch(&format!("{} PRAGMA user_version = {VERSION};", open::EXEMPTIONS))?;
            write_all(transaction, content)
        })?;
        self.run("PRAGMA wal_checkpoint(TRUNCATE)")
    }

    /// Takes out evidence that was last touched before `evidence` and offenders who were last blocked before `offenders`, and whoever there is no room for.
    /// Makes the file shorter when much of it is free.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn prune(&mut self, mark: &Mark, evidence: MonoTime, offenders: MonoTime) -> Result<(), Error> {
        self.write(mark, |transaction| {
            transaction.prepare("DELETE FROM evidence WHERE last < ?")?.execute([rows::millis(evidence)])?;
            transaction.prepare("DELETE FROM offenders WHERE last < ?")?.execute([rows::millis(offenders)])?;
            for (table, key, most) in [("evidence", "source", EVIDENCE_MAX), ("offenders", "source", OFFENDERS_MAX)] {
                let count: i64 = transaction.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
                let excess = count.saturating_sub(i64::try_from(most).unwrap_or(i64::MAX));
                if excess > 0 {
                    let oldest = format!("DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} ORDER BY last LIMIT ?)");
                    transaction.execute(&oldest, [excess])?;
                }
            }
            Ok(())
        })?;
        let free: i64 = self.ask("PRAGMA freelist_count")?;
        if free > FREE_PAGES {
            // In pieces: each is a transaction of its own, and those who wait for a block to be written wait for one of them only.
            self.vacuum().map_err(|source| Error::sqlite("shorten", &self.path, source))?;
        }
        Ok(())
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn rows(&self) -> Result<Rows, Error> {
        let count = |table: &str| self.ask(&format!("SELECT count(*) FROM {table}")).map(|rows| u64::try_from(rows).unwrap_or(0));
        Ok(Rows { blocks: count("blocks")?, offenders: count("offenders")?, evidence: count("evidence")? })
    }

    /// One transaction, with its mark.
    fn write(&mut self, mark: &Mark, change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>) -> Result<(), Error> {
        let Self { connection, path } = self;
        let write = || {
            let transaction = connection.transaction()?;
            change(&transaction)?;
            let wall = i64::try_from(mark.wall).unwrap_or(i64::MAX);
            transaction.prepare("INSERT OR REPLACE INTO mark (one, boot, wall, clock) VALUES (1, ?, ?, ?)")?.execute((
                &mark.boot,
                wall,
                rows::millis(mark.clock),
            ))?;
            transaction.commit()
        };
        write().map_err(|source| Error::sqlite("write", path, source))
    }

    /// Each step frees a page.
    fn vacuum(&self) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({FREE_PAGES})"))?;
        let mut steps = statement.query([])?;
        while steps.next()?.is_some() {}
        Ok(())
    }

    fn ask(&self, question: &str) -> Result<i64, Error> {
        self.connection.query_row(question, [], |row| row.get(0)).map_err(|source| Error::sqlite("read", &self.path, source))
    }

    fn run(&self, statements: &str) -> Result<(), Error> {
        // Some pragmas give rows, which execute_batch does not mind.
        self.connection.execute_batch(statements).map_err(|source| Error::sqlite("change", &self.path, source))
    }
}

fn write_all(transaction: &Transaction<'_>, content: &Content) -> rusqlite::Result<()> {
    transaction.execute_batch("DELETE FROM blocks; DELETE FROM exemptions; DELETE FROM offenders; DELETE FROM evidence")?;
    let mut blocks = rows::BlockWriter::new(transaction)?;
    let mut put_offender = transaction.prepare(PUT_OFFENDER)?;
    let mut put_evidence = transaction.prepare(PUT_EVIDENCE)?;
    content.blocks.iter().try_for_each(|block| blocks.put(block))?;
    content.offenders.iter().try_for_each(|offender| rows::put_offender(&mut put_offender, offender))?;
    content.evidence.iter().try_for_each(|evidence| rows::put_evidence(&mut put_evidence, evidence))
}

/// Whether what is stored needs no other row.
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
