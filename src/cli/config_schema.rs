//! `tierway config schema`: the JSON Schema of the configuration, for editors.

use super::print;
use crate::config::schema;

/// Prints the schema.
///
/// # Errors
/// When it cannot be written.
pub(super) fn config_schema() -> anyhow::Result<()> {
    print(&format!("{:#}\n", schema()))?;
    Ok(())
}
