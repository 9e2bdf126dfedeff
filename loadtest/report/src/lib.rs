//! What a load test found, for people and for machines.
