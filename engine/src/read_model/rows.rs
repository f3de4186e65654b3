//! Current rows: a write-back cache over the tables, with one query per read model and batch for the misses.

use std::sync::Arc;

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use futures_util::StreamExt;
use tokio_postgres::{Client, Statement};

use super::schema::STREAM_COLUMN;
use super::unnest::{ArrayParam, push_fields};
use super::{ColumnType, ReadModel, quote};
use crate::change::{Change, Need, key_of, write_row};
use crate::db::{Database, Raw};
use crate::event::Position;
use crate::frame::{Field, write_field};

type Bytes = Arc<[u8]>;

/// A row that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its fields, each with its length.
    pub fields: Bytes,
    /// Whose it is, in a read model that is declared per stream.
    pub owner: Option<Owner>,
}

/// What ties a row to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The stream that it belongs to.
    pub stream: Arc<str>,
    /// The last event that changed it.
    pub position: Position,
}

/// Session settings under which a look-up by key can only be a nested loop over the key's index: a generic plan never
/// flips to a sequential scan when a table has grown since its statistics were taken.
pub const STABLE_PLANS: [(&str, &str); 4] = [
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];

/// The rows of one generation as its loop sees them: what is committed, and on top of it what is about to be.
pub struct Rows {
    models: Arc<[ReadModel]>,
    client: Client,
    fetches: Vec<Statement>,
    keys: Vec<Option<String>>,
    cache: Cache,
    /// The stream whose rows are left out.
    without: Option<Arc<str>>,
    /// Nothing has been committed yet: what is not in the cache does not exist.
    are_tables_empty: bool,
}

impl Rows {
    /// Opens a session that reads the tables in `schema`, which are not looked at before the first commit if they are empty.
    /// The cache holds about `bytes`, and whatever is pinned.
    pub async fn open(
        db: &Database,
        schema: &str,
        models: Arc<[ReadModel]>,
        bytes: usize,
        are_tables_empty: bool,
    ) -> Result<Self, tokio_postgres::Error> {
        let client = db.connect("rows", &STABLE_PLANS).await?;
        let mut fetches = Vec::new();
        for model in models.iter() {
            fetches.push(client.prepare(&fetch_sql(schema, model)).await?);
        }
        let keys = models.iter().map(|model| keys_sql(schema, model));
        Ok(Self {
            cache: Cache::new(models.len(), bytes),
            keys: keys.collect(),
            models,
            client,
            fetches,
            without: None,
            are_tables_empty,
        })
    }

    /// Answers the keys with rows, in the order asked (FRAMES.md, "resume"), and tells `saw` of each. `None` when that takes
    /// more than `most` bytes.
    pub async fn answer(
        &mut self,
        needs: &[Need],
        most: usize,
        mut saw: impl FnMut(&Need, Option<&Row>),
    ) -> Result<Option<Vec<u8>>, tokio_postgres::Error> {
        let mut found = Vec::with_capacity(needs.len());
        let mut missing: Vec<HashSet<Bytes>> = vec![HashSet::new(); self.models.len()];
        for need in needs {
            let row = self.cache.get(need.model, &need.key);
            if row.is_none() && !self.are_tables_empty {
                missing[need.model].insert(need.key.clone());
            }
            found.push(row);
        }
        let mut fetched = Vec::new();
        let mut left = most;
        for (model, keys) in missing.iter().enumerate() {
            match self.fetch(model, keys, &mut left).await? {
                Some(rows) => fetched.push(rows),
                None => return Ok(None),
            }
        }
        let mut frame = Vec::new();
        for (need, row) in needs.iter().zip(&found) {
            let row = match row {
                Some(row) => row.as_ref(),
                None => fetched[need.model].get(&need.key),
            };
            saw(need, row);
            let fields = row.map(|row| &*row.fields);
            write_row(&mut frame, &self.models[need.model], fields);
            if frame.len() > most {
                return Ok(None);
            }
        }
        for (model, (keys, rows)) in missing.into_iter().zip(&fetched).enumerate() {
            for key in keys {
                let row = rows.get(&key).cloned();
                self.cache.put(model, key, row, 0);
            }
        }
        Ok(Some(frame))
    }

