//! resize as the reference does
