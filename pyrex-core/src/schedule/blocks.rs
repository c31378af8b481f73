//! which cache blocks are free