    /// Takes a change over, pinned until commit number `commit` (counted from 1) is known to have succeeded. `owner` is the
    /// event, where the read model is declared per stream.
    pub fn apply(&mut self, change: &Change, owner: Option<Owner>, commit: u64) {
        let row = (change.row.clone()).map(|fields| Row { fields, owner });
        self.cache
            .put(change.model, change.key.clone(), row, commit);
    }

    /// Forgets every row: what was computed but not committed must not be seen.
    pub fn clear(&mut self) {
        self.cache = Cache::new(self.models.len(), self.cache.bound * 2);
    }

    /// From now on the rows that this stream has in the tables count as absent; none if there is no such stream. What was
    /// seen before is forgotten.
    pub fn without(&mut self, stream: Option<Arc<str>>) {
        self.without = stream;
        self.clear();
    }

    /// The keys of the rows that a stream has in a read model, if that says whose its rows are. `None` when they have more
    /// bytes than are left. Looks at the whole table.
    pub async fn keys_of(
        &mut self,
        model: usize,
        stream: &str,
        left: &mut usize,
    ) -> Result<Option<Vec<Bytes>>, tokio_postgres::Error> {
        let Some(sql) = &self.keys[model] else {
            return Ok(Some(Vec::new()));
        };
        let transaction = self.client.transaction().await?;
        transaction
            .batch_execute("set local enable_seqscan = on")
            .await?;
        let mut keys = Vec::new();
        let width = self.models[model].key.len();
        {
            let found = transaction.query_raw(sql, &[stream]).await?;
            let mut found = std::pin::pin!(found);
            while let Some(row) = found.next().await {
                let row = row?;
                let mut key = Vec::new();
                for index in 0..width {
                    let Raw(field) = row.try_get(index)?;
                    write_field(&mut key, field);
                }
                let Some(rest) = left.checked_sub(key.len() + ENTRY_OVERHEAD) else {
                    return Ok(None);
                };
                *left = rest;
                keys.push(key.into());
            }
        }
        transaction.commit().await?;
        Ok(Some(keys))
    }

    /// Commits up to number `commit` have succeeded: their rows may be evicted.
    pub fn committed(&mut self, commit: u64) {
        self.cache.committed = commit;
        self.are_tables_empty = false;
    }

    /// Gives the rows that exist; `None` when they have more bytes than are left.
    async fn fetch(
        &self,
        model: usize,
        keys: &HashSet<Bytes>,
        left: &mut usize,
    ) -> Result<Option<HashMap<Bytes, Row>>, tokio_postgres::Error> {
        if keys.is_empty() {
            return Ok(Some(HashMap::new()));
        }
        let declared = &self.models[model];
        let mut arrays: Vec<ArrayParam> = declared
            .key_columns()
            .map(|column| ArrayParam::new(element_oid(column.kind)))
            .collect();
        for key in keys {
            push_fields(&mut arrays, key).expect("keys were checked when they were decoded");
        }
        let arrays: Vec<_> = arrays.into_iter().map(ArrayParam::finish).collect();
        let mut rows = HashMap::with_capacity(keys.len());
        let found = self.client.query_raw(&self.fetches[model], &arrays).await?;
        let mut found = std::pin::pin!(found);
        while let Some(row) = found.next().await {
            let row = row?;
            let mut fields: Vec<Field<'_>> = Vec::with_capacity(declared.columns.len());
            let mut region = Vec::new();
            for index in 0..declared.columns.len() {
                let Raw(field) = row.try_get(index)?;
                write_field(&mut region, field);
                fields.push(field);
            }
            let Some(rest) = left.checked_sub(region.len()) else {
                return Ok(None);
            };
            *left = rest;
            let owner = match declared.per_stream {
                true => Some(Owner {
                    stream: row.try_get::<_, &str>(fields.len())?.into(),
                    position: row.try_get(fields.len() + 1)?,
                }),
                false => None,
            };
            let stream = owner.as_ref().map(|owner| &owner.stream);
            if stream.is_some() && stream == self.without.as_ref() {
                continue;
            }
            let found = Row {
                fields: region.into(),
                owner,
            };
            rows.insert(key_of(&fields, declared), found);
        }
        Ok(Some(rows))
    }
}

