//! Spawning nft(8), as most tools do.

use std::net::Ipv4Addr;
use std::process::Command;

use crate::{CHAIN, Road, SET, TABLE};

/// It keeps nothing between calls.
pub struct NftProgram;

fn nft(text: &str) -> Result<(), String> {
    let output = Command::new("nft").arg(text).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Road for NftProgram {
    fn name(&self) -> &'static str {
        "spawning nft"
    }

    fn build(&mut self) -> Result<(), String> {
        nft(&format!(
            "table inet {TABLE} {{ set {SET} {{ type ipv4_addr; flags timeout; timeout 1h; }}; \
             chain {CHAIN} {{ type filter hook prerouting priority -450; policy accept; }}; }}"
        ))
    }

    fn add(&mut self, address: Ipv4Addr) -> Result<(), String> {
        nft(&format!("add element inet {TABLE} {SET} {{ {address} timeout 1h }}"))
    }
}
