//! Read models: typed rows, and how a projection names the ones it owns.

use crate::Result;
use crate::column::{ColumnType, display};
use crate::frame::FrameReader;

/// A row of a table that the projection owns. `#[derive(ReadModel)]` implements it for a struct.
///
/// What the engine would refuse does not compile. A read model without key:
/// ```compile_fail
/// #[derive(gobo_sdk::ReadModel, Clone)]
/// struct Order { order_id: String }
/// ```
/// A key that may be NULL, or that has a type without an exact equality:
/// ```compile_fail
/// #[derive(gobo_sdk::ReadModel, Clone)]
/// struct Order { #[key] order_id: Option<String> }
/// ```
/// ```compile_fail,E0277
/// #[derive(gobo_sdk::ReadModel, Clone)]
/// struct Order { #[key] order_id: f64 }
/// ```
/// A type that PostgreSQL does not have:
/// ```compile_fail,E0277
/// #[derive(gobo_sdk::ReadModel, Clone)]
/// struct Order { #[key] order_id: String, quantity: u32 }
/// ```
/// A name that the query grammar uses, or an index over a column that is not there:
/// ```compile_fail
/// #[derive(gobo_sdk::ReadModel, Clone)]
/// struct Order { #[key] order_id: String, limit: i64 }
/// ```
/// ```compile_fail
/// #[derive(gobo_sdk::ReadModel, Clone)]
/// #[read_model(index(user_id))]
/// struct Order { #[key] order_id: String }
/// ```
/// A reference by a column that is not there, by a type that no key has, or by fewer columns than it names of the key:
/// ```compile_fail
/// #[derive(gobo_sdk::ReadModel, Clone)]
/// #[read_model(references(user_id -> users))]
/// struct Order { #[key] order_id: String }
/// ```
/// ```compile_fail,E0277
/// #[derive(gobo_sdk::ReadModel, Clone)]
/// #[read_model(references(weight -> classes))]
/// struct Parcel { #[key] id: String, weight: f64 }
/// ```
/// ```compile_fail
/// #[derive(gobo_sdk::ReadModel, Clone)]
/// #[read_model(references(user_id -> users(id, market)))]
/// struct Order { #[key] order_id: String, user_id: String }
/// ```
/// And what compiles:
/// ```
/// #[derive(gobo_sdk::ReadModel, Clone)]
/// #[read_model(references(user_id -> users), references(seller -> users as sellers))]
/// struct Order { #[key] order_id: String, user_id: String, seller: Option<String> }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a read model",
    label = "add `#[derive(ReadModel, Clone)]` to this struct, or name the read models as a tuple"
)]
pub trait ReadModel: Clone + 'static {
    /// The type of the key: that of the `#[key]` field, a tuple when there are several.
    type Key;

    /// Name, columns, key and indexes.
    const TABLE: Table;

    /// Appends every column's field.
    fn write(&self, out: &mut Vec<u8>);

    /// Appends the key's fields.
    fn write_key(&self, out: &mut Vec<u8>);

    /// Reads every column's field.
    fn read(frame: &mut FrameReader<'_>) -> Result<Self>;

    /// Refuses a row that PostgreSQL could not store.
    fn check(&self) -> Result;
}

/// The shape of a read model.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// The name of table and view.
    pub name: &'static str,
    /// What the rows are, from the struct's doc comment.
    pub comment: &'static str,
    /// Whether a row is touched by the events of one stream only.
    pub per_stream: bool,
    /// The columns, in the order of the struct's fields.
    pub columns: &'static [ColumnInfo],
    /// The key's columns, as places in `columns`.
    pub key: &'static [usize],
    /// Secondary indexes, each the names of its columns.
    pub indexes: &'static [&'static [&'static str]],
    /// What the rows refer to.
    pub references: &'static [Reference],
}

/// A reference to the row of another read model.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Reference {
    /// What readers call it where the read model alone would be ambiguous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'static str>,
    /// The names of the columns that refer.
    pub columns: &'static [&'static str],
    /// The read model that is referred to.
    pub read_model: &'static str,
    /// The columns of its key, where they are not in its own order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_columns: Option<&'static [&'static str]>,
}

/// The shape of a column.
#[derive(Clone, Copy, Debug)]
pub struct ColumnInfo {
    /// Its name.
    pub name: &'static str,
    /// What it holds, from the field's doc comment.
    pub comment: &'static str,
    /// Its PostgreSQL type.
    pub column: ColumnType,
    /// Whether it may be NULL.
    pub nullable: bool,
}

impl Table {
    /// A key's fields for a message: `order_id = "o-1"`.
    pub(crate) fn show_key(&self, key: &[u8]) -> String {
        let mut fields = FrameReader::new(key);
        let parts = self.key.iter().map(|place| {
            let column = &self.columns[*place];
            let value = fields
                .field()
                .map_or_else(|_| "?".to_owned(), |field| display(column.column, field));
            format!("{} = {value}", column.name)
        });
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// The read models of a projection: one of them, or a tuple.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list of read models",
    label = "one struct with `#[derive(ReadModel)]`, or a tuple of them"
)]
pub trait ReadModels {
    /// Shows each of them to a visitor, in order.
    fn visit(visitor: &mut impl Visit);
}

/// Looks at every read model of a projection.
pub trait Visit {
    /// One read model.
    fn read_model<R: ReadModel>(&mut self);
}

impl<R: ReadModel> ReadModels for R {
    fn visit(visitor: &mut impl Visit) {
        visitor.read_model::<R>();
    }
}

macro_rules! tuples {
    ($($first:ident $($rest:ident)*)?) => {$(
        impl<$first: ReadModel, $($rest: ReadModel),*> ReadModels for ($first, $($rest,)*) {
            fn visit(visitor: &mut impl Visit) {
                visitor.read_model::<$first>();
                $(visitor.read_model::<$rest>();)*
            }
        }
        tuples!($($rest)*);
    )?};
}

tuples!(A B C D E F G H I J K L);
