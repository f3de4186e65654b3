//! A generation as a copy of another one: rows, checkpoint and dead letters of one snapshot.

use tokio_postgres::Transaction;

use crate::event::Position;
use crate::read_model::schema::{self, STREAM_COLUMN, SchemaError};
use crate::read_model::{ReadModel, SYSTEM_COLUMNS, quote};

/// Makes the tables of generation `to` and fills them from those of generation `from`; gives the position. The rows are
/// those of one moment if the transaction sees one moment only, or if `from` does not change any more. `diverged` says that
/// a replay may give other rows, whatever the checkpoint says.
pub(crate) async fn copy_generation(
    transaction: &Transaction<'_>,
    from: i64,
    to: i64,
    models: &[ReadModel],
    diverged: bool,
) -> Result<Position, SchemaError> {
    schema::create_tables(transaction, to, models, true).await?;
    for model in models {
        let columns = columns(model);
        let (source, target) = (schema::table(from, model), schema::table(to, model));
        let copy = format!("insert into {target} ({columns}) select {columns} from {source}");
        transaction.batch_execute(&copy).await?;
    }
    schema::create_keys(transaction, to, models).await?;
    schema::create_indexes(transaction, to, models).await?;
    schema::comment_tables(transaction, to, models).await?;
    let state = include_str!("../sql/copy_state.sql");
    let row = transaction
        .query_one(state, &[&from, &to, &diverged])
        .await?;
    Ok(row.try_get(0)?)
}

/// By name, because a table that was added to has its columns in another order.
fn columns(model: &ReadModel) -> String {
    let own = model.columns.iter().map(|column| quote(&column.name));
    let stream = model.per_stream.then(|| STREAM_COLUMN.to_owned());
    let system = SYSTEM_COLUMNS.iter().map(|(name, _)| (*name).to_owned());
    own.chain(stream)
        .chain(system)
        .collect::<Vec<_>>()
        .join(", ")
}
