//! What the guides in `docs` ask is answered.

use std::process::Command;

use gobo_tests::{Gobo, workspace};

use crate::clients::library;
use crate::scene::{Scene, matched, order};

/// The calls of curl in the shell's blocks of a guide. A call goes on to the next one, or to the block's end.
fn calls(guide: &str) -> Vec<String> {
    let text = std::fs::read_to_string(workspace().join("docs").join(guide)).unwrap();
    let mut calls: Vec<String> = Vec::new();
    let mut is_shell = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(language) => is_shell = language == "sh",
            None if is_shell && line.starts_with("curl ") => calls.push(line.to_owned()),
            None => {
                if let Some(call) = calls.last_mut().filter(|_| is_shell) {
                    call.push('\n');
                    call.push_str(line);
                }
            }
        }
    }
    calls
}

/// Does what a guide says, with the engine's own address.
fn answer(gobo: &Gobo, call: &str) -> String {
    let here = gobo.url().trim_start_matches("http://");
    let call = call.replace("127.0.0.1:7171", here);
    let call = call.replace("localhost:7171", here);
    let shown = call.replacen("curl ", "curl --fail --silent --show-error ", 1);
    let output = Command::new("sh").args(["-c", &shown]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{call}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_guide_to_reading_asks_is_answered() {
    let scene = library().await;
    let calls = calls("reading.md");
    assert!(calls.len() > 10, "{calls:?}");
    for call in calls {
        let answer = answer(&scene.gobo, &call);
        assert!(!["", "[]"].contains(&&*answer), "{call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn characters_that_need_no_escape_in_an_address_are_those_that_the_guide_names() {
    let scene = library().await;
    // Without a body the answer is not the engine's.
    for (title, expected) in [
        (r#""The"#, "400 0"),
        ("a<b", "400 0"),
        ("a>b", "400 0"),
        ("{a|b}^`", "[]200 2"),
        ("Éclairs", "[]200 2"),
    ] {
        let address = format!("{}/read/books?title=like.{title}", scene.gobo.url());
        let curl = [
            "--globoff",
            "--silent",
            "--write-out",
            "%{http_code} %{size_download}",
        ];
        let sent = Command::new("curl")
            .args(curl)
            .arg(&address)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&sent.stdout).into_owned();
        assert_eq!(said, expected, "{title}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_guide_to_freshness_asks_is_answered() {
    let scene = Scene::new("", &["orders", "trading-stats"]).await;
    let positions = scene.append(&[order("1"), matched("1", "3")]).await;
    for projection in ["orders", "trading-stats"] {
        scene.wait_for(projection, positions[1]);
    }
    let [read, append] = &calls("freshness.md")[..] else {
        panic!("{:?}", calls("freshness.md"));
    };
    let rows: serde_json::Value = serde_json::from_str(&answer(&scene.gobo, read)).unwrap();
    assert_eq!(rows["data"].as_array().unwrap().len(), 1);
    assert_eq!(rows["metadata"]["position"], positions[1]);
    // However slow the machine is.
    let append = append.replace("wait=2s", "wait=30s");
    let appended: serde_json::Value = serde_json::from_str(&answer(&scene.gobo, &append)).unwrap();
    for one in appended["waited_for"].as_array().unwrap() {
        assert_eq!(one["reached"], true, "{appended}");
        assert_eq!(one["dead_letters"], serde_json::Value::Null, "{appended}");
    }
}
