//! The documented example, which is also the list of all keys.

use toml::{Table, Value};

/// The text of `gobo.example.toml`.
const EXAMPLE: &str = include_str!("../../gobo.example.toml");

/// A key that an environment variable can set.
pub(super) struct Key {
    /// Its section, from the outermost on; none at the top.
    pub(super) section: Vec<String>,
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
    keys().into_iter().find(|key| {
        let parts = key.section.iter().chain([&key.name]);
        parts.map(String::as_str).collect::<Vec<_>>().join("_") == wanted
    })
}

/// Tables whose keys are names that the user chooses.
const NAMED: [&str; 3] = ["sources", "projections", "read_models"];

/// All keys but those below names that the user chooses.
fn keys() -> Vec<Key> {
    let mut example: Table = toml::from_str(EXAMPLE).unwrap_or_default();
    for name in NAMED {
        example.remove(name);
    }
    let mut keys = Vec::new();
    collect(example, &mut Vec::new(), &mut keys);
    keys
}

fn collect(table: Table, section: &mut Vec<String>, keys: &mut Vec<Key>) {
    for (name, value) in table {
        match value {
            Value::Table(inner) => {
                section.push(name);
                collect(inner, section, keys);
                section.pop();
            }
            example => keys.push(Key {
                section: section.clone(),
                name,
                example,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    /// Every key with its sections.
    fn paths(table: &Table) -> Vec<String> {
        let mut paths = Vec::new();
        for (name, value) in table {
            match value {
                Value::Table(section) => {
                    let inner = paths_below(name, section);
                    paths.extend(inner);
                }
                _ => paths.push(name.clone()),
            }
        }
        paths.sort();
        paths
    }

    fn paths_below(name: &str, section: &Table) -> Vec<String> {
        let inner = paths(section).into_iter();
        inner.map(|path| format!("{name}.{path}")).collect()
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
        config.read_models.clear();
        config.access.tokens = false;
        config.access.anonymous = None;
        config.access.jwt = None;
        config.access.cors = None;
        config.access.address_header = None;
        assert_eq!(
            Table::try_from(&config).unwrap(),
            Table::try_from(Config::default()).unwrap()
        );
    }
}
