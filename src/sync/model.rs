//! Frames as cells that a model checker watches.
