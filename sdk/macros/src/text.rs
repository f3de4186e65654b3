//! `#[derive(Text)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Ident, LitStr, Result, Variant};

use crate::names::Case;

pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new(
            input.ident.span(),
            "only an enum is stored as one of several texts",
        ));
    };
    let case = case(input)?;
    let mut names: Vec<(&Ident, String)> = Vec::new();
    for variant in &data.variants {
        let text = text(variant, case)?;
        if names.iter().any(|(_, earlier)| *earlier == text) {
            return Err(Error::new(
                variant.ident.span(),
                format!("two variants are written `{text}`"),
            ));
        }
        names.push((&variant.ident, text));
    }
    if names.is_empty() {
        return Err(Error::new(
            input.ident.span(),
            "an enum without variants has no text",
        ));
    }
    Ok(implementation(&input.ident, &names))
}

fn case(input: &DeriveInput) -> Result<Case> {
    let mut case = Case::AsIs;
    for attribute in input
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("text"))
    {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("rename_all") {
                return Err(meta.error("expected `rename_all = \"...\"`"));
            }
            let rule: LitStr = meta.value()?.parse()?;
            case = Case::parse(&rule.value(), rule.span())?;
            Ok(())
        })?;
    }
    Ok(case)
}

fn text(variant: &Variant, case: Case) -> Result<String> {
    if !matches!(variant.fields, Fields::Unit) {
        return Err(Error::new(
            variant.ident.span(),
            "a text has no room for a payload",
        ));
    }
    let mut text = case.apply(&variant.ident.to_string());
    for attribute in variant
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("text"))
    {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("rename") {
                return Err(meta.error("expected `rename = \"...\"`"));
            }
            text = meta.value()?.parse::<LitStr>()?.value();
            Ok(())
        })?;
    }
    if text.contains('\0') {
        return Err(Error::new(
            variant.ident.span(),
            "PostgreSQL cannot store U+0000 in text",
        ));
    }
    Ok(text)
}

fn implementation(name: &Ident, names: &[(&Ident, String)]) -> TokenStream {
    let variants: Vec<&Ident> = names.iter().map(|(variant, _)| *variant).collect();
    let texts: Vec<&str> = names.iter().map(|(_, text)| text.as_str()).collect();
    let list = texts.join(", ");
    quote! {
        #[automatically_derived]
        impl #name {
            /// The text that stands for it.
            pub const fn as_str(&self) -> &'static str {
                match self { #(Self::#variants => #texts,)* }
            }
        }

        #[automatically_derived]
        impl ::core::fmt::Display for #name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.pad(self.as_str())
            }
        }

        #[automatically_derived]
        impl ::core::str::FromStr for #name {
            type Err = ::gobo_sdk::Error;
            fn from_str(text: &str) -> ::gobo_sdk::Result<Self> {
                match text {
                    #(#texts => ::core::result::Result::Ok(Self::#variants),)*
                    _ => ::core::result::Result::Err(::gobo_sdk::private::no_variant(text, #list)),
                }
            }
        }

        #[automatically_derived]
        impl ::gobo_sdk::column::Scalar for #name {
            const TYPE: ::gobo_sdk::column::ColumnType = ::gobo_sdk::column::ColumnType::Text;

            fn encode(&self, out: &mut ::std::vec::Vec<u8>) {
                out.extend_from_slice(self.as_str().as_bytes());
            }

            fn decode(bytes: &[u8]) -> ::gobo_sdk::Result<Self> {
                ::gobo_sdk::private::text(bytes)?.parse()
            }
        }

        #[automatically_derived]
        impl ::gobo_sdk::column::KeyColumn for #name {}

        #[automatically_derived]
        impl ::gobo_sdk::column::KeyOf<#name> for #name {
            fn write_key(&self, out: &mut ::std::vec::Vec<u8>) {
                ::gobo_sdk::column::Column::write(self, out);
            }
        }

        #[automatically_derived]
        impl<'de> ::gobo_sdk::serde::Deserialize<'de> for #name {
            fn deserialize<D: ::gobo_sdk::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> ::core::result::Result<Self, D::Error> {
                ::gobo_sdk::private::text_enum(deserializer, |text| text.parse())
            }
        }

        #[automatically_derived]
        impl ::gobo_sdk::serde::Serialize for #name {
            fn serialize<S: ::gobo_sdk::serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::core::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    }
}
