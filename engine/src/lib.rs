//! gobo
