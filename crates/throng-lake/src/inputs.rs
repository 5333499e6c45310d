//! The state of the files that a model reads, without reading them: whether they have changed since a
//! snapshot was made, and whether they are complete.

use std::collections::HashMap;

use throng_files::{FileError, Fingerprint, Folder, first_incomplete};
use throng_query::inputs::{InputQuery, InputState};

use crate::engine::Engine;
use crate::session::{Opened, Session};

impl Session {
    /// The fingerprint of the tables that were opened for a query.
    ///
    /// # Errors
    /// [`FileError::Source`] if a file is missing by now.
    pub(crate) fn fingerprint(&self, opened: &Opened) -> Result<String, FileError> {
        let mut tables: Vec<_> = opened.tables.iter().collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        tables.dedup_by(|a, b| a.name == b.name);
        let mut fingerprint = Fingerprint::at(throng_model::Clock::now(&throng_model::SystemClock));
        for table in tables {
            let schema = table.name.split_once('.').map_or("", |(schema, _)| schema);
            let source = self.sources().iter().find(|source| source.name == schema);
            let options = source.map(|source| source.options.clone()).unwrap_or_default();
            let files = table.layout.files.iter().map(|plan| &plan.file.stamp);
            fingerprint.add(&table.name, &options, files)?;
        }
        Ok(fingerprint.finish())
    }
}

/// The tables of sources that were listed for earlier queries of one request, by the source's number.
type Listed = HashMap<usize, Result<Folder, String>>;

impl Engine {
    /// The states of the files of some queries. Each source is listed once, and queries that are the same, as those
    /// of a template, are inspected once.
    pub(crate) fn input_states(&self, queries: &[InputQuery]) -> Vec<InputState> {
        let (mut listed, mut known) = (Listed::new(), HashMap::new());
        let states = queries.iter().map(|query| {
            let inspect = || {
                let state = self.input_state(query, &mut listed);
                state.unwrap_or_else(InputState::Refused)
            };
            known.entry(query).or_insert_with(inspect).clone()
        });
        states.collect()
    }

    fn input_state(&self, query: &InputQuery, listed: &mut Listed) -> Result<InputState, String> {
        let (named, is_timed) =
            self.inner.named_tables(&query.sql).map_err(|e| throng_model::with_causes(&e))?;
        if is_timed && query.refuses_time {
            return Err("the result depends on the time".to_owned());
        }
        let mut fingerprint = Fingerprint::at(throng_model::Clock::now(&throng_model::SystemClock));
        for (name, number, table) in &named {
            let source = self.inner.sources().get(*number).ok_or("the source is missing")?;
            let folder = listed
                .entry(*number)
                .or_insert_with(|| source.read().map_err(|e| throng_model::with_causes(&e)));
            let folder = folder.as_ref().map_err(Clone::clone)?;
            let files = match folder.tables.get(table) {
                None => return Err(format!("there is no table {name}")),
                Some(Err(error)) => return Err(throng_model::with_causes(error)),
                Some(Ok(found)) => &found.files,
            };
            if let Some(success_file) = &query.success_file
                && let Some(file) = first_incomplete(&source.folder, files, success_file)
            {
                return Ok(InputState::Incomplete(format!(
                    "no {success_file} is newer than {}",
                    file.display()
                )));
            }
            let stamps = files.iter().map(|file| &file.stamp);
            let added = fingerprint.add(name, &source.options, stamps);
            added.map_err(|e| throng_model::with_causes(&e))?;
        }
        Ok(InputState::Ready(fingerprint.finish()))
    }
}
