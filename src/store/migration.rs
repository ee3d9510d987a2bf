//! Migrations as every database records them.

use sha2::{Digest, Sha256};

/// One migration.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The name of its file: four digits and a description.
    pub name: &'static str,
    /// The statements to run.
    pub sql: &'static str,
}

impl Migration {
    /// The SHA-256 of its statements, in hex.
    pub(super) fn checksum(&self) -> String {
        Sha256::digest(self.sql).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What migrating a database did.
#[derive(Debug, Default)]
pub struct AppliedMigrations {
    /// The names of the migrations that were applied; empty if the schema was current.
    pub applied: Vec<&'static str>,
}

/// A migration, and whether it was applied.
#[derive(Debug)]
pub struct MigrationStatus {
    /// The name of the migration.
    pub name: &'static str,
    /// When it was applied, in Unix milliseconds; `None`: it was not.
    pub applied_unix_ms: Option<i64>,
}
