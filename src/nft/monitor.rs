//! Hears of changes that anybody makes to nf_tables (group NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h).
//!
//! Elements that rules add, and elements that expire, are not told by the kernel.

use std::os::fd::{AsFd, BorrowedFd};

use neli::consts::socket::NlFamily;

use super::decode::{self, Notification};
use super::error::Error;
use crate::netlink::message::Messages;
use crate::netlink::socket::{Received, Socket, is_overrun};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// The kernel collects notifications into datagrams of a page or so; a larger one is told as lost.
const INBOX: usize = 64 << 10;
/// Somebody who loads 100,000 elements causes that many notifications.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A listener. Its descriptor becomes readable when there is something.
pub struct Monitor {
    socket: Socket,
    inbox: Vec<u8>,
}

/// What one read has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A datagram, each notification handed over; one that the kernel did not send has none.
    Some,
    /// Nothing now.
    Nothing,
    /// The kernel had more than the buffer could take: the ruleset has to be looked at.
    Lost,
}

impl Monitor {
    /// Starts listening in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Socket`]; needs CAP_NET_ADMIN.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open(NlFamily::Netfilter, &[GROUP]).map_err(|source| Error::Socket { verb: "open", source })?;
        socket.set_receive_buffer(RECEIVE_BUFFER).map_err(|source| Error::Socket { verb: "set the receive buffer of", source })?;
        Ok(Self { socket, inbox: vec![0; INBOX] })
    }

    /// Listens no more, or again. A large transaction takes a third less time when nobody has to be told of its elements; whether somebody else's came
    /// meanwhile is seen by the generation.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn listen(&self, wanted: bool) -> Result<(), Error> {
        self.socket.hear_group(GROUP, wanted).map_err(|source| Error::Socket { verb: "change the group of", source })
    }

    /// Reads one datagram without waiting, and hands what concerns our table, and each generation, to `take`. What came by the socket with the port id
    /// `but` ([`super::Connection::portid`]) is passed over.
    ///
    /// # Errors
    /// [`Error::Socket`] for anything but a loss.
    pub fn hear(&mut self, but: Option<u32>, mut take: impl FnMut(Notification)) -> Result<Heard, Error> {
        match self.socket.receive(&mut self.inbox) {
            Ok(Received::Datagram { cut: true, .. }) => Ok(Heard::Lost),
            Ok(Received::Datagram { bytes, cut: false }) => {
                let messages = Messages(bytes).filter(|message| Some(message.header.portid) != but);
                messages.filter_map(|message| decode::notification(&message)).for_each(&mut take);
                Ok(Heard::Some)
            }
            Ok(Received::Foreign) => Ok(Heard::Some),
            Ok(Received::Empty) => Ok(Heard::Nothing),
            Err(error) if is_overrun(&error) => Ok(Heard::Lost),
            Err(source) => Err(Error::Socket { verb: "receive from", source }),
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
