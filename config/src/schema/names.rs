use serde_json::{Map, Value as Json};

/// The variables, other than the canonical one, that a key is read from.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) env: Vec<Alias>,
    /// Variables that hold the host of an address.
    pub(crate) host: Vec<String>,
    /// Variables that hold the port of an address.
    pub(crate) port: Vec<String>,
    /// Variables that are accepted and do nothing.
    pub(crate) ignored: Vec<Ignored>,
    /// Beginnings of names: a variable that begins like this and means nothing is worth a notice.
    pub(crate) families: Vec<String>,
}

/// One entry of `x-env`.
pub(crate) struct Alias {
    pub(crate) name: String,
    /// What the value is put into, at `{}`.
    pub(crate) template: Option<String>,
    /// What stands for what; anything else is a fault, if not empty.
    pub(crate) map: Vec<(String, String)>,
    /// Wins over the canonical variable, with a notice, instead of quarrelling with it.
    pub(crate) overrides: bool,
}

/// One entry of `x-env-ignored`.
pub(crate) struct Ignored {
    pub(crate) name: String,
    pub(crate) why: String,
}

impl Names {
    pub(crate) fn of(object: &Map<String, Json>) -> Self {
        let list = |key: &str| -> &[Json] {
            match object.get(key) {
                None => &[],
                Some(Json::Array(items)) => items,
                Some(_) => panic!("{key} must be a list"),
            }
        };
        let strings = |key: &str| list(key).iter().map(|item| string(key, item).to_owned()).collect();
        let ignored = |item: &Json| {
            let (name, why) =
                string("x-env-ignored", item).split_once('=').unwrap_or((string("x-env-ignored", item), ""));
            Ignored { name: name.to_owned(), why: why.to_owned() }
        };
        Self {
            env: list("x-env").iter().map(Alias::of).collect(),
            host: strings("x-env-host"),
            port: strings("x-env-port"),
            ignored: list("x-env-ignored").iter().map(ignored).collect(),
            families: strings("x-env-families"),
        }
    }

    /// Every variable named here.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        let env = self.env.iter().map(|alias| alias.name.as_str());
        let parts = self.host.iter().chain(&self.port).map(String::as_str);
        env.chain(parts).chain(self.ignored.iter().map(|ignored| ignored.name.as_str()))
    }
}

impl Alias {
    /// `"NAME"`, `"NAME=0.0.0.0:{}"`, or `{"name": …, "template": …, "map": {…}, "overrides": true}`.
    fn of(item: &Json) -> Self {
        let Json::Object(object) = item else {
            let text = string("x-env", item);
            let (name, template) = text.split_once('=').map_or((text, None), |(name, rest)| (name, Some(rest)));
            return Self { name: name.to_owned(), template: template.map(checked), map: Vec::new(), overrides: false };
        };
        let field = |key: &str| object.get(key).map(|value| string("x-env", value).to_owned());
        let map = object.get("map").map(|map| map.as_object().expect("the map of an x-env entry is an object"));
        let pair = |(from, to): (&String, &Json)| (from.clone(), string("x-env", to).to_owned());
        Self {
            name: field("name").expect("an x-env entry has a name"),
            template: field("template").as_deref().map(checked),
            map: map.into_iter().flatten().map(pair).collect(),
            overrides: object.get("overrides").is_some_and(|flag| *flag == Json::Bool(true)),
        }
    }
}

fn checked(template: &str) -> String {
    assert!(template.contains("{}"), "the template {template:?} of an x-env entry has no {{}}");
    template.to_owned()
}

fn string<'a>(key: &str, item: &'a Json) -> &'a str {
    item.as_str().unwrap_or_else(|| panic!("{key} holds {item}, which is no text"))
}
