//! Receives notifications of changes to nf_tables by any process (group NFNLGRP_NFTABLES,
//! linux/netfilter/nfnetlink.h).
//!
//! The kernel sends none for elements that rules add and for elements that expire.

use std::os::fd::{AsFd, BorrowedFd};

use neli::consts::socket::NlFamily;

use super::decode::{self, Notification};
use super::error::Error;
use super::schema::Schema;
use crate::netlink::message::Messages;
use crate::netlink::socket::{self, Socket, is_overrun};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// The kernel collects notifications into datagrams of about a page; a larger one counts as lost.
const INBOX: usize = 64 << 10;
/// A program that loads 100,000 elements causes that many notifications.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A subscription to notifications. Its descriptor becomes readable when there are some.
pub struct Monitor {
    socket: Socket,
    inbox: Vec<u8>,
    schema: Schema,
}

/// The result of one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A datagram; its notifications were passed on. One that the kernel did not send has none.
    Datagram,
    /// Nothing is waiting.
    Nothing,
    /// Notifications were lost, because the receive buffer was full: the ruleset has to be read.
    Lost,
}

impl Monitor {
    /// Subscribes in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Socket`]; needs CAP_NET_ADMIN.
    pub fn open(schema: Schema) -> Result<Self, Error> {
        let socket = Socket::open(NlFamily::Netfilter, &[GROUP]).map_err(Error::socket("open"))?;
        socket
            .set_receive_buffer(RECEIVE_BUFFER)
            .map_err(Error::socket("set the receive buffer of"))?;
        Ok(Self { socket, inbox: vec![0; INBOX], schema })
    }

    /// Ends or renews the subscription. A large transaction takes a third less time when the kernel
    /// sends no notifications of its elements; the generation shows whether another process
    /// committed one meanwhile.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn listen(&self, wanted: bool) -> Result<(), Error> {
        self.socket
            .set_group_membership(GROUP, wanted)
            .map_err(Error::socket("change the group of"))
    }

    /// Reads one datagram without waiting, and passes each notification about the schema's table,
    /// and each generation, to `take`. Changes made by the socket with port id `except`
    /// ([`super::Connection::portid`]) are skipped.
    ///
    /// # Errors
    /// [`Error::Socket`] for anything but a loss.
    pub fn receive(
        &mut self,
        except: Option<u32>,
        mut take: impl FnMut(Notification),
    ) -> Result<Received, Error> {
        let schema = self.schema;
        match self.socket.receive(&mut self.inbox) {
            Ok(socket::Received::Datagram { cut: true, .. }) => Ok(Received::Lost),
            Ok(socket::Received::Datagram { bytes, cut: false }) => {
                let messages =
                    Messages(bytes).filter(|message| Some(message.header.portid) != except);
                messages
                    .filter_map(|message| decode::notification(&message, schema))
                    .for_each(&mut take);
                Ok(Received::Datagram)
            }
            Ok(socket::Received::Foreign) => Ok(Received::Datagram),
            Ok(socket::Received::Empty) => Ok(Received::Nothing),
            Err(error) if is_overrun(&error) => Ok(Received::Lost),
            Err(source) => Err(Error::Socket { verb: "receive from", source }),
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
