//! Filters with long lists.

use serde_json::{Value, json};

use super::follow::Stream;
use crate::scene::{Event, Scene, raw};

fn put(id: &str, n: i64) -> Event {
    raw("s", json!({"do": "put", "id": id, "n": n}))
}

fn list(range: std::ops::Range<i64>) -> String {
    let values: Vec<String> = range.map(|n| n.to_string()).collect();
    format!("({})", values.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_a_thousand_values_together_are_followed_and_longer_ones_are_refused() {
    let scene = Scene::new("", &["raw-guest"]).await;
    let last = scene.append(&[put("a", 999)]).await[0];
    scene.wait_for("raw", last);
    let most = [
        format!("c_int8=in.{}", list(0..1_000)),
        format!(
            "or=(c_int8.in.{},c_int8.in.{})&id=neq.x",
            list(0..500),
            list(500..1_000)
        ),
        format!(
            "c_int8=not.in.{}&and=(c_int8.in.{})",
            list(2_000..2_500),
            list(500..1_000)
        ),
    ];
    for filter in most {
        let path = format!("/read/raw?select=id&{filter}");
        let mut stream = Stream::open(scene.gobo.url(), &path, "");
        assert_eq!(stream.next().unwrap().data["rows"], json!([{"id": "a"}]));
        scene.append(&[put("a", 1_000), put("b", 999)]).await;
        let mut told = Vec::new();
        while told.len() < 2 {
            let event = stream.next().unwrap();
            told.extend(event.data["changes"].as_array().unwrap().clone());
        }
        told.sort_by_key(|change| change["key"].to_string());
        assert_eq!(
            told,
            [
                json!({"op": "delete", "key": ["a"]}),
                json!({"op": "upsert", "key": ["b"], "row": {"id": "b"}})
            ]
        );
        let last = scene
            .append(&[put("a", 999), raw("s", json!({"do": "delete", "id": "b"}))])
            .await[1];
        scene.wait_for("raw", last);
        // Once more would be too many; for those who read once it is not.
        let longer = format!("{path}&c_int8=not.in.(3000)");
        let refused = Stream::open(scene.gobo.url(), &longer, "");
        assert_eq!(refused.status, 400);
        let refused: Value = serde_json::from_str(&refused.rest()).unwrap();
        assert_eq!(refused["reason"], "query_too_large");
        assert!(refused["hint"].is_string(), "{refused}");
        scene.gobo.get(&longer).expect(200);
    }
}
