//! Compares the tables of a model with those of the version that is served.

use throng_files::FileError;
use throng_query::model::{ColumnFacts, TableFacts};
use throng_query::retyped::{is_retyped, refusal};
use throng_tables::OpenTable;

use crate::engine::Engine;
use crate::session::Opened;

impl Engine {
    /// Refuses tables that have changed since the served version was made.
    ///
    /// # Errors
    /// [`FileError::Table`] naming the file, the column and both types, or the table that has no
    /// rows.
    pub(crate) async fn check_unchanged(
        &self,
        served: &[TableFacts],
        now: &[TableFacts],
        opened: &Opened,
    ) -> Result<(), FileError> {
        for before in served {
            let Some(after) = now.iter().find(|table| table.name == before.name) else { continue };
            if before.has_rows == Some(true) && after.has_rows == Some(false) {
                return Err(FileError::Table {
                    message: format!("the table {} no longer has rows", before.name),
                    help:
                        "the served version stays until the table has rows; if it is meant to be \
                           empty, change the model so that it does not read it"
                            .to_owned(),
                });
            }
            for column in &before.columns {
                let changed = after.columns.iter().find(|c| {
                    c.name == column.name && !c.declared && is_retyped(&c.of, &column.of, c.is_key)
                });
                if let Some(changed) = changed {
                    let table = opened.tables.iter().find(|table| table.name == before.name);
                    return Err(self.retyped(table, column, changed).await);
                }
            }
        }
        Ok(())
    }

    async fn retyped(
        &self,
        table: Option<&OpenTable>,
        before: &ColumnFacts,
        after: &ColumnFacts,
    ) -> FileError {
        let place = match table {
            Some(table) => match self.inner.first_other(table, before, after.is_key).await {
                Some(path) => path.display().to_string(),
                None => table.name.clone(),
            },
            None => String::new(),
        };
        refusal(before, after, &place)
    }
}
