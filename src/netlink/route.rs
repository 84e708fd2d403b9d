//! Own addresses, next hops, and notifications of their changes (rtnetlink(7)). Read-only.
//!
//! Messages are decoded to neli's types (`neli::rtnl`) and use our own socket, because neli's has a
//! fixed buffer and does not notice a truncated datagram. Our own codec reads what neli lacks: next
//! hops inside RTA_MULTIPATH (`struct rtnexthop`, linux/rtnetlink.h), RTA_VIA (which
//! neli has for glibc only), and next-hop objects (linux/nexthop.h).

use std::collections::BTreeSet;
use std::io::{self, Cursor};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use neli::FromBytesWithInput;
use neli::attr::Attribute as _;
use neli::consts::rtnl::{Ifa, RtAddrFamily, Rta, Rtm, RtmF, Rtprot};
use neli::consts::socket::NlFamily;
use neli::rtnl::{Ifaddrmsg, Rtmsg};
use rustix::io::Errno;

use super::dump::{Dumper, Error, Failure};
use super::message::Attributes;
use super::socket::{Received, Socket, is_overrun};

/// `RTA_VIA`: a next hop of another family than the route's (linux/rtnetlink.h).
const RTA_VIA: u16 = 18;
/// `RTA_GATEWAY`.
const RTA_GATEWAY: u16 = 5;
/// `RTM_NEWNEXTHOP` and `RTM_GETNEXTHOP` (Linux 5.3).
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_GETNEXTHOP: u16 = 106;
/// `NHA_GATEWAY` (linux/nexthop.h).
const NHA_GATEWAY: u16 = 6;
/// `IFLA_IFNAME`, `IFLA_MASTER`, `IFLA_PROP_LIST` and in it `IFLA_ALT_IFNAME` (linux/if_link.h).
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;

/// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`
/// (linux/rtnetlink.h).
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// `RTNLGRP_NEXTHOP`: unknown to kernels before 5.3.
const GROUP_NEXTHOP: u32 = 32;

/// Attempts at a dump that changes meanwhile. A host whose routes change faster runs a routing
/// daemon; its next hops are learned with the next change.
const MAX_ATTEMPTS: usize = 4;

/// Datagrams that [`Monitor::changed`] reads at most, so that many changes do not delay the caller.
/// The next call reads the rest.
const MAX_DATAGRAMS_PER_CALL: usize = 4096;

/// An address of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnAddress {
    /// The address.
    pub address: IpAddr,
    /// Its prefix length, bits.
    pub prefix: u8,
    /// The index of its interface.
    pub interface: u32,
    /// The other end of a point-to-point link, if any: a next hop that appears in no route.
    pub peer: Option<IpAddr>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name: the one that rules compare.
    pub name: String,
    /// Its other names.
    pub alternative_names: Vec<String>,
    /// The index of the bridge, bond or VRF that it is a member of: its packets arrive there.
    pub master: Option<u32>,
}

/// A socket for listing addresses and routes of the network namespace in which it was opened.
pub struct Routes(Dumper);

