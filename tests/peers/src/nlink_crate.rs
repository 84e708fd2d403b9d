//! nlink: an asynchronous library, driven here by a tokio runtime on the calling thread, so that no
//! hop to another thread is timed with it.

use std::net::Ipv4Addr;
use std::time::Duration;

use nlink::netlink::nftables::{
    BaseChain, Chain, Family, FilterHook, Policy, Priority, Set, SetElement, SetKeyType,
};
use nlink::netlink::{Connection, Nftables};
use tokio::runtime::{Builder, Runtime};

use crate::{CHAIN, Road, SET, TABLE, TIMEOUT_MS};

/// A socket that stays open, and the runtime that waits for it.
pub struct Nlink {
    connection: Connection<Nftables>,
    set: Set,
    runtime: Runtime,
}

impl Nlink {
    pub fn open() -> Result<Self, String> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| error.to_string())?;
        // The socket registers with the runtime that is entered when it is created.
        let connection = {
            let _entered = runtime.enter();
            Connection::<Nftables>::new().map_err(|error| error.to_string())?
        };
        let set = Set::new(TABLE, SET)
            .family(Family::Inet)
            .key_type(SetKeyType::Ipv4Addr)
            .timeout(Duration::from_millis(TIMEOUT_MS));
        Ok(Self { connection, set, runtime })
    }
}

impl Road for Nlink {
    fn name(&self) -> &'static str {
        "nlink"
    }

    fn build(&mut self) -> Result<(), String> {
        let chain =
            Chain::new(TABLE, CHAIN).map_err(|error| error.to_string())?.family(Family::Inet).base(
                BaseChain::filter(FilterHook::Prerouting, Priority::Custom(-450))
                    .policy(Policy::Accept),
            );
        let transaction = self
            .connection
            .transaction()
            .add_table(TABLE, Family::Inet)
            .add_set(self.set.clone())
            .add_chain(chain);
        self.runtime
            .block_on(transaction.commit(&self.connection))
            .map_err(|error| error.to_string())
    }

    fn add(&mut self, address: Ipv4Addr) -> Result<(), String> {
        let element = SetElement::ipv4(address).with_timeout(Duration::from_millis(TIMEOUT_MS));
        self.runtime
            .block_on(self.connection.add_set_elements(&self.set, &[element]))
            .map_err(|error| error.to_string())
    }
}
