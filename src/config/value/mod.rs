//! The types of settings: durations, sizes, percentages, money, addresses, names.
//!
//! Each is a type of its own with one reader, so that no unit is ever guessed and no float is ever
//! money. The messages here never hold the value: it is underlined where it was written.

mod address;
mod amount;
mod day;
mod expiry;
mod field;
mod name;
mod secret;
mod tls;
mod validity;
mod zone;

pub use amount::parse_size;
pub use validity::expires_unix_s as certificate_expires_unix_s;

pub(super) use address::{BaseUrl, NetworkText, ProxyUrl, SharedUrl, StoreUrl, WebOriginText};
pub(super) use amount::{ByteSize, InFlightSetting, NonZeroDuration, Percent, WholeDays};
pub(super) use day::{UtcDay, begins_unix_ms};
pub(super) use expiry::Expiry;
pub(super) use field::{BodyMemberName, ForwardedHeaderName, ForwardedQueryName, HeaderText, header_name};
pub(super) use name::{LogFilter, Name};
pub(super) use secret::SecretDigest;
pub(super) use tls::{CaFile, CertificateChain, PrivateKey};
