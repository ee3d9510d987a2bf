//! The API tests: one binary, real sockets, a provider that does exactly what its script says.

// Tests measure real time, and panic at the first wrong value.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)]

mod additions;
mod ambiguity;
mod authority;
mod background;
mod bad_requests;
mod base_urls;
mod blame;
mod budgets;
mod bytes;
mod canary;
mod cancel;
mod config;
mod conventions;
mod conversations;
mod cors;
mod credit;
mod cuts;
mod dialect_bytes;
mod drain;
mod echo;
mod endpoints;
mod errors;
mod failover;
mod faults;
mod hedging;
mod held_streams;
mod holds;
mod idempotency;
mod identity;
mod ledger_room;
mod limits;
#[path = "../loopback/mod.rs"]
mod loopback;
mod messages;
mod pinned;
mod prices;
mod priority;
mod private_network;
mod provider_itself;
mod reload;
mod responses;
mod resting;
mod rotation;
mod routing;
mod sla_probe;
mod spellings;
mod spliced_streams;
mod stalls;
mod status;
mod stepdown;
mod stored;
mod stored_keys;
mod streams;
mod support;
mod tls;
mod untidy_hosts;
mod usage;
mod workers;
