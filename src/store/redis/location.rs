//! Where the server is, by a URL such as other programs take.

use super::error::RedisOpenError;
use redis::{Client, IntoConnectionInfo};
use std::fmt;

/// Where a Redis or Valkey server is, and how to connect to it.
#[derive(Clone)]
pub struct RedisLocation {
    client: Client,
    place: String,
}

impl RedisLocation {
    /// The server that `url` names: `redis://`, or `rediss://` with TLS, by a certificate that this machine trusts.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn of_url(url: &str) -> Result<Self, RedisOpenError> {
        let unreadable = |why: &redis::RedisError| RedisOpenError::Url(why.to_string());
        let info = url.into_connection_info().map_err(|why| unreadable(&why))?;
        let client = Client::open(info).map_err(|why| unreadable(&why))?;
        Ok(Self { client, place: place(url) })
    }

    /// What connects to it.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

/// The host, the port and the number of the database as written, without a password.
impl fmt::Display for RedisLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

fn place(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('?').next().unwrap_or_default();
    rest.rsplit_once('@').map_or(rest, |(_, place)| place).trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_server_and_never_shows_its_password() {
        let check = |url: &str, expected: &str| {
            let location = RedisLocation::of_url(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(location.to_string(), expected, "{url}");
        };
        check("redis://127.0.0.1:6379", "127.0.0.1:6379");
        check("redis://:hush@cache.example/2", "cache.example/2");
        check("rediss://me:hush@cache.example:6380/", "cache.example:6380");
        for url in ["redis://:hush@cache:port", "redis://:hush@cache/many"] {
            let message = RedisLocation::of_url(url).err().unwrap_or_else(|| panic!("{url} was taken")).to_string();
            assert!(message.contains("write redis://") && !message.contains("hush"), "{url}: {message}");
        }
    }
}
