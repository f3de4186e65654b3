//! Reading read models over HTTP.

mod bench;
mod embed;
mod counts;
mod filters;
mod formats;
mod freshness;
mod pages;
mod problems;
mod rows;
