//! What every target holds the program to, as functions from bytes to a panic or none. Both the fuzz targets and the
//! test that replays the corpus (`tests/it/corpus.rs`) are made of this file, so that what was found stays found.

pub(crate) mod bench;
pub(crate) mod dns;
pub(crate) mod documents;
pub(crate) mod draw;
pub(crate) mod flow;
pub(crate) mod http;
pub(crate) mod manifests;
pub(crate) mod proxy_protocol;
pub(crate) mod relayed;
pub(crate) mod requests;
pub(crate) mod world;
