//! `#[payload]`.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Attribute, Data, DeriveInput, Field, Result, Type, parse_quote};

pub(crate) fn expand(mut item: DeriveInput) -> Result<TokenStream> {
    match &mut item.data {
        Data::Struct(data) => data.fields.iter_mut().for_each(borrow),
        Data::Enum(data) => data
            .variants
            .iter_mut()
            .flat_map(|variant| &mut variant.fields)
            .for_each(borrow),
        Data::Union(_) => {}
    }
    Ok(quote! {
        #[derive(::gobo_sdk::serde::Deserialize)]
        #[serde(crate = "::gobo_sdk::serde")]
        #item
    })
}

/// Lets a field with a lifetime borrow from the batch, unless the author says otherwise.
fn borrow(field: &mut Field) {
    if !has_lifetime(field.ty.to_token_stream()) {
        return;
    }
    let says = |word: &str| {
        field
            .attrs
            .iter()
            .any(|attribute| mentions(attribute, word))
    };
    if says("borrow") || says("deserialize_with") || says("with") {
        return;
    }
    if is_optional_text(&field.ty) {
        // `default`, because serde takes an absent member for `None` only where it knows the type's own rule.
        field.attrs.push(
            parse_quote!(#[serde(borrow, deserialize_with = "::gobo_sdk::private::optional_text")]),
        );
        if !says_default(field) {
            field.attrs.push(parse_quote!(#[serde(default)]));
        }
    } else {
        field.attrs.push(parse_quote!(#[serde(borrow)]));
    }
}

fn says_default(field: &Field) -> bool {
    field
        .attrs
        .iter()
        .any(|attribute| mentions(attribute, "default"))
}

fn mentions(attribute: &Attribute, word: &str) -> bool {
    let Ok(list) = attribute.meta.require_list() else {
        return false;
    };
    let mut tokens = list.tokens.clone().into_iter();
    list.path.is_ident("serde")
        && tokens.any(|token| matches!(token, TokenTree::Ident(ident) if ident == word))
}

fn has_lifetime(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Punct(punct) => punct.as_char() == '\'',
        TokenTree::Group(group) => has_lifetime(group.stream()),
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    })
}

/// `Option<Cow<'e, str>>`, however it is qualified.
fn is_optional_text(kind: &Type) -> bool {
    let text = kind.to_token_stream().to_string();
    let plain: String = text.split_whitespace().collect();
    plain.contains("Option<") && plain.contains("Cow<'") && plain.ends_with(",str>>")
}
