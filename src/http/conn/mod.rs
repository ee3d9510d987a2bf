//! Client connections: accepting them, TLS, timeouts, and shutting down.
//!
//! - [`server`]: the accept loop, and the task that serves one connection. Start reading there.
//! - [`listener`]: listening on an address, or on a socket that was passed to the process.
//! - [`workers`]: the threads that serve connections, and which of them serves one.
//! - `socket_file`: the file of a Unix socket.
//! - [`tls`]: the handshake, and a stream that may or may not be encrypted.
//! - [`connection`]: what one connection is doing, and which timeout applies to it.
//! - `table`: all connections of a listener, and which of them give way when there is no room.
//! - `forwarded`: the client's address behind a trusted proxy.
//! - [`response_body`]: a response's body, which its connection drops when the client never reads it.
//! - [`lifecycle`]: the phases of a shutdown, and the requests and connections that are open.
//!
//! Nothing here reads a request or chooses an answer (but to plain HTTP on a port for TLS): every request goes to a
//! [`RequestHandler`](crate::http::request_handler::RequestHandler).

pub mod connection;
mod forwarded;
pub mod lifecycle;
pub mod listener;
pub mod response_body;
pub mod server;
mod socket_file;
mod table;
pub mod tls;
pub mod workers;
