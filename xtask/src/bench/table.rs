//! The results as a table in Markdown.

use std::fmt;
use std::time::Duration;

use super::latency::Times;
use super::live::{Middle, OPENERS};
use super::load::Rate;
use super::{Options, Rebuilt};

/// Rows of four columns.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<[String; 4]>,
}

impl Table {
    /// A rate beside the rates of other ways to the same end.
    pub(super) fn rate(
        &mut self,
        what: String,
        events: u64,
        took: Duration,
        baselines: &[(&str, Duration)],
    ) {
        let rate = |took: Duration| events as f64 / took.as_secs_f64();
        let shown = |took: Duration| {
            let (rate, seconds) = (rate(took), took.as_secs_f64());
            format!("{} events/s ({seconds:.2} s)", thousands(rate))
        };
        for (index, (name, baseline)) in baselines.iter().enumerate() {
            let (what, result) = match index {
                0 => (what.clone(), shown(took)),
                _ => (String::new(), String::new()),
            };
            let ratio = format!("{:.2}", rate(took) / rate(*baseline));
            self.rows
                .push([what, result, format!("{name}: {}", shown(*baseline)), ratio]);
        }
    }

    /// The peak memory of the engine over several rebuilds.
    pub(super) fn memory(&mut self, name: &str, rebuilds: &[Rebuilt]) {
        if let Some(peak) = rebuilds
            .iter()
            .filter_map(|rebuilt| rebuilt.peak_bytes)
            .max()
        {
            let what = format!("memory of the engine after it (peak, {name})");
            self.single(what, format!("{} MiB", peak >> 20));
        }
    }

    /// Percentiles.
    pub(super) fn latency(&mut self, rate: u64, times: &Times) {
        for (what, times) in [
            ("an append over HTTP", &times.append),
            ("append's answer until read with min_position", &times.read),
            ("append's answer until seen in SQL", &times.sql),
            ("due until read, falling behind included", &times.whole),
        ] {
            let at = |percent: usize| {
                let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
                let time = times.get(place).copied().unwrap_or_default();
                format!("{:.1}", time.as_secs_f64() * 1e3)
            };
            let what = format!("{what}, at {rate} events/s");
            let result = format!("p50 {} ms, p99 {} ms, max {} ms", at(50), at(99), at(100));
            self.single(what, result);
        }
    }

    /// Reads of one kind: the first two ways are what the others are held against.
    pub(super) fn reads(&mut self, kind: &str, ways: &[(&str, Rate)]) {
        let shown = |rate: &Rate| {
            let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
            let (p50, p99) = (ms(rate.p50), ms(rate.p99));
            format!(
                "{}/s, p50 {p50} ms, p99 {p99} ms",
                thousands(rate.per_second)
            )
        };
        let (beside, ours) = ways.split_at(3);
        for (way, rate) in ours {
            let mut what = format!("a {kind}, {way}");
            let mut result = shown(rate);
            for (name, baseline) in beside {
                let ratio = format!("{:.2}", rate.per_second / baseline.per_second);
                let baseline = format!("{name}: {}", shown(baseline));
                let row = [
                    std::mem::take(&mut what),
                    std::mem::take(&mut result),
                    baseline,
                    ratio,
                ];
                self.rows.push(row);
            }
        }
    }

    /// Many subscribers, beside none and one.
    pub(super) fn live(&mut self, options: &Options, none: &Middle, one: &Middle, many: &Middle) {
        let (subscribers, rate) = (options.subscribers, options.rate);
        let ms = |[p50, p99, max]: [f64; 3]| {
            format!("p50 {p50:.1} ms, p99 {p99:.1} ms, max {max:.1} ms")
        };
        let with = format!("{subscribers} live subscribers, {rate} changes/s");
        for (what, many, one) in [
            ("append's answer until told", many.delay, one.delay),
            ("append due until told", many.whole, one.whole),
        ] {
            self.rows.push([
                format!("{with}: {what}"),
                ms(many),
                format!("one subscriber, of everything: {}", ms(one)),
                format!("{:.1} (p99 {:.1})", many[0] / one[0], many[1] / one[1]),
            ]);
        }
        for (what, many, none) in [
            ("engine", many.engine, none.engine),
            ("PostgreSQL", many.postgres, none.postgres),
        ] {
            self.rows.push([
                format!("{with}: {what}'s processor time"),
                format!("{many:.2} of a core"),
                format!("without subscribers: {none:.2}"),
                format!("{:.2}", many / none),
            ]);
        }
        self.rows.push([
            format!("{with}: memory of the engine (peak)"),
            format!("{} MiB", many.peak_bytes >> 20),
            format!("without subscribers: {} MiB", none.peak_bytes >> 20),
            format!("{:.2}", many.peak_bytes as f64 / none.peak_bytes as f64),
        ]);
        self.single(
            format!("{with}: changes made, and rows told of them, over all"),
            format!("{:.0}/s, {}/s", many.changes, thousands(many.told)),
        );
        self.single(
            format!("{with}: until all had their rows to begin with, {OPENERS} at a time"),
            format!("{:.1} s", many.opened),
        );
    }

    fn single(&mut self, what: String, result: String) {
        self.rows.push([what, result, String::new(), String::new()]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | result | beside it, in the same run | ratio |")?;
        writeln!(f, "|---|---|---|---:|")?;
        for row in &self.rows {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        Ok(())
    }
}

/// `1234567` as `1,234,567`
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
