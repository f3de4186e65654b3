//! File and environment -> [`Config`].

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{Config, example};
use crate::query::nearest;

/// A configuration that is not accepted. The text names the place, the cause and the fix.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has a mistake.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, where.
        message: String,
    },
    /// An environment variable has a mistake.
    #[error("environment variable {name}: {message}")]
    Environment {
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A value makes no sense.
    #[error("{key}: {message}")]
    Value {
        /// The key with its section.
        key: String,
        /// What is wrong.
        message: String,
    },
}

impl Config {
    /// Reads `file` (none: only defaults) and puts the environment on top: `GOBO_<KEY>`, `GOBO_<SECTION>_<KEY>`, and
    /// `DATABASE_URL`. The result is checked.
    pub fn read(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let text = match file {
            None => String::new(),
            Some(path) => {
                std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
                    path: path.to_owned(),
                    source,
                })?
            }
        };
        let shown = file.unwrap_or(Path::new("(no file)"));
        Self::parse(&text, shown, environment)
    }

    /// The same for text that came from `path`.
    pub fn parse(
        text: &str,
        path: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let refuse = |error: toml::de::Error| ConfigError::File {
            path: path.to_owned(),
            message: explain(&error.to_string()),
        };
        // Twice, because only the text knows lines: the file's own mistakes are reported with them.
        toml::from_str::<Config>(text).map_err(refuse)?;
        let mut table: Table = toml::from_str(text).map_err(refuse)?;
        for (name, value) in in_order(environment) {
            if let Some(key) = example::key_of_variable(&name) {
                set(&mut table, &key, &value).map_err(|message| ConfigError::Environment {
                    name: name.clone(),
                    message,
                })?;
                if let Err(error) = table.clone().try_into::<Config>() {
                    let message = explain(error.message());
                    return Err(ConfigError::Environment { name, message });
                }
            }
        }
        let config: Config = table.try_into().map_err(refuse)?;
        config.check()?;
        Ok(config)
    }
}

/// Our own variables last, so that `GOBO_DATABASE_URL` wins over `DATABASE_URL`.
fn in_order(environment: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut all: Vec<_> = environment.collect();
    all.sort_by_key(|(name, _)| name.starts_with("GOBO_"));
    all
}

/// Sets `key` to the text of a variable, read as the type that the key has in the example.
fn set(table: &mut Table, key: &example::Key, text: &str) -> Result<(), String> {
    let value = match key.example {
        Value::Integer(_) => Value::Integer(
            text.trim()
                .replace('_', "")
                .parse()
                .map_err(|_| format!("\"{text}\" is no whole number"))?,
        ),
        Value::Boolean(_) => Value::Boolean(
            text.trim()
                .parse()
                .map_err(|_| format!("\"{text}\" is neither true nor false"))?,
        ),
        Value::Array(_) => {
            let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
            Value::Array(parts.map(|part| Value::String(part.to_owned())).collect())
        }
        _ => Value::String(text.to_owned()),
    };
    let mut inner = table;
    for section in &key.section {
        inner = inner
            .entry(section.clone())
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| format!("{section} is no section"))?;
    }
    inner.insert(key.name.clone(), value);
    Ok(())
}

/// Adds the nearest known key to the parser's words.
fn explain(error: &str) -> String {
    let error = error.trim_end();
    let Some(unknown) = quoted_after(error, "unknown field ") else {
        return error.to_owned();
    };
    let expected = error.split("expected ").nth(1).unwrap_or_default();
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    match nearest(unknown, known) {
        Some(near) => format!("{error}\nDid you mean `{near}`?"),
        None => error.to_owned(),
    }
}

fn quoted_after<'t>(text: &'t str, before: &str) -> Option<&'t str> {
    let rest = text.split(before).nth(1)?;
    rest.split('`').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::parse(text, Path::new("gobo.toml"), environment).map_err(|e| e.to_string())
    }

    const URL: &str = "[database]\nurl = 'postgresql:///db'\n";

    #[test]
    fn a_typing_error_is_refused_with_file_line_key_and_nearest_key() {
        let error = parse("[database]\nurl = 'x'\n[limits]\nmemory_byte = 1\n", &[]).unwrap_err();
        for part in [
            "gobo.toml",
            "line 4",
            "memory_byte",
            "Did you mean `memory_bytes`?",
        ] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let config = parse(
            URL,
            &[
                ("GOBO_LIMITS_ROUNDS", "7"),
                ("GOBO_ENGINE_SYNCHRONOUS_COMMIT", "true"),
                ("GOBO_LISTEN", "127.0.0.1:1"),
                ("GOBO_DATABASE_URL", "postgresql:///ours"),
                ("DATABASE_URL", "postgresql:///theirs"),
                ("GOBO_PORT_7171_TCP", "set by some orchestrator"),
            ],
        )
        .unwrap();
        assert_eq!(config.limits.rounds, 7);
        assert!(config.engine.synchronous_commit);
        assert_eq!(config.listen.port(), 1);
        assert_eq!(config.database.url, "postgresql:///ours");
    }

    #[test]
    fn the_environment_reaches_sections_within_sections_and_lists() {
        let config = parse(
            URL,
            &[
                ("GOBO_ACCESS_JWT_SECRET", "0123456789abcdef0123456789abcdef"),
                (
                    "GOBO_ACCESS_CORS_ORIGINS",
                    "https://a.example, https://b.example",
                ),
                ("GOBO_ACCESS_TOKENS", "true"),
            ],
        )
        .unwrap();
        assert!(config.access.tokens && config.access.jwt.is_some());
        let cors = config.access.cors.unwrap();
        assert_eq!(cors.origins, ["https://a.example", "https://b.example"]);
    }

    #[test]
    fn a_mistake_in_the_environment_names_the_variable() {
        for (name, value) in [("GOBO_LIMITS_ROUNDS", "many"), ("GOBO_LISTEN", "here")] {
            let error = parse(URL, &[(name, value)]).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
    }
}