impl Routes {
    /// Opens the socket. No privilege is needed.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        Dumper::open(NlFamily::Route, "route").map(Self)
    }

    /// The addresses of all interfaces, IPv4 and IPv6.
    ///
    /// # Errors
    /// [`Error::List`].
    pub fn addresses(&mut self) -> Result<BTreeSet<OwnAddress>, Error> {
        // struct ifaddrmsg: family, prefix length, flags, scope, interface.
        self.list("addresses", Rtm::Getaddr.into(), &[0; 8], |addresses, kind, payload| {
            if kind == u16::from(Rtm::Newaddr) {
                addresses.extend(decode_address(payload));
            }
        })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// [`Error::List`].
    pub fn links(&mut self) -> Result<BTreeSet<Link>, Error> {
        // struct ifinfomsg: family, padding, type, index, flags, change.
        self.list("interfaces", Rtm::Getlink.into(), &[0; 16], |links, kind, payload| {
            if kind == u16::from(Rtm::Newlink) {
                links.extend(decode_link(payload));
            }
        })
    }

    /// The next hops of all routes in all tables, each once: gateways, the members of multipath
    /// routes, next-hop objects.
    ///
    /// IPv6 gateways are mostly link-local addresses. Excludes routes learned from ICMP redirects,
    /// which any host on the link can forge.
    ///
    /// # Errors
    /// [`Error::List`].
    pub fn next_hops(&mut self) -> Result<BTreeSet<IpAddr>, Error> {
        let mut hops = BTreeSet::new();
        for family in [RtAddrFamily::Inet, RtAddrFamily::Inet6] {
            // struct rtmsg: family, and eleven bytes that select nothing.
            let mut header = [0; 12];
            header[0] = family.into();
            let routes =
                self.list("routes", Rtm::Getroute.into(), &header, |hops, kind, payload| {
                    if kind == u16::from(Rtm::Newroute) {
                        decode_route(payload, &mut |hop| {
                            hops.insert(hop);
                        });
                    }
                });
            // A kernel without this family has none of its routes.
            hops.append(&mut none_if_unsupported(routes)?);
        }
        // With net.ipv4.nexthop_compat_mode=0 routes have only the numbers of their next hops, so
        // list the next-hop objects too. struct nhmsg: family, scope, protocol, reserved, flags.
        let objects = self.list("next hops", RTM_GETNEXTHOP, &[0; 8], |hops, kind, payload| {
            if kind == RTM_NEWNEXTHOP {
                hops.extend(decode_next_hop(payload));
            }
        });
        // Linux before 5.3 has none.
        hops.append(&mut none_if_unsupported(objects)?);
        Ok(hops)
    }

    /// Dumps with a request of this type and fixed header; repeats if the objects change meanwhile.
    fn list<T>(
        &mut self,
        object: &'static str,
        request: u16,
        header: &[u8],
        on_message: impl Fn(&mut BTreeSet<T>, u16, &[u8]),
    ) -> Result<BTreeSet<T>, Error> {
        let mut found = BTreeSet::new();
        for _ in 0..MAX_ATTEMPTS {
            let result = self.0.run(request, |writer| writer.raw(header), &mut |kind, payload| {
                on_message(&mut found, kind, payload);
            });
            match result {
                Err(Failure::Torn) => {}
                Err(failure) => return Err(Error::List(object.to_owned(), failure)),
                Ok(()) => return Ok(found),
            }
        }
        // Keep the result of an interrupted dump: it was true a moment ago, and the attempts are
        // limited.
        log::debug!("{object} change faster than they can be listed");
        Ok(found)
    }
}

fn none_if_unsupported<T: Default>(listed: Result<T, Error>) -> Result<T, Error> {
    match listed {
        Err(Error::List(_, failure)) if failure.is_unsupported() => Ok(T::default()),
        other => other,
    }
}

/// Receives notifications about links, addresses, routes and next hops of the network namespace in
/// which it was opened.
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Opens the socket. No privilege is needed.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        let mut groups = GROUPS.to_vec();
        groups.push(GROUP_NEXTHOP);
        let socket = match Socket::open(NlFamily::Route, &groups) {
            // Kernels without next-hop objects have no group for them.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                Socket::open(NlFamily::Route, &GROUPS)
            }
            result => result,
        };
        // The contents are not used, so truncated messages are fine.
        let socket = socket.map_err(|error| Error::Open("route", error))?;
        Ok(Self { socket, buffer: vec![0; 4096] })
    }

    /// Reads the available notifications, without waiting, and returns whether there were any.
    /// Messages that the kernel had to drop count too.
    ///
    /// The caller must list again, at a bounded rate: a router's routes can change thousands of
    /// times a second.
    ///
    /// # Errors
    /// [`Error::Changes`].
    pub fn changed(&mut self) -> Result<bool, Error> {
        let mut changed = false;
        for _ in 0..MAX_DATAGRAMS_PER_CALL {
            match self.socket.receive(&mut self.buffer) {
                Ok(Received::Datagram { .. }) => changed = true,
                Ok(Received::Foreign) => {}
                Ok(Received::Empty) => break,
                Err(error) if is_overrun(&error) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Changes(error)),
            }
        }
        Ok(changed)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Decodes an address from the payload of an RTM_NEWADDR; `None` if it has none.
pub fn decode_address(payload: &[u8]) -> Option<OwnAddress> {
    let message =
        Ifaddrmsg::from_bytes_with_input(&mut Cursor::new(payload), payload.len()).ok()?;
    let attributes = message.rtattrs().get_attr_handle();
    let get = |kind| {
        attributes
            .get_attribute(kind)
            .and_then(|attribute| address(*message.ifa_family(), attribute.payload().as_ref()))
    };
    let (local, far) = (get(Ifa::Local), get(Ifa::Address));
    // On a point-to-point link IFA_ADDRESS is the other end; IPv6 has IFA_LOCAL only there
    // (linux/if_addr.h).
    let own = local.or(far)?;
    Some(OwnAddress {
        address: own,
        prefix: *message.ifa_prefixlen(),
        interface: *message.ifa_index(),
        peer: far.filter(|far| *far != own),
    })
}

