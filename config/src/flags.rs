use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::exit::Exit;

/// What the command line says.
#[derive(Default)]
pub(crate) struct Flags {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) profile: Option<String>,
    /// Key and value, in the order they were given.
    pub(crate) set: Vec<(String, String)>,
    pub(crate) check: bool,
    pub(crate) print: bool,
    pub(crate) schema: bool,
}

/// Reads the arguments, without the program's own name. `--help`, `--version` and mistakes end in an [`Exit`].
pub(crate) fn parse(name: &str, version: &str, prefix: &str, args: Vec<OsString>) -> Result<Flags, Exit> {
    let args = std::iter::once(OsString::from(name)).chain(args);
    let matches = command(name, version, prefix).try_get_matches_from(args).map_err(|error| refused(&error))?;
    Ok(Flags {
        files: many(&matches, "config"),
        profile: matches.get_one::<String>("profile").cloned(),
        set: many::<String>(&matches, "set").into_iter().map(pair).collect::<Result<_, _>>()?,
        check: matches.get_flag("check-config"),
        print: matches.get_flag("print-config"),
        schema: matches.get_flag("config-schema"),
    })
}

fn command(name: &str, version: &str, prefix: &str) -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help).action(ArgAction::Append)
    };
    let switch =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    Command::new(name.to_owned())
        .version(version.to_owned())
        .arg(
            option("config", "FILE", "Read this file: TOML, YAML or JSON; a later one wins")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(option("profile", "NAME", "Also read <file>.<NAME>.<ending> beside each file").action(ArgAction::Set))
        .arg(option("set", "KEY=VALUE", "Set one key, as in --set server.http.addr=127.0.0.1:8080"))
        .arg(switch("check-config", "Check the configuration, and end with 0 if it is valid, else 78"))
        .arg(switch("print-config", "Print every key, its value and where it came from; secrets as ***"))
        .arg(
            switch("config-schema", "Print the JSON Schema of the configuration files")
                .conflicts_with_all(["check-config", "print-config"]),
        )
        .after_help(format!(
            "Every key can also be set in the environment: {prefix}<KEY>, with __ between levels, as in \
             {prefix}SERVER__HTTP__ADDR.\nWithout --config, /etc/{name}/config.{{toml,yaml,json}} is read if there is one. \
             Later wins: defaults, files, profile, *_FILE secrets, environment, --set."
        ))
}

fn many<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Vec<T> {
    matches.get_many::<T>(name).into_iter().flatten().cloned().collect()
}

fn pair(text: String) -> Result<(String, String), Exit> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        // Not repeated: it may be a secret whose key was forgotten.
        None => Err(Exit::usage("--set: expected KEY=VALUE; write --set key=value, without spaces")),
    }
}

fn refused(error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::done(&text),
        // An argument that is no flag may be the value that belonged to one, `--set password hunter2`: not repeated.
        ErrorKind::UnknownArgument => match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(argument)) if !argument.starts_with('-') => {
                Exit::usage("an argument that is no flag (not shown); write --set key=value, without spaces")
            }
            _ => Exit::usage(text),
        },
        _ => Exit::usage(text),
    }
}
