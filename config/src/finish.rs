//! The last step but one: serde. It stops at its first error, so it is asked again with that value back at its default.

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_path_to_error::Segment;

use crate::path::Path;
use crate::settle::Settled;

/// More rounds than anybody makes mistakes.
const MAX_ROUNDS: usize = 64;

/// What serde said, and where.
pub(crate) struct Refusal {
    pub(crate) path: Path,
    pub(crate) message: String,
}

impl Refusal {
    /// The field that serde misses, if that is what it says.
    pub(crate) fn missing(&self) -> Option<&str> {
        self.message.strip_prefix("missing field `")?.strip_suffix('`')
    }
}

pub(crate) fn read<T: DeserializeOwned>(json: &Json) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(json).map_err(|error| {
        let mut path = Path::default();
        for segment in error.path().iter() {
            match segment {
                Segment::Map { key } => path = path.key(key),
                Segment::Seq { index } => path = path.index(*index),
                Segment::Enum { .. } => {}
                Segment::Unknown => break,
            }
        }
        Refusal { path, message: error.inner().to_string() }
    })
}

/// Reads the value as often as it takes. `json` ends as the value that was read at last, with faulty parts at their defaults.
pub(crate) fn read_all<T: DeserializeOwned>(
    json: &mut Json,
    defaults: &Json,
    settled: &Settled,
    mut report: impl FnMut(&Refusal),
) -> Option<T> {
    for _ in 0..MAX_ROUNDS {
        let mut refusal = match read::<T>(json) {
            Ok(value) => return Some(value),
            Err(refusal) => refusal,
        };
        if refusal.missing().is_none()
            && !settled.origins.contains_key(&refusal.path.to_string())
            && let Some(path) = blame::<T>(json, defaults, settled, &refusal)
        {
            refusal.path = path;
        }
        report(&refusal);
        // Back to the default: this key, or what it stands in.
        let mut at = Some(refusal.path);
        loop {
            let path = at?;
            if path.get(defaults).is_some_and(|default| path.set(json, Some(default))) || path.set(json, None) {
                break;
            }
            at = path.parent();
        }
    }
    None
}

/// Where serde knows only the table (flattened and tagged parts), the key whose default makes the complaint go away.
fn blame<T: DeserializeOwned>(json: &Json, defaults: &Json, settled: &Settled, refusal: &Refusal) -> Option<Path> {
    let mut changed: Vec<&Path> = settled.leaves.iter().filter(|leaf| leaf.is_below(&refusal.path)).collect();
    // A union's tag changes what all other keys mean, and would take the blame for them.
    changed.sort_by_key(|leaf| settled.tags.contains(leaf));
    changed.retain(|leaf| leaf.get(json) != leaf.get(defaults));
    let innocent = |leaf: &&&Path| {
        let mut trial = json.clone();
        leaf.set(&mut trial, leaf.get(defaults))
            && read::<T>(&trial).is_err_and(|error| error.message == refusal.message)
    };
    changed.iter().find(|leaf| !innocent(leaf)).map(|leaf| (*leaf).clone())
}
