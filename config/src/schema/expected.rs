use super::{Format, Id, Kind, Schema, Text};

impl Schema {
    /// What a node takes, as the end of "expected …".
    pub(crate) fn expected(&self, id: Id) -> String {
        match self.kind(id) {
            Kind::Struct { .. } | Kind::Map(_) => "a table".to_owned(),
            Kind::Tagged { tag, variants, .. } => {
                let names: Vec<&str> = variants.iter().map(|(name, _)| name.as_str()).collect();
                format!("a table with {tag} = one of {}", names.join(", "))
            }
            Kind::List { of, .. } if matches!(self.kind(*of), Kind::List { .. }) => "a list of lists".to_owned(),
            Kind::List { of, min, max } => {
                let items = self.expected(*of);
                match (min, max) {
                    (0, None) => format!("a list, each item {items}"),
                    (min, None) => format!("a list of {min} or more, each item {items}"),
                    (min, Some(max)) => format!("a list of {min} to {max}, each item {items}"),
                }
            }
            Kind::Tuple(items) => format!("a list of {}", items.len()),
            Kind::Either(nodes) if nodes.iter().any(|node| matches!(self.kind(*node), Kind::Either(_))) => {
                "another value".to_owned()
            }
            Kind::Either(nodes) => {
                let mut each: Vec<String> = nodes.iter().map(|node| self.expected(*node)).collect();
                each.dedup();
                each.join(", or ")
            }
            Kind::Bool => "true or false".to_owned(),
            Kind::Int { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Float { min, max } => match (min.is_finite(), max.is_finite()) {
                (true, true) => format!("a number from {min} to {max}"),
                (true, false) => format!("a number, {min} or more"),
                (false, true) => format!("a number, {max} or less"),
                (false, false) => "a number".to_owned(),
            },
            Kind::Text(text) => text.expected(),
            Kind::Any | Kind::Link(_) => "a value".to_owned(),
        }
    }
}

impl Text {
    fn expected(&self) -> String {
        if !self.choices.is_empty() {
            return format!("one of {}", self.choices.join(", "));
        }
        if let Some(example) = &self.example {
            return format!("text such as {example:?}");
        }
        let base = match (self.format, self.min, self.max) {
            (Some(Format::Duration), ..) => "a duration such as \"10s\" or \"1m30s\"".to_owned(),
            (Some(Format::ByteSize), ..) => "a size such as \"64KiB\" or \"2MiB\"".to_owned(),
            (Some(Format::SocketAddr), ..) => "an address such as \"127.0.0.1:8080\"".to_owned(),
            (None, 0, None) => "text".to_owned(),
            (None, 1, None) => "text that is not empty".to_owned(),
            (None, min, None) => format!("text of {min} characters or more"),
            (None, min, Some(max)) if min == max => format!("text of {min} characters"),
            (None, min, Some(max)) => format!("text of {min} to {max} characters"),
        };
        self.words.iter().fold(base, |base, word| format!("{base}, or {word:?}"))
    }
}
