//! The API tests: one binary, real sockets, a provider that does exactly what its script says.

mod provider_itself;
mod support;
