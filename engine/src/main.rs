//! The `gobo` binary.

fn main() -> std::process::ExitCode {
    gobo::cli::run()
}
