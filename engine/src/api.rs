//! The HTTP face: one router, composed of one room per concern.

pub mod problem;
pub mod streams;
