//! How a projection's loops work: what is in force, where each value comes from, and changing it while they run.
//!
//! What is decided at run time is in the database, above every node's configuration. Owners compare what their loops work
//! with with what is in force, and start them again at the next batch boundary when it differs.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio_postgres::Transaction;
use tokio_postgres::types::Json;

use super::{GenerationError, Generations, decide, tell};
use crate::config::{Config, ProjectionSettings};
use crate::projection::Settings;
use crate::query::nearest;

/// What can be changed at run time, and the key of the configuration that counts when the projection's own section has none.
const KEYS: [(&str, Option<&str>); 7] = [
    ("policy", None),
    ("linger_ms", None),
    ("batch_events", Some("engine.batch_events")),
    ("batch_bytes", Some("engine.batch_bytes")),
    ("row_cache_bytes", Some("engine.row_cache_bytes")),
    ("rebuild_bytes", Some("generations.rebuild_bytes")),
    ("synchronous_commit", Some("engine.synchronous_commit")),
];

/// One setting of a projection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Its name.
    pub key: &'static str,
    /// What is in force.
    pub value: Value,
    /// Who says so.
    pub origin: Origin,
    /// The key of the configuration that says so, or that would have to be set.
    pub configured_as: String,
    /// What would be in force, were nothing set at run time.
    pub otherwise: Value,
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Nobody has said anything else.
    Default,
    /// The configuration of the node that was asked.
    Configuration,
    /// An operator, while the engine ran.
    RunTime,
}

impl Generations {
    /// What is in force for a projection.
    pub async fn settings(&self, projection: &str) -> Result<Vec<Setting>, GenerationError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        let decided = decided(&transaction, projection).await?;
        Ok(shown(&self.config, projection, &decided))
    }

    /// Sets what `changes` says, and takes back what it says is null. All of it, or nothing.
    pub async fn change_settings(
        &self,
        projection: &str,
        changes: Map<String, Value>,
    ) -> Result<Vec<Setting>, GenerationError> {
        for (key, value) in &changes {
            check_one(projection, key, value)?;
        }
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        decide(&transaction).await?;
        let mut decided = decided(&transaction, projection).await?;
        for (key, value) in changes {
            match value {
                Value::Null => decided.remove(&key),
                value => decided.insert(key, value),
            };
        }
        transaction
            .execute(
                "update gobo.projections set settings = $2 where name = $1",
                &[&projection, &Json(&decided)],
            )
            .await?;
        tell(&*transaction).await?;
        transaction.commit().await?;
        drop(client);
        self.registry.look_again().await;
        tracing::info!(projection, settings = %json!(decided), "settings were changed");
        Ok(shown(&self.config, projection, &decided))
    }
}

/// What was decided at run time.
async fn decided(
    transaction: &Transaction<'_>,
    projection: &str,
) -> Result<Map<String, Value>, GenerationError> {
    let row = transaction
        .query_opt(
            "select settings::text from gobo.projections where name = $1 and live is not null",
            &[&projection],
        )
        .await?
        .ok_or_else(|| GenerationError::NoProjection(projection.to_owned()))?;
    Ok(serde_json::from_str(row.get(0)).unwrap_or_default())
}

/// Refuses what cannot be set, or not to this value.
fn check_one(projection: &str, key: &str, value: &Value) -> Result<(), GenerationError> {
    if key == "source" {
        return Err(GenerationError::Invalid(format!(
            "source cannot be changed while the engine runs: the checkpoint is a position in the old source, which means nothing in another one. \
             Set [projections.{projection}] source in the configuration, and deploy under a new name or remove the projection first"
        )));
    }
    let names = KEYS.map(|(name, _)| name);
    if !names.contains(&key) {
        let near = nearest(key, names).map(|near| format!(": did you mean {near}?"));
        return Err(GenerationError::Invalid(format!(
            "there is no setting \"{key}\"{} (there are {})",
            near.unwrap_or_default(),
            names.join(", ")
        )));
    }
    if value.is_null() {
        return Ok(());
    }
    let one: Map<String, Value> = [(key.to_owned(), value.clone())].into_iter().collect();
    let settings: ProjectionSettings = serde_json::from_value(one.into())
        .map_err(|error| GenerationError::Invalid(format!("{key} cannot be {value}: {error}")))?;
    let checked = settings.check("");
    checked.map_err(|error| GenerationError::Invalid(error.to_string()))
}

