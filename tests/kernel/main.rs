//! Tests over the real kernel, in network namespaces that each test creates. They need root.
//!
//!     cargo test --test kernel -- --test-threads 100  all of them, as many side by side as [support::schedule] says
//!     cargo test --test kernel reload                 those whose names contain "reload"
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::field_reassign_with_default,
    missing_docs,
    reason = "a test may stop where it fails"
)]

#[path = "../support/mod.rs"]
mod support;

mod administrators;
mod allow;
mod at_home;
mod audit;
mod benign;
mod campaign;
mod capture;
mod command_line;
mod daemon;
mod decoy;
mod defects;
mod detect;
mod disks;
mod escape;
mod events;
mod evidence;
mod fail2ban;
mod firewalls;
mod flood;
mod forged;
mod framed;
mod ignore;
mod innocents;
mod kernels;
mod late_services;
mod matrix;
mod metrics;
mod notify;
mod observe;
mod one_truth;
mod overlap;
mod predecessor;
mod promise;
mod queue;
mod reflex;
mod repair;
mod replay;
mod responses;
mod route;
mod rules_first;
mod ruleset;
mod schemas;
mod services;
mod several;
mod shared_host;
mod slack;
mod slow;
mod slow_segments;
mod slowed;
mod slowed_packets;
mod store;
mod sweeps;
mod switches;
mod takeover;
mod unit;
mod unproven;
mod wrong_ports;
