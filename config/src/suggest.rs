/// The candidate somebody most likely meant, if any is near.
pub(crate) fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = folded(given);
    let distance = |candidate: &&str| strsim::damerau_levenshtein(&plain, &folded(candidate));
    let (best, away) = candidates.into_iter().map(|name| (name, distance(&name))).min_by_key(|(_, away)| *away)?;
    (away <= plain.chars().count().max(3) / 3).then_some(best)
}

/// How names are compared in the environment and in flags: `maxBody`, `max-body` and `MAX_BODY` are one.
pub(crate) fn folded(name: &str) -> String {
    name.chars().filter(|c| *c != '_' && *c != '-').flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_but_no_strangers() {
        let known = ["request_timeout", "addr", "max_body"];
        assert_eq!(nearest("reqest_timeout", known), Some("request_timeout"));
        assert_eq!(nearest("adr", known), Some("addr"));
        assert_eq!(nearest("colour", known), None);
    }
}
