//! This project's encoder and connection.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use portsentry::config::Config;
use portsentry::nft::{Connection, Element, Ruleset};
use portsentry::ruleset::{self, SCHEMA, SetId};

use crate::{Road, TIMEOUT_MS};

/// A connection that stays open.
pub struct Ours(Connection);

impl Ours {
    pub fn open() -> Result<Self, String> {
        Connection::open(SCHEMA).map(Self).map_err(|error| error.to_string())
    }
}

/// The part of the daemon's table that every road builds: one set, one empty base chain.
fn small() -> Ruleset {
    let mut ruleset = ruleset::for_config(&Config::default(), 32768..=60999);
    ruleset.sets.retain(|set| set.id == SetId::Blocked4);
    ruleset.chains.retain(|chain| chain.base.is_some() && chain.name == "gate");
    for set in &mut ruleset.sets {
        set.timeout = Some(Duration::from_millis(TIMEOUT_MS));
        (set.size, set.counter, set.comment) = (None, false, None);
    }
    for chain in &mut ruleset.chains {
        chain.rules.clear();
    }
    ruleset
}

/// The daemon's whole table.
pub fn install_rules(config: &Config) -> Result<(), String> {
    let mut connection = Connection::open(SCHEMA).map_err(|error| error.to_string())?;
    connection
        .install(&ruleset::for_config(config, 32768..=60999))
        .map(|_| ())
        .map_err(|error| error.to_string())
}

impl Road for Ours {
    fn name(&self) -> &'static str {
        "portsentry"
    }

    fn build(&mut self) -> Result<(), String> {
        self.0.install(&small()).map(|_| ()).map_err(|error| error.to_string())
    }

    fn add(&mut self, address: Ipv4Addr) -> Result<(), String> {
        let element =
            Element::new(IpAddr::V4(address)).timeout(Some(Duration::from_millis(TIMEOUT_MS)));
        self.0.add_element(SetId::Blocked4, &element).map_err(|error| error.to_string())
    }
}
