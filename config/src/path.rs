use std::fmt;

use serde_json::Value as Json;

/// The way from the top of the configuration to one value. Shown as in `server.http.addr` or `peers[0]."a.b"`.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Path(Vec<Step>);

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    pub(crate) fn of(keys: &[String]) -> Self {
        Self(keys.iter().cloned().map(Step::Key).collect())
    }

    pub(crate) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// This path and a dotted key below it; the path itself if the key is empty.
    pub(crate) fn join(&self, key: &str) -> Self {
        if key.is_empty() {
            return self.clone();
        }
        let keys = split(key).unwrap_or_else(|| vec![key.to_owned()]);
        keys.iter().fold(self.clone(), |path, key| path.key(key))
    }

    /// The number of its steps.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The keys, unless some step goes into a list.
    pub(crate) fn keys(&self) -> Option<Vec<String>> {
        let key = |step: &Step| match step {
            Step::Key(key) => Some(key.clone()),
            Step::Index(_) => None,
        };
        self.0.iter().map(key).collect()
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    pub(crate) fn parent(&self) -> Option<Self> {
        let (_, rest) = self.0.split_last()?;
        Some(Self(rest.to_vec()))
    }

    /// True when it stands below `other`.
    pub(crate) fn is_below(&self, other: &Self) -> bool {
        self.0.len() > other.0.len() && self.0.starts_with(&other.0)
    }

    pub(crate) fn get<'a>(&self, json: &'a Json) -> Option<&'a Json> {
        self.0.iter().try_fold(json, |at, step| match step {
            Step::Key(key) => at.get(key),
            Step::Index(index) => at.get(index),
        })
    }

    /// Puts `value` there, or takes away what is there. False when the way does not exist or nothing changed.
    pub(crate) fn set(&self, json: &mut Json, value: Option<&Json>) -> bool {
        let Some((last, rest)) = self.0.split_last() else {
            let Some(value) = value else { return false };
            let changed = json != value;
            json.clone_from(value);
            return changed;
        };
        let parent = rest.iter().try_fold(json, |at, step| match step {
            Step::Key(key) => at.get_mut(key),
            Step::Index(index) => at.get_mut(index),
        });
        match (parent, last, value) {
            (Some(Json::Object(entries)), Step::Key(key), Some(value)) => {
                entries.insert(key.clone(), value.clone()).as_ref() != Some(value)
            }
            (Some(Json::Object(entries)), Step::Key(key), None) => entries.remove(key).is_some(),
            _ => false,
        }
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = Vec::with_capacity(self.0.len() + 1);
        steps.extend_from_slice(&self.0);
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    if place > 0 {
                        f.write_str(".")?;
                    }
                    if is_bare(key) { f.write_str(key)? } else { write!(f, "{}", Json::from(key.as_str()))? }
                }
            }
        }
        Ok(())
    }
}

/// Splits a dotted key; a part in quotes may hold dots: `labels."a.b"`.
pub(crate) fn split(text: &str) -> Option<Vec<String>> {
    let mut keys = Vec::new();
    let mut rest = text;
    loop {
        let after = if rest.starts_with('"') {
            let mut parts = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            keys.push(parts.next()?.ok()?);
            &rest[parts.byte_offset()..]
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            let key = rest[..end].trim();
            if key.is_empty() {
                return None;
            }
            keys.push(key.to_owned());
            &rest[end..]
        };
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(keys),
        }
    }
}

/// True when `one` is `other`, stands above it, or below it.
pub(crate) fn overlaps(one: &str, other: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    within(one, other) || within(other, one)
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        for text in ["a", "a.b-c.d_e", r#"labels."a.b""#, r#""q\"uote"."ü".x"#] {
            assert_eq!(Path::of(&split(text).unwrap()).to_string(), text);
        }
        for text in ["", ".", "a.", ".a", "a..b", r#""open"#, r#""a"b"#] {
            assert!(split(text).is_none(), "{text}");
        }
    }

    #[test]
    fn overlap_needs_whole_keys() {
        assert!(overlaps("a.b", "a.b") && overlaps("a", "a.b") && overlaps("a[0].x", "a"));
        assert!(!overlaps("a.bc", "a.b") && !overlaps("a.b", "a.c"));
    }
}
