//! The API tests: one binary, real sockets, a provider that does exactly what its script says.

mod failover;
mod limits;
mod provider_itself;
mod reload;
mod resting;
mod routing;
mod stepdown;
mod support;
