//! Deploying: what is accepted becomes tables, views and a running projection; what is refused changes nothing.

pub(crate) mod module;
mod operate;
mod references;
mod refused;
mod start;
mod watched;

use gobo_tests::{Answer, Database, Gobo};
use module::Module;
use serde_json::{Value, json};

/// Everything that a deploy could change.
async fn everything(database: &Database) -> Value {
    let mut state = serde_json::Map::new();
    for (what, sql) in [
        (
            "plugins",
            "SELECT encode(hash, 'hex') AS hash, name FROM gobo.plugins ORDER BY 1",
        ),
        (
            "projections",
            "SELECT * FROM gobo.projections ORDER BY name",
        ),
        ("generations", "SELECT * FROM gobo.generations ORDER BY id"),
        (
            "checkpoints",
            "SELECT generation, plugin_hash::text, error FROM gobo.checkpoints ORDER BY 1",
        ),
        ("leases", "SELECT generation FROM gobo.leases ORDER BY 1"),
        (
            "read models",
            "SELECT * FROM gobo.read_models ORDER BY name",
        ),
        (
            "relations",
            "SELECT c.relname, n.nspname, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname LIKE 'gobo\\_g%' OR n.nspname = 'read' ORDER BY 2, 1",
        ),
    ] {
        state.insert(what.to_owned(), database.query_json(sql).await);
    }
    Value::Object(state)
}

fn deploy(gobo: &Gobo, module: &Module) -> Answer {
    gobo.request("POST", "/admin/projections", &[], &module.bytes())
}

/// Deploys with `?mode=continue`: the rows are kept.
fn go_on(gobo: &Gobo, module: &Module) -> Answer {
    let path = "/admin/projections?mode=continue";
    gobo.request("POST", path, &[], &module.bytes())
}

#[tokio::test]
async fn a_new_projection_gets_its_tables_and_its_views() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    let outcome = deploy(&gobo, &Module::new("things")).expect(201).json();
    assert_eq!(outcome["projection"], "things");
    assert_eq!(outcome["outcome"], "created");
    let generation = outcome["generation"].as_i64().unwrap();
    let columns = |schema: &str| {
        format!(
            "SELECT a.attname, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required, l.collname, \
                    col_description(a.attrelid, a.attnum) AS about \
               FROM pg_attribute a LEFT JOIN pg_collation l ON l.oid = a.attcollation \
              WHERE a.attrelid = '{schema}.things'::regclass AND a.attnum > 0 ORDER BY a.attnum"
        )
    };
    let table = database
        .query_json(&columns(&format!("gobo_g{generation}")))
        .await;
    let column = |name: &str,
                  kind: &str,
                  required: bool,
                  collation: Option<&str>,
                  about: Option<&str>| {
        json!({ "attname": name, "type": kind, "required": required, "collname": collation, "about": about })
    };
    let position = Some("The last event that changed this row.");
    let revision = Some("The revision of the read model at which this row was last written.");
    let updated = Some("When the last event that changed this row was recorded.");
    assert_eq!(
        table,
        json!([
            column("id", "text", true, Some("C"), None),
            column("number", "bigint", true, None, Some("How many.")),
            column("tags", "text[]", false, Some("C"), None),
            column("price", "numeric", false, None, None),
            column("_stream_id", "text", true, Some("C"), None),
            column("_position", "bigint", true, None, position),
            column("_revision", "bigint", true, None, revision),
            column(
                "_updated_at",
                "timestamp with time zone",
                true,
                None,
                updated
            ),
        ])
    );
    let view = database.query_json("SELECT * FROM read.things").await;
    assert_eq!(view, json!([]));
    let names = "SELECT string_agg(attname, ',' ORDER BY attnum) AS names, \
                 obj_description('read.things'::regclass) AS about FROM pg_attribute \
                 WHERE attrelid = 'read.things'::regclass AND attnum > 0";
    assert_eq!(
        database.query_json(names).await,
        json!([{
            "names": "id,number,tags,price,_position,_revision,_updated_at",
            "about": "One row per thing; it's \"quoted\".",
        }])
    );
    let indexes = format!(
        "SELECT indexname FROM pg_indexes WHERE schemaname = 'gobo_g{generation}' ORDER BY 1"
    );
    assert_eq!(
        database.query_json(&indexes).await,
        json!([{"indexname": "_index0_0_things"}, {"indexname": "_index0_1_things"}, {"indexname": "_key0_things"}])
    );
}

#[tokio::test]
async fn the_same_bytes_again_change_nothing_and_say_so() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    deploy(&gobo, &Module::new("things")).expect(201);
    let before = everything(&database).await;
    let outcome = deploy(&gobo, &Module::new("things")).expect(200).json();
    assert_eq!(outcome["outcome"], "unchanged");
    assert_eq!(everything(&database).await, before);
}

