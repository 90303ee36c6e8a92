//! A backend that is opened again when it dies.
