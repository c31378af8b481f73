//! a request on its way
