//! Expansion of templates. A checked spec has templates: audiences and syncs with `for_each`. [`expand`] runs
//! their queries in a query worker and returns the spec with one object for every row; that spec is applied and
//! stored, so that other nodes and later starts have the same objects without the queries.
//!
//! In reading order:
//! 1. `query`: which queries are run, and their errors as problems of the spec;
//! 2. `expand`: from rows to objects, with their names, collisions and references. Pure;
//! 3. `make`: one object from one row. Pure;
//! 4. `removed`: what happens to the objects of rows that have vanished. Pure;
//! 5. `due`: which templates are due by their schedules. Pure.

mod due;
mod expand;
mod make;
mod query;
mod removed;
#[cfg(test)]
mod tests;

pub use due::{due, scheduled};
pub use expand::Expanded;
pub use query::{ExpandError, Queries, expand, has_templates};
