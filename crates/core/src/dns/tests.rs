//! The meaning of names, as tables over one fixture.

mod elsewhere;
mod fast;
mod fixture;
mod names;
mod packets;
mod table;
