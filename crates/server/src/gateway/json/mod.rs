//! JSON to protobuf and back, by the tables of [`super::schema`].

pub mod read;
pub mod scan;
pub mod write;

#[cfg(test)]
mod tests;
