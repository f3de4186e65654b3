//! What the demo shows while it runs.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

use super::client::{Client, RawRow, Status};

/// How many looks the rate is taken over.
const LOOKS: usize = 10;

/// The lines that stay the same, and the rate so far.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) url: String,
    pub(crate) psql: String,
    pub(crate) data: String,
    pub(crate) log: String,
    looks: VecDeque<(Instant, u64)>,
}

impl View {
    pub(crate) fn new(url: String, psql: String, data: String, log: String) -> View {
        View {
            url,
            psql,
            data,
            log,
            looks: VecDeque::new(),
        }
    }

    /// Events per second over the last looks.
    pub(crate) fn rate(&mut self, appended: u64) -> f64 {
        self.looks.push_back((Instant::now(), appended));
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
        match self.looks.front() {
            Some((begin, first)) => {
                (appended - first) as f64 / begin.elapsed().as_secs_f64().max(0.001)
            }
            None => 0.0,
        }
    }

    /// Draws the whole screen anew.
    pub(crate) fn draw(&mut self, client: &Client, appended: u64) {
        let rate = self.rate(appended);
        let mut screen = String::new();
        let _ = writeln!(
            screen,
            "Gobo demo: simulated trading on {}        Ctrl-C ends it\n",
            self.url
        );
        let _ = writeln!(
            screen,
            "  appended {appended:>12} events   {rate:>8.0} events/s\n"
        );
        let _ = writeln!(
            screen,
            "  {:<16} {:<9} {:>12} {:>9} {:>10}",
            "projection", "state", "position", "lag", "events/s"
        );
        for status in client.projections().unwrap_or_default() {
            let _ = writeln!(screen, "{}", line(&status));
        }
        let bars = client.page("/read/symbol_bars?order=minute.desc,symbol.asc&limit=4");
        table(
            &mut screen,
            "symbol_bars",
            &[
                "symbol", "minute", "open", "high", "low", "close", "volume", "trades",
            ],
            bars,
        );
        let stats =
            client.page("/read/user_symbol_stats?order=last_trade_at.desc.nullslast&limit=4");
        let columns = [
            "user_id",
            "symbol",
            "orders",
            "volume",
            "average_price",
            "last_trade_at",
        ];
        table(&mut screen, "user_symbol_stats", &columns, stats);
        let url = &self.url;
        let _ = writeln!(
            screen,
            "\n  try:  curl '{url}/read/orders?symbol=eq.BTC-EUR&status=eq.open&limit=3'"
        );
        let _ = writeln!(
            screen,
            "        curl '{url}/read/symbol_bars?symbol=eq.ETH-EUR&order=minute.desc&limit=5'"
        );
        let _ = writeln!(screen, "        curl '{url}/admin/projections'");
        let _ = writeln!(screen, "        {}", self.psql);
        let _ = writeln!(
            screen,
            "  data: {} (`cargo xtask demo --reset` begins anew)",
            self.data
        );
        let _ = writeln!(screen, "  log:  {}", self.log);
        // Each line clears its own rest, and the end the rest of the screen: nothing flickers.
        print!("\x1b[H{}\x1b[J", screen.replace('\n', "\x1b[K\n"));
        let _ = std::io::stdout().flush();
    }

    /// One line instead, for output that is no terminal.
    pub(crate) fn print(&mut self, client: &Client, appended: u64) {
        let rate = self.rate(appended);
        let mut text = format!("{appended} events appended, {rate:.0}/s");
        for status in client.projections().unwrap_or_default() {
            let _ = write!(
                text,
                "; {} {} at {} of {}",
                status.name, status.state, status.position, status.head_position
            );
        }
        println!("{text}");
    }
}

fn line(status: &Status) -> String {
    let lag = status
        .lag_seconds
        .map_or("-".to_owned(), |lag| format!("{lag:.2} s"));
    let rate = status
        .events_per_second
        .map_or("-".to_owned(), |rate| format!("{rate:.0}"));
    let error = status
        .error
        .as_ref()
        .map_or(String::new(), |error| format!("   {error}"));
    format!(
        "  {:<16} {:<9} {:>12} {lag:>9} {rate:>10}{error}",
        status.name, status.state, status.position
    )
}

fn table(
    screen: &mut String,
    name: &str,
    columns: &[&str],
    page: anyhow::Result<(Vec<RawRow>, Option<String>)>,
) {
    let _ = writeln!(screen, "\n  /read/{name}");
    let Ok((rows, _)) = page else {
        let _ = writeln!(screen, "    (not readable yet)");
        return;
    };
    let names = columns.iter().map(|column| format!("{column:<16}"));
    let names = names.collect::<Vec<_>>().join(" ");
    let _ = writeln!(screen, "    {}", names.trim_end());
    for row in rows {
        let cells = columns.iter().map(|column| {
            let raw = row.get(*column).map_or("", |value| value.get());
            format!(
                "{:<16}",
                raw.trim_matches('"')
                    .trim_end_matches(":00+00:00")
                    .trim_end_matches(":00Z")
            )
        });
        let _ = writeln!(
            screen,
            "    {}",
            cells.collect::<Vec<_>>().join(" ").trim_end()
        );
    }
}
