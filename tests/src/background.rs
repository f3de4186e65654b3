//! Commands of `gobo` that go on until they are ended.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gobo_cluster::supervise::Task;
use gobo_cluster::{Signal, Supervised};

use crate::build::gobo_binary;
use crate::wait::wait_until;

/// A running `gobo`. It ends when this is dropped or when the test process ends.
#[derive(Debug)]
pub struct Background {
    process: Supervised,
    output: PathBuf,
}

impl Background {
    /// Starts `gobo` with these arguments in a folder, in which its output is kept as well.
    pub fn start(folder: &Path, arguments: &[&str]) -> Background {
        let output = folder.join(format!("{}.output", arguments[0]));
        let task = Task {
            program: gobo_binary().to_owned(),
            arguments: arguments.iter().map(Into::into).collect(),
            environment: xtask::serve::plain_environment(),
            folder: folder.to_owned(),
            log: output.clone(),
            stop: Signal::Term,
            grace: Duration::from_secs(30),
            remove: None,
        };
        let process = Supervised::start(&task).expect("start gobo");
        Background { process, output }
    }

    /// Everything that it has printed.
    pub fn printed(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Waits until `look` finds something in what it has printed.
    pub fn wait_for<T>(&mut self, what: &str, look: impl Fn(&str) -> Option<T>) -> T {
        wait_until(what, || {
            let printed = self.printed();
            if let Some(code) = self.process.ended().expect("look after gobo") {
                panic!("waiting for {what}: gobo ended with {code}: {printed}");
            }
            look(&printed).ok_or(printed)
        })
    }

    /// SIGKILL: it ends without being asked.
    pub fn kill(&mut self) {
        self.process.kill().expect("kill gobo");
    }

    /// Asks it to end and waits for the end. Returns the exit code.
    pub fn terminate(&mut self) -> i32 {
        self.process.stop().expect("end gobo")
    }
}
