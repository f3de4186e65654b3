//! Rows that belong together because a third read model refers to both: many to many.

use gobo::read_model::ReadModel;
use serde_json::{Value, json};

use super::bench::{Bench, model};
use super::embed::{check, refer};

fn members(name: &str, more: &str, key: &[&str]) -> ReadModel {
    let mut members = model(
        name,
        &format!("user_id text, team_id int4, role text{more}"),
        key,
    );
    let reference = |what: &str| format!("{name}_{what}_fkey");
    refer(&mut members, &reference("user"), &["user_id"], "users");
    refer(&mut members, &reference("team"), &["team_id"], "teams");
    members
}

/// Ann is in both teams, Bob in one, Carl in none. Each read model is another projection's.
async fn club() -> Bench {
    let bench = Bench::new().await;
    let users = model("users", "user_id text, name text", &["user_id"]);
    let teams = model("teams", "team_id int4, name text, town text", &["team_id"]);
    let members = members("members", "", &["user_id", "team_id"]);
    for (generation, model) in [(1, &users), (2, &teams), (3, &members)] {
        bench.deploy(generation, model).await;
    }
    bench
        .sql(
            "insert into gobo_g1.users values ('ann', 'Ann'), ('bob', 'Bob'), ('carl', 'Carl');
             insert into gobo_g2.teams values (1, 'Red', 'Bern'), (2, 'Blue', 'Basel'), (3, 'Green', 'Bern');
             insert into gobo_g3.members values ('ann', 1, 'captain'), ('ann', 2, 'goal'), ('bob', 1, 'goal'), ('dora', 2, 'goal');
             update gobo.checkpoints set position = 40 where generation = 1;
             update gobo.checkpoints set position = 50 where generation = 2;
             update gobo.checkpoints set position = 30 where generation = 3",
        )
        .await;
    bench
}

#[tokio::test]
async fn rows_are_related_through_one_that_refers_to_both_with_its_key() {
    let bench = club().await;
    let both = json!([{"name": "Red"}, {"name": "Blue"}]);
    check(
        &bench,
        &[
            (
                "users?select=name,teams(name)",
                json!([
                    {"name": "Ann", "teams": both},
                    {"name": "Bob", "teams": [{"name": "Red"}]},
                    {"name": "Carl", "teams": []},
                ]),
            ),
            (
                "teams?select=name,users(user_id)&order=name",
                json!([
                    {"name": "Blue", "users": [{"user_id": "ann"}]},
                    {"name": "Green", "users": []},
                    {"name": "Red", "users": [{"user_id": "ann"}, {"user_id": "bob"}]},
                ]),
            ),
            // Through which one may be said; a name of its own; within another embed; the one between beside it.
            (
                "users?select=plays:teams!members(name)&user_id=eq.ann",
                json!([{"plays": both}]),
            ),
            (
                "users?select=teams(name,users(name))&user_id=eq.bob",
                json!([{"teams": [{"name": "Red", "users": [{"name": "Ann"}, {"name": "Bob"}]}]}]),
            ),
            (
                "users?select=members(role,teams(name)),teams(team_id)&user_id=eq.bob",
                json!([{"members": [{"role": "goal", "teams": {"name": "Red"}}], "teams": [{"team_id": 1}]}]),
            ),
            // Filters, order and pages of the embedded rows, tests of the whole, functions.
            (
                "users?select=name,teams(name)&teams.town=eq.Basel&user_id=neq.carl",
                json!([{"name": "Ann", "teams": [{"name": "Blue"}]}, {"name": "Bob", "teams": []}]),
            ),
            (
                "users?select=teams(name)&teams.order=name&teams.limit=1&user_id=eq.ann",
                json!([{"teams": [{"name": "Blue"}]}]),
            ),
            (
                "users?select=teams(name)&teams.offset=1&user_id=eq.ann",
                json!([{"teams": [{"name": "Blue"}]}]),
            ),
            (
                "users?select=name,teams!inner()&teams.name=eq.Red",
                json!([{"name": "Ann"}, {"name": "Bob"}]),
            ),
            (
                "users?select=name,teams()&teams=is.null",
                json!([{"name": "Carl"}]),
            ),
            (
                "users?select=name,teams(count(),team_id.max())&order=name.desc",
                json!([
                    {"name": "Carl", "teams": [{"count": 0, "max": null}]},
                    {"name": "Bob", "teams": [{"count": 1, "max": 1}]},
                    {"name": "Ann", "teams": [{"count": 2, "max": 2}]},
                ]),
            ),
            (
                "users?select=teams(town,count())&user_id=eq.ann&teams.order=town",
                json!([{"teams": [{"town": "Basel", "count": 1}, {"town": "Bern", "count": 1}]}]),
            ),
        ],
    )
    .await;
    let row = bench.get("/read/users/ann?select=teams(name)").await;
    assert_eq!(row.json(), json!({"teams": both}));
}

