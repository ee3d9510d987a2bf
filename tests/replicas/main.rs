//! Several gateways and commands on one PostgreSQL store, as separate processes of the real binary.
//!
//! What the store itself promises is in `tests/store_contract/` and `tests/lease_store_contract.rs`.

// Tests observe real processes, and wait by the system's clock.
#![allow(clippy::disallowed_methods)]

#[path = "../register/place.rs"]
#[allow(dead_code)] // what these tests do not need, those of the register do
mod place;
#[path = "../store_contract/postgres_server.rs"]
mod postgres_server;
#[path = "../store_sqlite/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../store_contract/redis_server.rs"]
mod redis_server;

mod copied;
mod encrypted;
mod hammered;
mod large_copy;
mod limits;
mod outage;
mod probes;
mod refused;
mod shared;
mod together;
