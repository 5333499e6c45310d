//! The traits of the store in SQL, once for both backends.
//!
//! Each backend compiles this module with its own driver types, connections and macros: `Backend`,
//! `Conn`, `Db`, `DbRow`, and `read_one`, `read_tx`, `write_one`, `write_tx`, which run a body of
//! statements. The statements are the same text; sqlx's types are different for each driver, and a
//! function that is generic over them needs a list of `Encode`, `Decode`, `Executor` and `ColumnIndex`
//! bounds that is longer than most of the functions.
//!
//! Each file here implements one trait of the store, or has the statements that several share.

mod access;
mod alerts;
mod audiences;
mod delivered;
mod dictionary;
mod history;
mod maintenance;
mod parts;
mod pauses;
mod refreshes;
mod removals;
mod runs;
mod sizes;
mod snapshots;
mod spec;
mod sync;
mod tasks;

// What the backend provides, for the modules here.
use super::{
    Backend, Conn, Db, DbResult, DbRow, ROWS_PER_INSERT, lock_rows, read_one, read_tx, write_one,
    write_tx,
};
