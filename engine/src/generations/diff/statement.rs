//! The statement that compares one read model, and the reading of its samples.

use super::report::{Change, ChangedRow, ColumnDiff, Columns, Sample, Side, Value};
use super::{MAX_SAMPLES, Options, Pair};
use crate::read_model::schema::{self, STREAM_COLUMN};
use crate::read_model::{ReadModel, quote};

/// Texts in samples are cut beyond this number of characters.
const LONGEST: usize = 2_000;

/// Two tables whose rows can be matched by their keys.
pub(super) struct Comparison<'a> {
    table_a: String,
    table_b: String,
    /// The key's columns, in the order of A's key.
    key: Vec<&'a str>,
    /// The columns that are compared: name and type.
    compared: Vec<(&'a str, String)>,
    /// The columns of each side that are shown with a row that only this side has.
    shown_a: Vec<&'a str>,
    shown_b: Vec<&'a str>,
    samples: u32,
}

impl<'a> Comparison<'a> {
    /// `None` when the keys differ, so that rows cannot be matched. The same columns in another order are the same key.
    pub(super) fn new(
        pair: Pair,
        a: &'a ReadModel,
        b: &'a ReadModel,
        options: &Options,
    ) -> Option<Self> {
        let same = |name: &str| match (a.column(name), b.column(name)) {
            (Some(a), Some(b)) => a.kind == b.kind,
            _ => false,
        };
        let is_key = |model: &ReadModel, name: &str| model.key_columns().any(|c| c.name == name);
        let key: Vec<&str> = a.key_columns().map(|c| c.name.as_str()).collect();
        let is_key_of_both = key.iter().all(|name| same(name) && is_key(b, name));
        if key.is_empty() || key.len() != b.key.len() || !is_key_of_both {
            return None;
        }
        let system = |model: &ReadModel| -> Vec<(&'static str, String)> {
            let (stream, rest) = SYSTEM.split_at(1);
            let stream = stream.iter().filter(|_| model.per_stream);
            let all = stream.chain(rest);
            all.filter(|_| options.columns == Columns::All)
                .map(|(name, kind)| (*name, (*kind).to_owned()))
                .collect()
        };
        let declared = a.columns.iter();
        let mut compared: Vec<(&str, String)> = declared
            .filter(|c| same(&c.name) && !is_key(a, &c.name))
            .map(|c| (c.name.as_str(), c.kind.to_string()))
            .collect();
        let system_b = system(b);
        compared.extend(system(a).into_iter().filter(|c| system_b.contains(c)));
        let shown = |model: &'a ReadModel| -> Vec<&'a str> {
            let declared = model.columns.iter().map(|column| column.name.as_str());
            let declared = declared.filter(|name| !is_key(model, name));
            let system = system(model).into_iter().map(|(name, _)| name);
            declared.chain(system).collect()
        };
        Some(Self {
            table_a: schema::table(pair.a, a),
            table_b: schema::table(pair.b, b),
            key,
            compared,
            shown_a: shown(a),
            shown_b: shown(b),
            samples: options.samples.min(MAX_SAMPLES),
        })
    }

