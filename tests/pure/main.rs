//! Tests that need no network namespace: only files, processes and sockets of this machine.
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

mod command_line;
mod completions;
mod configuration;
mod control;
mod dependencies;
mod documents;
mod enforcer;
mod engine;
mod exporter;
mod geo;
mod helper;
mod import;
mod manual;
mod notify;
mod recipes;
mod report;
mod schemas;
mod terminals;
mod top;
