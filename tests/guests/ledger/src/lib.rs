//! One row per account, and one stream per account: the order of its events shows in the row.
//!
//! There are two builds of it. `ledger` does not understand fees; `ledger-mended` does.

use gobo_sdk::prelude::*;

/// One row per account.
#[derive(ReadModel, Clone, Default)]
#[read_model(table = "accounts", per_stream)]
struct Account {
    #[key]
    account: String,
    /// What is left.
    balance: i64,
    /// Every amount, in the order in which they were booked.
    history: String,
}

#[payload]
struct Booked<'e> {
    amount: i64,
    #[serde(default)]
    fee: i64,
    /// Books on this account instead of the stream's own, which is a mistake: rows are declared per stream.
    account: Option<Cow<'e, str>>,
    /// Books, in addition, what is left on this account.
    match_account: Option<Cow<'e, str>>,
    /// Looks the account up, and does nothing else.
    #[serde(default)]
    look: bool,
    /// The account is gone afterwards.
    #[serde(default)]
    close: bool,
}

#[derive(Events)]
enum LedgerEvent<'e> {
    Booked(Booked<'e>),
}

struct Ledger;

impl Projection for Ledger {
    type Event<'e> = LedgerEvent<'e>;
    type ReadModels = Account;

    fn handle(event: &LedgerEvent<'_>, at: &Meta<'_>, rows: &mut Rows) -> Result {
        let LedgerEvent::Booked(booked) = event;
        let understood = booked.fee == 0 || cfg!(feature = "mended");
        ensure!(understood, "a fee of {} is not understood", booked.fee);
        let account = booked.account.as_deref().unwrap_or(at.stream_id);
        if booked.close {
            rows.delete::<Account>(account);
            return Ok(());
        }
        if booked.look {
            rows.get::<Account>(account)?;
            return Ok(());
        }
        let matched = match booked.match_account.as_deref() {
            Some(other) => rows.get::<Account>(other)?.map_or(0, |row| row.balance),
            None => 0,
        };
        let amount = booked.amount + matched;
        let new = || Account {
            account: account.to_owned(),
            ..Account::default()
        };
        rows.modify_or_insert::<Account, _>(account, new, |row| {
            row.balance += amount - booked.fee;
            row.history.push_str(&format!(" {amount}-{}", booked.fee));
        })
    }
}

export!(Ledger, name = "ledger");
