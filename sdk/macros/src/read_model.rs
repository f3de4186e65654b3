//! `#[derive(ReadModel)]`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Field, Fields, Ident, LitStr, Result, Token, Type};

use crate::attributes::doc_comment;
use crate::names::{check_column, check_identifier, snake};
use crate::references::{self, Reference};

const MOST_COLUMNS: usize = 200;
const MOST_KEYS: usize = 6;

pub(crate) struct Column<'i> {
    pub(crate) field: &'i Ident,
    pub(crate) kind: &'i Type,
    pub(crate) name: String,
    comment: String,
    key: bool,
}

#[derive(Default)]
struct Options {
    table: Option<(String, Span)>,
    per_stream: bool,
    indexes: Vec<Vec<Ident>>,
    references: Vec<Reference>,
}

/// What a read model has besides columns.
struct Lists {
    indexes: Vec<Vec<String>>,
    references: Vec<TokenStream>,
    reference_checks: Vec<TokenStream>,
}

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(
            input.ident.span(),
            "a read model is a struct: its rows have the struct's fields",
        ));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new(
            input.ident.span(),
            "a read model's fields have names: they are its columns",
        ));
    };
    if !input.generics.params.is_empty() {
        let message = "a read model owns its data: no lifetimes or type parameters (`String` instead of `&str`)";
        return Err(Error::new(input.generics.span(), message));
    }
    let columns = fields
        .named
        .iter()
        .map(column)
        .collect::<Result<Vec<_>>>()?;
    check_columns(&columns, input.ident.span())?;
    let options = options(&input.attrs)?;
    let indexes = indexes(&options.indexes, &columns)?;
    let (table, span) = options
        .table
        .clone()
        .unwrap_or_else(|| (snake(&input.ident.unraw().to_string()), input.ident.span()));
    check_identifier(&table, "table", span)?;
    let references = references::tokens(&options.references, &columns)?;
    let lists = Lists {
        indexes,
        references,
        reference_checks: references::checks(&options.references, &columns),
    };
    Ok(implementation(input, &options, &table, &columns, &lists))
}

fn column(field: &Field) -> Result<Column<'_>> {
    let Some(ident) = &field.ident else {
        return Err(Error::new(field.span(), "a column needs a name"));
    };
    let mut name = ident.unraw().to_string();
    let mut span = ident.span();
    let mut key = false;
    for attribute in &field.attrs {
        if attribute.path().is_ident("key") {
            attribute.meta.require_path_only()?;
            key = true;
        } else if attribute.path().is_ident("column") {
            attribute.parse_nested_meta(|meta| {
                if !meta.path.is_ident("name") {
                    return Err(meta.error("expected `name = \"...\"`"));
                }
                let literal: LitStr = meta.value()?.parse()?;
                (name, span) = (literal.value(), literal.span());
                Ok(())
            })?;
        }
    }
    check_column(&name, span)?;
    if key && is_option(&field.ty) {
        return Err(Error::new(
            field.ty.span(),
            "a key column cannot be `Option`: a row without key could not be found",
        ));
    }
    Ok(Column {
        field: ident,
        kind: &field.ty,
        name,
        comment: doc_comment(&field.attrs),
        key,
    })
}

fn is_option(kind: &Type) -> bool {
    let Type::Path(path) = kind else { return false };
    path.path
        .segments
        .last()
        .is_some_and(|segment| segment.ident == "Option")
}

fn check_columns(columns: &[Column<'_>], span: Span) -> Result<()> {
    let keys = columns.iter().filter(|column| column.key).count();
    if keys == 0 {
        return Err(Error::new(
            span,
            "a read model needs a key: mark one or more fields with #[key]",
        ));
    }
    if keys > MOST_KEYS {
        return Err(Error::new(
            span,
            format!("a key has at most {MOST_KEYS} columns"),
        ));
    }
    if columns.len() > MOST_COLUMNS {
        return Err(Error::new(
            span,
            format!("a read model has at most {MOST_COLUMNS} columns"),
        ));
    }
    for (place, column) in columns.iter().enumerate() {
        if columns[..place]
            .iter()
            .any(|earlier| earlier.name == column.name)
        {
            return Err(Error::new(
                column.field.span(),
                format!("two columns are called `{}`", column.name),
            ));
        }
    }
    Ok(())
}

fn options(attributes: &[Attribute]) -> Result<Options> {
    let mut options = Options::default();
    for attribute in attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("read_model"))
    {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("table") {
                let literal: LitStr = meta.value()?.parse()?;
                options.table = Some((literal.value(), literal.span()));
            } else if meta.path.is_ident("per_stream") {
                options.per_stream = true;
            } else if meta.path.is_ident("index") {
                let content;
                syn::parenthesized!(content in meta.input);
                let columns = Punctuated::<Ident, Token![,]>::parse_terminated_with(
                    &content,
                    Ident::parse_any,
                )?;
                options.indexes.push(columns.into_iter().collect());
            } else if meta.path.is_ident("references") {
                let content;
                syn::parenthesized!(content in meta.input);
                options.references.push(content.parse()?);
            } else {
                return Err(meta.error(
                    "expected `table = \"...\"`, `per_stream`, `index(...)` or `references(...)`",
                ));
            }
            Ok(())
        })?;
    }
    Ok(options)
}

