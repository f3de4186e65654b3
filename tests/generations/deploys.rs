//! What a deploy of changed bytes decides, and why.

use gobo_tests::{Answer, Database, Gobo, connect};
use serde_json::{Value, json};

use super::{generation, generations, wait_for_stage};
use crate::deploy::module::{Module, model};

async fn things() -> (Database, Gobo) {
    let database = Database::create().await;
    let gobo = Gobo::start(database.url(), "");
    deploy(&gobo, &Module::new("things"), "").expect(201);
    (database, gobo)
}

fn deploy(gobo: &Gobo, module: &Module, wishes: &str) -> Answer {
    let path = format!("/admin/projections/things{wishes}");
    gobo.request("PUT", &path, &[], &module.bytes())
}

/// The module with more in its tables than the first one has, all of it in the way of additions.
fn richer() -> Module {
    Module::new("things").describing(|descriptor| {
        let things = &mut descriptor["read_models"][0];
        let columns = things["columns"].as_array_mut().unwrap();
        columns.insert(
            1,
            json!({ "name": "note", "type": "text", "nullable": true, "comment": "Said of it." }),
        );
        let indexes = things["indexes"].as_array_mut().unwrap();
        indexes.push(json!({ "columns": ["note"] }));
        let models = descriptor["read_models"].as_array_mut().unwrap();
        models.push(model("others"));
    })
}

fn detail(answer: &Value) -> &str {
    answer["detail"].as_str().unwrap()
}

#[tokio::test]
async fn the_author_s_wish_decides_unless_the_tables_change_and_the_operator_s_stands_above_it() {
    let (_database, gobo) = things().await;
    let continuing = |build: u32| {
        Module::new("things").build(build).describing(|descriptor| {
            descriptor["on_change"] = json!("continue");
        })
    };
    let swapped = deploy(&gobo, &continuing(1), "").expect(200).json();
    assert_eq!(swapped["outcome"], "swapped");
    let forced = deploy(&gobo, &continuing(2), "?mode=rebuild")
        .expect(202)
        .json();
    assert_eq!(forced["outcome"], "rebuilding");
    assert!(detail(&forced).contains("it was asked for"), "{forced}");
    wait_for_stage(&gobo, "things", generation(&forced), "live");
    let changed = continuing(3).describing(|descriptor| {
        descriptor["read_models"][0]["columns"][1]["type"] = json!("int4");
    });
    let rebuilt = deploy(&gobo, &changed, "").expect(202).json();
    assert!(
        detail(&rebuilt).contains("column \"number\" of \"things\" changes from int8 to int4"),
        "{rebuilt}"
    );
    wait_for_stage(&gobo, "things", generation(&rebuilt), "live");
}

#[tokio::test]
async fn additions_are_made_in_place_when_asked_to_continue() {
    let (database, gobo) = things().await;
    let live = generations(&gobo, "things")[0]["generation"]
        .as_i64()
        .unwrap();
    database
        .execute("create view public.mine as select id, number from read.things")
        .await;
    let sql = connect(database.url()).await;
    let all = sql.prepare("select * from read.things").await.unwrap();
    let some = sql
        .prepare("select id, number from read.things")
        .await
        .unwrap();
    let added = deploy(&gobo, &richer(), "?mode=continue")
        .expect(200)
        .json();
    // Documented: who asked for whatever columns there are has to ask again.
    let changed = sql.query(&all, &[]).await.unwrap_err();
    let said = changed.as_db_error().unwrap().message();
    assert_eq!(said, "cached plan must not change result type");
    sql.query(&some, &[]).await.unwrap();
    assert_eq!(
        (&added["outcome"], generation(&added)),
        (&json!("swapped"), live)
    );
    for part in ["column \"note\"", "index (note)", "read model \"others\""] {
        assert!(detail(&added).contains(part), "{added}");
    }
    gobo.get("/read/things?select=id,note").expect(200);
    gobo.get("/read/others").expect(200);
    let shape = "select string_agg(attname, ',' order by attnum) as columns, col_description('read.things'::regclass, 8) as about \
                 from pg_attribute where attrelid = 'read.things'::regclass and attnum > 0";
    assert_eq!(
        database.query_json(shape).await,
        json!([{ "columns": "id,number,tags,price,_position,_revision,_updated_at,note", "about": "Said of it." }])
    );
    database.execute("select * from public.mine").await;
    let described = "select count(*) from gobo.plugins where descriptor ->> 'name' = 'things'";
    assert_eq!(database.query_i64(described).await, 2);
    // Once more is no change.
    let again = deploy(&gobo, &richer(), "?mode=continue")
        .expect(200)
        .json();
    assert_eq!(again["outcome"], "unchanged");
    // And a rebuild gives the tables that a new projection would get, in the order that the author gave.
    let rebuilt = deploy(&gobo, &richer().build(1), "?mode=rebuild")
        .expect(202)
        .json();
    wait_for_stage(&gobo, "things", generation(&rebuilt), "live");
    gobo.get("/read/things?select=id,note").expect(200);
}

