//! To be built.
pub mod options;
