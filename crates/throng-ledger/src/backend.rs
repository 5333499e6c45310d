//! The ledger on a database, and how its calls run on connections of the database.

pub(crate) use throng_sql::backend::Backend;

/// A ledger in a SQL database: all traits of the store, with the statements of `sql/`.
#[derive(Debug)]
pub struct SqlLedger<B> {
    pub(crate) backend: B,
}

/// Tries a body once on a connection with this access. A macro, because a generic function over async
/// closures cannot declare that its future is `Send`.
macro_rules! try_call {
    ($self:ident, $access:expr, |$tx:ident| $body:expr) => {
        throng_sql::backend::with_timeout($self.backend.call_timeout(), async {
            let mut call = $self.backend.begin($access).await?;
            let done: throng_sql::failure::DbResult<_> = async {
                let $tx: &mut throng_sql::conn::Conn = call.connection()?;
                let done = $body;
                Ok(done)
            }
            .await;
            call.end(done).await
        })
        .await
    };
}
pub(crate) use try_call;

/// Runs a body of one reading statement.
macro_rules! read_one {
    ($self:ident, $doing:expr, |$tx:ident| $body:expr) => {
        crate::backend::try_call!($self, throng_sql::backend::Access::ReadOne, |$tx| $body)
            .map_err(|failure| failure.while_doing($doing))
    };
}
pub(crate) use read_one;

/// Runs a body of several reading statements.
macro_rules! read_tx {
    ($self:ident, $doing:expr, |$tx:ident| $body:expr) => {
        crate::backend::try_call!($self, throng_sql::backend::Access::ReadMany, |$tx| $body)
            .map_err(|failure| failure.while_doing($doing))
    };
}
pub(crate) use read_tx;

/// Runs a body of one writing statement.
macro_rules! write_one {
    ($self:ident, $durability:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let access = throng_sql::backend::Access::WriteOne(throng_sql::Durability::$durability);
        crate::backend::try_call!($self, access, |$tx| $body)
            .map_err(|failure| failure.while_doing($doing))
    }};
}
pub(crate) use write_one;

/// Runs a body in a writing transaction: commits if it returns `Ok`, else rolls back. It is tried again
/// after a conflict, so a body may run several times and must not have other effects.
macro_rules! write_tx {
    ($self:ident, $durability:ident, $doing:expr, |$tx:ident| $body:expr) => {{
        let access = throng_sql::backend::Access::WriteMany(throng_sql::Durability::$durability);
        let mut attempts = 0;
        loop {
            let tried = crate::backend::try_call!($self, access, |$tx| $body);
            attempts += 1;
            match tried {
                Err(failure) if $self.backend.must_retry(&failure, attempts) => {
                    throng_sql::backend::back_off(attempts).await;
                }
                other => break other.map_err(|failure| failure.while_doing($doing)),
            }
        }
    }};
}
pub(crate) use write_tx;
