//! Reading read models over HTTP.

mod bench;
mod filters;
mod freshness;
mod pages;
mod rows;
