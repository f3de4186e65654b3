//! Reading read models over HTTP.

mod bench;
mod between;
mod corpus;
mod counts;
mod embed;
mod filters;
mod formats;
mod freshness;
mod injection;
mod operators;
mod pages;
mod problems;
mod random;
mod refusals;
mod rows;
mod sessions;
mod shown;
