//! This project's encoder and connection.
use std::net::Ipv4Addr;

use crate::Road;

/// A connection that stays open.
pub struct Ours {}

impl Ours {
    pub fn open() -> Result<Self, String> {
        Ok(Self {})
    }
}

impl Road for Ours {
    fn name(&self) -> &'static str {
        "portsentry"
    }

    fn build(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn add(&mut self, _address: Ipv4Addr) -> Result<(), String> {
        Ok(())
    }
}
