//! Statements with their values, for either database.

use std::borrow::Cow;

use throng_model::{
    AdGroupName, AudienceName, BudgetDay, DestinationName, Micros, RefreshId, SecretHash,
    ServingStoreName, SyncMode, SyncName, SyncRunId, TaskId, Timestamp,
};
use throng_store::{
    AlertEventKind, DeliveryState, HoldCause, Operation, PartKind, RefreshState, RefreshTrigger,
    RemovalRule, RunState, SnapshotState, StoredEnum, TaskState, Verdict,
};

use crate::dialect::Dialect;

/// A value of a statement: a BIGINT or a TEXT; `None`: NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A BIGINT.
    Int(Option<i64>),
    /// A TEXT.
    Text(Option<String>),
}

/// A type that a column stores.
pub trait IntoValue {
    /// NULL in a column of this type.
    const NULL: Value;

    /// What the column stores.
    fn into_value(self) -> Value;
}

/// The values of a statement in the order of their numbers: one, or a tuple.
pub trait Values {
    /// The values as columns store them.
    fn into_values(self) -> Vec<Value>;
}

macro_rules! into_value {
    ($($type:ty: $column:ident, $value:ident => $stored:expr;)+) => {$(
        impl IntoValue for $type {
            const NULL: Value = Value::$column(None);

            fn into_value(self) -> Value {
                let $value = self;
                Value::$column(Some($stored))
            }
        }

        impl Values for $type {
            fn into_values(self) -> Vec<Value> {
                vec![self.into_value()]
            }
        }
    )+};
}

into_value! {
    i64: Int, n => n;
    // Counts beyond 2^63 do not occur; one would be clamped and then violate a CHECK constraint.
    u64: Int, n => i64::try_from(n).unwrap_or(i64::MAX);
    u32: Int, n => i64::from(n);
    i32: Int, n => i64::from(n);
    u16: Int, n => i64::from(n);
    u8: Int, n => i64::from(n);
    bool: Int, n => i64::from(n);
    Timestamp: Int, at => at.0;
    BudgetDay: Int, day => i64::from(day.0);
    Micros: Int, amount => amount.0;
    RefreshId: Int, id => id.0;
    SyncRunId: Int, id => id.0;
    TaskId: Int, id => id.0;
    &str: Text, text => text.to_owned();
    &String: Text, text => text.clone();
    String: Text, text => text;
    &AdGroupName: Text, name => name.to_string();
    &AudienceName: Text, name => name.to_string();
    &DestinationName: Text, name => name.to_string();
    &ServingStoreName: Text, name => name.to_string();
    &SyncName: Text, name => name.to_string();
    SecretHash: Text, hash => hash.to_hex();
    AlertEventKind: Text, kind => kind.stored_name().to_owned();
    DeliveryState: Text, state => state.stored_name().to_owned();
    HoldCause: Text, cause => cause.stored_name().to_owned();
    Operation: Text, operation => operation.stored_name().to_owned();
    PartKind: Text, kind => kind.stored_name().to_owned();
    RefreshState: Text, state => state.stored_name().to_owned();
    RefreshTrigger: Text, trigger => trigger.stored_name().to_owned();
    RemovalRule: Text, rule => rule.stored_name().to_owned();
    RunState: Text, state => state.stored_name().to_owned();
    SnapshotState: Text, state => state.stored_name().to_owned();
    TaskState: Text, state => state.stored_name().to_owned();
    SyncMode: Text, mode => mode.stored_name().to_owned();
    Verdict: Text, verdict => verdict.stored_name().to_owned();
}

impl<T: IntoValue> IntoValue for Option<T> {
    const NULL: Value = T::NULL;

    fn into_value(self) -> Value {
        self.map_or(T::NULL, T::into_value)
    }
}

impl<T: IntoValue> Values for Option<T> {
    fn into_values(self) -> Vec<Value> {
        vec![self.into_value()]
    }
}

impl<T: IntoValue + Copy> Values for &[T] {
    fn into_values(self) -> Vec<Value> {
        self.iter().map(|value| (*value).into_value()).collect()
    }
}

impl Values for () {
    fn into_values(self) -> Vec<Value> {
        Vec::new()
    }
}

macro_rules! tuples {
    ($(($($type:ident $index:tt),+);)+) => {$(
        impl<$($type: IntoValue),+> Values for ($($type,)+) {
            fn into_values(self) -> Vec<Value> {
                vec![$(self.$index.into_value()),+]
            }
        }
    )+};
}

