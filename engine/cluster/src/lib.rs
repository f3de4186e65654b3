//! A private PostgreSQL server for `gobo dev`, the demo and the tests, and a private Redis for the tests.
//!
//! [`binaries`] finds an installed PostgreSQL and [`install`] adds one, both on a `machine`; `place` decides where the
//! data and the socket live and as whom the server runs; [`supervise`] runs a process that cannot
//! outlive its owner; `lock` says who serves a folder already; [`cluster`] puts them together. [`redis`] does
//! the same for Redis, whose servers are always temporary.
//!
//! A cluster listens on a unix socket only, in a folder that nobody else may enter, so it needs no
//! password and can never collide with another server's TCP port.

pub mod binaries;
pub mod cluster;
pub mod install;
pub mod redis;
pub mod supervise;

mod account;
mod create;
mod lock;
mod machine;
mod place;
mod settings;
mod trouble;

pub use binaries::{Binaries, find_binaries};
pub use cluster::Cluster;
pub use install::{Tool, install_node, install_postgresql, install_python, install_redis};
pub use place::remove_data;
pub use redis::RedisServer;
pub use settings::{Options, PORT, ROLE};
pub use supervise::{Signal, Supervised};