    /// One row: `counts` of rows added, removed and changed, then of changes in each column that is compared; and the
    /// samples `added`, `removed` and `changed` as JSON.
    ///
    /// Rows that are equal are sorted out by one comparison of them whole, while they are joined. The rows that differ go
    /// with their keys and one flag per column into a store that spills to disk, from which all answers are taken, so the
    /// tables are read once. Samples look their rows up by key.
    pub(super) fn sql(&self) -> String {
        format!(
            "with found as materialized (
  select {kind} as kind{keys}{flags}
    from {a} a full join {b} b on {on}
   where a.{first} is null or b.{first} is null{differs}
)
select (select array[count(*) filter (where kind = 'b'), count(*) filter (where kind = 'a'),
                     count(*) filter (where kind = 'c'){counts}] from found) as counts,
       {added} as added,
       {removed} as removed,
       {changed} as changed",
            kind = self.kind(),
            keys = self.found_keys(),
            flags = self.found_flags(),
            a = self.table_a,
            b = self.table_b,
            on = self.on("a", |name| format!("b.{}", quote(name))),
            first = quote(self.key[0]),
            differs = self.differs(),
            counts = self.found_counts(),
            added = self.row_samples(Side::B),
            removed = self.row_samples(Side::A),
            changed = self.change_samples(),
        )
    }

    /// Which side alone has the row: 'a' or 'b'; or 'c' for one that changed.
    fn kind(&self) -> String {
        let first = quote(self.key[0]);
        format!(
            "case when a.{first} is null then 'b' when b.{first} is null then 'a' else 'c' end::\"char\""
        )
    }

    fn found_keys(&self) -> String {
        let key = self.key.iter().enumerate();
        key.map(|(place, name)| format!(", coalesce(a.{0}, b.{0}) as k{place}", quote(name)))
            .collect()
    }

    fn found_flags(&self) -> String {
        let compared = self.compared.iter().enumerate();
        compared
            .map(|(place, (name, _))| {
                format!(
                    ", record_image_ne(row(a.{0}), row(b.{0})) as d{place}",
                    quote(name)
                )
            })
            .collect()
    }

    /// The flags of rows that only one side has say nothing.
    fn found_counts(&self) -> String {
        let flags = 0..self.compared.len();
        flags
            .map(|place| format!(", count(*) filter (where kind = 'c' and d{place})"))
            .collect()
    }

    fn differs(&self) -> String {
        let list = |alias: &str| {
            let names = self.compared.iter().map(|(name, _)| quote(name));
            let names: Vec<String> = names.map(|name| format!("{alias}.{name}")).collect();
            names.join(", ")
        };
        match self.compared.is_empty() {
            true => String::new(),
            false => format!(
                " or record_image_ne(row({}), row({}))",
                list("a"),
                list("b")
            ),
        }
    }

    /// Rows of `alias` whose key equals what `other` says for each of the key's columns.
    fn on(&self, alias: &str, other: impl Fn(&str) -> String) -> String {
        let equal = |name: &&str| format!("{alias}.{} = {}", quote(name), other(name));
        let equal: Vec<String> = self.key.iter().map(equal).collect();
        equal.join(" and ")
    }

    fn on_found(&self, alias: &str) -> String {
        self.on(alias, |name| {
            let place = self.key.iter().position(|key| *key == name);
            format!("f.k{}", place.unwrap_or(0))
        })
    }

    fn key_order(&self, alias: &str) -> String {
        let keys = (0..self.key.len()).map(|place| format!("{alias}.k{place}"));
        keys.collect::<Vec<_>>().join(", ")
    }

    /// The first rows that are found of a kind.
    fn first(&self, kind: char) -> String {
        format!(
            "(select * from found o where kind = '{kind}' order by {} limit {})",
            self.key_order("o"),
            self.samples
        )
    }

    /// Key and values of rows that only `side` has.
    fn row_samples(&self, side: Side) -> String {
        let (kind, table, shown) = match side {
            Side::A => ('a', &self.table_a, &self.shown_a),
            Side::B => ('b', &self.table_b, &self.shown_b),
        };
        let values = shown.iter().map(|name| format!("t.{}::text", quote(name)));
        let values = cut(&values.collect::<Vec<_>>());
        format!(
            "(select coalesce(json_agg(json_build_array(array[{keys}]::text[], {values}) order by {order}), '[]')::text
          from {first} f join {table} t on {on})",
            keys = self.key_order("f"),
            order = self.key_order("f"),
            first = self.first(kind),
            on = self.on_found("t"),
        )
    }

    /// Key, flags, and the values of both sides where the flag is set.
    fn change_samples(&self) -> String {
        let side = |alias: &str| {
            let compared = self.compared.iter().enumerate();
            let values = compared.map(|(place, (name, _))| {
                format!(
                    "case when f.d{place} then {alias}.{}::text end",
                    quote(name)
                )
            });
            cut(&values.collect::<Vec<_>>())
        };
        let flags = (0..self.compared.len()).map(|place| format!("f.d{place}"));
        format!(
            "(select coalesce(json_agg(json_build_array(array[{keys}]::text[], array[{flags}]::bool[],
                 {values_a}, {values_b}) order by {order}), '[]')::text
          from {first} f join {a} a on {on_a} join {b} b on {on_b})",
            keys = self.key_order("f"),
            flags = flags.collect::<Vec<_>>().join(", "),
            values_a = side("a"),
            values_b = side("b"),
            order = self.key_order("f"),
            first = self.first('c'),
            a = self.table_a,
            on_a = self.on_found("a"),
            b = self.table_b,
            on_b = self.on_found("b"),
        )
    }

    /// The key's columns.
    pub(super) fn key(&self) -> Vec<String> {
        self.key.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The columns that were compared, with these counts.
    pub(super) fn columns(&self, changed: &[i64]) -> Vec<ColumnDiff> {
        let columns = self.compared.iter().zip(changed);
        columns
            .map(|((name, kind), &changed)| ColumnDiff {
                name: (*name).to_owned(),
                r#type: kind.clone(),
                changed,
            })
            .collect()
    }

    /// Reads samples of rows that only `side` has.
    pub(super) fn rows(&self, side: Side, json: &str) -> Result<Vec<Sample>, serde_json::Error> {
        let rows: Vec<(Vec<String>, Vec<Option<String>>)> = serde_json::from_str(json)?;
        let shown = match side {
            Side::A => &self.shown_a,
            Side::B => &self.shown_b,
        };
        let value = |(column, value): (&&str, Option<String>)| Value {
            column: (*column).to_owned(),
            value,
        };
        let rows = rows.into_iter().map(|(key, values)| Sample {
            key,
            values: shown.iter().zip(values).map(value).collect(),
        });
        Ok(rows.collect())
    }

    /// Reads samples of rows that changed.
    pub(super) fn changes(&self, json: &str) -> Result<Vec<ChangedRow>, serde_json::Error> {
        type Values = Vec<Option<String>>;
        let rows: Vec<(Vec<String>, Vec<bool>, Values, Values)> = serde_json::from_str(json)?;
        let rows = rows.into_iter().map(|(key, flags, a, b)| {
            let columns = self.compared.iter().zip(flags).zip(a.into_iter().zip(b));
            let differing = columns.filter(|((_, differs), _)| *differs);
            let changes = differing.map(|(((name, _), _), (a, b))| Change {
                column: (*name).to_owned(),
                a,
                b,
            });
            ChangedRow {
                key,
                changes: changes.collect(),
            }
        });
        Ok(rows.collect())
    }
}

/// Columns that are compared besides the declared ones when everything must be equal: name and type. The first one is
/// there in read models that are declared `per_stream`.
const SYSTEM: [(&str, &str); 3] = [
    (STREAM_COLUMN, "text"),
    ("_position", "int8"),
    ("_updated_at", "timestamptz"),
];

/// An array of texts in which long ones are cut; what is cut still tells different values apart.
fn cut(texts: &[String]) -> String {
    format!(
        "array(select case when length(v) > {LONGEST}
                      then left(v, {LONGEST}) || '... (' || length(v) || ' characters, sha256 '
                           || encode(sha256(convert_to(v, 'UTF8')), 'hex') || ')'
                      else v end
                 from unnest(array[{}]::text[]) with ordinality as u (v, n) order by n)",
        texts.join(", ")
    )
}
