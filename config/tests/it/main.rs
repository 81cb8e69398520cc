//! What operators and authors of services see of the configuration, from outside.

mod checks;
mod env;
mod files;
mod kit;
mod layers;
mod output;
mod pitfalls;
mod properties;
mod schemas;
mod secrets;
