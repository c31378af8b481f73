//! who runs next
