//! The rules as a small model, checked exhaustively.