#[tokio::test]
async fn going_on_with_other_tables_is_refused_with_the_columns_that_differ() {
    let (_database, gobo) = things().await;
    let changed = richer().describing(|descriptor| {
        let columns = descriptor["read_models"][0]["columns"]
            .as_array_mut()
            .unwrap();
        columns.retain(|column| column["name"] != "price");
        columns.push(json!({ "name": "kind", "type": "text" }));
        descriptor["read_models"][0]["indexes"] = json!([]);
    });
    let refused = deploy(&gobo, &changed, "?mode=continue").expect(409).json();
    assert_eq!(refused["code"], "tables_changed");
    assert_eq!(
        refused["details"],
        json!([
            "column \"kind\" of \"things\" is new (text)",
            "column \"price\" of \"things\" is gone"
        ])
    );
    assert_eq!(generations(&gobo, "things").len(), 1);
    let unknown = deploy(&gobo, &changed, "?mode=perhaps").expect(400).json();
    assert_eq!(unknown["code"], "bad_parameter");
}

#[tokio::test]
async fn deploying_the_live_bytes_again_gives_up_what_was_on_its_way() {
    let (_database, gobo) = things().await;
    let held = deploy(&gobo, &Module::new("things").build(1), "?hold=true")
        .expect(202)
        .json();
    let again = deploy(&gobo, &Module::new("things").build(1), "?hold=true")
        .expect(200)
        .json();
    assert_eq!(
        (&again["outcome"], generation(&again)),
        (&json!("unchanged"), generation(&held))
    );
    let back = deploy(&gobo, &Module::new("things"), "").expect(200).json();
    assert_eq!(back["outcome"], "unchanged");
    assert!(detail(&back).contains("is cancelled"), "{back}");
    let stages: Vec<Value> = (generations(&gobo, "things").iter())
        .map(|one| one["stage"].clone())
        .collect();
    assert_eq!(stages, ["live"]);
}

#[tokio::test]
async fn what_was_built_on_a_view_holds_a_promotion_up_and_grants_are_carried_over() {
    let (database, gobo) = things().await;
    let reader = format!("reader_{}", std::process::id());
    let sql = connect(database.url()).await;
    sql.batch_execute(&format!(
        "create role {reader}; grant select on read.things to {reader} with grant option; \
         grant select (id) on read.things to public; \
         create view public.mine as select id, price from read.things"
    ))
    .await
    .unwrap();
    let changed = Module::new("things").describing(|descriptor| {
        let columns = descriptor["read_models"][0]["columns"]
            .as_array_mut()
            .unwrap();
        columns.retain(|column| column["name"] != "price");
        descriptor["read_models"][0]["indexes"] = json!([]);
    });
    let begun = generation(&deploy(&gobo, &changed, "").expect(202).json());
    gobo_tests::wait_until("the promotion to be held", || {
        let all = generations(&gobo, "things");
        let held = all.iter().find(|one| one["generation"] == begun).unwrap();
        let trouble = held["trouble"].as_str().unwrap_or_default();
        match held["hold"] == true && trouble.contains("view public.mine depends on") {
            true => Ok(()),
            false => Err(all.clone()),
        }
    });
    gobo.get("/read/things?select=price").expect(200);
    let refused = super::ask(&gobo, "things", "promote", json!({}))
        .expect(409)
        .json();
    assert_eq!(refused["code"], "dependent_objects");
    sql.batch_execute("drop view public.mine").await.unwrap();
    super::ask(&gobo, "things", "promote", json!({})).expect(200);
    gobo.get("/read/things?select=price").expect(400);
    let granted = format!(
        "select has_table_privilege('{reader}', 'read.things', 'select with grant option') as theirs, \
                (select count(*) from pg_attribute where attrelid = 'read.things'::regclass and attacl is not null) as columns"
    );
    assert_eq!(
        database.query_json(&granted).await,
        json!([{ "theirs": true, "columns": 1 }])
    );
    sql.batch_execute(&format!("drop owned by {reader}; drop role {reader}"))
        .await
        .unwrap();
}
