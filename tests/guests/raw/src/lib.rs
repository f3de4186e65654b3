//! A plugin written without the SDK, from `sdk/wit` alone: the contract stands on its own.
//!
//! The projection is called `raw`. It owns three read models:
//!
//! - `raw` (0): one row per `id`, with a nullable column of every type of FRAMES.md, see [`model::COLUMNS`].
//! - `raw_pairs` (1): one row per `a` (text) and `b` (int4), with a column `n` (int8).
//! - `raw_owned` (2): one row per `id`, with a column `n` (int8), declared per stream.
//!
//! It handles events of the type `Raw`. Their data says what to do:
//!
//! | data | effect |
//! |---|---|
//! | `{"do":"put","id":"a"}` | writes row `a` of `raw` with the sample values of [`model::COLUMNS`], without asking for it |
//! | ... `"n":5` | with 5 in `c_int8` |
//! | ... `"text":"x"` | with `x` in `c_text` |
//! | ... `"nulls":true` | with NULL in every column but `id` |
//! | ... `"fields":{"c_int4":"0000002a"}` | with these bytes, in hexadecimal, in these columns; `null` for NULL |
//! | `{"do":"add","id":"a","n":1}` | asks for the row, and adds to its `c_int8`; an absent row is one of NULLs |
//! | `{"do":"delete","id":"a"}` | deletes the row, without asking for it |
//! | `{"do":"pair","a":"x","b":1,"n":5}` | asks for the row of `raw_pairs`, and adds to its `n`, which begins at 0 |
//! | `{"do":"unpair","a":"x","b":1}` | deletes the row of `raw_pairs` |
//! | `{"do":"own","id":"a","n":1}` | writes row `a` of `raw_owned`, without asking for it |
//! | `{"do":"gain","id":"a","n":1}` | asks for the row of `raw_owned`, and adds to its `n`, which begins at 0 |
//! | `{"do":"disown","id":"a"}` | deletes the row of `raw_owned`, without asking for it |
//! | `{"do":"log","level":"info","message":"m","times":3}` | logs (default: `info`, once) |
//! | `{"do":"nothing"}` | changes nothing |
//!
//! Every event makes a change of its own: several of one batch may concern the same key.
//!
//! The rest is misbehaviour, for the engine to survive. Where a row is involved, it is that of `"id"` (default `x`):
//!
//! | `do` | what happens |
//! |---|---|
//! | `error` | `begin` or `resume` fails, naming the event, with `"message"` (default `as asked`) |
//! | `trap` | a panic |
//! | `loop` | an endless loop |
//! | `allocate` | allocates until there is no memory left |
//! | `null_key` | an upsert whose key is NULL |
//! | `null_column` | an upsert into `raw_pairs` whose `n`, not nullable, is NULL |
//! | `too_many_fields`, `too_few_fields` | an upsert with a field more, or less |
//! | `bad_utf8`, `nul_byte` | text that is no UTF-8, or holds U+0000 |
//! | `bad_json` | a `json` that is none; `bad_jsonb` the same for `jsonb`, `jsonb_version` with version 2 |
//! | `wrong_width` | an `int4` of three bytes |
//! | `bad_bool` | a `bool` of 2 |
//! | `bad_numeric`, `nan_numeric` | a digit of 10,000; not a number |
//! | `bad_array` | an array of two dimensions |
//! | `infinite_time` | a `timestamptz` that PostgreSQL reads as infinity |
//! | `truncated` | the frame of changes ends within a field |
//! | `trailing` | four bytes after the last tuple |
//! | `negative_length` | a field of length -2 |
//! | `index_out_of_range` | a change by event 1,000,000; `model_out_of_range` of read model 9; `bad_operation` with operation 7 |
//! | `descending` | a change by this event, and after it one by event 0 (in a batch's second event or later) |
//! | `bad_need` | asks for a key of read model 9; `need_wrong_key` for a key of two fields in `raw` |
//! | `need_forever` | asks for the same row again and again |
//! | `need_many` | asks for `"count"` rows (default 1,000,000) at once |
//! | `huge_output` | answers with `"bytes"` bytes of changes (default 64 MiB) |
//! | `bad_failure` | fails, naming event 1,000,000 |

pub mod frame;
pub mod misbehave;
pub mod model;
pub mod run;

#[cfg(target_arch = "wasm32")]
mod guest;
