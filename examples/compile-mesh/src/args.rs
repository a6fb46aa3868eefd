//! Reads a gcc or clang command line and decides: can a worker do this, or is it for the local compiler?

use std::path::{Path, PathBuf};

use crate::allow;
use crate::job::Language;

/// What to do with a command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// The local compiler runs it unchanged, for this reason.
    Local(String),
    /// One source file becomes one object.
    Remote(Unit),
}

/// One source file that becomes one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// The source file as the command line names it.
    pub(crate) source: PathBuf,
    /// Where the object goes.
    pub(crate) object: PathBuf,
    /// Its language.
    pub(crate) language: Language,
    /// Arguments for the local preprocessor, without `-E` and without the source.
    pub(crate) preprocess: Vec<String>,
    /// Arguments for the worker's compiler.
    pub(crate) compile: Vec<String>,
}

/// Matters to the preprocessor alone; the value follows, joined or as the next argument.
const PREPROCESS_VALUES: &[&str] = &[
    "-iwithprefixbefore",
    "-iwithprefix",
    "-iframework",
    "-idirafter",
    "-isysroot",
    "-isystem",
    "-include",
    "-imacros",
    "-iprefix",
    "-iquote",
    "--sysroot",
    "-I",
    "-D",
    "-U",
    "-F",
];

const PREPROCESS_FLAGS: &[&str] = &["-nostdinc", "-nostdinc++", "-undef", "-trigraphs", "-C", "-CC"];

/// Arguments that ask for something only the local compiler can do.
const LOCAL: &[(&str, &str)] = &[
    ("-E", "it only preprocesses"),
    ("-S", "it makes assembly"),
    ("-M", "it only lists dependencies"),
    ("-MM", "it only lists dependencies"),
    ("-MG", "-MG wants missing headers"),
    ("-P", "-P drops line numbers"),
    ("-H", "-H prints headers"),
    ("-g3", "-g3 records macros"),
    ("-ggdb3", "-ggdb3 records macros"),
    ("-gsplit-dwarf", "-gsplit-dwarf writes a second file"),
    ("-fsyntax-only", "it makes no object"),
    ("-", "the source is standard input"),
];

/// The beginnings of such arguments.
const LOCAL_PREFIXES: &[(&str, &str)] = &[
    ("@", "a response file"),
    ("-save-temps", "-save-temps writes more files"),
    ("-fprofile", "profiling reads or writes files"),
    ("--coverage", "coverage writes files"),
    ("-ftest-coverage", "coverage writes files"),
    ("-fauto-profile", "profiling reads files"),
    ("-fbranch-probabilities", "profiling reads files"),
    ("-flto", "link-time objects differ from run to run"),
    ("-fno-lto", "link-time options stay here"),
    ("-fplugin", "a plug-in runs foreign code"),
    ("-specs", "a specs file"),
    ("--specs", "a specs file"),
    ("-wrapper", "a wrapper runs foreign code"),
    ("-Wp,", "-Wp, speaks to the preprocessor itself"),
    ("-Wa,", "-Wa, speaks to the assembler itself"),
    ("-X", "it speaks to another program"),
    ("-fdump-", "it dumps files"),
    ("-d", "it dumps files"),
    ("-B", "-B names other programs"),
];

#[derive(Default)]
struct Reader {
    compiles: bool,
    source: Option<PathBuf>,
    object: Option<PathBuf>,
    language: Option<Language>,
    depends: Option<&'static str>,
    depends_file: bool,
    depends_target: bool,
    preprocess: Vec<String>,
    compile: Vec<String>,
}

/// Decides what to do with `args`, which stand after the compiler's name.
pub(crate) fn plan(args: &[String]) -> Plan {
    let mut reader = Reader::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if let Err(why) = reader.take(arg, &mut rest) {
            return Plan::Local(why);
        }
    }
    reader.finish().map_or_else(Plan::Local, Plan::Remote)
}

