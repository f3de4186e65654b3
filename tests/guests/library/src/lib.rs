//! A library: an event is a book, an author, a shelf, or that a book stands on a shelf, and a row is what the event says.

use gobo_sdk::prelude::*;

/// One row per author.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "authors")]
struct Author {
    #[key]
    id: i64,
    name: String,
    country: Option<String>,
}

/// One row per book.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "books", index(author_id), references(author_id -> authors))]
struct Book {
    #[key]
    id: i64,
    title: String,
    /// What it is about.
    blurb: String,
    author_id: Option<i64>,
    pages: i32,
    price: Decimal,
    in_print: Option<bool>,
    tags: Vec<String>,
    editions: Vec<i32>,
    details: Option<Json>,
    published: Date,
    added_at: Timestamp,
}

/// One row per shelf.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(table = "shelves")]
struct Shelf {
    #[key]
    id: i64,
    name: String,
}

/// Which books stand on which shelves.
#[derive(ReadModel, Clone, Debug, PartialEq)]
#[read_model(
    table = "shelvings",
    index(book_id),
    references(shelf_id -> shelves),
    references(book_id -> books)
)]
struct Shelving {
    #[key]
    shelf_id: i64,
    #[key]
    book_id: i64,
    place: i32,
}

#[payload]
struct NewShelf {
    id: i64,
    name: String,
}

#[payload]
struct Shelved {
    shelf_id: i64,
    book_id: i64,
    place: i32,
}

#[payload]
struct NewAuthor {
    id: i64,
    name: String,
    country: Option<String>,
}

#[payload]
struct NewBook {
    id: i64,
    title: String,
    blurb: String,
    author_id: Option<i64>,
    pages: i32,
    price: Decimal,
    in_print: Option<bool>,
    tags: Vec<String>,
    editions: Vec<i32>,
    details: Option<Json>,
    published: Date,
    added_at: Timestamp,
}

#[derive(Events)]
#[events(unknown = "ignore")]
enum Event {
    AuthorAdded(NewAuthor),
    BookAdded(NewBook),
    ShelfAdded(NewShelf),
    BookShelved(Shelved),
}

struct Library;

impl Projection for Library {
    type Event<'e> = Event;
    type ReadModels = (Author, Book, Shelf, Shelving);

    fn handle(event: &Event, _: &Meta<'_>, rows: &mut Rows) -> Result {
        match event {
            Event::AuthorAdded(new) => rows.upsert(Author {
                id: new.id,
                name: new.name.clone(),
                country: new.country.clone(),
            }),
            Event::BookAdded(new) => rows.upsert(Book {
                id: new.id,
                title: new.title.clone(),
                blurb: new.blurb.clone(),
                author_id: new.author_id,
                pages: new.pages,
                price: new.price,
                in_print: new.in_print,
                tags: new.tags.clone(),
                editions: new.editions.clone(),
                details: new.details.clone(),
                published: new.published,
                added_at: new.added_at,
            }),
            Event::ShelfAdded(new) => rows.upsert(Shelf {
                id: new.id,
                name: new.name.clone(),
            }),
            Event::BookShelved(new) => rows.upsert(Shelving {
                shelf_id: new.shelf_id,
                book_id: new.book_id,
                place: new.place,
            }),
        }
        Ok(())
    }
}

export!(Library);

#[cfg(test)]
mod tests {
    use super::*;
    use gobo_sdk::testing::{event, given};
    use serde_json::json;

    #[test]
    fn an_author_is_what_the_event_says() {
        let lem = json!({"id": 2, "name": "Stanisław Lem", "country": "PL"});
        given::<Library>([event("AuthorAdded", lem)]).expect([Author {
            id: 2,
            name: "Stanisław Lem".into(),
            country: Some("PL".into()),
        }]);
    }
}
