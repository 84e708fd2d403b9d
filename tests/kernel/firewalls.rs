//! Beside other firewalls: the real ufw, firewalld and nftables.service's reload come, change and go, and every block stays in force.
//!
//! `scene` is the host and those around it, with all that must hold whatever another firewall has just done; `nftables`, `ufw` and `firewalld` are
//! the three. ufw and firewalld are Debian's packages, unpacked and never installed, in a machine of their own (`tests/support/jail.rs`) that shares
//! nothing with this one but the network namespace of the host under test.

mod firewalld;
mod nftables;
mod scene;
mod ufw;
