//! The cases, by what they are about.

mod batches;
mod closing;
mod content;
mod dead_letters;
mod groups;
mod leases;
mod limits;
mod order;
mod process;
mod publishing;
mod router;
mod settling;
mod stopping;
mod transactions;

use super::case::Case;

/// All cases, in the order in which they are run: what others rest on comes first.
pub(super) const ALL: &[&[Case]] = &[
    publishing::CASES,
    content::CASES,
    limits::CASES,
    settling::CASES,
    leases::CASES,
    order::CASES,
    groups::CASES,
    closing::CASES,
    router::CASES,
    dead_letters::CASES,
    batches::CASES,
    transactions::CASES,
    stopping::CASES,
    process::CASES,
];
