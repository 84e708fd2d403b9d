//! libnftnl and libmnl, through the crates nftnl and mnl; the element's timeout, which nftnl's safe
//! half cannot say, through nftnl-sys.

use std::ffi::CStr;
use std::net::Ipv4Addr;

use nftnl::set::Set;
use nftnl::{Batch, Chain, ChainType, Hook, MsgType, Policy, ProtoFamily, Table};
use nftnl_sys as sys;

use crate::{Road, TIMEOUT_MS};

const TABLE: &CStr = c"portsentry";
const SET: &CStr = c"blocked4";
const CHAIN: &CStr = c"gate";
/// linux/netfilter/nf_tables.h
const NFT_SET_TIMEOUT: u32 = 0x10;

/// A socket that stays open.
pub struct Libnftnl {
    socket: mnl::Socket,
}

impl Libnftnl {
    pub fn open() -> Result<Self, String> {
        Ok(Self {
            socket: mnl::Socket::new(mnl::Bus::Netfilter).map_err(|error| error.to_string())?,
        })
    }

    fn send(&self, batch: Batch) -> Result<(), String> {
        let batch = batch.finalize();
        self.socket.send_all(&batch).map_err(|error| error.to_string())?;
        let mut buffer = vec![0; nftnl::nft_nlmsg_maxsize() as usize];
        let mut expected = batch.sequence_numbers();
        while !expected.is_empty() {
            for message in self.socket.recv(&mut buffer).map_err(|error| error.to_string())? {
                let message = message.map_err(|error| error.to_string())?;
                let sequence = expected.next().ok_or("one answer too many")?;
                mnl::cb_run(message, sequence, self.socket.portid())
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

fn set(table: &Table) -> Set<'_, Ipv4Addr> {
    let set = Set::new_named(SET, 1, table, ProtoFamily::Inet);
    // SAFETY: the set is alive; both attributes are integers of the set's own.
    unsafe {
        sys::nftnl_set_set_u32(set.as_ptr().as_ptr(), sys::NFTNL_SET_FLAGS as u16, NFT_SET_TIMEOUT);
        sys::nftnl_set_set_u64(set.as_ptr().as_ptr(), sys::NFTNL_SET_TIMEOUT as u16, TIMEOUT_MS);
    }
    set
}

impl Road for Libnftnl {
    fn name(&self) -> &'static str {
        "nftnl + mnl"
    }

    fn build(&mut self) -> Result<(), String> {
        let table = Table::new(TABLE, ProtoFamily::Inet);
        let mut chain = Chain::new(CHAIN, &table);
        chain.set_hook(Hook::PreRouting, -450);
        chain.set_type(ChainType::Filter);
        chain.set_policy(Policy::Accept);
        let mut batch = Batch::new();
        batch.add(&table, MsgType::Add);
        batch.add(&set(&table), MsgType::Add);
        batch.add(&chain, MsgType::Add);
        self.send(batch)
    }

    fn add(&mut self, address: Ipv4Addr) -> Result<(), String> {
        let table = Table::new(TABLE, ProtoFamily::Inet);
        let mut set = Set::new_named(SET, 1, &table, ProtoFamily::Inet);
        set.add(&address);
        // SAFETY: the iterator is created from a live set, ended before it, and yields the one
        // element just added.
        unsafe {
            let elements = sys::nftnl_set_elems_iter_create(set.as_ptr().as_ptr());
            let element = sys::nftnl_set_elems_iter_cur(elements);
            sys::nftnl_set_elem_set_u64(element, sys::NFTNL_SET_ELEM_TIMEOUT as u16, TIMEOUT_MS);
            sys::nftnl_set_elems_iter_destroy(elements);
        }
        let mut batch = Batch::new();
        batch.add_iter(set.elems_iter(), MsgType::Add);
        self.send(batch)
    }
}
