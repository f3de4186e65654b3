//! A database, an engine, and what tests ask of them: events appended through SQL, and what became of them over HTTP.

use gobo_tests::{Database, Gobo, wait_until};
use serde_json::{Value, json};

/// An event to be appended: stream, type, data.
pub(crate) type Event = (String, &'static str, Value);

/// A dead letter as the API tells it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) position: i64,
    pub(crate) stream: String,
    pub(crate) state: String,
    pub(crate) message: String,
}

/// An engine on a database of its own.
pub(crate) struct Scene {
    pub(crate) database: Database,
    pub(crate) gobo: Gobo,
}

impl Scene {
    /// Serves a fresh database with these tables in the configuration, and deploys these guests.
    pub(crate) async fn new(tables: &str, guests: &[&str]) -> Self {
        Self::over(Database::create().await, tables, guests)
    }

    /// The same over a database that may have events already.
    pub(crate) fn over(database: Database, tables: &str, guests: &[&str]) -> Self {
        let gobo = Gobo::start(database.url(), tables);
        for guest in guests {
            gobo.deploy(guest).expect(201);
        }
        Self { database, gobo }
    }

    /// Appends events in one transaction, so that a reader sees all of them or none. Gives their positions.
    pub(crate) async fn append(&self, events: &[Event]) -> Vec<i64> {
        append(&self.database, events).await
    }

    /// The status of a projection.
    pub(crate) fn status(&self, projection: &str) -> Value {
        let path = format!("/admin/projections/{projection}");
        self.gobo.get(&path).expect(200).json()
    }

    /// Waits until a running projection has passed `position`.
    pub(crate) fn wait_for(&self, projection: &str, position: i64) {
        wait_until(&format!("{projection} to pass {position}"), || {
            let status = self.status(projection);
            let is_there = status["position"].as_i64() >= Some(position);
            match is_there && status["state"] == "running" {
                true => Ok(()),
                false => Err(status),
            }
        });
    }

    /// Waits until a projection has stopped with an error, and gives the error.
    pub(crate) fn wait_for_stop(&self, projection: &str) -> Value {
        wait_until(&format!("{projection} to stop"), || {
            let status = self.status(projection);
            match status["state"] == "stopped" {
                true => Ok(status["error"].clone()),
                false => Err(status),
            }
        })
    }

    /// The dead letters of a projection, in order.
    pub(crate) fn letters(&self, projection: &str) -> Vec<Letter> {
        let path = format!("/admin/projections/{projection}/dead-letters");
        let answer = self.gobo.get(&path).expect(200).json();
        let letters = answer["dead_letters"].as_array().unwrap().iter();
        let text = |letter: &Value, member: &str| letter[member].as_str().unwrap_or("").to_owned();
        letters
            .map(|letter| Letter {
                position: letter["position"].as_i64().unwrap(),
                stream: text(letter, "stream_id"),
                state: text(letter, "state"),
                message: text(letter, "message"),
            })
            .collect()
    }

    /// Waits for exactly these dead letters: position, stream, state.
    pub(crate) fn wait_for_letters(&self, projection: &str, expected: &[(i64, &str, &str)]) {
        wait_until("the dead letters", || {
            let found = self.letters(projection);
            let found: Vec<_> = found
                .iter()
                .map(|l| (l.position, l.stream.as_str(), l.state.as_str()))
                .collect();
            match found == expected {
                true => Ok(()),
                false => Err(format!("{found:?}")),
            }
        });
    }

    /// Retries dead letters, and gives how many.
    pub(crate) fn retry(&self, projection: &str) -> i64 {
        let path = format!("/admin/projections/{projection}/dead-letters/retry");
        let answer = self.gobo.post(&path, &json!({})).expect(202).json();
        answer["count"].as_i64().unwrap()
    }

    /// Every row of a read model but its revision, in the order of their text.
    pub(crate) async fn rows(&self, read_model: &str) -> Value {
        rows(&self.database, read_model).await
    }

    /// Starts the engine again with other tables in its configuration.
    pub(crate) fn restart_with(&mut self, tables: &str) {
        let path = self.gobo.folder().join("gobo.toml");
        let url = self.database.url();
        let config = format!("listen = \"127.0.0.1:0\"\n\n[database]\nurl = {url:?}\n\n{tables}\n");
        std::fs::write(path, config).unwrap();
        self.gobo.start_again();
    }
}

/// Appends events to a database that has the schema, in one transaction. Gives their positions.
pub(crate) async fn append(database: &Database, events: &[Event]) -> Vec<i64> {
    let streams: Vec<&str> = events.iter().map(|(stream, ..)| stream.as_str()).collect();
    let event = |(_, kind, data): &Event| json!([{ "type": kind, "data": data }]).to_string();
    let lists: Vec<String> = events.iter().map(event).collect();
    // In one statement, which commits as it ends: a reader that looked in between would see a part of the positions only.
    let append = "select appended.position \
        from unnest($1::text[], $2::text[]) with ordinality as e(stream, events, n) \
       cross join lateral gobo.append(e.stream, e.events::json) as appended order by e.n";
    let client = database.connect().await;
    let rows = client.query(append, &[&streams, &lists]).await;
    let rows = rows.unwrap_or_else(|error| panic!("{error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// Every row of a read model but its revision, in the order of their text.
pub(crate) async fn rows(database: &Database, read_model: &str) -> Value {
    let sql =
        format!("select to_jsonb(r) - '_revision' as row from read.{read_model} r order by 1");
    database.query_json(&sql).await
}

/// An event for the raw guest.
pub(crate) fn raw(stream: impl Into<String>, data: Value) -> Event {
    (stream.into(), "Raw", data)
}

/// An order for the orders plugin, in a stream of its own.
pub(crate) fn order(id: &str) -> Event {
    let data = json!({
        "order_id": id, "user_id": "u", "symbol": "S", "side": "buy", "price": "1.25", "quantity": "10",
    });
    (format!("order-{id}"), "OrderCreated", data)
}

/// A match of that order.
pub(crate) fn matched(id: &str, quantity: &str) -> Event {
    let data = json!({ "order_id": id, "quantity": quantity, "price": "1.25", "trade_id": "t" });
    (format!("order-{id}"), "OrderMatched", data)
}
