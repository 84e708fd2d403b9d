//! What this process may do (capabilities(7)).

use rustix::thread::{CapabilitySet, capabilities};

/// Whether CAP_NET_ADMIN is in force: without it neither rules nor captures are to be had.
pub fn has_net_admin() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}
