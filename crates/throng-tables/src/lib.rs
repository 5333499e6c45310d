//! Tables over the files of sources: the columns of all files of a table, and their rows as the engine reads
//! them. Two parts are about the queries over them: arithmetic that never wraps around (`checked_integers`,
//! `checked_sum`), which the processes of a cluster use too, and the detection of queries that the engine would run in
//! another way than they are meant (`misread`, `subqueries`, `moments`, `key_text`, `comparisons`).

mod backslashes;
mod checked_integers;
mod checked_sum;
mod column_mapping;
mod compare;
mod comparisons;
mod csv_rows;
mod declared;
mod durations;
mod exact_factors;
mod fault;
mod file_schema;
mod fine_times;
mod float_comparisons;
mod inferred;
mod json_rows;
mod key_text;
mod layout;
mod lengths;
mod merged_columns;
mod misread;
mod moments;
mod nested;
mod object;
mod parquet;
mod provider;
mod read_schema;
mod refusal;
mod scanned_file;
mod shown_column;
mod subqueries;
mod text_doubts;
mod text_source;
mod union;
mod wide_dates;
mod widen;
mod wire;
mod written;

pub use checked_integers::{checked_function, checked_sum, with_checked_integers};
pub use comparisons::{Compared, compared_columns};
pub use file_schema::FileSchema;
pub use key_text::{is_decimal, refuse_other_texts};
pub use layout::{Column, FilePlan, Layout, OpenTable, Origin, TypeConflict, is_text, shown};
pub use lengths::unapplied_length;
pub use misread::misread;
pub use moments::misread_moment;
pub use object::{ScannedObject, as_scanned, relocated, stamps};
pub use provider::LakeTable;
pub use read_schema::infer_schema;
pub use refusal::{Misread, Refusal};
pub use shown_column::{listed_column, shown_column};
pub use subqueries::misread_subquery;
pub use text_doubts::text_doubts;
pub use text_source::TextSource;
pub use union::union;
pub use written::{as_written, is_written};
