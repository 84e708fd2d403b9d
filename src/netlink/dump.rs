//! Netlink dumps: one request, answered by messages until NLMSG_DONE (netlink(7), "multipart
//! messages"); and orders, answered by an acknowledgement.
//!
//! The caller's closure gets every message; it must discard them when `run` fails.

use std::fmt;
use std::io;
use std::time::Duration;

use neli::consts::socket::NlFamily;
use rustix::io::Errno;

use super::message::{
    Messages, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_OVERRUN, Writer,
};
use super::socket::{Socket, is_overrun};

/// A buffer for any datagram of a dump: twice the 32 KiB that the kernel fills at most
/// (`netlink_dump`, `max_recvmsg_len`).
const BUFFER_LEN: usize = 65_536;

/// Timeout for the next part of a dump. The kernel writes it during the receive call, so it is
/// never reached in practice.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why something could not be listed or watched.
#[derive(Debug)]
pub enum Error {
    /// The netlink socket of this name could not be opened.
    Open(&'static str, io::Error),
    /// A dump of these objects failed.
    List(String, Failure),
    /// The socket for changes of addresses and routes failed.
    Changes(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(name, _) => write!(f, "cannot open a {name} netlink socket"),
            Self::List(objects, _) => write!(f, "cannot list {objects}"),
            Self::Changes(_) => f.write_str("cannot receive changes of addresses and routes"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Open(_, error) | Self::Changes(error) => Some(error),
            Self::List(_, failure) => Some(failure),
        }
    }
}

/// Why a dump failed.
#[derive(Debug)]
pub enum Failure {
    /// The request could not be sent.
    Send(io::Error),
    /// The answer could not be received.
    Receive(io::Error),
    /// The kernel refused.
    Refused {
        /// Its error.
        error: io::Error,
        /// Its message, if it has one.
        message: Option<String>,
    },
    /// The dumped objects changed meanwhile, or a part of the answer was lost: repeat the dump.
    Torn,
}

impl Failure {
    /// Whether the kernel lacks the requested protocol or message.
    pub fn is_unsupported(&self) -> bool {
        // ENOENT: no handler for the protocol (inet_diag); EINVAL, EOPNOTSUPP: no such message or
        // family.
        let none = [
            Errno::NOENT,
            Errno::INVAL,
            Errno::OPNOTSUPP,
            Errno::PROTONOSUPPORT,
            Errno::AFNOSUPPORT,
        ];
        matches!(self, Self::Refused { error, .. } if none.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())))
    }

    /// Whether the kernel does not have the object.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(_) => f.write_str("cannot send a netlink question"),
            Self::Receive(_) => f.write_str("cannot receive a netlink answer"),
            Self::Refused { message: Some(message), .. } => {
                write!(f, "the kernel refused a netlink question: {message}")
            }
            Self::Refused { message: None, .. } => {
                f.write_str("the kernel refused a netlink question")
            }
            Self::Torn => f.write_str("what was listed changed while it was listed"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Send(error) | Self::Receive(error) | Self::Refused { error, .. } => Some(error),
            Self::Torn => None,
        }
    }
}

/// A socket for dumps of the network namespace in which it was opened.
pub(super) struct Dumper {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Dumper {
    /// Opens the socket, which errors call `name`. No privilege is needed.
    pub(super) fn open(family: NlFamily, name: &'static str) -> Result<Self, Error> {
        let socket = Socket::open(family, &[]).map_err(|error| Error::Open(name, error))?;
        Ok(Self { socket, buffer: vec![0; BUFFER_LEN], sequence: 0 })
    }

    /// Sends a request of type `kind`, whose fixed header and attributes `write` writes, and passes
    /// type and payload of each message of the answer to `on_message`.
    ///
    /// # Errors
    /// See [`Failure`]. Messages of this dump may still arrive after an error, so the next dump has
    /// another sequence number.
    pub(super) fn run(
        &mut self,
        kind: u16,
        write: impl FnOnce(&mut Writer),
        on_message: &mut dyn FnMut(u16, &[u8]),
    ) -> Result<(), Failure> {
        self.ask(kind, NLM_F_DUMP, write, on_message)
    }

    /// Sends an order of type `kind`, and waits for the kernel's acknowledgement.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) fn order(
        &mut self,
        kind: u16,
        write: impl FnOnce(&mut Writer),
    ) -> Result<(), Failure> {
        self.ask(kind, NLM_F_ACK, write, &mut |_, _| {})
    }

    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        write: impl FnOnce(&mut Writer),
        on_message: &mut dyn FnMut(u16, &[u8]),
    ) -> Result<(), Failure> {
        let Self { socket, buffer, sequence } = self;
        *sequence = sequence.wrapping_add(1);
        let mut request = Writer::with_capacity(256);
        let message = request.begin_message(kind, NLM_F_REQUEST | flags, *sequence);
        write(&mut request);
        request.end_message(message);
        socket.send(request.bytes()).map_err(Failure::Send)?;
        let mut torn = false;
        loop {
            let datagram = match socket.receive_within(buffer, ANSWER_TIMEOUT) {
                Ok(Some(datagram)) => datagram,
                Ok(None) => return Err(Failure::Receive(io::ErrorKind::TimedOut.into())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Read to the end: until then the kernel refuses another dump on this socket (EBUSY).
                Err(error) if is_overrun(&error) => {
                    torn = true;
                    continue;
                }
                Err(error) => return Err(Failure::Receive(error)),
            };
            for message in Messages(datagram).filter(|message| message.header.sequence == *sequence)
            {
                torn |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.header.kind {
                    NLMSG_DONE | NLMSG_ERROR => match message.answer() {
                        // On older kernels NLMSG_DONE has no error code: that means success.
                        None if message.header.kind == NLMSG_ERROR => {
                            return Err(Failure::Receive(io::ErrorKind::InvalidData.into()));
                        }
                        Some(answer) if answer.errno != 0 => {
                            let error = io::Error::from_raw_os_error(answer.errno);
                            return Err(Failure::Refused {
                                error,
                                message: answer.message.map(str::to_owned),
                            });
                        }
                        _ if torn => return Err(Failure::Torn),
                        _ => return Ok(()),
                    },
                    NLMSG_OVERRUN => torn = true,
                    kind => on_message(kind, message.payload),
                }
            }
        }
    }
}
