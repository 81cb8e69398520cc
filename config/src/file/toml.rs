use toml::de::{DeTable, DeValue};

use super::{Fault, Lines, Place};
use crate::raw::{Origin, Raw, Spot};

pub(crate) fn parse(text: &str, place: &Place<'_>) -> Result<Spot, Vec<Fault>> {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // `message` and `span` only: `Display` prints the line, and with it whatever secret stands there.
        let fault = |error: toml::de::Error| {
            let line = error.span().map_or(1, |span| lines.at(span.start));
            Fault::new(line, format!("not valid TOML: {}", error.message()))
        };
        return Err(errors.into_iter().map(fault).collect());
    }
    let reader = Reader { lines, place };
    Ok(reader.table(table.get_ref(), &place.line(1)))
}

struct Reader<'a> {
    lines: Lines,
    place: &'a Place<'a>,
}

impl Reader<'_> {
    fn table(&self, table: &DeTable<'_>, origin: &Origin) -> Spot {
        let entries = table.iter().map(|(key, value)| {
            let origin = self.place.line(self.lines.at(key.span().start));
            (key.get_ref().to_string(), self.value(value.get_ref(), &origin))
        });
        Spot::new(Raw::Table(entries.collect()), origin)
    }

    fn value(&self, value: &DeValue<'_>, origin: &Origin) -> Spot {
        let raw = match value {
            DeValue::String(text) => Raw::Str(text.to_string()),
            DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
                Ok(whole) => Raw::Int(whole),
                Err(_) => Raw::Float(number.to_string()),
            },
            DeValue::Float(number) => Raw::Float(number.to_string()),
            DeValue::Boolean(flag) => Raw::Bool(*flag),
            DeValue::Datetime(when) => Raw::Str(when.to_string()),
            DeValue::Array(items) => {
                let item = |item: &toml::Spanned<DeValue<'_>>| {
                    self.value(item.get_ref(), &self.place.line(self.lines.at(item.span().start)))
                };
                Raw::List(items.iter().map(item).collect())
            }
            DeValue::Table(table) => return self.table(table, origin),
        };
        Spot::new(raw, origin)
    }
}
