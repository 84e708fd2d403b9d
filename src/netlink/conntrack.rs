//! Deletes connections from the kernel's connection tracking (ctnetlink).
//!
//! Follows linux/netfilter/nfnetlink_conntrack.h. The decoder accepts any bytes.

use std::net::IpAddr;

use ipnet::IpNet;
use neli::consts::socket::NlFamily;

use super::dump::{Dumper, Error, Failure};
use super::message::{Attribute, Attributes, NLA_F_NESTED, Writer};

/// `NFNL_SUBSYS_CTNETLINK` and `NFNL_SUBSYS_NFTABLES` (linux/netfilter/nfnetlink.h).
const CTNETLINK: u16 = 1 << 8;
const NFTABLES: u16 = 10 << 8;
/// `IPCTNL_MSG_CT_NEW`, `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const NEW: u16 = CTNETLINK;
const GET: u16 = CTNETLINK | 1;
const DELETE: u16 = CTNETLINK | 2;
/// `NFT_MSG_NEWFLOWTABLE` and `NFT_MSG_GETFLOWTABLE` (linux/netfilter/nf_tables.h).
const NEW_FLOWTABLE: u16 = NFTABLES | 22;
const GET_FLOWTABLE: u16 = NFTABLES | 23;

/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID` and `CTA_ZONE`.
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// `CTA_TUPLE_IP`; in it `CTA_IP_V4_SRC` and `CTA_IP_V6_SRC`.
const TUPLE_IP: u16 = 1;
const V4_SRC: u16 = 1;
const V6_SRC: u16 = 3;

/// `AF_UNSPEC`: all families.
const AF_UNSPEC: u8 = 0;

/// Connections that are remembered for deletion at a time: some two megabytes.
const MAX_PER_DUMP: usize = 16_384;
/// Dumps for one call: while the source's connections are deleted, new ones may appear.
const DUMPS_MAX: usize = 16;

/// Addresses whose connections are deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    /// All addresses in this network
    pub network: IpNet,
    /// but these.
    pub exempt: Vec<IpNet>,
}

impl Ends {
    fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.network.contains(&address)
            && !self.exempt.iter().any(|exempt| exempt.contains(&address))
    }
}

/// A tracked connection, as far as its deletion needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tracked {
    family: u8,
    /// Who began it, and who answers (after address translation).
    ends: [IpAddr; 2],
    tuple: Vec<u8>,
    id: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// A socket for the connections of the network namespace in which it was opened.
pub struct Conntrack(Dumper);

impl Conntrack {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        Dumper::open(NlFamily::Netfilter, "netfilter").map(Self)
    }

    /// Whether there is a flowtable. Packets of connections in it pass no chain behind ingress.
    ///
    /// # Errors
    /// [`Error::List`].
    pub fn has_flowtables(&mut self) -> Result<bool, Error> {
        let mut found = false;
        let result =
            self.0.run(GET_FLOWTABLE, |writer| writer.nfgenmsg(AF_UNSPEC, 0), &mut |kind, _| {
                found |= kind == NEW_FLOWTABLE;
            });
        match result {
            Ok(()) | Err(Failure::Torn) => Ok(found),
            Err(failure) if failure.is_unsupported() => Ok(false),
            Err(failure) => Err(Error::List("flowtables".to_owned(), failure)),
        }
    }

    /// Deletes all connections with one of these addresses at an end, and returns their number. It
    /// lists all connections of the host: not for the packet thread.
    ///
    /// # Errors
    /// [`Error::List`]; needs `CAP_NET_ADMIN`.
    pub fn delete(&mut self, ends: &[Ends]) -> Result<usize, Error> {
        let failed = |failure| Error::List("tracked connections".to_owned(), failure);
        let mut deleted = 0;
        for _ in 0..DUMPS_MAX {
            let mut found = Vec::new();
            let result =
                self.0.run(GET, |writer| writer.nfgenmsg(AF_UNSPEC, 0), &mut |kind, payload| {
                    if kind == NEW
                        && found.len() < MAX_PER_DUMP
                        && let Some(tracked) = decode(payload)
                        && tracked
                            .ends
                            .iter()
                            .any(|end| ends.iter().any(|ends| ends.contains(*end)))
                    {
                        found.push(tracked);
                    }
                });
            let is_whole = match result {
                Ok(()) => found.len() < MAX_PER_DUMP,
                // What was listed is deleted, and the rest listed again.
                Err(Failure::Torn) => false,
                Err(failure) => return Err(failed(failure)),
            };
            for tracked in &found {
                match self.0.order(DELETE, |writer| tracked.encode(writer)) {
                    Ok(()) => deleted += 1,
                    // It has ended by itself.
                    Err(failure) if failure.is_not_found() => {}
                    Err(failure) => return Err(failed(failure)),
                }
            }
            if is_whole {
                break;
            }
        }
        Ok(deleted)
    }
}

impl Tracked {
    fn encode(&self, writer: &mut Writer) {
        writer.nfgenmsg(self.family, 0);
        writer.attr(TUPLE_ORIG | NLA_F_NESTED, &self.tuple);
        if let Some(zone) = &self.zone {
            writer.attr(ZONE, zone);
        }
        // Another connection with the same addresses and ports may have taken its place.
        writer.attr(ID, &self.id);
    }
}

fn decode(payload: &[u8]) -> Option<Tracked> {
    let (&[family, _version, _, _], attributes) = payload.split_first_chunk::<4>()?;
    let (mut orig, mut reply, mut id, mut zone) = (None, None, None, None);
    for attribute in Attributes(attributes) {
        match attribute.kind {
            TUPLE_ORIG => orig = Some(attribute),
            TUPLE_REPLY => reply = Some(attribute),
            ID => id = Some(attribute.value.to_vec()),
            ZONE => zone = Some(attribute.value.to_vec()),
            _ => {}
        }
    }
    let orig = orig?;
    let ends = [source(orig)?, source(reply?)?];
    Some(Tracked { family, ends, tuple: orig.value.to_vec(), id: id?, zone })
}

/// The source address of a tuple.
fn source(tuple: Attribute<'_>) -> Option<IpAddr> {
    let addresses = tuple.nested().find(|attribute| attribute.kind == TUPLE_IP)?;
    addresses.nested().find_map(|attribute| match attribute.kind {
        V4_SRC => <[u8; 4]>::try_from(attribute.value).ok().map(IpAddr::from),
        V6_SRC => <[u8; 16]>::try_from(attribute.value).ok().map(IpAddr::from),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    /// As the kernel writes a connection from 192.0.2.1 to 198.51.100.7.
    fn message() -> Vec<u8> {
        let mut writer = Writer::default();
        writer.nfgenmsg(2, 0);
        for (kind, from, to) in [
            (TUPLE_ORIG, [192, 0, 2, 1], [198, 51, 100, 7]),
            (TUPLE_REPLY, [198, 51, 100, 7], [192, 0, 2, 1]),
        ] {
            let tuple = writer.begin_nest(kind);
            let addresses = writer.begin_nest(TUPLE_IP);
            writer.attr(V4_SRC, &from);
            writer.attr(2, &to);
            writer.end_nest(addresses);
            writer.end_nest(tuple);
        }
        writer.attr_be32(ID, 77);
        writer.bytes().to_vec()
    }

    #[test]
    fn a_connection_is_deleted_by_the_tuple_and_number_that_the_kernel_gave_it() {
        let tracked = decode(&message()).unwrap();
        assert_eq!(tracked.ends.map(|end| end.to_string()), ["192.0.2.1", "198.51.100.7"]);
        let mut writer = Writer::default();
        tracked.encode(&mut writer);
        let again = || Attributes(writer.bytes().get(4..).unwrap());
        assert_eq!(again().map(|attribute| attribute.kind).collect::<Vec<_>>(), [TUPLE_ORIG, ID]);
        assert_eq!(source(again().next().unwrap()), Some(tracked.ends[0]));
        assert_eq!(again().last().unwrap().be32(), Some(77));
    }

    #[test]
    fn exempt_addresses_of_a_network_keep_their_connections() {
        let ends = Ends { network: network("192.0.2.0/24"), exempt: vec![network("192.0.2.8/29")] };
        for (address, inside) in [
            ("192.0.2.1", true),
            ("192.0.2.9", false),
            ("192.0.3.1", false),
            ("::ffff:192.0.2.1", true),
        ] {
            assert_eq!(ends.contains(address.parse().unwrap()), inside, "{address}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), value: u8) {
            let _ = decode(&bytes);
            let mut message = message();
            let at = at.index(message.len());
            message[at] = value;
            let _ = decode(&message);
        }
    }
}
