use super::*;

// P25
#[test]
fn a_copy_replaces_what_damage_has_taken() {
    let directory = tempfile::tempdir().unwrap();
    let (mut database, _) = opened(directory.path());
    database.replace(&content()).unwrap();
    database.copy().unwrap();
    let copy = directory.path().join(COPY);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    // Newer than the copy: what the damaged database still has counts.
    let newer =
        [Change::Block(block(host(1), 61, Some(9000))), Change::Block(block(host(3), 62, None))];
    database.apply(&mark("a", 103), &newer).unwrap();
    database
        .connection
        .execute("UPDATE blocks SET expires = 99 WHERE reason LIKE '%because%'", [])
        .unwrap();
    drop(database);
    let Opened { content: found, warnings, .. } = open(directory.path(), &mark("z", 5));
    let mut wanted = content().blocks;
    wanted[1] = block(host(1), 61, Some(9000));
    wanted.push(block(host(3), 62, None));
    let wanted = sorted(Content { mark: mark("a", 103), blocks: wanted, ..content() });
    assert_eq!(sorted(found.unwrap()), wanted, "{warnings:?}");
    assert!(warnings[0].contains("the copy of 2023-11-14T22:15:00Z has 3 blocks"), "{warnings:?}");
    // All of it is in the new database, which has no copy yet but the old one.
    fs::remove_file(&copy).unwrap();
    let (_, found) = opened(directory.path());
    assert_eq!(sorted(found), wanted);
}

#[test]
fn a_copy_that_cannot_be_renewed_is_removed_and_a_new_database_takes_none() {
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join(COPY);
    let (mut database, _) = opened(directory.path());
    database.replace(&content()).unwrap();
    database.copy().unwrap();
    fs::create_dir(directory.path().join("portsentry-copy.new")).unwrap();
    assert!(database.copy().is_err());
    assert!(!copy.exists(), "it would restore what has ended since");
    fs::remove_dir(directory.path().join("portsentry-copy.new")).unwrap();
    database.copy().unwrap();
    drop(database);
    fs::remove_file(directory.path().join(FILE)).unwrap();
    let (_, found) = opened(directory.path());
    assert_eq!((found.blocks.len(), copy.exists()), (0, false));
}

#[test]
fn a_damaged_database_does_not_replace_a_good_copy() {
    let directory = tempfile::tempdir().unwrap();
    let (mut database, _) = opened(directory.path());
    database.replace(&content()).unwrap();
    database.copy().unwrap();
    let copied = fs::read(directory.path().join(COPY)).unwrap();
    drop(database);
    let (database, _) = opened(directory.path());
    database.run("PRAGMA cache_size = 0; PRAGMA shrink_memory").unwrap();
    let file = directory.path().join(FILE);
    let mut bytes = fs::read(&file).unwrap();
    bytes[4096..].fill(0x55);
    fs::write(&file, bytes).unwrap();
    let error = database.copy().unwrap_err();
    assert!(error.is_damage(), "{error:?}");
    assert_eq!(fs::read(directory.path().join(COPY)).unwrap(), copied);
}
