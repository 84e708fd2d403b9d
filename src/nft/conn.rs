//! The connection to nf_tables: transactions, adding and deleting elements, reading answers.
//!
//! A transaction is one datagram, from BEGIN to END. The kernel carries it out within send(2) and
//! has queued every answer when send returns, so answers are read without waiting (netlink(7),
//! net/netfilter/nfnetlink.c). Only the last message asks for an acknowledgement; errors come
//! without being asked for, and each names its message by the sequence number.
//!
//! Never here: a decision about elements, a table that the schema does not name, a retry that the
//! caller does not know of (except of dumps that a transaction interrupted).

mod contents;

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use neli::consts::socket::NlFamily;
use rustix::io::Errno;

use super::decode;
use super::element::Element;
use super::encode::{Batch, Past};
use super::error::Error;
use super::numbers::{BATCH_BEGIN, BATCH_END, attr, message};
use super::schema::{Schema, SetSpec, Table};
use crate::netlink::message::{
    Answer, Header, Message, Messages, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLM_F_EXCL, NLMSG_DONE, NLMSG_ERROR, Writer,
};
use crate::netlink::socket::Socket;

pub use self::contents::LIGHT_DUMP;

/// A transaction of 2,000 elements with comments has 300 kB; installations that carry elements over
/// have more.
const SEND_BUFFER: usize = 8 << 20;
/// Room for an error on each of [`ELEMENTS_PER_TRANSACTION`] messages: the kernel charges about 1.3
/// kB for one.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Larger than any datagram that the kernel makes: dumps have 32 KiB at most, an error repeats one
/// message of ours (below 64 KiB).
const INBOX: usize = 128 << 10;
/// Elements per transaction: the longest commit then takes about 10 ms, and the packet path of the
/// kernel never waits longer.
const ELEMENTS_PER_TRANSACTION: usize = 2000;
/// Bytes of the buffer for outgoing messages that are kept between transactions.
const MAX_KEPT_BUFFER: usize = 1 << 20;
/// The kernel has queued every answer when send returns; this is in case one does not.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Attempts of a dump that a transaction of another process interrupts.
const MAX_DUMP_ATTEMPTS: u32 = 100;
/// Attempts to reach nf_tables while its module is being loaded, and the time between two.
const LOADING_ATTEMPTS: u32 = 60;
const LOADING_PAUSE: Duration = Duration::from_millis(50);

/// A connection. Not shared between threads: each has its own.
pub struct Connection {
    socket: Socket,
    out: Writer,
    inbox: Vec<u8>,
    sequence: u32,
    pub(super) schema: Schema,
}

/// The kernel's refusal of one message of a transaction.
pub(super) struct Failure {
    pub(super) sequence: u32,
    pub(super) errno: i32,
    message: Option<String>,
}

impl Failure {
    fn new(sequence: u32, answer: Answer<'_>) -> Self {
        Self { sequence, errno: answer.errno, message: answer.message.map(str::to_owned) }
    }

    fn is_missing(&self) -> bool {
        self.errno == Errno::NOENT.raw_os_error()
    }
}