/// The indexes with the names that their fields have as columns.
fn indexes(indexes: &[Vec<Ident>], columns: &[Column<'_>]) -> Result<Vec<Vec<String>>> {
    let name = |ident: &Ident| {
        let column = columns
            .iter()
            .find(|column| column.field.unraw() == ident.unraw());
        column.map(|column| column.name.clone()).ok_or_else(|| {
            Error::new(
                ident.span(),
                format!("there is no field `{ident}` to index"),
            )
        })
    };
    indexes
        .iter()
        .map(|index| index.iter().map(name).collect())
        .collect()
}

fn implementation(
    input: &DeriveInput,
    options: &Options,
    table: &str,
    columns: &[Column<'_>],
    lists: &Lists,
) -> TokenStream {
    let Lists {
        indexes,
        references,
        reference_checks,
    } = lists;
    let row = &input.ident;
    let comment = doc_comment(&input.attrs);
    let per_stream = options.per_stream;
    let keys: Vec<&Column<'_>> = columns.iter().filter(|column| column.key).collect();
    let key_places = columns
        .iter()
        .enumerate()
        .filter(|(_, column)| column.key)
        .map(|(place, _)| place);
    let key_kinds: Vec<&Type> = keys.iter().map(|column| column.kind).collect();
    let key = match key_kinds.as_slice() {
        [single] => quote!(#single),
        several => quote!((#(#several,)*)),
    };
    let key_fields = keys.iter().map(|column| column.field);
    let key_checks = keys.iter().map(|column| {
        let kind = column.kind;
        quote_spanned!(kind.span()=> ::gobo_sdk::private::key_column::<#kind>();)
    });
    let infos = columns.iter().map(info);
    let fields: Vec<&Ident> = columns.iter().map(|column| column.field).collect();
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    quote! {
        #[automatically_derived]
        impl ::gobo_sdk::ReadModel for #row {
            type Key = #key;

            const TABLE: ::gobo_sdk::read_model::Table = {
                #(#key_checks)*
                #(#reference_checks)*
                ::gobo_sdk::read_model::Table {
                    name: #table,
                    comment: #comment,
                    per_stream: #per_stream,
                    columns: &[#(#infos),*],
                    key: &[#(#key_places),*],
                    indexes: &[#(&[#(#indexes),*]),*],
                    references: &[#(#references),*],
                }
            };

            fn write(&self, out: &mut ::std::vec::Vec<u8>) {
                #(::gobo_sdk::column::Column::write(&self.#fields, out);)*
            }

            fn write_key(&self, out: &mut ::std::vec::Vec<u8>) {
                #(::gobo_sdk::column::Column::write(&self.#key_fields, out);)*
            }

            fn read(frame: &mut ::gobo_sdk::FrameReader<'_>) -> ::gobo_sdk::Result<Self> {
                ::core::result::Result::Ok(Self {
                    #(#fields: ::gobo_sdk::private::in_column(
                        #names,
                        frame.field().and_then(::gobo_sdk::column::Column::read),
                    )?,)*
                })
            }

            fn check(&self) -> ::gobo_sdk::Result {
                #(::gobo_sdk::private::in_column(#names, ::gobo_sdk::column::Column::check(&self.#fields))?;)*
                ::core::result::Result::Ok(())
            }
        }
    }
}

fn info(column: &Column<'_>) -> TokenStream {
    let Column {
        kind,
        name,
        comment,
        ..
    } = column;
    quote_spanned! {kind.span()=>
        ::gobo_sdk::read_model::ColumnInfo {
            name: #name,
            comment: #comment,
            column: <#kind as ::gobo_sdk::column::Column>::TYPE,
            nullable: <#kind as ::gobo_sdk::column::Column>::NULLABLE,
        }
    }
}