fn fetch_sql(schema: &str, model: &ReadModel) -> String {
    let columns: Vec<_> = model
        .columns
        .iter()
        .map(|column| format!("t.{}", quote(&column.name)))
        .chain((model.per_stream).then(|| format!("t.{STREAM_COLUMN}, t._position")))
        .collect();
    let arrays: Vec<_> = model
        .key_columns()
        .enumerate()
        .map(|(n, column)| format!("${}::{}[]", n + 1, column.kind.sql()))
        .collect();
    let names: Vec<_> = (1..=model.key.len()).map(|n| format!("k{n}")).collect();
    let matches: Vec<_> = model
        .key_columns()
        .zip(&names)
        .map(|(column, name)| format!("t.{} = wanted.{name}", quote(&column.name)))
        .collect();
    format!(
        "select {} from unnest({}) as wanted({}) join {}.{} t on {}",
        columns.join(", "),
        arrays.join(", "),
        names.join(", "),
        quote(schema),
        quote(&model.name),
        matches.join(" and ")
    )
}

/// The keys of one stream's rows; `None` where rows do not say whose they are.
fn keys_sql(schema: &str, model: &ReadModel) -> Option<String> {
    let keys: Vec<_> = (model.key_columns())
        .map(|column| quote(&column.name))
        .collect();
    model.per_stream.then(|| {
        format!(
            "select {} from {}.{} where {STREAM_COLUMN} = $1::text",
            keys.join(", "),
            quote(schema),
            quote(&model.name)
        )
    })
}

/// The type oid of a column's values as elements of an array parameter. Arrays themselves go another way.
pub(super) fn element_oid(kind: ColumnType) -> u32 {
    match kind {
        ColumnType::Scalar(scalar) | ColumnType::Array(scalar) => scalar.oid(),
    }
}

/// Two halves per read model: what was used lately, and what was used before. When the young half has grown to half the
/// bound, the old half is dropped (pinned rows move on) and the young one takes its place: an approximation of
/// least-recently-used that costs nothing per look-up.
struct Cache {
    young: Vec<HashMap<Bytes, Entry>>,
    old: Vec<HashMap<Bytes, Entry>>,
    young_bytes: usize,
    /// How far the young half may grow: by half of the bound, whatever pinned rows it began with.
    young_limit: usize,
    bound: usize,
    committed: u64,
}

struct Entry {
    row: Option<Row>,
    commit: u64,
}

impl Entry {
    fn bytes(&self, key: &Bytes) -> usize {
        let row = self.row.as_ref().map_or(0, |row| {
            let owner = row.owner.as_ref();
            row.fields.len() + owner.map_or(0, |owner| owner.stream.len() + COUNTED)
        });
        key.len() + row + ENTRY_OVERHEAD
    }
}

/// What an entry costs besides its bytes: two counted allocations and the table's slot.
const ENTRY_OVERHEAD: usize = 136;
/// What a counted allocation costs besides its bytes.
const COUNTED: usize = 24;

impl Cache {
    fn new(models: usize, bytes: usize) -> Self {
        let halves = || (0..models).map(|_| HashMap::new()).collect();
        Self {
            young: halves(),
            old: halves(),
            young_bytes: 0,
            young_limit: bytes / 2,
            bound: bytes / 2,
            committed: 0,
        }
    }