fn shown(config: &Config, projection: &str, decided: &Map<String, Value>) -> Vec<Setting> {
    let read = |map: &Map<String, Value>| -> ProjectionSettings {
        serde_json::from_value(map.clone().into()).unwrap_or_default()
    };
    let none = ProjectionSettings::default();
    let in_force = values(&config.loop_settings(projection, &read(decided)));
    let otherwise = values(&config.loop_settings(projection, &none));
    let by_default = values(&Config::default().loop_settings(projection, &none));
    let own = config.projections.get(projection);
    let own = own.and_then(|own| serde_json::to_value(own).ok());
    let shown = KEYS.map(|(key, general)| {
        let is_own = own.as_ref().is_some_and(|own| own.get(key).is_some());
        let origin = match () {
            () if decided.contains_key(key) => Origin::RunTime,
            () if is_own || otherwise[key] != by_default[key] => Origin::Configuration,
            () => Origin::Default,
        };
        let own_key = format!("projections.{projection}.{key}");
        Setting {
            key,
            value: in_force[key].clone(),
            origin,
            configured_as: match general.filter(|_| !is_own) {
                Some(general) => general.to_owned(),
                None => own_key,
            },
            otherwise: otherwise[key].clone(),
        }
    });
    shown.to_vec()
}

fn values(settings: &Settings) -> BTreeMap<&'static str, Value> {
    BTreeMap::from([
        ("policy", json!(settings.policy)),
        ("linger_ms", json!(settings.linger.as_millis() as u64)),
        ("batch_events", json!(settings.batch_events)),
        ("batch_bytes", json!(settings.batch_bytes)),
        ("row_cache_bytes", json!(settings.row_cache_bytes)),
        ("rebuild_bytes", json!(settings.rebuild_bytes)),
        ("synchronous_commit", json!(settings.synchronous_commit)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(key: &str, value: Value) -> String {
        check_one("orders", key, &value).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_set_is_refused_with_the_reason() {
        let check = |key, value, part: &str| {
            let refused = refusal(key, value);
            assert!(refused.contains(part), "{refused}");
        };
        check("polcy", json!("skip"), "did you mean policy?");
        check("source", json!("shop"), "means nothing in another one");
        check("policy", json!("ignore"), "policy cannot be \"ignore\"");
        check(
            "batch_events",
            json!("many"),
            "batch_events cannot be \"many\"",
        );
        check(
            "batch_events",
            json!(0),
            "batch_events: 0 is not between 1 and",
        );
        check("linger_ms", json!(-1), "linger_ms cannot be -1");
        assert!(check_one("orders", "policy", &json!("park")).is_ok());
        assert!(check_one("orders", "policy", &Value::Null).is_ok());
    }

    #[test]
    fn each_value_says_where_it_comes_from() {
        let mut config = Config::default();
        config.engine.batch_events = 5;
        let own = ProjectionSettings {
            linger_ms: Some(0),
            ..ProjectionSettings::default()
        };
        config.projections.insert("orders".into(), own);
        let decided = [("batch_bytes".to_owned(), json!(4096))]
            .into_iter()
            .collect();
        let shown = shown(&config, "orders", &decided);
        let find = |key: &str| shown.iter().find(|setting| setting.key == key).unwrap();
        let seen = |key: &str| {
            let setting = find(key);
            (
                setting.value.clone(),
                setting.origin,
                setting.configured_as.as_str(),
            )
        };
        assert_eq!(
            seen("batch_events"),
            (json!(5), Origin::Configuration, "engine.batch_events")
        );
        assert_eq!(
            seen("linger_ms"),
            (
                json!(0),
                Origin::Configuration,
                "projections.orders.linger_ms"
            )
        );
        assert_eq!(
            seen("policy"),
            (json!("stop"), Origin::Default, "projections.orders.policy")
        );
        assert_eq!(seen("batch_bytes").0, json!(4096));
        assert_eq!(find("batch_bytes").origin, Origin::RunTime);
        assert_eq!(find("batch_bytes").otherwise, json!(8 << 20));
    }
}
