//! The orders this process has seen, and what became of them. A real service would have a database here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mainspring::web::Problem;
use serde::{Deserialize, Serialize};

/// What a customer sends, and what travels as the message's body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) item: String,
    pub(crate) quantity: u32,
}

/// An order with its status.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub(crate) order: Order,
    pub(crate) status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Accepted,
    Shipped,
    Rejected,
}

/// Remembers the newest orders.
#[derive(Default)]
pub(crate) struct Book(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    entries: HashMap<String, Entry>,
    /// Ids, oldest first.
    ids: VecDeque<String>,
}

/// Older orders are forgotten: this is an example, and memory is finite.
const REMEMBERED: usize = 100_000;

impl Order {
    /// Refuses what no handler could ship.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if self.id.is_empty() {
            return Err(Problem::invalid_field("id", "must not be empty"));
        }
        if self.quantity < 1 {
            return Err(Problem::invalid_field("quantity", "must be at least 1"));
        }
        Ok(())
    }
}

impl Book {
    /// Enters an order that will be shipped, unless it has been: the handler may be faster than we are.
    pub(crate) fn accept(&self, order: Order) -> Entry {
        let mut pages = self.pages();
        match pages.entries.get(&order.id) {
            Some(entry) if entry.order == order => entry.clone(),
            _ => pages.set(order, Status::Accepted),
        }
    }

    /// Enters what became of an order.
    pub(crate) fn set(&self, order: Order, status: Status) {
        self.pages().set(order, status);
    }

    pub(crate) fn get(&self, id: &str) -> Option<Entry> {
        self.pages().entries.get(id).cloned()
    }

    pub(crate) fn newest(&self, count: usize) -> Vec<Entry> {
        let pages = self.pages();
        pages.ids.iter().rev().take(count).filter_map(|id| pages.entries.get(id).cloned()).collect()
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn set(&mut self, order: Order, status: Status) -> Entry {
        let entry = Entry { order, status };
        let id = entry.order.id.clone();
        if self.entries.insert(id.clone(), entry.clone()).is_none() {
            self.ids.push_back(id);
        }
        if self.ids.len() > REMEMBERED
            && let Some(oldest) = self.ids.pop_front()
        {
            self.entries.remove(&oldest);
        }
        entry
    }
}
