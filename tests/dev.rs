//! `gobo dev` in the folder of a plugin's crate: saving a source is all that it takes.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gobo_cluster::Supervised;
use gobo_cluster::supervise::Task;
use gobo_tests::{Database, PATIENCE, Signal, gobo_binary, wait_until, workspace};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The README's projection, as somebody would have it in a folder of their own.
struct Crate {
    folder: TempDir,
}

impl Crate {
    fn new() -> Self {
        let folder = TempDir::with_prefix("gobo-dev-").unwrap();
        let sdk = workspace().join("sdk");
        let manifest = format!(
            "[package]\nname = \"page-views\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\n\
             gobo-sdk = {{ path = {sdk:?} }}\n\n[dev-dependencies]\nserde_json = \"1\"\n\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]\n"
        );
        let this = Self { folder };
        std::fs::create_dir(this.path("src")).unwrap();
        this.write("Cargo.toml", &manifest);
        // The versions that are here already: nothing is asked of the network.
        std::fs::copy(workspace().join("Cargo.lock"), this.path("Cargo.lock")).unwrap();
        this.write("src/lib.rs", &code());
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As most editors do it, so that nobody reads half of it.
    fn write(&self, name: &str, text: &str) {
        let beside = self.path(&format!("{name}.tmp"));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.path(name)).unwrap();
    }

    /// A program of its own, in the folder `bin`.
    fn program(&self, name: &str, script: &str) {
        std::fs::create_dir_all(self.path("bin")).unwrap();
        let path = self.path("bin").join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    /// Makes every view count so many times.
    fn count(&self, times: u32) {
        let code = code().replace("row.views += 1;", &format!("row.views += {times};"));
        self.write("src/lib.rs", &code);
    }
}

/// The README's code.
fn code() -> String {
    let guest = workspace().join("tests/guests/page-views/src/lib.rs");
    std::fs::read_to_string(guest).unwrap()
}

/// A running `gobo dev`.
struct Dev {
    process: Supervised,
    output: PathBuf,
    url: String,
}

impl Dev {
    fn start(folder: &Path, database: &Database) -> Self {
        let output = folder.join("dev.output");
        let mut process = Supervised::start(&task(folder, database.url(), &output)).unwrap();
        let url = wait_until("gobo dev to listen", || {
            let printed = read(&output);
            assert_eq!(process.ended().unwrap(), None, "{printed}");
            let line = printed
                .lines()
                .find_map(|line| line.strip_prefix("listening on "));
            line.map(str::to_owned).ok_or(printed)
        });
        Self {
            process,
            output,
            url,
        }
    }

    fn printed(&self) -> String {
        read(&self.output)
    }

    /// Waits until it has printed this so many times in all.
    fn wait_for(&self, words: &str, times: usize) {
        wait_until(words, || {
            let printed = self.printed();
            match printed.matches(words).count() >= times {
                true => Ok(()),
                false => Err(printed),
            }
        });
    }

    /// It may have to compile all that the plugin depends on, which takes longer than a test waits for anything; but every
    /// now and then cargo says what it is at.
    fn wait_for_first_build(&self) {
        let mut printed = self.printed();
        while !printed.contains("deployed page-views as generation 1") {
            assert!(!printed.contains("failed: "), "{printed}");
            printed = wait_until("the first build to go on", || match self.printed() {
                more if more.len() > printed.len() => Ok(more),
                same => Err(same),
            });
        }
    }

    fn views(&self) -> Value {
        let url = format!("{}/read/page_views?select=page,views", self.url);
        let mut answer = ureq::get(&url).call().unwrap();
        answer.body_mut().read_json().unwrap()
    }

