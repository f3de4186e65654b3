//! A failure as a file: kept by the engine, run again without one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gobo_tests::{gobo_binary, wait_until, wasm};
use serde_json::{Value, json};

use crate::scene::{Event, Scene, matched, order, raw};

/// Small, so that whatever exceeds them does so quickly; and a folder of the scene's own.
const TABLES: &str = "
[limits]
batch_time_ms = 2000
memory_bytes = 8388608
output_bytes = 262144
keys_per_batch = 1000
rounds = 8

[engine]
failures_dir = \"failures\"

";

fn tables(projection: &str, policy: &str) -> String {
    format!("{TABLES}[projections.{projection}]\npolicy = \"{policy}\"\n")
}

fn folder(scene: &Scene) -> PathBuf {
    scene.gobo.folder().join("failures")
}

/// The file of a live generation's event.
fn file(scene: &Scene, projection: &str, position: i64) -> PathBuf {
    let generation = &scene.status(projection)["generation"];
    folder(scene).join(format!("{projection}-g{generation}-{position}.json"))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs `gobo replay` as on a machine that has nothing but the two files.
fn replay(file: &Path, plugin: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(gobo_binary());
    command.env_clear().arg("replay").arg("--frame").arg(file);
    command.arg("--plugin").arg(plugin).args(more);
    command.output().unwrap()
}

/// The same, as JSON, with the exit code.
fn replay_json(file: &Path, plugin: &str) -> (Option<i32>, Value) {
    let output = replay(file, &wasm(plugin), &["--json"]);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), report)
}