    fn get(&mut self, model: usize, key: &[u8]) -> Option<Option<Row>> {
        if let Some(entry) = self.young[model].get(key) {
            return Some(entry.row.clone());
        }
        let (key, entry) = self.old[model].remove_entry(key)?;
        let row = entry.row.clone();
        self.insert(model, key, entry);
        Some(row)
    }

    fn put(&mut self, model: usize, key: Bytes, row: Option<Row>, commit: u64) {
        self.old[model].remove(&key);
        self.insert(model, key, Entry { row, commit });
    }

    fn insert(&mut self, model: usize, key: Bytes, entry: Entry) {
        self.young_bytes += entry.bytes(&key);
        if let Some(replaced) = self.young[model].insert(key.clone(), entry) {
            self.young_bytes -= replaced.bytes(&key);
        }
        if self.young_bytes > self.young_limit {
            self.rotate();
        }
    }

    fn rotate(&mut self) {
        self.young_bytes = 0;
        for (young, old) in self.young.iter_mut().zip(&mut self.old) {
            std::mem::swap(young, old);
            // `young` now holds the oldest rows: only those that are not yet committed stay.
            young.retain(|key, entry| {
                let is_pinned = entry.commit > self.committed;
                self.young_bytes += usize::from(is_pinned) * entry.bytes(key);
                is_pinned
            });
        }
        self.young_limit = self.young_bytes + self.bound;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> Bytes {
        n.to_be_bytes().as_slice().into()
    }

    fn row(n: usize) -> Option<Row> {
        Some(Row {
            fields: key(n),
            owner: None,
        })
    }

    #[test]
    fn a_pinned_row_that_has_moved_on_can_be_replaced_by_a_smaller_one() {
        let mut cache = Cache::new(1, 4 * (ENTRY_OVERHEAD + 16));
        cache.put(0, key(0), row(0), 1);
        // The third entry is one too many for the young half, and so is the third after it.
        for n in 1..=5 {
            cache.put(0, key(n), row(n), 0);
        }
        assert_eq!(cache.young[0].len(), 1, "{:?}", cache.young[0].keys());
        cache.put(0, key(0), None, 1);
        assert_eq!(cache.get(0, &key(0)), Some(None));
    }

    #[test]
    fn cache_stays_bounded_and_keeps_what_is_not_committed() {
        let mut cache = Cache::new(1, 100 * (ENTRY_OVERHEAD + 16));
        cache.put(0, key(0), row(0), 1);
        for n in 1..10_000 {
            cache.put(0, key(n), row(n), 0);
            assert!(cache.young[0].len() + cache.old[0].len() <= 102);
        }
        assert_eq!(cache.get(0, &key(0)), Some(row(0)), "pinned");
        assert_eq!(cache.get(0, &key(1)), None, "evicted");
        assert_eq!(cache.get(0, &key(9_999)), Some(row(9_999)));
        cache.committed = 1;
        for n in 20_000..20_300 {
            cache.put(0, key(n), None, 0);
        }
        assert_eq!(cache.get(0, &key(0)), None, "committed, so evicted");
    }

    #[test]
    fn a_pinned_row_that_becomes_smaller_is_counted_as_what_it_is() {
        let mut cache = Cache::new(1, 10 * (ENTRY_OVERHEAD + 16));
        let large = Some(Row {
            fields: vec![0; 5_000].into(),
            owner: None,
        });
        cache.put(0, key(0), large, 1);
        for n in 1..100 {
            cache.put(0, key(n), row(n), 0);
            cache.put(0, key(0), None, 1);
        }
        assert!(cache.young_bytes <= cache.young_limit);
        assert!(cache.young[0].len() + cache.old[0].len() <= 12);
        assert_eq!(cache.get(0, &key(0)), Some(None), "pinned");
    }
}