    fn wait_for_views(&self, views: u32) {
        let wanted = json!([{"page": "/", "views": views}]);
        wait_until("the rows to change by themselves", || {
            let seen = self.views();
            match seen == wanted {
                true => Ok(()),
                false => Err((seen, self.printed())),
            }
        });
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn task(folder: &Path, database: &str, output: &Path) -> Task {
    let mut environment = xtask::serve::plain_environment();
    for name in ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        environment.extend(std::env::var_os(name).map(|value| (name.into(), value)));
    }
    // Kept between runs, so that only the first one compiles what the plugin depends on.
    let target = workspace().join("target/dev-test");
    environment.push(("CARGO_TARGET_DIR".into(), target.into()));
    environment.push(("CARGO_NET_OFFLINE".into(), "true".into()));
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--database-url", database];
    Task {
        program: gobo_binary().to_owned(),
        arguments: arguments.iter().map(Into::into).collect(),
        environment,
        folder: folder.to_owned(),
        log: output.to_owned(),
        stop: Signal::Int,
        grace: Duration::from_secs(30),
        remove: None,
    }
}

/// The processes that work in a folder, by what is known of them to the system.
fn processes_in(folder: &Path) -> Vec<PathBuf> {
    let real = folder.canonicalize().unwrap();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.map(|process| process.path())
        .filter(|process| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == real))
        .collect()
}

async fn view_twice(dev: &Dev) {
    let event = json!({"type": "PageViewed", "data": {"page": "/"}});
    let url = format!("{}/streams/visit-1/events", dev.url);
    ureq::post(&url)
        .send_json(json!({"events": [event, event]}))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_source_shows_in_the_rows_and_one_that_does_not_compile_leaves_them() {
    let database = Database::create().await;
    let plugin = Crate::new();
    let mut dev = Dev::start(plugin.folder.path(), &database);
    dev.wait_for_first_build();
    view_twice(&dev).await;
    dev.wait_for_views(2);

    plugin.count(10);
    dev.wait_for_views(20);
    dev.wait_for("is live as generation 2", 1);

    let broken = code().replace("row.views += 1;", "row.views += nothing_like_that;");
    plugin.write("src/lib.rs", &broken);
    dev.wait_for("page-views does not build; what runs stays", 1);
    let line = broken
        .lines()
        .position(|line| line.contains("nothing_like_that"));
    let place = format!("src/lib.rs:{}", line.unwrap() + 1);
    let printed = dev.printed();
    assert!(
        printed.contains("cannot find value `nothing_like_that`"),
        "{printed}"
    );
    assert!(printed.contains(&place), "{printed}");
    dev.wait_for_views(20);

    // What the plugin is not made of is none of its business; the change after it is.
    let builds = dev.printed().matches("building page-views ...").count();
    plugin.write("README.md", "Nothing to compile.");
    plugin.write("src/.lib.rs.swp", "An editor's own.");
    plugin.count(100);
    dev.wait_for_views(200);
    dev.wait_for("is live as generation 3", 1);
    let printed = dev.printed();
    assert_eq!(
        printed.matches("building page-views ...").count(),
        builds + 1,
        "{printed}"
    );

    // In the middle of a build.
    plugin.count(1000);
    dev.wait_for("building page-views ...", builds + 2);
    dev.process.signal(Signal::Int).unwrap();
    assert_eq!(dev.process.wait(PATIENCE).unwrap(), 0, "{}", dev.printed());
    wait_until("cargo to be gone", || {
        let left = processes_in(plugin.folder.path());
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_for_building_is_said_before_anything_is_started() {
    let refused = |change: &dyn Fn(&Crate, &mut Task), words: &str| {
        let plugin = Crate::new();
        let output = plugin.path("dev.output");
        let mut task = task(
            plugin.folder.path(),
            "postgresql://nobody@/nowhere",
            &output,
        );
        change(&plugin, &mut task);
        let mut process = Supervised::start(&task).unwrap();
        let code = process.wait(PATIENCE).unwrap();
        let printed = read(&output);
        assert!(code != 0 && printed.contains(words), "{code}: {printed}");
    };
    refused(
        &|plugin, _| {
            let manifest = read(&plugin.path("Cargo.toml"));
            plugin.write("Cargo.toml", manifest.split("[lib]").next().unwrap());
        },
        "crate-type = [\"cdylib\", \"rlib\"]",
    );
    refused(
        &|_, task| {
            task.environment.retain(|(name, _)| name != "PATH");
            task.environment.push(("PATH".into(), "/nowhere".into()));
        },
        "cargo is not found",
    );
    refused(
        &|plugin, task| {
            // A Rust without the target, whose rustup cannot get it.
            let rustc = "#!/bin/sh\nexport PATH=\"${PATH#*:}\"\ncase \"$*\" in *target-libdir*) echo /nowhere;; *) exec rustc \"$@\";; esac\n";
            plugin.program("rustc", rustc);
            plugin.program("rustup", "#!/bin/sh\necho \"asked: $*\"; exit 1\n");
            let usual = std::env::var("PATH").unwrap();
            let path = format!("{}:{usual}", plugin.path("bin").display());
            task.environment.retain(|(name, _)| name != "PATH");
            task.environment.push(("PATH".into(), path.into()));
        },
        "asked: target add wasm32-unknown-unknown\nerror: rustup could not add the target",
    );
    refused(
        &|_, task| task.arguments.extend(["--crate".into(), "/".into()]),
        "has no Cargo.toml",
    );
}
