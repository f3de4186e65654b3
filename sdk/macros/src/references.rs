//! `#[read_model(references(user_id -> users))]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Ident, Result, Token};

use crate::names::check_identifier;
use crate::read_model::Column;

/// `user_id, market -> users(id, market) as buyers`
pub(crate) struct Reference {
    columns: Vec<Ident>,
    target: Ident,
    target_columns: Option<Vec<Ident>>,
    name: Option<Ident>,
}

const FORM: &str = "expected `references(user_id -> users)`: fields of this struct, `->`, the name of a read model";

impl Parse for Reference {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut columns = Vec::new();
        while !input.is_empty() && !input.peek(Token![->]) {
            columns.push(Ident::parse_any(input).map_err(|error| Error::new(error.span(), FORM))?);
            if !input.peek(Token![->]) {
                let comma: Result<Token![,]> = input.parse();
                comma.map_err(|error| Error::new(error.span(), FORM))?;
            }
        }
        let arrow: Token![->] = input.parse().map_err(|_| input.error(FORM))?;
        if columns.is_empty() {
            return Err(Error::new(arrow.span(), FORM));
        }
        let target = Ident::parse_any(input).map_err(|error| Error::new(error.span(), FORM))?;
        let target_columns = match input.peek(syn::token::Paren) {
            false => None,
            true => {
                let content;
                syn::parenthesized!(content in input);
                let listed = Punctuated::<Ident, Token![,]>::parse_terminated_with(
                    &content,
                    Ident::parse_any,
                )?;
                Some(listed.into_iter().collect())
            }
        };
        let name = match input.parse::<Option<Token![as]>>()? {
            Some(_) => Some(Ident::parse_any(input)?),
            None => None,
        };
        if !input.is_empty() {
            return Err(input
                .error("expected `as NAME` or the end: one `references(...)` for each reference"));
        }
        Ok(Self {
            columns,
            target,
            target_columns,
            name,
        })
    }
}

/// The references as the SDK's values, checked against the struct's own columns.
pub(crate) fn tokens(references: &[Reference], columns: &[Column<'_>]) -> Result<Vec<TokenStream>> {
    let mut seen = Vec::new();
    let mut tokens = Vec::new();
    for reference in references {
        let names = own_columns(reference, columns)?;
        // What the engine would call it; two of them need names of their own.
        let called = (reference.name.as_ref())
            .map_or_else(|| names.join("_"), |name| format!(" {}", name.unraw()));
        if seen.contains(&called) {
            let place = reference.name.as_ref().unwrap_or(&reference.target);
            let message = "another reference has the same name; give this one its own: `references(.. -> .. as NAME)`";
            return Err(Error::new(place.span(), message));
        }
        seen.push(called);
        tokens.push(value(reference, &names)?);
    }
    Ok(tokens)
}

/// What compiles only if the fields that refer have types that a key can have.
pub(crate) fn checks(references: &[Reference], columns: &[Column<'_>]) -> Vec<TokenStream> {
    let fields = references.iter().flat_map(|reference| &reference.columns);
    fields
        .filter_map(|field| find(field, columns))
        .map(|column| {
            let kind = column.kind;
            quote_spanned!(kind.span()=> ::gobo_sdk::private::referring_column::<#kind>();)
        })
        .collect()
}

fn find<'c, 'i>(field: &Ident, columns: &'c [Column<'i>]) -> Option<&'c Column<'i>> {
    columns
        .iter()
        .find(|column| column.field.unraw() == field.unraw())
}

/// The columns of the fields that refer.
fn own_columns(reference: &Reference, columns: &[Column<'_>]) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for field in &reference.columns {
        let column = find(field, columns).ok_or_else(|| {
            let message = format!(
                "there is no field `{field}` that could refer to `{}`",
                reference.target
            );
            Error::new(field.span(), message)
        })?;
        if names.contains(&column.name) {
            return Err(Error::new(
                field.span(),
                format!("`{field}` is named twice"),
            ));
        }
        names.push(column.name.clone());
    }
    Ok(names)
}

fn value(reference: &Reference, names: &[String]) -> Result<TokenStream> {
    let target = reference.target.unraw().to_string();
    check_identifier(&target, "read model", reference.target.span())?;
    let name = match &reference.name {
        None => quote!(::core::option::Option::None),
        Some(ident) => {
            let name = ident.unraw().to_string();
            check_identifier(&name, "reference", ident.span())?;
            quote!(::core::option::Option::Some(#name))
        }
    };
    let target_columns = match &reference.target_columns {
        None => quote!(::core::option::Option::None),
        Some(listed) => {
            if listed.len() != names.len() {
                let message = format!(
                    "`{target}` is referred to by {} column(s), {} of its key are named: one for each",
                    names.len(),
                    listed.len()
                );
                return Err(Error::new(reference.target.span(), message));
            }
            let listed = listed.iter().map(|ident| ident.unraw().to_string());
            quote!(::core::option::Option::Some(&[#(#listed),*]))
        }
    };
    Ok(quote_spanned! {reference.target.span()=>
        ::gobo_sdk::read_model::Reference {
            name: #name,
            columns: &[#(#names),*],
            read_model: #target,
            target_columns: #target_columns,
        }
    })
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use crate::read_model::derive;

    fn refusal(references: proc_macro2::TokenStream) -> String {
        let input = parse_quote! {
            #[read_model(#references)]
            struct Order { #[key] id: i64, user_id: i64, market: i64 }
        };
        derive(&input).unwrap_err().to_string()
    }

    #[test]
    fn a_reference_that_does_not_compile_says_how_it_is_written() {
        let form = "expected `references(user_id -> users)`";
        for (references, expected) in [
            (quote::quote!(references(users)), form),
            (quote::quote!(references(user_id, market)), form),
            (quote::quote!(references(-> users)), form),
            (quote::quote!(references("user_id" -> users)), form),
            (
                quote::quote!(references(uesr_id -> users)),
                "there is no field `uesr_id` that could refer to `users`",
            ),
            (
                quote::quote!(references(user_id -> Users)),
                "the read model name `Users` must begin with a small letter",
            ),
            (
                quote::quote!(references(user_id -> users(id, market))),
                "`users` is referred to by 1 column(s), 2 of its key are named: one for each",
            ),
            (
                quote::quote!(references(user_id -> users as _u)),
                "the reference name `_u` begins with `_`",
            ),
            (
                quote::quote!(references(user_id -> users, market -> markets)),
                "one `references(...)` for each reference",
            ),
            (
                quote::quote!(references(user_id -> users), references(user_id -> people)),
                "references(.. -> .. as NAME)",
            ),
        ] {
            let refused = refusal(references);
            assert!(refused.contains(expected), "{expected}: {refused}");
        }
    }
}
