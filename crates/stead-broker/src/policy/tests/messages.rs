//! Every message about a policy, as it is written down beside it: `golden/NAME.toml` and `golden/NAME.txt`.
//! With `STEAD_WRITE_GOLDEN=1` the messages are written down anew, to be looked at in the difference.

use std::fs;
use std::path::Path;

use crate::policy::{NameTable, Policy};

/// How many messages there are at least: that the folder was found, and none went away unseen.
const LEAST: usize = 12;

#[test]
fn every_mistake_is_told_with_its_place_and_what_would_mend_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy/tests/golden");
    let names = NameTable::new().user("portal", 990).user("alice", 1000).group("students", 500);
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(files.len() >= LEAST, "{files:?}");
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let errors = Policy::parse(name, &text, &names).expect_err(name);
        let told = format!("{errors}\n");
        let expected = file.with_extension("txt");
        if std::env::var_os("STEAD_WRITE_GOLDEN").is_some() {
            fs::write(&expected, &told).unwrap();
        }
        assert_eq!(told, fs::read_to_string(&expected).unwrap_or_default(), "{}", expected.display());
    }
}
