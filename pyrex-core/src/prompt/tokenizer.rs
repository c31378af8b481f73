//! text to ids
