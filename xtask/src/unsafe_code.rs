//! `cargo xtask unsafe`: where the unsafe code is, counted and listed.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The only places that may hold any: the backends, the trampoline, and what is not shipped.
const FENCED: [&str; 7] = [
    "crates/stead/src/sys/",
    "crates/stead-trampoline/",
    "crates/bench/",
    "crates/testbed/",
    "crates/stead/tests/",
    "crates/stead/examples/",
    "fuzz/",
];

/// One piece of unsafe code.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    pub line: usize,
    pub what: What,
    /// The function, implementation or trait that it stands in.
    pub within: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Block,
    Function,
    Implementation,
    ForeignFunctions,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Function => "function",
            Self::Implementation => "impl",
            Self::ForeignFunctions => "extern",
        }
    }
}

/// Lists every piece; fails when one stands outside the fence.
pub fn run(arguments: &[String]) -> io::Result<u8> {
    let short = match arguments {
        [] => false,
        [only] if only == "--short" => true,
        _ => return Err(io::Error::other("usage: cargo xtask unsafe [--short]")),
    };
    let places = places(Path::new("."))?;
    print!("{}", listing(&places, short));
    let outside: Vec<&Place> = places.iter().filter(|place| !fenced(&place.file)).collect();
    for place in &outside {
        eprintln!("outside of the fence: {}:{}", place.file.display(), place.line);
    }
    Ok(u8::from(!outside.is_empty()))
}

fn fenced(file: &Path) -> bool {
    FENCED.iter().any(|fence| file.starts_with(fence))
}

fn listing(places: &[Place], short: bool) -> String {
    let mut text = String::new();
    let mut rest = places;
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|place| place.file == first.file).count();
        let (here, after) = rest.split_at(count);
        let _ = writeln!(text, "{:4}  {}", here.len(), first.file.display());
        for place in here.iter().filter(|_| !short) {
            let _ = writeln!(text, "      {:5}  {:8}  {}", place.line, place.what.name(), place.within);
        }
        rest = after;
    }
    let shipped = places.iter().filter(|place| shipped(&place.file)).count();
    let _ = writeln!(text, "{} in all, {shipped} of them in what is shipped", places.len());
    text
}

fn shipped(file: &Path) -> bool {
    file.starts_with("crates/stead/src") || file.starts_with("crates/stead-trampoline/src")
}

/// Every piece of unsafe code below `root`, in the order of files and lines.
pub fn places(root: &Path) -> io::Result<Vec<Place>> {
    let mut files = Vec::new();
    for folder in ["crates", "xtask", "fuzz"] {
        sources(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut places = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)?;
        let parsed = syn::parse_file(&text)
            .map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
        let name = file.strip_prefix(root).unwrap_or(&file).to_owned();
        let mut finder = Finder { file: name, within: Vec::new(), places: &mut places };
        finder.visit_file(&parsed);
    }
    Ok(places)
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

struct Finder<'a> {
    file: PathBuf,
    within: Vec<String>,
    places: &'a mut Vec<Place>,
}

impl Finder<'_> {
    fn found(&mut self, what: What, at: &impl Spanned) {
        self.places.push(Place {
            file: self.file.clone(),
            line: at.span().start().line,
            what,
            within: self.within.join("::"),
        });
    }

    fn inside(&mut self, name: String, visit: impl FnOnce(&mut Self)) {
        self.within.push(name);
        visit(self);
        self.within.pop();
    }
}

/// What is implemented for what, by its last name.
fn type_name(of: &syn::Type) -> String {
    match of {
        syn::Type::Path(path) => {
            path.path.segments.last().map_or_else(String::new, |last| last.ident.to_string())
        }
        _ => String::from("_"),
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.inside(item.sig.ident.to_string(), |finder| {
            if let Some(keyword) = &item.sig.unsafety {
                finder.found(What::Function, keyword);
            }
            visit::visit_item_fn(finder, item);
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.inside(item.sig.ident.to_string(), |finder| {
            if let Some(keyword) = &item.sig.unsafety {
                finder.found(What::Function, keyword);
            }
            visit::visit_impl_item_fn(finder, item);
        });
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.inside(type_name(&item.self_ty), |finder| {
            if let Some(keyword) = &item.unsafety {
                finder.found(What::Implementation, keyword);
            }
            visit::visit_item_impl(finder, item);
        });
    }

    fn visit_item_foreign_mod(&mut self, item: &'ast syn::ItemForeignMod) {
        self.found(What::ForeignFunctions, &item.abi);
        visit::visit_item_foreign_mod(self, item);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.found(What::Block, &block.unsafe_token);
        visit::visit_expr_unsafe(self, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<(usize, What, String)> {
        let mut places = Vec::new();
        let mut finder = Finder { file: PathBuf::new(), within: Vec::new(), places: &mut places };
        finder.visit_file(&syn::parse_file(source).expect("a source file"));
        places.into_iter().map(|place| (place.line, place.what, place.within)).collect()
    }

    #[test]
    fn every_kind_of_unsafe_code_is_found_and_the_word_in_text_is_not() {
        let source = "// unsafe\nfn f() {\n let _ = \"unsafe\";\n unsafe { g() }\n}\nunsafe fn g() {}\n\
                      struct S;\nunsafe impl Send for S {}\nimpl S {\n fn m() { unsafe { g() } }\n}\n\
                      unsafe extern \"C\" { fn h(); }\n";
        assert_eq!(
            found(source),
            [
                (4, What::Block, "f".into()),
                (6, What::Function, "g".into()),
                (8, What::Implementation, "S".into()),
                (10, What::Block, "S::m".into()),
                (12, What::ForeignFunctions, String::new()),
            ]
        );
    }

    #[test]
    fn unsafe_code_stands_in_the_backends_and_the_trampoline_only() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let places = places(&root).expect("the project's sources");
        assert!(places.iter().any(|place| shipped(&place.file)), "none was found at all");
        let outside: Vec<_> = places.iter().filter(|place| !fenced(&place.file)).collect();
        assert!(outside.is_empty(), "{outside:#?}");
    }
}
