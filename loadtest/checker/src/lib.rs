//! Judges a recorded history from outside.
