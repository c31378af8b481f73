//! A fake model that says what a test tells it.
