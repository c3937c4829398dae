use proptest::prelude::*;

use super::*;

const FILE: Owners = Owners { uid: 1000, gid: 1000 };

fn rights() -> impl Strategy<Value = Rights> {
    (0_u32..8).prop_map(Rights::of_bits)
}

fn named() -> impl Strategy<Value = Named> {
    (any::<bool>(), 0_u32..6).prop_map(|(user, id)| if user { Named::User(id) } else { Named::Group(id) })
}

fn list() -> impl Strategy<Value = PosixAcl> {
    let entries = prop::collection::btree_map(named(), rights(), 0..4);
    (rights(), rights(), rights(), entries, prop::option::of(rights())).prop_map(
        |(owner, group, other, named, mask)| {
            let mask = if named.is_empty() { mask } else { Some(mask.unwrap_or(Rights::of_bits(7))) };
            PosixAcl { owner, group, other, named, mask }
        },
    )
}

/// What each of those who are not `who` may do.
fn others(list: &PosixAcl, who: Named) -> Vec<(Named, Rights)> {
    let named = list.named.keys().filter(|one| **one != who);
    named.map(|one| (*one, list.effective(*one).unwrap())).collect()
}

/// The owner's, the owning group's and everybody's.
fn classes(list: &PosixAcl) -> [Rights; 3] {
    [list.owner, list.mask.map_or(list.group, |mask| list.group.and(mask)), list.other]
}

proptest! {
    #[test]
    fn what_is_encoded_is_parsed_again(list in list()) {
        prop_assert_eq!(PosixAcl::parse(&list.encode()), Ok(list));
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(list) = PosixAcl::parse(&bytes) {
            prop_assert_eq!(PosixAcl::parse(&list.encode()), Ok(list));
        }
    }

    #[test]
    fn what_was_put_in_and_taken_out_leaves_the_list_as_it_was(list in list(), who in named(), wanted in rights()) {
        if let Ok(Some((granted, addition))) = list.with(who, wanted) {
            prop_assert!(granted.effective(who).unwrap().contains(wanted));
            prop_assert_eq!(granted.without(&addition), Some(list));
        }
    }

    #[test]
    fn nobody_else_gains_or_loses_by_an_entry(list in list(), who in named(), wanted in rights()) {
        if let Ok(Some((granted, _))) = list.with(who, wanted) {
            prop_assert_eq!(others(&granted, who), others(&list, who));
            prop_assert_eq!(classes(&granted), classes(&list));
        }
    }

    #[test]
    fn what_others_did_meanwhile_stays(
        list in list(), who in named(), wanted in rights(), theirs in named(), their_rights in rights(), chmod in rights(),
    ) {
        prop_assume!(who != theirs);
        if let Ok(Some((granted, addition))) = list.with(who, wanted) {
            let mut changed = granted;
            changed.named.insert(theirs, their_rights);
            changed.mask = Some(chmod);
            if let Some(left) = changed.without(&addition) {
                prop_assert_eq!(others(&left, who), others(&changed, who));
                prop_assert_eq!(classes(&left), classes(&changed));
                prop_assert_eq!(left.named.contains_key(&who), list.named.contains_key(&who));
            }
        }
    }

    #[test]
    fn two_entries_can_be_taken_out_in_either_order(
        mode in 0_u32..0o1000, first in named(), second in named(), wanted in rights(),
    ) {
        prop_assume!(first != second);
        let list = PosixAcl::of_mode(mode);
        let (one, addition) = list.with(first, wanted).unwrap().unwrap();
        if let Ok(Some((both, later))) = one.with(second, wanted) {
            for order in [[addition, later], [later, addition]] {
                let left = order.iter().fold(both.clone(), |left, one| left.without(one).unwrap());
                prop_assert_eq!(&left, &list);
            }
        }
    }
}

#[test]
fn an_entry_that_would_widen_anothers_by_the_mask_is_refused() {
    let mut list = PosixAcl::of_mode(0o750);
    list.named.insert(Named::User(7), Rights::READ_WRITE);
    list.mask = Some(Rights::of_bits(4));
    assert_eq!(list.with(Named::Group(70000), Rights::WRITE), Err(OthersHeldBack(Named::User(7))));
    assert_eq!(list.to_string(), "user::rwx,group::r-x,user:7:rw-,mask::r--,other::---");
}

#[test]
fn an_entry_never_takes_away_what_everybody_has() {
    let list = PosixAcl::of_mode(0o705);
    let (granted, _) = list.with(Named::Group(70000), Rights::WRITE).unwrap().unwrap();
    assert_eq!(granted.to_string(), "user::rwx,group::---,group:70000:rwx,mask::rwx,other::r-x");
}

#[test]
fn who_is_admitted_follows_the_kernels_order() {
    let list = PosixAcl::of_mode(0o755);
    let (list, _) = list.with(Named::Group(70000), Rights::WRITE).unwrap().unwrap();
    assert!(list.admits(FILE, 70001, &[70001, 70000], Rights::WRITE), "the named group");
    assert!(!list.admits(FILE, 70001, &[70001], Rights::WRITE), "everybody else");
    assert!(list.admits(FILE, 1000, &[], Rights::WRITE), "the owner");
    assert!(!list.admits(FILE, 70002, &[1000], Rights::WRITE), "the owning group");
    let mut shut_out = list;
    shut_out.named.insert(Named::User(70001), Rights::NONE);
    assert!(
        !shut_out.admits(FILE, 70001, &[70000], Rights::WRITE),
        "a user's own entry comes before any group's"
    );
}

#[test]
fn what_is_no_list_is_refused() {
    let good = PosixAcl::of_mode(0o640).encode();
    assert!(PosixAcl::parse(&good).is_ok());
    assert_eq!(PosixAcl::parse(&good[..good.len() - 1]), Err(Malformed));
    assert_eq!(PosixAcl::parse(&good[..good.len() - 8]), Err(Malformed), "without everybody's entry");
    assert_eq!(PosixAcl::parse(&[]), Err(Malformed));
    let mut other_version = good;
    other_version[0] = 1;
    assert_eq!(PosixAcl::parse(&other_version), Err(Malformed));
}