impl Connection {
    /// Opens a connection in the calling thread's network namespace. Every operation is on the
    /// schema's table.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open(schema: Schema) -> Result<Self, Error> {
        let socket = Socket::open(NlFamily::Netfilter, &[]).map_err(Error::socket("open"))?;
        socket.set_send_buffer(SEND_BUFFER).map_err(Error::socket("set the send buffer of"))?;
        socket
            .set_receive_buffer(RECEIVE_BUFFER)
            .map_err(Error::socket("set the receive buffer of"))?;
        let mut connection = Self {
            socket,
            out: Writer::with_capacity(4096),
            inbox: vec![0; INBOX],
            sequence: 0,
            schema,
        };
        connection.wait_for_module();
        Ok(connection)
    }

    /// Waits for nf_tables. The first message to it loads its module, and until that has begun to
    /// work the messages of others get EINVAL (net/netfilter/nfnetlink.c, `nfnetlink_rcv_msg`): at
    /// boot, and when two threads of the daemon open their connections.
    fn wait_for_module(&mut self) {
        for _ in 0..LOADING_ATTEMPTS {
            if !self.generation().is_err_and(|error| error.is_unsupported()) {
                return;
            }
            std::thread::sleep(LOADING_PAUSE);
        }
    }

    /// The port id of the socket: transactions of this connection have the process id in
    /// [`super::GenerationEvent`].
    pub fn portid(&self) -> u32 {
        self.socket.portid()
    }

    /// Deletes the table with all that is in it.
    ///
    /// # Errors
    /// [`Error::Apply`]; [`Error::is_not_found`] if there is none.
    pub fn remove_table(&mut self) -> Result<(), Error> {
        self.transaction(None, |batch| batch.of_table(message::DELTABLE, NLM_F_ACK))
    }

    /// Adds an element that is not in the set. For one that is there, use
    /// [`Connection::renew_element`]: older kernels would report success and leave timeout and
    /// comment as they were.
    ///
    /// # Errors
    /// [`Error::Apply`]; [`Error::is_exists`] if it is there, [`Error::is_full`] if the set has no
    /// room, [`Error::is_not_found`] if there is no such set.
    pub fn add_element(
        &mut self,
        set: impl Into<SetSpec>,
        element: &Element<'_>,
    ) -> Result<(), Error> {
        let set = set.into();
        let kind = (message::NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK);
        self.transaction(None, |batch| {
            batch.elements(kind, set, [(*element, Past::default())]);
        })
    }

    /// Adds many elements to a set, 2,000 per transaction.
    ///
    /// # Errors
    /// As [`Connection::add_element`]; earlier transactions stay.
    pub fn add_elements(
        &mut self,
        set: impl Into<SetSpec>,
        elements: &[Element<'_>],
    ) -> Result<(), Error> {
        let set = set.into();
        for chunk in elements.chunks(ELEMENTS_PER_TRANSACTION) {
            self.transaction(None, |batch| add_acknowledged(batch, set, chunk))?;
        }
        Ok(())
    }

    /// Deletes one element of a set.
    ///
    /// # Errors
    /// [`Error::Apply`]; [`Error::is_not_found`] if it is not there.
    pub fn delete_element(
        &mut self,
        set: impl Into<SetSpec>,
        element: &Element<'_>,
    ) -> Result<(), Error> {
        let set = set.into();
        self.transaction(None, |batch| batch.delete(NLM_F_ACK, set, [*element]))
    }

    /// Deletes those of the elements that are in a set. Returns how many were.
    ///
    /// # Errors
    /// [`Error::Apply`] for any other reason; earlier transactions stay.
    pub fn delete_elements(
        &mut self,
        set: impl Into<SetSpec>,
        elements: &[Element<'_>],
    ) -> Result<usize, Error> {
        let (set, table) = (set.into(), self.schema.table.name);
        let (mut deleted, mut absent) = (0, 0);
        for chunk in elements.chunks(ELEMENTS_PER_TRANSACTION) {
            // A missing element reverts the whole transaction, so missing ones are left out and it
            // is sent again. Each element is a message of its own, so that the kernel names each.
            // An element may expire between two attempts; then another follows.
            let mut left: Vec<&Element<'_>> = chunk.iter().collect();
            while let Some((final_element, others)) = left.split_last() {
                let mut first = 0;
                let result = self.try_transaction(table, None, |batch| {
                    first = batch.sequence();
                    for element in others {
                        batch.delete(0, set, [**element]);
                    }
                    batch.delete(NLM_F_ACK, set, [**final_element]);
                })?;
                let Some(failures) = result else {
                    deleted += left.len();
                    break;
                };
                let (missing, others): (Vec<_>, Vec<_>) =
                    failures.into_iter().partition(Failure::is_missing);
                if let Some(failure) = others.into_iter().next() {
                    return Err(self.error(failure));
                }
                let numbers: HashSet<u32> =
                    missing.iter().map(|failure| failure.sequence.wrapping_sub(first)).collect();
                let (before, mut number) = (left.len(), 0..);
                left.retain(|_| number.next().is_none_or(|number| !numbers.contains(&number)));
                absent += before - left.len();
                if left.len() == before {
                    // Not about a message of ours.
                    return Err(missing.into_iter().next().map_or_else(
                        || no_answer("delete", "elements"),
                        |failure| self.error(failure),
                    ));
                }
            }
        }
        // The kernel reports a missing element, set and table alike.
        if deleted == 0 && absent > 0 && !self.has_set(set)? {
            return Err(no_set("delete", set));
        }
        self.shrink();
        Ok(deleted)
    }

    /// Gives an element a new timeout and comment; a counter begins at zero. Adds it if it is not
    /// there. Returns whether it was.
    ///
    /// Deletes and adds it in one transaction: kernels before about 6.12 ignore a new timeout of an
    /// existing element.
    ///
    /// # Errors
    /// As [`Connection::add_element`].
    pub fn renew_element(
        &mut self,
        set: impl Into<SetSpec>,
        element: &Element<'_>,
    ) -> Result<bool, Error> {
        let set = set.into();
        let result = self.transaction(None, |batch| {
            batch.delete(0, set, [*element]);
            add_acknowledged(batch, set, std::slice::from_ref(element));
        });
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.is_not_found() => self.add_element(set, element).map(|()| false),
            Err(error) => Err(error),
        }
    }

    /// Replaces all elements of a set by `elements`, in one transaction. Ranges must not overlap
    /// ([`merge`](super::element::merge)).
    ///
    /// # Errors
    /// As [`Connection::add_element`]; the set is then as it was.
    pub fn replace_elements(
        &mut self,
        set: impl Into<SetSpec>,
        elements: &[Element<'_>],
    ) -> Result<(), Error> {
        let set = set.into();
        self.transaction(None, |batch| {
            batch.of_object(message::DELSETELEM, 0, attr::ELEMS_SET, set.name);
            if elements.is_empty() {
                batch.acknowledge();
            }
            add_acknowledged(batch, set, elements);
        })
    }

    /// Frees the buffer of a large transaction.
    fn shrink(&mut self) {
        if self.out.bytes().len() > MAX_KEPT_BUFFER {
            self.out = Writer::with_capacity(4096);
        }
    }

    /// One transaction. `write` writes its messages, of which the last must ask for an
    /// acknowledgement.
    pub(super) fn transaction(
        &mut self,
        generation: Option<u32>,
        write: impl FnOnce(&mut Batch<'_>),
    ) -> Result<(), Error> {
        let failures = self.try_transaction(self.schema.table.name, generation, write)?;
        let failure = failures.and_then(|failures| failures.into_iter().next());
        let result = failure.map_or(Ok(()), |failure| Err(self.error(failure)));
        self.shrink();
        result
    }

    /// The same with messages about `table`; returns what the kernel refused, message by message:
    /// at least one.
    pub(super) fn try_transaction(
        &mut self,
        table: &str,
        generation: Option<u32>,
        write: impl FnOnce(&mut Batch<'_>),
    ) -> Result<Option<Vec<Failure>>, Error> {
        self.out.clear();
        let first = self.sequence.wrapping_add(1);
        let mut batch = Batch::new(&mut self.out, table, first);
        batch.boundary(BATCH_BEGIN, generation);
        write(&mut batch);
        let end = batch.sequence();
        let last = end.wrapping_sub(1);
        batch.boundary(BATCH_END, None);
        self.sequence = end;
        self.transmit()?;
        let mut failures = Vec::new();
        loop {
            let patience = if failures.is_empty() { ANSWER_TIMEOUT } else { Duration::ZERO };
            let datagram = match self
                .socket
                .receive_within(&mut self.inbox, patience)
                .map_err(Error::socket("receive from"))?
            {
                Some(datagram) => datagram,
                None if failures.is_empty() => return Err(no_answer("commit", "transaction")),
                None => return Ok(Some(failures)),
            };
            for message in Messages(datagram) {
                let sequence = message.header.sequence;
                let Some(answer) = message.answer() else { continue };
                // Answers to an earlier request that timed out are dropped.
                if end.wrapping_sub(sequence) > end.wrapping_sub(first) {
                    continue;
                }
                if answer.errno != 0 {
                    failures.push(Failure::new(sequence, answer));
                }
                if sequence == last {
                    return Ok(if failures.is_empty() { None } else { Some(failures) });
                }
            }
        }
    }

    fn transmit(&mut self) -> Result<(), Error> {
        if self.out.overflowed() {
            let source = io::Error::new(
                io::ErrorKind::InvalidInput,
                "a message does not fit its length field",
            );
            return Err(Error::Socket { verb: "write to", source });
        }
        let length = self.out.bytes().len();
        if length > SEND_BUFFER {
            self.socket
                .set_send_buffer(length + 4096)
                .map_err(Error::socket("set the send buffer of"))?;
        }
        self.socket.send(self.out.bytes()).map_err(Error::socket("send to"))
    }

    /// Sends one request; returns its sequence number.
    fn request(&mut self, write: impl FnOnce(&mut Batch<'_>)) -> Result<u32, Error> {
        self.out.clear();
        self.sequence = self.sequence.wrapping_add(1);
        write(&mut Batch::new(&mut self.out, self.schema.table.name, self.sequence));
        self.transmit()?;
        Ok(self.sequence)
    }

    /// Passes the answers to a request to `take` until the last: DONE, an error, or with `single`
    /// the first that `take` accepts. Returns whether the dump was not interrupted.
    fn answers(
        &mut self,
        sequence: u32,
        single: bool,
        mut take: impl FnMut(&Message<'_>) -> bool,
    ) -> Result<bool, Error> {
        let mut whole = true;
        loop {
            // A dump is made piece by piece as it is read; the wait is for nothing but a kernel
            // that differs.
            let Some(datagram) = self
                .socket
                .receive_within(&mut self.inbox, ANSWER_TIMEOUT)
                .map_err(Error::socket("receive from"))?
            else {
                let (verb, object) = self.described(sequence);
                return Err(Error::NoAnswer { verb, object });
            };
            let mut failure = None;
            let mut is_done = false;
            for message in Messages(datagram).filter(|message| message.header.sequence == sequence)
            {
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.answer() {
                    Some(answer) if answer.errno != 0 => {
                        failure = Some(Failure::new(sequence, answer));
                    }
                    Some(_) => is_done = true,
                    // Malformed, but the last message.
                    None if message.header.kind == NLMSG_DONE
                        || message.header.kind == NLMSG_ERROR =>
                    {
                        is_done = true
                    }
                    None => is_done |= take(&message) && single,
                }
            }
            if let Some(failure) = failure {
                return Err(self.error(failure));
            }
            if is_done {
                return Ok(whole);
            }
        }
    }

    /// Every object of a kind in the table: `kind` is its message `GET...`.
    pub(super) fn list<T>(
        &mut self,
        kind: u16,
        read: fn(&Message<'_>, Table) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let table = self.schema.table;
        // A transaction between two datagrams interrupts the dump. So they are received one right
        // after the other, and read then.
        let messages: Vec<(Header, Vec<u8>)> = self.dump(
            |batch| batch.of_table(kind, NLM_F_DUMP),
            |found, message| found.push((message.header, message.payload.to_vec())),
        )?;
        let read = |(header, payload): &(Header, Vec<u8>)| {
            read(&Message { header: *header, payload }, table)
        };
        Ok(messages.iter().filter_map(read).collect())
    }

    /// A dump, each message read by `read`.
    fn dump<T>(
        &mut self,
        write: impl Fn(&mut Batch<'_>),
        read: impl Fn(&mut Vec<T>, &Message<'_>),
    ) -> Result<Vec<T>, Error> {
        for _ in 0..MAX_DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let sequence = self.request(&write)?;
            let whole = self.answers(sequence, false, |message| {
                read(&mut found, message);
                true
            });
            match whole {
                Ok(true) => return Ok(found),
                Ok(false) => {}
                Err(error) if error.is_busy() => {}
                Err(error) => return Err(error),
            }
        }
        Err(self.changes_all_the_time())
    }

    /// No dump was whole.
    fn changes_all_the_time(&self) -> Error {
        let (verb, object) = self.described(self.sequence);
        let message = Some("the ruleset changes all the time".to_owned());
        Error::Apply { verb, object, errno: Errno::INTR.raw_os_error(), message }
    }

    /// The answer to a request that has one.
    pub(super) fn get<T>(
        &mut self,
        write: impl FnOnce(&mut Batch<'_>),
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let sequence = self.request(write)?;
        let mut found = None;
        self.answers(sequence, true, |message| {
            found = read(message);
            found.is_some()
        })?;
        found.ok_or_else(|| {
            let (verb, object) = self.described(sequence);
            Error::NoAnswer { verb, object }
        })
    }

    /// Verb and object of the message with this number, read from what was sent, so that success
    /// costs nothing.
    fn described(&self, sequence: u32) -> (&'static str, String) {
        let sent = Messages(self.out.bytes()).find(|message| message.header.sequence == sequence);
        sent.map_or_else(
            || ("commit", "transaction".to_owned()),
            |message| decode::describe(&message, self.schema),
        )
    }

    fn error(&self, failure: Failure) -> Error {
        let (verb, object) = self.described(failure.sequence);
        Error::Apply { verb, object, errno: failure.errno, message: failure.message }
    }
}

fn no_answer(verb: &'static str, object: &str) -> Error {
    Error::NoAnswer { verb, object: object.to_owned() }
}

fn no_set(verb: &'static str, set: SetSpec) -> Error {
    let object = format!("elements of set {}", set.name);
    Error::Apply { verb, object, errno: Errno::NOENT.raw_os_error(), message: None }
}

/// Adds elements in as many messages as they need, each acknowledged: they are few.
fn add_acknowledged(batch: &mut Batch<'_>, set: SetSpec, elements: &[Element<'_>]) {
    let new = elements.iter().map(|element| (*element, Past::default()));
    batch.elements((message::NEWSETELEM, NLM_F_CREATE | NLM_F_ACK), set, new);
}
