//! `#[derive(Events)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, GenericParam, Lifetime, LitStr, Result, Variant};

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new(
            input.ident.span(),
            "events are an enum with a variant per event type",
        ));
    };
    let lifetime = lifetime(input)?;
    let refuse_unknown = refuse_unknown(input)?;
    let variants = data
        .variants
        .iter()
        .map(|variant| Ok((event_type(variant)?, variant)))
        .collect::<Result<Vec<_>>>()?;
    for (place, (event_type, variant)) in variants.iter().enumerate() {
        if variants[..place]
            .iter()
            .any(|(earlier, _)| earlier == event_type)
        {
            return Err(Error::new(
                variant.ident.span(),
                format!("two variants have the event type `{event_type}`"),
            ));
        }
    }
    let arms = variants
        .iter()
        .map(|(event_type, variant)| arm(event_type, variant))
        .collect::<Result<Vec<_>>>()?;
    let types = variants.iter().map(|(event_type, _)| event_type);
    let name = &input.ident;
    let (_, generics, _) = input.generics.split_for_impl();
    let wanted = if refuse_unknown {
        quote!(::core::option::Option::None)
    } else {
        quote!(::core::option::Option::Some(&[#(#types),*]))
    };
    let unknown = if refuse_unknown {
        quote!(::core::result::Result::Err(::gobo_sdk::Error::new(
            "the projection does not know this type of event"
        )))
    } else {
        quote!(::core::result::Result::Ok(::core::option::Option::None))
    };
    Ok(quote! {
        #[automatically_derived]
        impl<#lifetime> ::gobo_sdk::Events<#lifetime> for #name #generics {
            const TYPES: ::core::option::Option<&'static [&'static str]> = #wanted;

            fn decode(
                event_type: &str,
                data: &#lifetime str,
            ) -> ::gobo_sdk::Result<::core::option::Option<Self>> {
                match event_type {
                    #(#arms)*
                    _ => #unknown,
                }
            }
        }
    })
}

/// The enum's own lifetime, or one for an enum that borrows nothing.
fn lifetime(input: &DeriveInput) -> Result<Lifetime> {
    let mut parameters = input.generics.params.iter();
    match (parameters.next(), parameters.next()) {
        (None, _) => Ok(Lifetime::new("'event", input.ident.span())),
        (Some(GenericParam::Lifetime(parameter)), None) => Ok(parameter.lifetime.clone()),
        _ => Err(Error::new(
            input.generics.span(),
            "events have at most one parameter: the batch's lifetime, `<'e>`",
        )),
    }
}

fn refuse_unknown(input: &DeriveInput) -> Result<bool> {
    let mut refuse = false;
    for attribute in input
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("events"))
    {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("unknown") {
                return Err(meta.error("expected `unknown = \"ignore\"` or `unknown = \"refuse\"`"));
            }
            let literal: LitStr = meta.value()?.parse()?;
            refuse = match literal.value().as_str() {
                "ignore" => false,
                "refuse" => true,
                _ => {
                    return Err(Error::new(
                        literal.span(),
                        "expected \"ignore\" or \"refuse\"",
                    ));
                }
            };
            Ok(())
        })?;
    }
    Ok(refuse)
}

fn event_type(variant: &Variant) -> Result<String> {
    let mut event_type = variant.ident.unraw().to_string();
    for attribute in variant
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("event"))
    {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("type") {
                return Err(meta.error("expected `type = \"...\"`"));
            }
            event_type = meta.value()?.parse::<LitStr>()?.value();
            Ok(())
        })?;
    }
    Ok(event_type)
}

fn arm(event_type: &str, variant: &Variant) -> Result<TokenStream> {
    let name = &variant.ident;
    let event = match &variant.fields {
        Fields::Unit => quote!(Self::#name),
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => {
            quote!(Self::#name(::gobo_sdk::private::payload(data)?))
        }
        _ => {
            let message = format!(
                "a variant has one payload, a struct with #[payload]: `{name}({name}Data)`"
            );
            return Err(Error::new(variant.span(), message));
        }
    };
    Ok(quote!(#event_type => ::core::result::Result::Ok(::core::option::Option::Some(#event)),))
}
