//! Everything that a plugin should not do.

use serde_json::Value;

use crate::frame;
use crate::model;
use crate::run::{Failure, action, id, write_change};

/// Keys that should not be asked for.
pub fn need(event: &Value, keys: &mut Vec<u8>) {
    let key = |read_model: i16, fields: &[&str]| {
        let mut tuple = vec![Some(read_model.to_be_bytes().to_vec())];
        tuple.extend(fields.iter().map(|field| Some(field.as_bytes().to_vec())));
        tuple
    };
    match action(event) {
        "bad_need" => frame::write(keys, &key(9, &["x"])),
        "need_wrong_key" => frame::write(keys, &key(0, &["x", "y"])),
        "need_forever" => frame::write(keys, &key(0, &[id(event)])),
        "need_many" => {
            for number in 0..event["count"].as_u64().unwrap_or(1_000_000) {
                frame::write(keys, &key(0, &[&number.to_string()]));
            }
        }
        _ => {}
    }
}

/// Changes that should not be made, and worse.
///
/// # Errors
/// When the event asks for an error, or for something unknown.
pub fn change(index: u32, event: &Value, changes: &mut Vec<u8>) -> Result<(), Failure> {
    match action(event) {
        "error" => {
            return Err((
                index,
                event["message"].as_str().unwrap_or("as asked").to_owned(),
            ));
        }
        "bad_failure" => return Err((1_000_000, "by an event that is not there".to_owned())),
        "trap" => panic!("as asked"),
        "loop" => loop {
            std::hint::spin_loop();
        },
        "allocate" => allocate(),
        "bad_need" | "need_wrong_key" | "need_forever" | "need_many" => {}
        "null_column" => {
            let fields = [Some(b"x".to_vec()), Some(vec![0, 0, 0, 1]), None];
            write_change(changes, index, 1, 0, &fields);
        }
        "huge_output" => {
            let bytes = event["bytes"].as_u64().unwrap_or(64 << 20) as usize;
            let mut row = model::nulls(id(event));
            row[8] = Some(vec![b'x'; bytes]);
            write_change(changes, index, 0, 0, &row);
        }
        other => shape(index, other, event, changes)?,
    }
    Ok(())
}

fn allocate() -> ! {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(vec![1; 1 << 20]);
    }
}

/// An upsert with one thing wrong.
fn shape(index: u32, what: &str, event: &Value, changes: &mut Vec<u8>) -> Result<(), Failure> {
    let mut row = model::nulls(id(event));
    let mut set = |column: &str, bytes: &str| -> Result<(), Failure> {
        let place =
            model::place(column).ok_or_else(|| (index, format!("there is no column {column}")))?;
        row[place] = Some(frame::hex(bytes).map_err(|error| (index, error))?);
        Ok(())
    };
    let (mut event_index, mut read_model, mut operation) = (index, 0, 0);
    let before = changes.len();
    match what {
        "bad_utf8" => set("c_text", "61ff")?,
        "nul_byte" => set("c_text", "610062")?,
        "bad_json" => set("c_json", "7b22")?,
        "bad_jsonb" => set("c_jsonb", "017b22")?,
        "jsonb_version" => set("c_jsonb", "027b7d")?,
        "wrong_width" => set("c_int4", "000001")?,
        "bad_bool" => set("c_bool", "02")?,
        "bad_numeric" => set("c_numeric", "0001 0000 0000 0000 2710")?,
        "nan_numeric" => set("c_numeric", "0000 0000 c000 0000")?,
        "bad_array" => set("c_int4s", "00000002 00000000 00000017")?,
        "infinite_time" => set("c_timestamptz", "7fffffffffffffff")?,
        "null_key" => row[0] = None,
        "too_many_fields" => row.push(None),
        "too_few_fields" => drop(row.pop()),
        "index_out_of_range" => event_index = 1_000_000,
        "model_out_of_range" => read_model = 9,
        "bad_operation" => operation = 7,
        "descending" => {
            write_change(changes, index, 0, 0, &row);
            event_index = 0;
        }
        "truncated" | "trailing" | "negative_length" => {}
        unknown => return Err((index, format!("unknown: {unknown:?}"))),
    }
    write_change(changes, event_index, read_model, operation, &row);
    match what {
        "truncated" => changes.truncate(changes.len() - 3),
        "trailing" => changes.extend_from_slice(&[0, 5, 0, 0]),
        // The first field's length follows the field count.
        "negative_length" => {
            changes[before + 2..before + 6].copy_from_slice(&(-2_i32).to_be_bytes())
        }
        _ => {}
    }
    Ok(())
}
