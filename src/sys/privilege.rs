//! The capabilities of this process (capabilities(7)).

use rustix::thread::{CapabilitySet, capabilities};

/// Whether CAP_NET_BIND_SERVICE is effective: sockets may bind ports below 1024.
pub(crate) fn has_net_bind_service() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_BIND_SERVICE))
}

/// Whether CAP_NET_ADMIN is effective, which rules and captures need.
pub(crate) fn has_net_admin() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}
