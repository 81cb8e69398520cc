//! Our own OpenMetrics text, taken apart.

/// A family of a scrape, as its text has it.
pub(super) struct Family<'a> {
    pub(super) name: &'a str,
    pub(super) help: &'a str,
    pub(super) kind: &'a str,
    pub(super) unit: &'a str,
    pub(super) samples: Vec<Sample<'a>>,
}

pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    /// Between the braces.
    pub(super) labels: &'a str,
    pub(super) value: &'a str,
    pub(super) exemplar: Option<Exemplar<'a>>,
}

pub(super) struct Exemplar<'a> {
    pub(super) labels: &'a str,
    pub(super) value: &'a str,
}

/// Takes our own OpenMetrics text apart.
pub(super) fn families(text: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        let Some(meta) = line.strip_prefix("# ") else {
            if let (Some(family), Some(sample)) = (families.last_mut(), sample(line)) {
                family.samples.push(sample);
            }
            continue;
        };
        let mut words = meta.splitn(3, ' ');
        let (keyword, name, rest) = (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match (keyword, families.last_mut()) {
            (Some("HELP"), _) => {
                families.push(Family { name, help: rest, kind: "unknown", unit: "", samples: Vec::new() });
            }
            (Some("TYPE"), Some(family)) => family.kind = rest,
            (Some("UNIT"), Some(family)) => family.unit = rest,
            _ => {}
        }
    }
    families
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let name = &line[..line.find(['{', ' '])?];
    let (labels, rest) = labels(&line[name.len()..])?;
    let mut parts = rest.trim_start().splitn(2, " # ");
    let value = parts.next()?;
    let exemplar = parts.next().and_then(|exemplar| {
        let (labels, rest) = labels_of_exemplar(exemplar)?;
        Some(Exemplar { labels, value: rest.split_ascii_whitespace().next()? })
    });
    Some(Sample { name, labels, value, exemplar })
}

fn labels_of_exemplar(text: &str) -> Option<(&str, &str)> {
    text.starts_with('{').then(|| labels(text)).flatten()
}

/// What stands between braces at the start of `text`, if there are any, and what follows.
fn labels(text: &str) -> Option<(&str, &str)> {
    let Some(inner) = text.strip_prefix('{') else { return Some(("", text)) };
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some((&inner[..at], &inner[at + 1..])),
            _ => {}
        }
    }
    None
}

/// Names with values, unescaped.
pub(super) fn pairs(mut labels: &str) -> impl Iterator<Item = (&str, String)> {
    std::iter::from_fn(move || {
        let (name, rest) = labels.trim_start_matches(',').split_once("=\"")?;
        let mut value = String::new();
        let mut letters = rest.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    labels = &rest[at + 1..];
                    return Some((name, value));
                }
                '\\' => value.push(match letters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        None
    })
}

/// A number as the text has it; `NaN` for what is none.
pub(super) fn number(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}