fn text(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn booked(stream: &str, data: Value) -> Event {
    (stream.to_owned(), "Booked", data)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_plugin_does_wrong_it_does_again_from_the_file() {
    let cases = [
        json!({"do": "error", "message": "no such price"}),
        json!({"do": "bad_failure"}),
        json!({"do": "trap"}),
        json!({"do": "loop"}),
        json!({"do": "allocate"}),
        json!({"do": "huge_output", "bytes": 300_000}),
        json!({"do": "need_forever"}),
        json!({"do": "need_many", "count": 2_000}),
        json!({"do": "bad_need"}),
        json!({"do": "null_key"}),
        json!({"do": "bad_utf8"}),
        json!({"do": "truncated"}),
        // Well-formed, and refused by PostgreSQL alone.
        json!({"do": "put", "fields": {"c_date": "7ffffffe"}}),
    ];
    let scene = Scene::new(&tables("raw", "skip"), &["raw-guest"]).await;
    let mut events = vec![raw("sound", json!({"do": "put", "id": "before"}))];
    events.extend(cases.iter().map(|data| raw("bad", data.clone())));
    let positions = scene.append(&events).await;
    scene.wait_for("raw", *positions.last().unwrap());
    let letters = scene.letters("raw");
    assert_eq!(letters.len(), cases.len());
    for (letter, data) in letters.iter().zip(&cases) {
        let file = file(&scene, "raw", letter.position);
        let (code, report) = replay_json(&file, "raw-guest");
        assert_eq!(code, Some(1), "{data}: {report}");
        assert_eq!(report["processed"], false);
        assert_eq!(report["error"], letter.message, "{data}");
        assert_eq!(report["event"]["data"], *data);
        assert_eq!(report["same_bytes"], true);
        let by = match data["do"] == "put" {
            true => "database",
            false => "plugin",
        };
        assert_eq!(report["recorded"]["error"]["by"], by, "{data}");
    }
    assert_eq!(names(&folder(&scene)).len(), cases.len());
    // Where the endless loop was, when its time was over.
    let (_, report) = replay_json(&file(&scene, "raw", positions[4]), "raw-guest");
    let frames = report["backtrace"].as_array().unwrap();
    let is_there = frames.iter().any(|frame| {
        let at = (frame["function"].as_str().unwrap(), frame["file"].as_str());
        at.0.ends_with("change") && at.1.is_some_and(|file| file.ends_with("misbehave.rs"))
    });
    assert!(is_there, "{frames:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mended_plugin_processes_the_event_from_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::new(&tables("ledger", "stop"), &["ledger"]).await;
    let events = [
        booked("a", json!({"amount": 10})),
        booked("b", json!({"amount": 3, "fee": 2})),
    ];
    let positions = scene.append(&events).await;
    let error = scene.wait_for_stop("ledger");
    let file = file(&scene, "ledger", positions[1]);
    let named = error["file"].as_str().unwrap();
    assert!(Path::new(named).is_absolute());
    assert_eq!(
        std::fs::canonicalize(named).unwrap(),
        std::fs::canonicalize(&file).unwrap()
    );
    let status = scene.gobo.command(&["status"]);
    assert!(text(&status).contains(&format!("gobo replay --frame {named} ")));
    let page = scene.gobo.get("/console/projections/ledger").expect(200);
    assert!(page.text().contains(named) && scene.gobo.log().contains(named));
    let found = std::fs::metadata(&file).unwrap();
    assert_eq!(
        found.permissions().mode() & 0o777,
        0o600,
        "for its owner alone"
    );

    let same = replay(&file, &wasm("ledger"), &[]);
    assert_eq!(same.status.code(), Some(1));
    for words in [
        "stream \"b\"",
        "\n    \"fee\": 2\n",
        "a fee of 2 is not understood",
        "the same bytes",
        "fails with the same error",
    ] {
        assert!(
            text(&same).contains(words),
            "{words:?} is missing: {same:?}"
        );
    }
    let mended = replay(&file, &wasm("ledger-mended"), &[]);
    assert_eq!(mended.status.code(), Some(0), "{mended:?}");
    for words in [
        "other bytes",
        "upsert accounts {",
        "\"balance\": 1,",
        "\"history\": \" 3-2\"",
    ] {
        assert!(
            text(&mended).contains(words),
            "{words:?} is missing: {mended:?}"
        );
    }
    // The plugin that failed did not get as far as to ask for the row.
    let note = "there is no such row here: row {\"account\":\"b\"} of read model \"accounts\"";
    assert!(text(&mended).contains(note), "{mended:?}");
    let (code, report) = replay_json(&file, "ledger-mended");
    assert_eq!((code, &report["processed"]), (Some(0), &json!(true)));
    assert_eq!(
        report["changes"],
        json!([{
            "position": positions[1], "read_model": "accounts", "operation": "upsert",
            "row": {"account": "b", "balance": 1, "history": " 3-2"},
        }])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_comes_with_the_rows_it_needs_and_a_backtrace_that_names_the_handler() {
    let scene = Scene::new(&tables("orders", "park"), &["orders"]).await;
    let mut huge = matched("1", "99999999999999999999");
    huge.2["price"] = json!("99999999999999999999");
    let positions = scene.append(&[order("1"), huge]).await;
    scene.wait_for_letters("orders", &[(positions[1], "order-1", "failed")]);
    let path = file(&scene, "orders", positions[1]);
    let (code, report) = replay_json(&path, "orders");
    assert_eq!(code, Some(1));
    // Without the order's row it would be another error.
    assert_eq!(report["error"], scene.letters("orders")[0].message);
    let message = report["error"].as_str().unwrap();
    for words in [
        "does not fit a Decimal",
        "fill",
        "plugins/orders/src/lib.rs:",
    ] {
        assert!(message.contains(words), "{words:?} is missing in {message}");
    }
    let frames = report["backtrace"].as_array().unwrap();
    let fill = frames
        .iter()
        .find(|frame| frame["function"].as_str().unwrap().ends_with("fill"))
        .unwrap_or_else(|| panic!("{frames:?}"));
    let handler = |frame: &Value| {
        let function = frame["function"].as_str().unwrap();
        function.starts_with("<orders::Orders as ") && function.ends_with("::handle")
    };
    assert!(frames.iter().any(handler), "{frames:?}");
    let source = std::fs::read_to_string(gobo_tests::workspace().join("plugins/orders/src/lib.rs"));
    let source = source.unwrap();
    let line = usize::try_from(fill["line"].as_u64().unwrap()).unwrap();
    let line = source.lines().nth(line - 1).unwrap();
    assert!(line.contains("matched.price * matched.quantity"), "{line}");
    let log = &report["logs"][0];
    assert_eq!(log["level"], "error");
    assert!(
        log["message"]
            .as_str()
            .unwrap()
            .contains("does not fit a Decimal")
    );
    let shown = replay(&path, &wasm("orders"), &[]);
    assert!(
        text(&shown).contains("backtrace, innermost function first"),
        "{shown:?}"
    );
    assert!(
        text(&shown).contains("plugins/orders/src/lib.rs:"),
        "{shown:?}"
    );

    // A file without the row: the plugin is told that there is none, and so is the reader.
    let mut without: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(without["rows"].as_array().unwrap().len(), 1);
    without["rows"] = json!([]);
    let other = scene.gobo.folder().join("without.json");
    std::fs::write(&other, without.to_string()).unwrap();
    let (code, report) = replay_json(&other, "orders");
    assert_eq!(code, Some(1));
    assert!(
        !report["error"].as_str().unwrap().contains("Decimal"),
        "{report}"
    );
    let notes = report["notes"].to_string();
    assert!(notes.contains("of read model \\\"orders\\\""), "{notes}");

    // Whoever asks the log is told; and a retry that fails keeps the event anew.
    let log = scene.gobo.get("/admin/projections/orders/logs").text();
    assert!(log.contains("gobo replay --frame"), "{log}");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(scene.retry("orders"), 1);
    wait_until("the file", || match path.exists() {
        true => Ok(()),
        false => Err(names(&folder(&scene))),
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_files_are_kept_and_those_of_others_are_left_alone() {
    let scene = Scene::new(&tables("raw", "skip"), &["raw-guest"]).await;
    std::fs::create_dir(folder(&scene)).unwrap();
    let others = folder(&scene).join("notes.json");
    std::fs::write(&others, "mine").unwrap();
    let error = json!({"do": "error", "message": "no"});
    let events: Vec<Event> = (0..110).map(|_| raw("a", error.clone())).collect();
    let positions = scene.append(&events).await;
    scene.wait_for("raw", *positions.last().unwrap());
    assert_eq!(scene.letters("raw").len(), 110);
    assert_eq!(names(&folder(&scene)).len(), 101);
    assert!(others.exists());
    assert!(file(&scene, "raw", *positions.last().unwrap()).exists());
    assert!(!file(&scene, "raw", positions[0]).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_is_a_warning_and_nothing_else() {
    let nowhere = tables("raw", "skip").replace("\"failures\"", "\"gobo.toml/failures\"");
    let none = tables("raw", "skip").replace("\"failures\"", "\"\"");
    for (tables, warns) in [(nowhere, true), (none, false)] {
        let scene = Scene::new(&tables, &["raw-guest"]).await;
        let events = [
            raw("a", json!({"do": "error", "message": "no"})),
            raw("a", json!({"do": "put", "id": "after"})),
        ];
        let positions = scene.append(&events).await;
        scene.wait_for("raw", positions[1]);
        scene.wait_for_letters("raw", &[(positions[0], "a", "skipped")]);
        let log = scene.gobo.log();
        assert_eq!(log.contains("engine.failures_dir"), warns, "{log}");
        let lines = scene.gobo.get("/admin/projections/raw/logs").text();
        assert!(!lines.contains("gobo replay"), "{lines}");
        assert!(!folder(&scene).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_or_a_plugin_that_is_of_no_use_is_refused_with_the_reason() {
    let scene = Scene::new(&tables("ledger", "stop"), &["ledger"]).await;
    let positions = scene
        .append(&[booked("a", json!({"amount": 3, "fee": 2}))])
        .await;
    scene.wait_for_stop("ledger");
    let path = file(&scene, "ledger", positions[0]);
    let whole = std::fs::read_to_string(&path).unwrap();
    let with = |member: &str, value: Value| {
        let mut changed: Value = serde_json::from_str(&whole).unwrap();
        changed[member] = value;
        changed.to_string()
    };
    let mut limits = serde_json::from_str::<Value>(&whole).unwrap()["limits"].clone();
    limits["memory_bytes"] = json!(u64::MAX);
    let row = json!([{"read_model": "accounts", "key": "AAAA", "row": null}]);
    let cases = [
        (String::new(), "the file is cut off"),
        (whole[..whole.len() / 2].to_owned(), "the file is cut off"),
        ("\0\u{1}garbage".into(), "not a failure that gobo has kept"),
        ("[]".into(), "not a failure that gobo has kept"),
        ("{\"a\": 1}".into(), "no member \"gobo_failure\""),
        (
            with("gobo_failure", json!(2)),
            "format version 2, this gobo reads version 1",
        ),
        (
            with("batch", json!("?")),
            "not a failure that gobo has kept",
        ),
        (with("batch", json!("")), "batch: it has no event"),
        (
            with("batch", json!("AAkAAAAI")),
            "batch: the frame ends inside",
        ),
        (with("limits", limits), "limits.memory_bytes"),
        (with("rows", row), "rows[0]: the frame ends inside"),
        (
            with(
                "read_models",
                json!([{"name": "x", "per_stream": false, "key": ["y"], "columns": []}]),
            ),
            "a column \"y\"",
        ),
    ];
    let broken = scene.gobo.folder().join("broken.json");
    for (content, words) in cases {
        std::fs::write(&broken, &content).unwrap();
        let output = replay(&broken, &wasm("ledger"), &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}: {said}");
        assert!(
            said.contains(words) && said.contains("broken.json"),
            "{words:?} is missing: {said}"
        );
        assert!(output.stdout.is_empty());
    }
    let missing = scene.gobo.folder().join("missing");
    for (frame, plugin, words) in [
        (&missing, &wasm("ledger"), "No such file"),
        (&path, &missing, "No such file"),
        (&path, &path, "not a WebAssembly file"),
    ] {
        let output = replay(frame, plugin, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{words:?} is missing: {said}");
    }
    let alone = Command::new(gobo_binary())
        .args(["replay", "--frame"])
        .arg(&path)
        .output();
    assert_eq!(alone.unwrap().status.code(), Some(2));
    // Another projection's plugin runs, and says so.
    let (_, report) = replay_json(&path, "orders");
    let notes = report["notes"].to_string();
    assert!(
        notes.contains("the projection \\\"orders\\\", the failure is one of \\\"ledger\\\""),
        "{notes}"
    );
}
