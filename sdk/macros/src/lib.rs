//! The macros of `gobo-sdk`, which documents and re-exports them.

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

mod attributes;
mod events;
mod names;
mod payload;
mod read_model;
mod references;
mod text;

/// Makes a struct the row of a read model.
///
/// On the struct: `#[read_model(table = "orders", per_stream, index(user_id, status))]`. Without `table` the
/// table is called like the struct, in snake case. `per_stream` promises that a row is touched by the events
/// of one stream only. `index` may be repeated.
///
/// `references(user_id -> users)` tells readers that the row of `users` whose key is `user_id` belongs to this row, so
/// that they can ask for both at once. It may be repeated; the other read model may be another projection's. Nothing
/// enforces it. `references(buyer, market -> users(user_id, market) as buyers)` names the columns of the key, where they
/// stand in another order, and the reference, where two of them lead to the same read model.
///
/// On fields: `#[key]` for the key, one or several; `#[column(name = "..")]` for another name in the table.
/// Doc comments become the comments of table and columns.
#[proc_macro_derive(ReadModel, attributes(read_model, key, column))]
pub fn derive_read_model(input: TokenStream) -> TokenStream {
    finish(read_model::derive(&parse_macro_input!(
        input as DeriveInput
    )))
}

/// Makes an enum the events of a projection: a variant per event type, with the payload that its data is read into.
///
/// On the enum: `#[events(unknown = "ignore")]`, the default, has only these types handed over;
/// `#[events(unknown = "refuse")]` has all types handed over, and fails at one that is not listed.
///
/// On variants: `#[event(type = "order.created")]` for a type that is not called like the variant. A variant
/// without payload does not look at the data.
#[proc_macro_derive(Events, attributes(events, event))]
pub fn derive_events(input: TokenStream) -> TokenStream {
    finish(events::derive(&parse_macro_input!(input as DeriveInput)))
}

/// Makes an enum without payloads a text: in columns, keys and JSON.
///
/// `#[text(rename_all = "snake_case")]` on the enum and `#[text(rename = "..")]` on variants say how it is
/// written; else it is written like the variant. The rules are `lowercase`, `UPPERCASE`, `camelCase`,
/// `snake_case`, `SCREAMING_SNAKE_CASE` and `kebab-case`.
#[proc_macro_derive(Text, attributes(text))]
pub fn derive_text(input: TokenStream) -> TokenStream {
    finish(text::derive(&parse_macro_input!(input as DeriveInput)))
}

/// Makes a struct or enum readable from an event's data: serde's `Deserialize`, with every field that
/// has a lifetime borrowed from the batch. All of serde's attributes work.
#[proc_macro_attribute]
pub fn payload(_: TokenStream, item: TokenStream) -> TokenStream {
    finish(payload::expand(parse_macro_input!(item as DeriveInput)))
}

fn finish(expanded: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    expanded
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}
