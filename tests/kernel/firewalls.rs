//! Beside other firewalls: the real ufw, firewalld and nftables.service's reload start, change and
//! stop, and every block stays in force.
//!
//! `scene` is the host and its network, with everything that must hold after another firewall's
//! action; `nftables`, `ufw` and `firewalld` are the three. ufw and firewalld are Debian's
//! packages, unpacked and never installed, in their own machine (`tests/support/jail.rs`) that
//! shares only the network namespace of the host under test.

mod firewalld;
mod nftables;
mod scene;
mod ufw;
