//! Nodes on their way, and several in one process.
