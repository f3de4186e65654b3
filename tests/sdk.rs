//! What the SDK and the engine each know of the contract is the same: an author learns at compile time what a deploy
//! would refuse, and nothing that a deploy accepts is missing.

use std::collections::BTreeSet;

use gobo::descriptor::Descriptor;
use gobo::read_model::ColumnType as EngineType;
use gobo_sdk::column::{ColumnType, KeyColumn, Scalar};
use gobo_sdk::{Date, Decimal, Json, JsonText, Timestamp, Uuid};
use gobo_tests::workspace;
use serde_json::json;

/// The SDK's scalar types in turn. No arm is missing, or this does not compile.
fn next(kind: ColumnType) -> Option<ColumnType> {
    Some(match kind {
        ColumnType::Bool => ColumnType::Int2,
        ColumnType::Int2 => ColumnType::Int4,
        ColumnType::Int4 => ColumnType::Int8,
        ColumnType::Int8 => ColumnType::Float4,
        ColumnType::Float4 => ColumnType::Float8,
        ColumnType::Float8 => ColumnType::Numeric,
        ColumnType::Numeric => ColumnType::Text,
        ColumnType::Text => ColumnType::Bytea,
        ColumnType::Bytea => ColumnType::Uuid,
        ColumnType::Uuid => ColumnType::Date,
        ColumnType::Date => ColumnType::Timestamptz,
        ColumnType::Timestamptz => ColumnType::Json,
        ColumnType::Json => ColumnType::Jsonb,
        ColumnType::Jsonb | ColumnType::Array(_) => return None,
    })
}

/// Every type that the engine knows; PostgreSQL's own oids are below 16,384.
fn engine_types() -> impl Iterator<Item = EngineType> {
    (0..16_384).filter_map(EngineType::from_oid)
}

fn names(types: impl Iterator<Item = impl ToString>) -> BTreeSet<String> {
    types.map(|kind| kind.to_string()).collect()
}

fn scalars(types: impl Iterator<Item = EngineType>) -> BTreeSet<String> {
    names(types.filter(|kind| matches!(kind, EngineType::Scalar(_))))
}

/// The strings of the constant `RESERVED` in a source file.
fn reserved(path: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(workspace().join(path)).unwrap();
    let (_, rest) = text.split_once("const RESERVED").unwrap();
    let (_, rest) = rest.split_once("= [").unwrap();
    let (list, _) = rest.split_once("];").unwrap();
    list.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

fn descriptor(column: &str, kind: &str) -> Result<Descriptor, String> {
    let text = json!({
        "descriptor": 1,
        "name": "p",
        "read_models": [{
            "name": "r",
            "columns": [{"name": "id", "type": "int8"}, {"name": column, "type": kind}],
            "key": ["id"],
        }],
    });
    Descriptor::parse(&text.to_string()).map_err(|refused| refused.to_string())
}

#[test]
fn the_sdk_and_the_engine_have_the_same_column_types() {
    let sdk: Vec<_> = std::iter::successors(Some(ColumnType::Bool), |kind| next(*kind)).collect();
    let named = names(sdk.iter().map(|kind| kind.name()));
    assert_eq!(named, scalars(engine_types()));
    for name in &named {
        let accepted = descriptor("value", name).unwrap();
        assert_eq!(accepted.read_models[0].columns[1].kind.to_string(), *name);
    }
    // As many names as types: none of them has two.
    assert_eq!(named.len(), sdk.len());
}

#[test]
fn the_sdk_writes_arrays_of_the_types_that_the_engine_reads() {
    fn element<T>() -> (ColumnType, Vec<u8>)
    where
        Vec<T>: Scalar,
    {
        let mut bytes = Vec::new();
        Vec::<T>::new().encode(&mut bytes);
        (<Vec<T> as Scalar>::TYPE, bytes)
    }
    let arrays = [
        element::<bool>(),
        element::<i16>(),
        element::<i32>(),
        element::<i64>(),
        element::<f32>(),
        element::<f64>(),
        element::<Decimal>(),
        element::<String>(),
        element::<Vec<u8>>(),
        element::<Uuid>(),
        element::<Date>(),
        element::<Timestamp>(),
    ];
    for (kind, bytes) in &arrays {
        // Dimensions, flags, the elements' oid.
        let oid = u32::from_be_bytes(bytes[8..12].try_into().unwrap());
        let element = EngineType::from_oid(oid).unwrap();
        assert_eq!(kind.name(), format!("{element}[]"));
    }
    let accepted = scalars(engine_types())
        .into_iter()
        .map(|name| format!("{name}[]"))
        .filter(|name| descriptor("value", name).is_ok());
    assert_eq!(
        names(arrays.iter().map(|(kind, _)| kind.name())),
        accepted.collect()
    );
    // JSON has no arrays on either side: these are scalars.
    assert_eq!(Json::TYPE.name(), "jsonb");
    assert_eq!(JsonText::TYPE.name(), "json");
}

#[test]
fn the_sdk_and_the_engine_have_the_same_key_types() {
    fn key<T: KeyColumn>() -> String {
        T::TYPE.name().into_owned()
    }
    let sdk = [
        key::<bool>(),
        key::<i16>(),
        key::<i32>(),
        key::<i64>(),
        key::<String>(),
        key::<Uuid>(),
        key::<Date>(),
        key::<Timestamp>(),
        key::<Vec<u8>>(),
    ];
    let engine = names(engine_types().filter(|kind| kind.may_be_key()));
    assert_eq!(BTreeSet::from(sdk), engine);
}

#[test]
fn the_sdk_and_the_engine_refuse_the_same_column_names() {
    let sdk = reserved("sdk/macros/src/names.rs");
    assert!(!sdk.is_empty());
    assert_eq!(sdk, reserved("engine/src/descriptor.rs"));
    let contract = std::fs::read_to_string(workspace().join("sdk/wit/DESCRIPTOR.md")).unwrap();
    let (_, list) = contract.split_once("the query grammar reserves:").unwrap();
    let (list, _) = list.split_once(')').unwrap();
    let written = list.split('`').skip(1).step_by(2).map(str::to_owned);
    assert_eq!(sdk, written.collect(), "DESCRIPTOR.md");
    for name in &sdk {
        let refused = descriptor(name, "text").unwrap_err();
        assert!(refused.contains("queries reserve"), "{name}: {refused}");
        assert!(descriptor(&format!("{name}_"), "text").is_ok());
    }
}