#[tokio::test]
async fn new_code_over_the_same_tables_goes_on_from_the_checkpoint() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    let first = deploy(&gobo, &Module::new("things")).expect(201).json();
    database
        .execute("UPDATE gobo.checkpoints SET error = '{\"message\": \"stopped by the old code\"}'")
        .await;
    let newer = Module::new("things").build(2).describing(|descriptor| {
        descriptor["event_types"] = json!(["Other"]);
        descriptor["read_models"][0]["columns"][1]["comment"] = json!("How many there are.");
        descriptor["version"] = json!("2.0.0");
    });
    let second = go_on(&gobo, &newer).expect(200).json();
    assert_eq!(second["outcome"], "swapped");
    assert_eq!(second["generation"], first["generation"]);
    assert_ne!(second["hash"], first["hash"]);
    let about = format!(
        "SELECT col_description('read.things'::regclass, 2) AS view, \
                col_description('gobo_g{}.things'::regclass, 2) AS table, \
                (SELECT error IS NULL FROM gobo.checkpoints) AS mended",
        first["generation"]
    );
    assert_eq!(
        database.query_json(&about).await,
        json!([{ "view": "How many there are.", "table": "How many there are.", "mended": true }])
    );
    let status = gobo.get("/admin/projections/things").expect(200).json();
    assert_eq!(status["hash"], second["hash"]);
    assert_eq!(status["version"], "2.0.0");
    // And back: the old bytes are as good as any.
    let third = go_on(&gobo, &Module::new("things")).expect(200).json();
    assert_eq!(
        (&third["outcome"], &third["hash"]),
        (&json!("swapped"), &first["hash"])
    );
}

#[tokio::test]
async fn changed_tables_are_refused_with_every_difference() {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    deploy(&gobo, &Module::new("things")).expect(201);
    let before = everything(&database).await;
    let changed = Module::new("things").describing(|descriptor| {
        let things = &mut descriptor["read_models"][0];
        things["columns"][1]["type"] = json!("int4");
        things["per_stream"] = json!(false);
        descriptor["read_models"]
            .as_array_mut()
            .unwrap()
            .push(module::model("others"));
    });
    let problem = go_on(&gobo, &changed).expect(409).json();
    assert_eq!(problem["code"], "tables_changed");
    assert_eq!(
        problem["details"],
        json!([
            "column \"number\" of \"things\" changes from int8 to int4",
            "\"things\" is no longer declared per_stream",
        ])
    );
    assert!(problem["detail"].as_str().unwrap().contains("--rebuild"));
    assert_eq!(everything(&database).await, before);
}

#[tokio::test]
async fn every_node_of_a_database_sees_a_deploy() {
    let database = Database::create().await;
    let (one, other) = (
        Gobo::start(database.url(), ""),
        Gobo::start(database.url(), ""),
    );
    deploy(&one, &Module::new("things")).expect(201);
    gobo_tests::wait_until("the other node to serve the read model", || {
        let answer = other.get("/read/things");
        match answer.status {
            200 => Ok(()),
            _ => Err(answer.text()),
        }
    });
}

#[tokio::test]
async fn a_plugin_that_this_engine_cannot_load_fails_alone() {
    let database = Database::create().await;
    let mut gobo = Gobo::start(database.url(), "");
    deploy(&gobo, &Module::new("sound")).expect(201);
    deploy(&gobo, &Module::new("newer")).expect(201);
    // As a newer engine would have left it: bytes that this one does not understand.
    let alien = "decode('0061736d0d000100', 'hex')";
    database
        .execute(&format!(
            "INSERT INTO gobo.plugins (hash, bytes, name, version) VALUES (sha256({alien} || '\\x00'), {alien} || '\\x00', 'newer', '');
             UPDATE gobo.generations SET plugin_hash = sha256({alien} || '\\x00') WHERE projection = 'newer';
             UPDATE gobo.checkpoints SET plugin_hash = sha256({alien} || '\\x00')
              WHERE generation = (SELECT live FROM gobo.projections WHERE name = 'newer')"
        ))
        .await;
    gobo.start_again();
    let status = gobo.get("/admin/projections/newer").expect(200).json();
    assert_eq!(status["state"], "failed", "{status}");
    let reason = status["error"]["message"].as_str().unwrap();
    assert!(reason.contains("cannot load"), "{reason}");
    gobo.get("/read/sound").expect(200);
    gobo.wait_until_ready();
}

#[tokio::test]
async fn deploys_at_the_same_instant_on_two_nodes_follow_one_another() {
    let database = Database::create().await;
    let (one, other) = (
        Gobo::start(database.url(), ""),
        Gobo::start(database.url(), ""),
    );
    let mut outcomes: Vec<String> = std::thread::scope(|scope| {
        let both = [&one, &other].map(|gobo| {
            scope.spawn(move || deploy(gobo, &Module::new("things")).json()["outcome"].to_string())
        });
        both.into_iter()
            .map(|deploying| deploying.join().unwrap())
            .collect()
    });
    outcomes.sort();
    assert_eq!(outcomes, ["\"created\"", "\"unchanged\""]);
    assert_eq!(
        database
            .query_i64("SELECT count(*) FROM gobo.generations")
            .await,
        1
    );
}
