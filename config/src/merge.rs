use config::{Config, ConfigError, Map, Source, Value};

/// Lays each layer over those before it: tables merge, everything else is replaced, and each value keeps its origin.
///
/// The layers have been checked before: `config` replaces a table by a scalar, or a scalar by a table, without a word.
pub(crate) fn merge(layers: impl IntoIterator<Item = Value>) -> Value {
    let builder = layers.into_iter().fold(Config::builder(), |builder, layer| builder.add_source(Layer(layer)));
    let merged = builder.build().expect("layers that are in memory can be read");
    merged
        .cache
        .into_table()
        .ok()
        .and_then(|mut top| top.remove(ROOT))
        .unwrap_or_else(|| Map::<String, Value>::new().into())
}

/// `config` reads the top keys of a source as paths, and would part `"a.b"` into two; it leaves those below alone.
const ROOT: &str = "root";

#[derive(Clone, Debug)]
struct Layer(Value);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(Map::from([(ROOT.to_owned(), self.0.clone())]))
    }
}