#[tokio::test]
async fn an_answer_is_no_fresher_than_the_rows_between() {
    let bench = club().await;
    let query = "/read/users?select=name,teams(name)";
    let before = bench.get(query).await;
    assert_eq!(before.header("gobo-position"), "30");
    bench
        .sql("update gobo.read_models set revision = revision + 1 where name = 'members'")
        .await;
    let tag = before.header("etag");
    let after = bench.send("GET", query, &[("if-none-match", tag)]).await;
    assert_eq!(after.status, 200);
    let late = bench
        .get(&format!("{query}&min_position=35&wait=0ms"))
        .await;
    assert_eq!(late.status, 503, "{}", late.body);
}

#[tokio::test]
async fn of_several_ways_a_reference_is_meant_first_and_others_have_to_be_named() {
    let bench = club().await;
    bench
        .deploy(4, &members("fans", "", &["team_id", "user_id"]))
        .await;
    bench
        .sql("insert into gobo_g4.fans values ('carl', 3, 'loud')")
        .await;
    let several = bench.get("/read/users?select=teams(name)").await;
    assert_eq!(several.status, 300, "{}", several.body);
    let problem = several.json();
    assert_eq!(problem["code"], "PGRST201");
    let hint = problem["hint"].as_str().unwrap();
    assert!(hint.contains("'teams!fans', 'teams!members'"), "{hint}");
    assert_eq!(
        problem["details"][1],
        json!({
            "cardinality": "many-to-many",
            "embedding": "users with teams",
            "relationship": "members using members_user_fkey(user_id) and members_team_fkey(team_id)",
        })
    );
    let carl =
        "/read/users?user_id=eq.carl&select=plays:teams!members(name),likes:teams!fans(name)";
    assert_eq!(
        Value::from(bench.rows(carl).await),
        json!([{"plays": [], "likes": [{"name": "Green"}]}])
    );
    let other = bench.get("/read/users?select=teams!nobody(name)").await;
    assert_eq!(
        (other.status.as_u16(), other.code().as_str()),
        (400, "PGRST200")
    );
    assert!(
        other.body.contains("what leads there: fans, members"),
        "{}",
        other.body
    );

    // With a reference of its own, nothing else is guessed; unless it is asked for.
    let mut users = model(
        "users",
        "user_id text, name text, team_id int4?",
        &["user_id"],
    );
    refer(&mut users, "users_team_fkey", &["team_id"], "teams");
    bench.deploy(5, &users).await;
    bench
        .sql("insert into gobo_g5.users values ('ann', 'Ann', 3)")
        .await;
    let rows = bench
        .rows("/read/users?select=teams(name),all:teams!members(name)")
        .await;
    assert_eq!(
        Value::from(rows),
        json!([{"teams": {"name": "Green"}, "all": [{"name": "Red"}, {"name": "Blue"}]}])
    );
}

