//! Which schema a batch is for.

use throng_model::{SchemaName, WorkspaceName};
use throng_schema::Schema;
use throng_spec::Spec;

/// The schema that a request names. In a `workspace`, that of the caller or of the request, `name` is the local name, or
/// the stored one that begins with this workspace: a schema of another workspace is not found. Without a workspace it
/// is any stored name, such as `customers` or `acme:customers`.
pub fn find_schema<'s>(
    spec: &'s Spec,
    workspace: Option<&WorkspaceName>,
    name: &str,
) -> Option<&'s Schema> {
    let name: SchemaName = name.parse().ok()?;
    let is_own = |own: &WorkspaceName| name.workspace().is_none_or(|named| named == own.as_str());
    if !workspace.is_none_or(is_own) {
        return None;
    }
    let name = if workspace.is_some() { name.in_workspace(workspace) } else { name };
    spec.schemas.iter().find(|schema| schema.name == name)
}
