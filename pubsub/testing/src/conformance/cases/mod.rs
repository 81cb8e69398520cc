//! The cases, by what they are about.

mod closing;
mod content;
mod groups;
mod leases;
mod limits;
mod order;
mod process;
mod publishing;
mod router;
mod settling;
mod stopping;

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
    stopping::CASES,
    process::CASES,
];
