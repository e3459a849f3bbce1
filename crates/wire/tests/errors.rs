//! The error table against the recorded table of etcd's, where it is there, and against itself.

use std::collections::BTreeSet;

use wire::{ApiError, Code};

#[test]
fn names_and_texts_are_unique() {
    let names: BTreeSet<_> = ApiError::ALL.iter().map(|e| format!("{e:?}")).collect();
    let texts: BTreeSet<_> = ApiError::ALL.iter().map(|e| e.text()).collect();
    assert_eq!(names.len(), ApiError::ALL.len());
    assert_eq!(texts.len(), ApiError::ALL.len());
}

#[test]
fn code_numbers_are_grpcs() {
    for number in 0..17 {
        assert_eq!(u32::from(Code::from_number(number).number()), number);
    }
    assert_eq!(Code::from_number(17), Code::Unknown);
}

/// `errors.tsv` has a line per error; each must be in the table with its text and, on the wire, its code.
#[test]
fn the_table_is_etcds() {
    let recorded = include_str!("errors.tsv");
    let mut seen = 0;
    for line in recorded.lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let (name, code, text) = (columns[0], columns[1], columns[2]);
        let error = ApiError::ALL
            .iter()
            .find(|e| e.text() == text)
            .unwrap_or_else(|| panic!("{text:?} is not in the table"));
        assert_eq!(format!("{:?}", error.code()), code, "{text}");
        assert_eq!(error.etcd_name(), name, "{text}");
        seen += 1;
    }
    assert_eq!(seen, ApiError::ALL.len(), "the table has errors that errors.tsv has not");
}
