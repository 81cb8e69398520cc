use crate::path::Path;
use crate::problem::Problem;

/// Finds values of one section that are each fine but cannot work together.
///
/// A section is a struct that carries `#[schemars(extend("x-section" = "name"))]`; once registered with
/// [`Loader::section`](crate::Loader::section), its check runs wherever the section stands in the user's configuration.
/// It also runs when other keys are faulty; those hold their defaults then, and what it says about them is dropped.
pub trait Check {
    /// Reports what cannot work together. Keys are relative to the section.
    fn check(&self, report: &mut Report);
}

/// What a [`Check`] found so far.
#[derive(Debug, Default)]
pub struct Report {
    faults: Vec<Fault>,
}

#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) keys: Vec<String>,
    pub(crate) what: String,
    pub(crate) hint: String,
}

impl Report {
    /// Reports that the value of `key`, dotted and relative to the section, will not do: what is wrong with it, and what
    /// to do (may be empty). An empty key is the section itself. Dropped when the key is faulty by itself.
    pub fn fault(&mut self, key: &str, what: impl Into<String>, hint: impl Into<String>) {
        self.conflict(&[key], what, hint);
    }

    /// Reports that the values of several keys do not go together. The line is shown at the first key, and dropped when
    /// any of them is faulty by itself.
    ///
    /// # Panics
    /// If `keys` is empty.
    pub fn conflict(&mut self, keys: &[&str], what: impl Into<String>, hint: impl Into<String>) {
        assert!(!keys.is_empty(), "a conflict names at least one key");
        let keys = keys.iter().map(|&key| key.to_owned()).collect();
        self.faults.push(Fault { keys, what: what.into(), hint: hint.into() });
    }

    /// Runs one check by itself, for a section's own tests: keys are relative, sources are `-`.
    pub fn of(section: &impl Check) -> Vec<Problem> {
        let mut report = Self::default();
        section.check(&mut report);
        let problem =
            |fault: Fault| Problem::new(Path::default().join(&fault.keys[0]), "-", fault.what).hint(fault.hint);
        report.faults.into_iter().map(problem).collect()
    }

    pub(crate) fn into_faults(self) -> Vec<Fault> {
        self.faults
    }
}
