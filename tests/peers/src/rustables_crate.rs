//! rustables: it opens a socket for each batch, and cannot give an element a timeout of its own.

use std::net::Ipv4Addr;

use rustables::set::SetBuilder;
use rustables::{
    Batch, Chain, ChainPolicy, ChainType, Hook, HookClass, MsgType, ProtocolFamily, Table,
};

use crate::{CHAIN, Road, SET, TABLE, TIMEOUT_MS};

const NFT_SET_TIMEOUT: u32 = 0x10;

/// It keeps nothing between calls.
pub struct Rustables;

fn table() -> Table {
    Table::new(ProtocolFamily::Inet).with_name(TABLE)
}

impl Road for Rustables {
    fn name(&self) -> &'static str {
        "rustables"
    }

    fn build(&mut self) -> Result<(), String> {
        let table = table();
        let (set, _) =
            SetBuilder::<Ipv4Addr>::new(SET, &table).map_err(|error| error.to_string())?.finish();
        let mut set = set.with_flags(NFT_SET_TIMEOUT).with_timeout(TIMEOUT_MS).with_id(1u32);
        set.family = ProtocolFamily::Inet;
        let chain = Chain::new(&table)
            .with_name(CHAIN)
            .with_type(ChainType::Filter)
            .with_hook(Hook::new(HookClass::PreRouting, -450))
            .with_policy(ChainPolicy::Accept);
        let mut batch = Batch::new();
        batch.add(&table, MsgType::Add);
        batch.add(&set, MsgType::Add);
        batch.add(&chain, MsgType::Add);
        batch.send().map_err(|error| error.to_string())
    }

    fn add(&mut self, address: Ipv4Addr) -> Result<(), String> {
        let mut set =
            SetBuilder::<Ipv4Addr>::new(SET, &table()).map_err(|error| error.to_string())?;
        set.add(&address);
        let (_, elements) = set.finish();
        let mut batch = Batch::new();
        batch.add(&elements, MsgType::Add);
        batch.send().map_err(|error| error.to_string())
    }
}