impl Reader {
    fn take<'a>(&mut self, arg: &str, rest: &mut impl Iterator<Item = &'a String>) -> Result<(), String> {
        if let Some((_, why)) = LOCAL.iter().find(|(name, _)| *name == arg) {
            return Err((*why).to_owned());
        }
        if let Some((_, why)) = LOCAL_PREFIXES.iter().find(|(name, _)| arg.starts_with(name)) {
            return Err((*why).to_owned());
        }
        if !arg.starts_with('-') {
            return match self.source.replace(PathBuf::from(arg)) {
                None => Ok(()),
                Some(_) => Err("more than one input file".to_owned()),
            };
        }
        if self.take_file_option(arg, rest)? || self.take_preprocessor_option(arg, rest)? {
            return Ok(());
        }
        if arg.starts_with("-Wl,") || ["-s", "-rdynamic"].contains(&arg) {
            return Ok(());
        }
        if arg.starts_with("-L") || arg.starts_with("-l") {
            return value(arg, arg[..2].len(), rest).map(|_| ());
        }
        if arg == "-pipe" {
            return Ok(());
        }
        allow::argument(arg)?;
        self.preprocess.push(arg.to_owned());
        self.compile.push(arg.to_owned());
        Ok(())
    }

    fn take_file_option<'a>(
        &mut self,
        arg: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<bool, String> {
        match arg {
            "-c" => self.compiles = true,
            "-MD" | "-MMD" => self.depends = Some(if arg == "-MD" { "-MD" } else { "-MMD" }),
            "-MP" => self.preprocess.push(arg.to_owned()),
            _ if arg.starts_with("-MF") => {
                self.depends_file = true;
                self.preprocess.extend(["-MF".to_owned(), value(arg, 3, rest)?]);
            }
            _ if arg.starts_with("-MT") || arg.starts_with("-MQ") => {
                self.depends_target = true;
                self.preprocess.extend([arg[..3].to_owned(), value(arg, 3, rest)?]);
            }
            _ if arg.starts_with("-o") => {
                if self.object.replace(PathBuf::from(value(arg, 2, rest)?)).is_some() {
                    return Err("more than one -o".to_owned());
                }
            }
            _ if arg.starts_with("-x") => {
                self.language = Some(match value(arg, 2, rest)?.as_str() {
                    "c" => Language::C,
                    "c++" => Language::Cxx,
                    other => return Err(format!("the language {} stays here", other.escape_debug())),
                });
                if self.source.is_some() {
                    return Err("-x after the source file".to_owned());
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_preprocessor_option<'a>(
        &mut self,
        arg: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<bool, String> {
        if PREPROCESS_FLAGS.contains(&arg) {
            self.preprocess.push(arg.to_owned());
            return Ok(true);
        }
        let Some(name) = PREPROCESS_VALUES.iter().find(|name| arg.starts_with(**name)) else {
            return Ok(false);
        };
        self.preprocess.push(arg.to_owned());
        if arg == *name {
            self.preprocess.push(value(arg, arg.len(), rest)?);
        }
        Ok(true)
    }

    fn finish(mut self) -> Result<Unit, String> {
        if !self.compiles {
            return Err("it links".to_owned());
        }
        let source = self.source.ok_or("there is no source file")?;
        let language = match self.language {
            Some(language) => language,
            None => language_of(&source)?,
        };
        let object = match self.object {
            Some(object) => object,
            None => PathBuf::from(source.file_name().ok_or("the source has no name")?).with_extension("o"),
        };
        match self.depends {
            Some(flag) => {
                self.preprocess.push(flag.to_owned());
                if !self.depends_file {
                    let file = object.with_extension("d");
                    self.preprocess.extend(["-MF".to_owned(), text(&file)?]);
                }
                if !self.depends_target {
                    self.preprocess.extend(["-MQ".to_owned(), text(&object)?]);
                }
            }
            None if self.depends_file || self.depends_target => {
                return Err("-MF, -MT or -MQ without -MD".to_owned());
            }
            None => {}
        }
        if let Some(language) = self.language {
            let name = if language == Language::C { "c" } else { "c++" };
            self.preprocess.extend(["-x".to_owned(), name.to_owned()]);
        }
        if debugs(&self.compile) && !self.compile.iter().any(|arg| arg == "-gno-column-info") {
            return Err(
                "debug information would have other columns (-gno-column-info leaves them out)".to_owned()
            );
        }
        Ok(Unit { source, object, language, preprocess: self.preprocess, compile: self.compile })
    }
}

fn text(path: &Path) -> Result<String, String> {
    path.to_str().map(str::to_owned).ok_or_else(|| "a path is not UTF-8".to_owned())
}

/// The value of an option that is joined after `name` bytes, or the next argument.
fn value<'a>(arg: &str, name: usize, rest: &mut impl Iterator<Item = &'a String>) -> Result<String, String> {
    match &arg[name..] {
        "" => rest.next().cloned().ok_or_else(|| format!("nothing follows {}", arg.escape_debug())),
        joined => Ok(joined.to_owned()),
    }
}

fn language_of(source: &Path) -> Result<Language, String> {
    match source.extension().and_then(|extension| extension.to_str()) {
        Some("c") => Ok(Language::C),
        Some("cc" | "cpp" | "cxx" | "c++" | "C" | "CPP" | "cp") => Ok(Language::Cxx),
        Some("s" | "S" | "sx") => Err("the source is assembly".to_owned()),
        Some("i" | "ii") => Err("the source is already preprocessed".to_owned()),
        Some("m" | "mm" | "M") => Err("the source is Objective-C".to_owned()),
        _ => Err("the input is no C or C++ source".to_owned()),
    }
}

/// Whether the object holds debug information: the last `-g` decides.
fn debugs(args: &[String]) -> bool {
    let level = args.iter().rev().find(|arg| {
        matches!(arg.as_str(), "-g" | "-g0" | "-g1" | "-g2")
            || arg.starts_with("-ggdb")
            || arg.starts_with("-gdwarf")
    });
    level.is_some_and(|arg| arg != "-g0" && arg != "-ggdb0")
}

#[cfg(test)]
mod tests;
