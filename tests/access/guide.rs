//! `docs/access.md`: its commands are run, and its configuration is read.

use std::path::Path;
use std::process::{Command, Output};

use gobo_tests::{Database, Gobo, gobo_binary, workspace};

fn guide() -> String {
    std::fs::read_to_string(workspace().join("docs/access.md")).unwrap()
}

/// What stands between fences of this kind.
fn blocks<'g>(guide: &'g str, kind: &str) -> Vec<&'g str> {
    let fence = format!("```{kind}\n");
    let parts = guide.split(fence.as_str()).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap())
        .collect()
}

/// A shell in which `gobo` is the engine's.
fn shell(command: &str, folder: &Path, environment: &[(&str, &str)]) -> Output {
    let programs = gobo_binary().parent().unwrap().to_str().unwrap();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .current_dir(folder)
        .env("PATH", path);
    shell.envs(environment.iter().copied()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_guide_do_what_it_says() {
    let guide = guide();
    let database = Database::create().await;
    let folder = tempfile::tempdir().unwrap();
    let config = blocks(&guide, "toml")[0]
        .replace("postgresql://gobo@localhost/gobo", database.url())
        .replace("0.0.0.0:7171", "127.0.0.1:0");
    std::fs::write(folder.path().join("gobo.toml"), &config).unwrap();
    let commands = guide.lines().filter_map(|line| line.strip_prefix("$ "));
    let (mut gobo, mut token): (Option<Gobo>, String) = (None, String::new());
    let mut run = Vec::new();
    for command in commands {
        if command.starts_with("gobo serve") {
            let serving = Gobo::try_serve(&config).unwrap();
            serving
                .request(
                    "POST",
                    "/admin/projections",
                    &[("authorization", &format!("Bearer {token}"))],
                    &gobo_tests::wasm_bytes("orders"),
                )
                .expect(201);
            gobo = Some(serving);
            continue;
        }
        if command.starts_with("export GOBO_TOKEN=") {
            continue;
        }
        let url = gobo.as_ref().map_or("", Gobo::url);
        let here = command.replace("http://localhost:7171", url).replacen(
            "curl ",
            "curl --fail --silent --show-error ",
            1,
        );
        let environment = [
            ("GOBO_URL", url),
            ("GOBO_TOKEN", &token),
            ("DATABASE_URL", database.url()),
        ];
        let output = shell(&here, folder.path(), &environment);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{command}: {output:?}");
        if run.is_empty() {
            assert!(printed.starts_with("gobo_"), "{printed}");
            token = printed.trim_end().to_owned();
        }
        run.push(command);
    }
    assert!(gobo.is_some() && run.len() >= 7, "{run:?}");
}

#[test]
fn the_configuration_of_the_guide_is_accepted() {
    let guide = guide();
    let folder = tempfile::tempdir().unwrap();
    let blocks = blocks(&guide, "toml");
    assert!(blocks.len() >= 4, "{blocks:?}");
    for block in blocks {
        std::fs::write(folder.path().join("gobo.toml"), block).unwrap();
        let environment = [
            ("GOBO_ACCESS_TOKENS", "true"),
            ("DATABASE_URL", "postgresql://x@localhost/x"),
        ];
        let output = shell(
            "gobo serve --check --config gobo.toml",
            folder.path(),
            &environment,
        );
        assert!(output.status.success(), "{block}: {output:?}");
    }
}
