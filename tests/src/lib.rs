//! What the system tests stand on: a PostgreSQL server of their own, the built engine as a process,
//! the built plugins, and waiting without sleeping.
//!
//! Everything here panics when it fails, naming what it was about: its callers are tests.

mod background;
mod build;
mod database;
mod engine;
mod packages;
mod random;
mod redis;
mod wait;

pub use background::Background;
pub use build::{gobo_binary, wasm, wasm_bytes, workspace};
pub use database::{Database, connect, shared_cluster};
pub use engine::{Answer, Gobo, Refusal};
pub use gobo_cluster::redis::Persistence;
pub use gobo_cluster::{Cluster, Options, RedisServer, Signal};
pub use packages::{node_folder, python_venv};
pub use random::Random;
pub use redis::{Redis, own_redis};
pub use wait::{PATIENCE, wait_for, wait_until};