/// Decodes an interface from the payload of an RTM_NEWLINK; `None` if it has no name.
pub fn decode_link(payload: &[u8]) -> Option<Link> {
    let (head, attributes) = payload.split_first_chunk::<16>()?;
    let [_, _, _, _, index @ .., _, _, _, _, _, _, _, _] = *head;
    let attributes = Attributes(attributes);
    let number = |value: &[u8]| Some(u32::from_ne_bytes(value.try_into().ok()?));
    Some(Link {
        index: u32::from_ne_bytes(index),
        name: attributes.str(IFLA_IFNAME)?.to_owned(),
        alternative_names: attributes
            .nested(IFLA_PROP_LIST)
            .filter(|property| property.kind == IFLA_ALT_IFNAME)
            .filter_map(|property| Some(property.str()?.to_owned()))
            .collect(),
        master: attributes.get(IFLA_MASTER).and_then(|master| number(master.value)),
    })
}

/// Decodes the next hops from the payload of an RTM_NEWROUTE.
pub fn decode_route(payload: &[u8], on_hop: &mut dyn FnMut(IpAddr)) {
    let Ok(message) = Rtmsg::from_bytes_with_input(&mut Cursor::new(payload), payload.len()) else {
        return;
    };
    // RTM_F_CLONED marks cached entries of one destination, such as ICMP redirects, not routes; so
    // does RTPROT_REDIRECT.
    if message.rtm_flags().contains(RtmF::CLONED) || *message.rtm_protocol() == Rtprot::Redirect {
        return;
    }
    let family = *message.rtm_family();
    for attribute in message.rtattrs().iter() {
        let value: &[u8] = attribute.payload().as_ref();
        match *attribute.rta_type() {
            Rta::Multipath => multipath(family, value, on_hop),
            kind => hop(family, kind.into(), value).into_iter().for_each(&mut *on_hop),
        }
    }
}

/// The next hop in this attribute of a route, or of a member of a multipath route.
fn hop(family: RtAddrFamily, kind: u16, value: &[u8]) -> Option<IpAddr> {
    match kind {
        RTA_GATEWAY => address(family, value),
        RTA_VIA => via(value),
        _ => None,
    }
}

/// Decodes the gateway from the payload of an RTM_NEWNEXTHOP; `None` if it has none (a group, a
/// device, a blackhole).
pub fn decode_next_hop(payload: &[u8]) -> Option<IpAddr> {
    let (head, attributes) = payload.split_first_chunk::<8>()?;
    let [family, ..] = *head;
    address(RtAddrFamily::from(family), Attributes(attributes).get(NHA_GATEWAY)?.value)
}

