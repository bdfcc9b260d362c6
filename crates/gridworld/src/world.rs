//! The lake itself: its map, its dynamics, and policies on it as tables.

pub mod environment;
pub mod generate;
pub mod map;
pub mod policy_table;
