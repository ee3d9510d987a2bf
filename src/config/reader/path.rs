//! Paths of settings, as problems name them and as TOML headers write them.

use std::fmt;

/// The path of a table or a value.
#[derive(Clone, Debug, Default)]
pub(super) struct SettingPath {
    /// With positions in arrays: `models.x.deployments[0]`.
    full: String,
    /// Without: `models.x.deployments`.
    bare: String,
    /// Whether it is an element of an array.
    is_element: bool,
}

impl SettingPath {
    /// The path of what is called `name` in here.
    pub(super) fn child(&self, name: &str) -> Self {
        Self { full: join(&self.full, name), bare: join(&self.bare, name), is_element: false }
    }

    /// The path of an element of the array here.
    pub(super) fn element(&self, index: usize) -> Self {
        Self { full: format!("{}[{index}]", self.full), bare: self.bare.clone(), is_element: true }
    }

    /// Without positions in arrays: `models.x.deployments`.
    pub(super) fn bare(&self) -> &str {
        &self.bare
    }

    /// How a file would begin the table here: `[server]`, `[[keys]]`.
    pub(super) fn header(&self) -> String {
        if self.is_element { format!("[[{}]]", self.bare) } else { format!("[{}]", self.bare) }
    }
}

impl fmt::Display for SettingPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

/// A dotted path, its last part quoted where TOML would want it.
fn join(path: &str, name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let name = if !name.is_empty() && name.bytes().all(bare) { name.to_owned() } else { format!("{name:?}") };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_positions_and_headers_do_not() {
        let model = SettingPath::default().child("models").child("a/b[0]");
        let deployment = model.child("deployments").element(1);
        assert_eq!(deployment.to_string(), "models.\"a/b[0]\".deployments[1]");
        assert_eq!(deployment.header(), "[[models.\"a/b[0]\".deployments]]");
        assert_eq!(deployment.child("price").header(), "[models.\"a/b[0]\".deployments.price]");
        assert_eq!(model.header(), "[models.\"a/b[0]\"]");
    }
}