/// Decodes the members of a multipath route: each is a `struct rtnexthop` (length, flags, weight,
/// interface) with attributes.
fn multipath(family: RtAddrFamily, mut bytes: &[u8], on_hop: &mut dyn FnMut(IpAddr)) {
    while let Some(head) = bytes.first_chunk::<8>() {
        let [low, high, ..] = *head;
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let Some(attributes) = bytes.get(8..length) else { return };
        for attribute in Attributes(attributes) {
            hop(family, attribute.kind, attribute.value).into_iter().for_each(&mut *on_hop);
        }
        // RTNH_ALIGN: to 4 bytes.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// `struct rtvia`: a family in host order, and an address of it.
fn via(value: &[u8]) -> Option<IpAddr> {
    let (family, bytes) = value.split_first_chunk::<2>()?;
    address(RtAddrFamily::from(u8::try_from(u16::from_ne_bytes(*family)).ok()?), bytes)
}

/// Decodes an address of `family`; `None` for another family, a wrong length, or the unspecified
/// address.
fn address(family: RtAddrFamily, bytes: &[u8]) -> Option<IpAddr> {
    let address = match family {
        RtAddrFamily::Inet => IpAddr::V4(<[u8; 4]>::try_from(bytes).ok()?.into()),
        RtAddrFamily::Inet6 => IpAddr::V6(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => return None,
    };
    (!address.is_unspecified()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::Writer;
    use proptest::prelude::*;
    use std::net::Ipv6Addr;

    /// `struct rtmsg` of a route of this family.
    fn route(family: u8, protocol: u8, flags: u32) -> Vec<u8> {
        let mut bytes = vec![family, 0, 0, 0, 254, protocol, 0, 1];
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.attr(kind, value);
        writer.bytes().to_vec()
    }

    fn hops(payload: &[u8]) -> Vec<String> {
        let mut hops = Vec::new();
        decode_route(payload, &mut |hop| hops.push(hop.to_string()));
        hops
    }

    fn six(text: &str) -> [u8; 16] {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    #[test]
    fn gateways_of_every_kind_are_found() {
        let gateway = [route(2, 3, 0), attribute(RTA_GATEWAY, &[192, 0, 2, 1])].concat();
        assert_eq!(hops(&gateway), ["192.0.2.1"]);
        let linklocal = [
            route(10, 9, 0),
            attribute(4, &7u32.to_ne_bytes()),
            attribute(RTA_GATEWAY, &six("fe80::1")),
        ]
        .concat();
        assert_eq!(hops(&linklocal), ["fe80::1"]);
        let via = [
            route(2, 3, 0),
            attribute(RTA_VIA, &[&10u16.to_ne_bytes()[..], &six("fe80::2")].concat()),
        ]
        .concat();
        assert_eq!(hops(&via), ["fe80::2"]);
    }

    #[test]
    fn every_member_of_a_multipath_route_is_found() {
        let member = |attributes: &[u8]| {
            [
                &u16::try_from(8 + attributes.len()).unwrap().to_ne_bytes()[..],
                &[0, 0, 7, 0, 0, 0],
                attributes,
            ]
            .concat()
        };
        let members = [
            member(&attribute(RTA_GATEWAY, &[192, 0, 2, 1])),
            member(&[]),
            member(&attribute(RTA_VIA, &[&10u16.to_ne_bytes()[..], &six("fe80::2")].concat())),
        ];
        assert_eq!(
            hops(&[route(2, 3, 0), attribute(9, &members.concat())].concat()),
            ["192.0.2.1", "fe80::2"]
        );
    }

    #[test]
    fn redirects_are_no_gateways() {
        for (protocol, flags) in [(1, 0), (3, 0x200)] {
            assert!(
                hops(
                    &[route(2, protocol, flags), attribute(RTA_GATEWAY, &[192, 0, 2, 1])].concat()
                )
                .is_empty()
            );
        }
    }

    #[test]
    fn own_end_of_a_point_to_point_link_is_the_own_address() {
        let head = [vec![2, 32, 0, 0], 7u32.to_ne_bytes().to_vec()].concat();
        let both =
            [head.clone(), attribute(1, &[192, 0, 2, 9]), attribute(2, &[192, 0, 2, 1])].concat();
        let own = OwnAddress {
            address: "192.0.2.1".parse().unwrap(),
            prefix: 32,
            interface: 7,
            peer: Some("192.0.2.9".parse().unwrap()),
        };
        assert_eq!(decode_address(&both), Some(own));
        assert_eq!(decode_address(&head), None);
    }

    #[test]
    fn gateway_of_a_next_hop_object_is_found() {
        let object = [
            vec![10, 0, 0, 0, 0, 0, 0, 0],
            attribute(1, &1u32.to_ne_bytes()),
            attribute(NHA_GATEWAY, &six("fe80::3")),
        ]
        .concat();
        assert_eq!(decode_next_hop(&object), Some("fe80::3".parse().unwrap()));
        assert_eq!(decode_next_hop(&object[..16]), None);
    }

    proptest! {
        // P8
        #[test]
        fn no_bytes_make_the_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = decode_address(&bytes);
            let _ = decode_next_hop(&bytes);
            let _ = decode_link(&bytes);
            decode_route(&bytes, &mut |_| {});
        }

        /// A valid header with random attributes, which random bytes rarely reach.
        #[test]
        fn no_attributes_make_the_decoders_panic(
            kinds in proptest::collection::vec((0u16..30, proptest::collection::vec(any::<u8>(), 0..40), -6i32..6), 0..6),
            cut in 0usize..8,
        ) {
            let mut attributes = Vec::new();
            for (kind, value, lie) in kinds {
                let at = attributes.len();
                attributes.extend(attribute(kind, &value));
                let length = i32::try_from(value.len()).unwrap() + 4 + lie;
                attributes[at..at + 2].copy_from_slice(&u16::try_from(length.max(0)).unwrap().to_ne_bytes());
            }
            attributes.truncate(attributes.len().saturating_sub(cut));
            for family in [2, 10] {
                let _ = decode_address(&[&[family, 24, 0, 0, 7, 0, 0, 0][..], &attributes].concat());
                let _ = decode_next_hop(&[&[family, 0, 0, 0, 0, 0, 0, 0][..], &attributes].concat());
                let _ = decode_link(&[&[0; 16][..], &attributes].concat());
                decode_route(&[route(family, 3, 0), attributes.clone()].concat(), &mut |_| {});
            }
        }
    }
}
