//! chat template
