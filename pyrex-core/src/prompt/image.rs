//! bytes to RGB