tuples! {
    (A 0, B 1);
    (A 0, B 1, C 2);
    (A 0, B 1, C 2, D 3);
    (A 0, B 1, C 2, D 3, E 4);
    (A 0, B 1, C 2, D 3, E 4, F 5);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13, O 14);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11, M 12, N 13, O 14, P 15);
}

/// A statement with its values.
#[derive(Debug)]
pub struct Statement {
    pub(crate) text: Cow<'static, str>,
    pub(crate) values: Vec<Value>,
    /// Whether the connection keeps it prepared.
    pub(crate) persistent: bool,
}

impl Statement {
    /// A statement whose text has the values as `$1`, `$2`, …. The text has no data in it.
    pub(crate) fn new(text: impl Into<Cow<'static, str>>, values: impl Values) -> Self {
        Self { text: text.into(), values: values.into_values(), persistent: true }
    }
}

/// Builds a statement with any number of values, in the order of the text.
#[derive(Debug)]
pub struct StatementBuilder {
    dialect: Dialect,
    text: String,
    values: Vec<Value>,
}

impl StatementBuilder {
    pub(crate) fn new(dialect: Dialect, text: &'static str) -> Self {
        Self { dialect, text: text.to_owned(), values: Vec::new() }
    }

    /// The SQL of its database.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Appends text without data.
    pub fn push(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Appends values with commas between them: `$1, $2`.
    pub fn values(mut self, values: impl Values) -> Self {
        for (place, value) in values.into_values().into_iter().enumerate() {
            if place > 0 {
                self.text.push_str(", ");
            }
            self.values.push(value);
            self.text.push_str(&self.dialect.placeholder(self.values.len()));
        }
        self
    }

    /// Appends rows of values: `($1, $2), ($3, $4)`.
    pub fn rows<V: Values>(mut self, rows: impl IntoIterator<Item = V>) -> Self {
        for (place, row) in rows.into_iter().enumerate() {
            self = self.push(if place > 0 { ", (" } else { "(" }).values(row).push(")");
        }
        self
    }

    /// Appends a condition to a WHERE clause: one of the columns contains a text, whatever the case of the letters.
    pub fn and_contains(mut self, columns: &[&str], text: &str) -> Self {
        let pattern = contains(text);
        for (number, column) in columns.iter().enumerate() {
            let before = if number == 0 { " AND (lower(" } else { " OR lower(" };
            // The database lowers both, so that both are lowered by the same rules.
            self = self.push(before).push(column).push(") LIKE lower(").values(pattern.as_str());
            self = self.push(") ESCAPE '!'");
        }
        self.push(")")
    }

    /// The statement. `persistent`: whether the connection keeps it prepared, which is of use if the
    /// number of values is a common one.
    pub fn build(self, persistent: bool) -> Statement {
        Statement { text: self.text.into(), values: self.values, persistent }
    }
}

/// The pattern of LIKE for texts that contain this one.
fn contains(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_not_a_pattern() {
        assert_eq!(contains("a_b"), "%a!_b%");
        assert_eq!(contains("50%!"), "%50!%!!%");
        let select = StatementBuilder::new(Dialect::Postgres, "SELECT 1 FROM t WHERE TRUE");
        let built = select.and_contains(&["a", "b"], "x").build(false);
        assert_eq!(
            built.text,
            "SELECT 1 FROM t WHERE TRUE AND (lower(a) LIKE lower($1) ESCAPE '!' OR lower(b) LIKE lower($2) ESCAPE '!')"
        );
    }

    #[test]
    fn places_of_values_are_those_of_the_dialect() {
        let text = |dialect| {
            let update = StatementBuilder::new(dialect, "UPDATE t SET a = ").values(7u32);
            let update = update.push(" WHERE (b, c) IN (VALUES ");
            let built = update.rows([(1u64, "x"), (u64::MAX, "y")]).push(")").build(false);
            assert_eq!(built.values.len(), 5);
            assert_eq!(built.values[3], Value::Int(Some(i64::MAX)));
            built.text
        };
        assert_eq!(
            text(Dialect::Postgres),
            "UPDATE t SET a = $1 WHERE (b, c) IN (VALUES ($2, $3), ($4, $5))"
        );
        assert_eq!(
            text(Dialect::Sqlite),
            "UPDATE t SET a = ? WHERE (b, c) IN (VALUES (?, ?), (?, ?))"
        );
    }

    #[test]
    fn null_has_the_type_of_its_column() {
        assert_eq!(None::<Timestamp>.into_value(), Value::Int(None));
        assert_eq!((None::<&str>, 1i64).into_values()[0], Value::Text(None));
    }
}
