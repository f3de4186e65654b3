//! What is done with generations side by side.

pub mod diff;
