//! The `relay` room.