#[tokio::test]
async fn nothing_is_guessed_that_is_no_key_or_leads_back() {
    let bench = Bench::new().await;
    let users = model("users", "user_id text, name text", &["user_id"]);
    let teams = model("teams", "team_id int4, name text", &["team_id"]);
    // Its key is a number of its own: it may relate the same two more than once.
    let notes = members("notes", ", id int8", &["id"]);
    // Two references to the same one: who is whose friend cannot be told.
    let mut friends = model("friends", "one text, other text", &["one", "other"]);
    refer(&mut friends, "friends_one", &["one"], "users");
    refer(&mut friends, "friends_other", &["other"], "users");
    // A reference that is the whole key is one-to-one.
    let mut wages = model("wages", "user_id text, team_id int4", &["user_id"]);
    refer(&mut wages, "wages_user", &["user_id"], "users");
    refer(&mut wages, "wages_team", &["team_id"], "teams");
    let mut lines = model(
        "lines",
        "user_id text, team_id int4",
        &["user_id", "team_id"],
    );
    refer(&mut lines, "lines_of", &["user_id", "team_id"], "seasons");
    refer(&mut lines, "lines_user", &["user_id"], "users");
    for (generation, model) in [
        (1, &users),
        (2, &teams),
        (3, &notes),
        (4, &friends),
        (6, &wages),
        (7, &lines),
    ] {
        bench.deploy(generation, model).await;
    }
    for query in [
        "users?select=teams(name)",
        "teams?select=users(name)",
        "users?select=users(name)",
    ] {
        let refused = bench.get(&format!("/read/{query}")).await;
        assert_eq!(
            (refused.status.as_u16(), refused.code().as_str()),
            (400, "PGRST200"),
            "{query}: {}",
            refused.body
        );
    }
    let whole = members("seasons", "", &["user_id", "team_id"]);
    let mut whole = whole;
    whole.references.clear();
    bench.deploy(8, &whole).await;
    let refused = bench.get("/read/users?select=seasons(role)").await;
    assert_eq!(refused.code(), "PGRST200", "{}", refused.body);
    // Rows of a key with more columns relate the same two as often as there are such rows.
    let seasons = members("seasons", ", year int4", &["user_id", "team_id", "year"]);
    bench.deploy(5, &seasons).await;
    bench
        .sql(
            "insert into gobo_g1.users values ('ann', 'Ann'); insert into gobo_g2.teams values (1, 'Red');
             insert into gobo_g5.seasons values ('ann', 1, 'goal', 2024), ('ann', 1, 'goal', 2025)",
        )
        .await;
    assert_eq!(
        Value::from(bench.rows("/read/users?select=teams(name)").await),
        json!([{"teams": [{"name": "Red"}, {"name": "Red"}]}])
    );
}

#[tokio::test]
async fn references_of_several_columns_are_followed_column_by_column() {
    let bench = Bench::new().await;
    let projects = model(
        "projects",
        "tenant text, id int4, name text",
        &["tenant", "id"],
    );
    let people = model(
        "people",
        "tenant text, id int4, name text",
        &["tenant", "id"],
    );
    let mut work = model(
        "work",
        "person int4, project int4, tenant text",
        &["tenant", "person", "project"],
    );
    refer(
        &mut work,
        "work_project",
        &["tenant", "project"],
        "projects",
    );
    refer(&mut work, "work_person", &["person", "tenant"], "people");
    work.references[1].target_columns = Some(vec!["id".to_owned(), "tenant".to_owned()]);
    for (generation, model) in [(1, &projects), (2, &people), (3, &work)] {
        bench.deploy(generation, model).await;
    }
    bench
        .sql(
            "insert into gobo_g1.projects values ('a', 1, 'A1'), ('a', 2, 'A2'), ('b', 1, 'B1');
             insert into gobo_g2.people values ('a', 1, 'Ann'), ('a', 2, 'Al'), ('b', 1, 'Bob');
             insert into gobo_g3.work values (1, 2, 'a'), (2, 2, 'a'), (1, 1, 'b')",
        )
        .await;
    check(
        &bench,
        &[
            (
                "people?select=name,projects(name)",
                json!([
                    {"name": "Ann", "projects": [{"name": "A2"}]},
                    {"name": "Al", "projects": [{"name": "A2"}]},
                    {"name": "Bob", "projects": [{"name": "B1"}]},
                ]),
            ),
            (
                "projects?select=name,...people(who:name)&people.order=name",
                json!([
                    {"name": "A1", "who": []},
                    {"name": "A2", "who": ["Al", "Ann"]},
                    {"name": "B1", "who": ["Bob"]},
                ]),
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn where_no_hint_tells_the_ways_apart_the_one_between_is_to_be_embedded() {
    let bench = Bench::new().await;
    let leagues = model("leagues", "league_id int4", &["league_id"]);
    let teams = model("teams", "team_id int4, name text", &["team_id"]);
    let key = ["league_id", "home", "away"];
    let mut matches = model("matches", "league_id int4, home int4, away int4", &key);
    refer(&mut matches, "matches_league", &["league_id"], "leagues");
    refer(&mut matches, "matches_home", &["home"], "teams");
    refer(&mut matches, "matches_away", &["away"], "teams");
    for (generation, model) in [(1, &leagues), (2, &teams), (3, &matches)] {
        bench.deploy(generation, model).await;
    }
    let several = bench.get("/read/leagues?select=teams(name)").await;
    assert_eq!(several.status, 300, "{}", several.body);
    let hint = "matches(teams!matches_home(*))";
    assert!(several.body.contains(hint), "{}", several.body);
    bench.rows(&format!("/read/leagues?select={hint}")).await;
}
