//! The documented example, which is also the list of all keys.

use toml::{Table, Value};

/// The text of `gobo.example.toml`.
const EXAMPLE: &str = include_str!("../../gobo.example.toml");

/// A key that an environment variable can set.
pub(super) struct Key {
    /// Its section; `None` at the top.
    pub(super) section: Option<String>,
    /// Its name.
    pub(super) name: String,
    /// The value in the example: it shows the type.
    pub(super) example: Value,
}

/// The key that a variable sets, if it is ours. Other variables that begin with `GOBO_` may be an orchestrator's.
pub(super) fn key_of_variable(variable: &str) -> Option<Key> {
    let wanted = match variable {
        "DATABASE_URL" => "database_url".to_owned(),
        _ => variable.strip_prefix("GOBO_")?.to_lowercase(),
    };
    keys().into_iter().find(|key| match &key.section {
        None => key.name == wanted,
        Some(section) => format!("{section}_{}", key.name) == wanted,
    })
}

/// All keys but those below names that the user chooses.
fn keys() -> Vec<Key> {
    let example: Table = toml::from_str(EXAMPLE).unwrap_or_default();
    let mut keys = Vec::new();
    for (name, value) in example {
        match value {
            Value::Table(_) if name == "sources" || name == "projections" => {}
            Value::Table(section) => keys.extend(section.into_iter().map(|(key, example)| Key {
                section: Some(name.clone()),
                name: key,
                example,
            })),
            example => keys.push(Key {
                section: None,
                name,
                example,
            }),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    /// Every key with its section; tables below user-chosen names count as one.
    fn paths(table: &Table) -> Vec<String> {
        let mut paths = Vec::new();
        for (name, value) in table {
            match value {
                Value::Table(section) => {
                    paths.extend(section.keys().map(|key| format!("{name}.{key}")));
                }
                _ => paths.push(name.clone()),
            }
        }
        paths.sort();
        paths
    }

    #[test]
    fn the_example_is_a_configuration_and_lists_every_key() {
        let config =
            Config::parse(EXAMPLE, Path::new("gobo.example.toml"), std::iter::empty()).unwrap();
        assert!(config.plugins.watch.is_some() && config.plugins.cache_dir.is_some());
        let example: Table = toml::from_str(EXAMPLE).unwrap();
        assert_eq!(paths(&Table::try_from(&config).unwrap()), paths(&example));
    }

    #[test]
    fn the_example_shows_the_defaults() {
        let mut config: Config = toml::from_str(EXAMPLE).unwrap();
        config.plugins = Default::default();
        config.database.url.clear();
        config.redis.url.clear();
        config.engine.failures_dir = None;
        config.sources.clear();
        config.projections.clear();
        assert_eq!(
            Table::try_from(&config).unwrap(),
            Table::try_from(Config::default()).unwrap()
        );
    }
}
