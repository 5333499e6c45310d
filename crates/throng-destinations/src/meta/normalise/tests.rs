//! Identifiers in the platform's form.

use super::*;

fn sha(key: &str, raw: &str, home: Option<&str>) -> String {
    match cell(key, raw, User { home, this_year: 2026 }, &mut Vec::new()) {
        Cell::Hashed(hash) => hash.to_hex(),
        Cell::Plain(text) => format!("plain {text}"),
        Cell::Empty => String::new(),
    }
}

#[test]
fn published_hash_vectors_are_reproduced() {
    for (key, raw, hash) in [
        (
            "EMAIL",
            "mary@example.com",
            "f1904cf1a9d73a55fa5de0ac823c4403ded71afd4c3248d00bdcd0866552bb79",
        ),
        (
            "PHONE",
            "1 (555) 987-6543",
            "1ef970831d7963307784fa8688e8fce101a15685d62aa765fed23f3a2c576a4e",
        ),
        ("FN", "  TEST ", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        ("FN", "..test..", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        (
            "EMAIL",
            "User1@Example.com",
            "b36a83701f1c3191e19722d6f90274bc1b5501fe69ebf33313e440fe4b0fe210",
        ),
        (
            "PHONE",
            "+1-555-123-4567",
            "d6736136ea896c1bfdc553e0e86e702c70d060d805696ca3e4e9e0961353860a",
        ),
        ("DOBY", "1990", "a7be8e1fe282a37cd666e0632b17d933fa13f21addf4798fc0455bc166e2488c"),
        ("DOBM", "1", "938db8c9f82c8cb58d3f3ef4fd250036a48d26a712753d2fde5abd03a85cabf4"),
        ("DOBD", "15", "e629fa6598d732768f7c726b4b621285f9c3b85303900aa912017db7617d8bdb"),
        ("LN", "Doe", "799ef92a11af918e3fb741df42934f3b568ed2d93ac1df74f1b8d41a27932a6f"),
        ("FN", "John", "96d9632f363564cc3032521409cf22a852f2032eec099ed5967c0d000cec607a"),
        ("FI", "John", "189f40034be7a199f1fa9891668ee3ab6049f82d38c68be70f596eab2e1857b7"),
        ("GEN", "Male", "62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a"),
        ("CT", "San Francisco", "1a6bd4d9d79dc0a79b53795c70d3349fa9e38968a3fbefbfe8783efb1d2b6aac"),
        ("ST", "CA", "6959097001d10501ac7d54c0bdb8db61420f658f2922cc26e46d536119a31126"),
        ("ZIP", "92000-1234", "ad16c1a6866c5887c5b59c1803cb1fc09769f1b403b6f1d9d0f10ad6ab4d5d50"),
        ("COUNTRY", "US", "79adb2a2fce5c6ba215fe5f27f532d4e7edbac4b6a5e09e1ef3a08084a904621"),
        ("LN", " Jones", "9706987d633e05a0d2931c21108b37e8c790570048ac47c48900314bb325d606"),
        (
            "EMAIL",
            "  ALEXZ@example.com   ",
            "509e933019bb285a134a9334b8bb679dff79d0ce023d529af4bd744d47b4fd8a",
        ),
        (
            "EMAIL",
            "Person@email.com ",
            "b375b7bbddb3de3298fbc7641063d9f03a38e118aa4480c8ab9f58740982e8bd",
        ),
        (
            "PHONE",
            "+1(706)-767-5127",
            "2fd199db6d3fa9fe754886ff1822f2867fcb104a6639495eca25c2978efe4ed4",
        ),
        (
            "PHONE",
            "001(706)767-5127",
            "2fd199db6d3fa9fe754886ff1822f2867fcb104a6639495eca25c2978efe4ed4",
        ),
        ("FN", "José", "d994e1d001886fe5b45b1267bd1fa2b752ac50742579bd3dad7b2a2aa0ed6866"),
        ("LN", "Müller", "2dbd218072117713f2d5996a726a9b216ed791ffd0783b6ba4ab6d61b8333192"),
        (
            "PHONE",
            "+44 20 7183 8750",
            "8d5f937f3a5590634cbe975951a6aa1543170671ce6e73cce4062f4e8c288417",
        ),
    ] {
        assert_eq!(sha(key, raw, None), hash, "{key} {raw}");
    }
}

#[test]
fn some_identifiers_are_not_hashed_and_invalid_ones_are_empty() {
    for (key, raw, wire) in [
        (
            "MADID",
            "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6",
            "plain f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        ),
        ("EXTERN_ID", " Cust-7 ", "plain Cust-7"),
        ("EMAIL", "nobody", ""),
        ("EMAIL", "a b@c.de", ""),
        ("GEN", "x", ""),
        ("DOBM", "13", ""),
        ("COUNTRY", "Utopia", ""),
        ("FN", "...", ""),
        ("EMAIL", "   ", ""),
    ] {
        assert_eq!(sha(key, raw, None), wire, "{key} {raw}");
    }
    assert_eq!(sha("COUNTRY", "uk", None), sha("COUNTRY", "GB", None));
    let hash = HashedIdentifier::of_normalised("test").to_hex();
    assert_eq!(sha("EMAIL", &hash.to_uppercase(), None), hash);
}

/// The cell as text, and the last note.
fn noted(key: &str, raw: &str) -> (String, Option<&'static str>) {
    let mut notes = Vec::new();
    let user = User { home: None, this_year: 2026 };
    let cell = match cell(key, raw, user, &mut notes) {
        Cell::Hashed(_) => "hashed".to_owned(),
        Cell::Plain(text) => text.to_string(),
        Cell::Empty => String::new(),
    };
    assert!(notes.iter().all(|reason| NOTE_REASONS.contains(reason)));
    (cell, notes.pop())
}

#[test]
fn an_advertising_id_is_a_uuid_of_one_device() {
    let id = "5f3a2b18-9c4d-4e7f-b8e2-17d3a1e69b25";
    for (raw, note) in [
        (id, None),
        (" 5F3A2B18-9C4D-4E7F-B8E2-17D3A1E69B25 ", None),
        ("5F3A2B189C4D4E7FB8E217D3A1E69B25", Some(HYPHENS)),
    ] {
        assert_eq!(noted("MADID", raw), (id.to_owned(), note), "{raw}");
    }
    for (raw, note) in [
        ("00000000-0000-0000-0000-000000000000", LIMITED_TRACKING),
        ("00000000000000000000000000000000", LIMITED_TRACKING),
        ("abc", NOT_AN_ADVERTISING_ID),
        ("-", text::MISSING),
        ("5f3a2b18-9c4d-4e7f-b8e2-17d3a1e69b2", NOT_AN_ADVERTISING_ID),
        ("5f3a2b189-c4d-4e7f-b8e2-17d3a1e69b25", NOT_AN_ADVERTISING_ID),
        ("5f3a2b18-9c4d4e7fb8e217d3a1e69b25", NOT_AN_ADVERTISING_ID),
        ("5f3a2b18-9c4d-4e7f-b8e2-17d3a1e69bzz", NOT_AN_ADVERTISING_ID),
        // The MD5 and the SHA-256 of an id.
        ("098f6bcd0621d373cade4e832627b4f6", NOT_AN_ADVERTISING_ID),
        ("83dc3f5f32b9472613b0f038d36f22585a609d018af6f6067f50da318bf354bd", NOT_AN_ADVERTISING_ID),
    ] {
        assert_eq!(noted("MADID", raw), (String::new(), Some(note)), "{raw}");
    }
}

#[test]
fn a_state_code_of_iso_3166_2_is_that_of_the_us_and_canada_or_refused() {
    use super::super::places::{STATE_CODE, STATE_COUNTRY};
    let ca = HashedIdentifier::of_normalised("ca");
    for (raw, home, expected) in [
        ("US-CA", None, Ok(STATE_COUNTRY)),
        (" us-ca ", Some("US"), Ok(STATE_COUNTRY)),
        ("US-CA", Some("DE"), Err(STATE_CODE)),
        ("US-ON", None, Err(STATE_CODE)),
        ("US-ZZ", None, Err(STATE_CODE)),
        ("DE-BY", None, Err(STATE_CODE)),
        ("de-by", Some("DE"), Err(STATE_CODE)),
        ("DE-BY", Some("US"), Err(STATE_CODE)),
        ("GB-ENG", Some("GB"), Err(STATE_CODE)),
        ("FR-75", Some("FR"), Err(STATE_CODE)),
    ] {
        let mut notes = Vec::new();
        let found = cell("ST", raw, User { home, this_year: 2026 }, &mut notes);
        let (wanted, note) = match expected {
            Ok(note) => (Cell::Hashed(ca), note),
            Err(reason) => (Cell::Empty, reason),
        };
        assert_eq!((found, notes), (wanted, vec![note]), "{raw} {home:?}");
        assert!(NOTE_REASONS.contains(&note));
    }
}

#[test]
fn a_hash_that_the_platform_does_not_know_is_refused() {
    let of_nothing = HashedIdentifier::of_normalised("").to_hex();
    let zeros = "0".repeat(64);
    for (raw, note) in [
        (of_nothing.as_str(), HASH_OF_NOTHING),
        (zeros.as_str(), HASH_OF_NOTHING),
        ("098f6bcd0621d373cade4e832627b4f6", OTHER_HASH),
        ("A94A8FE5CCB19BA61C4C0873D391E987982FBBD3", OTHER_HASH),
    ] {
        for key in ["EMAIL", "PHONE", "FN", "LN", "CT", "ZIP"] {
            assert_eq!(noted(key, raw), (String::new(), Some(note)), "{key} {raw}");
        }
    }
    let sha256 = HashedIdentifier::of_normalised("test").to_hex();
    assert_eq!(noted("EMAIL", &sha256), ("hashed".to_owned(), None));
    for missing in ["NULL", "null", "None", "N/A", "undefined", "NaN", "Unknown"] {
        let hash = HashedIdentifier::of_normalised(missing).to_hex();
        for key in ["EMAIL", "PHONE"] {
            assert_eq!(
                noted(key, &hash),
                (String::new(), Some(HASH_OF_MISSING)),
                "{key} {missing}"
            );
        }
        // Some of the texts are names.
        assert_eq!(noted("LN", &hash), ("hashed".to_owned(), None), "{missing}");
    }
}

fn schema(keys: &[&str]) -> Schema {
    Schema {
        keys: keys.iter().map(|k| (*k).to_owned()).collect(),
        default_country: Some("GB".to_owned()),
    }
}

fn prepared(schema: &Schema, cells: &[Option<Personal>]) -> Result<PreparedRow, Skip> {
    prepare(schema, 2026, cells, &mut Vec::new())
}

fn row(cells: &[&str]) -> Vec<Option<Personal>> {
    cells.iter().map(|c| (!c.is_empty()).then(|| Personal::new(*c))).collect()
}

#[test]
fn rows_without_a_usable_identifier_are_skipped() {
    let keys = schema(&["EMAIL", "COUNTRY"]);
    assert_eq!(prepared(&keys, &row(&["", "GB"])), Err(NOTHING_USABLE));
    assert_eq!(prepared(&keys, &row(&["nobody", ""])), Err(NOTHING_USABLE));
    assert_eq!(prepared(&keys, &[]), Err(NOTHING_USABLE));
    let filled = prepared(&keys, &row(&["a@b.de", ""])).unwrap();
    assert_eq!(filled[1], Cell::Hashed(HashedIdentifier::of_normalised("gb")));
}

#[test]
fn a_row_without_its_extern_id_is_skipped() {
    let keys = schema(&["EXTERN_ID", "EMAIL"]);
    for missing in ["", "NULL", "\\N", "nan ", "#N/A"] {
        assert_eq!(prepared(&keys, &row(&[missing, "a@b.de"])), Err(NO_EXTERN_ID), "{missing}");
    }
    assert!(prepared(&keys, &row(&["Null", "a@b.de"])).is_ok());
    assert_eq!(prepared(&keys, &row(&["7", ""])).unwrap()[1], Cell::Empty);
}

#[test]
fn names_and_places_alone_are_skipped() {
    let keys = schema(&["FN", "LN", "CT", "ZIP", "COUNTRY"]);
    assert_eq!(prepared(&keys, &row(&["Ann", "", "", "", ""])), Err(TOO_WEAK));
    assert_eq!(prepared(&keys, &row(&["Ann", "Lee", "Paris", "", "FR"])), Err(TOO_WEAK));
    assert!(prepared(&keys, &row(&["Ann", "Lee", "", "75001", "FR"])).is_ok());
}

#[test]
fn common_spellings_are_normalised_to_the_platforms_form() {
    let same = |key: &str, raw: &str, home: Option<&str>, text: &str| {
        let wanted = HashedIdentifier::of_normalised(text).to_hex();
        assert_eq!(
            sha(key, raw, home),
            if text.is_empty() { "" } else { &wanted },
            "{key} {raw:?}"
        );
    };
    for (raw, text) in [
        ("a@example.com\u{200b}", "a@example.com"),
        ("\u{feff}a@example.com", "a@example.com"),
        ("a@example.com\u{a0}", "a@example.com"),
        ("a@example.com.", "a@example.com"),
        ("a@example.com,", "a@example.com"),
        ("mailto:a@example.com?subject=x", "a@example.com"),
        ("\"Ann\" <a@example.com>", "a@example.com"),
        ("a\u{ad}b@example.com\u{200e}", "ab@example.com"),
        ("\u{ff41}\u{ff42}@example.com", "ab@example.com"),
        ("a@ex\u{e4}mple.com", "a@ex\u{e4}mple.com"),
        ("a@exa\u{308}mple.com", "a@ex\u{e4}mple.com"),
        ("a+tag@gmail.com", "a+tag@gmail.com"),
        (".a@example.com", ""),
        ("a@-example.com", ""),
        ("a@example..com", ""),
        ("a@example.com;b@example.com", ""),
        ("a@localhost", ""),
        ("a @example.com", ""),
        ("test@@example.com", ""),
        ("null@null", ""),
        ("n/a", ""),
    ] {
        same("EMAIL", raw, None, text);
    }
    for (key, raw, home, text) in [
        ("FN", "Jose\u{301}", None, "jos\u{e9}"),
        ("FN", "Mary Ann", None, "maryann"),
        ("LN", "O'Brien", None, "obrien"),
        ("CT", "S\u{e3}o Paulo", None, "saopaulo"),
        ("CT", "Stra\u{df}burg", None, "strassburg"),
        ("CT", "\u{6771}\u{4eac}", None, "\u{6771}\u{4eac}"),
        ("ST", "California", None, "ca"),
        ("ST", "Calif.", None, "ca"),
        ("ST", "US-CA", None, "ca"),
        ("ST", "us-ca", Some("US"), "ca"),
        ("ST", "CA-ON", Some("CA"), "on"),
        ("ST", "Nord-Pas-de-Calais", Some("FR"), "nordpasdecalais"),
        ("ST", "Bayern", Some("DE"), "bayern"),
        ("ST", "Bayern", Some("US"), ""),
        ("COUNTRY", "United States", None, "us"),
        ("COUNTRY", "USA", None, "us"),
        ("COUNTRY", "deu", None, "de"),
        ("ZIP", "02134", None, "02134"),
        ("ZIP", "94105-1234", None, "94105"),
        ("ZIP", "941051234", None, "94105"),
        ("ZIP", "2134", Some("US"), ""),
        ("ZIP", "01067", Some("DE"), "01067"),
        ("ZIP", "1067", Some("DE"), ""),
        ("ZIP", "1067.0", Some("DE"), ""),
        ("ZIP", "D-01067", Some("DE"), ""),
        ("ZIP", "150", Some("NO"), ""),
        ("ZIP", "1010", Some("AT"), "1010"),
        ("ZIP", "00-950", Some("PL"), "00950"),
        ("ZIP", "M1 1AE", Some("GB"), "m11ae"),
        ("ZIP", "HM CX", Some("BM"), "hmcx"),
        ("ZIP", "HM CX", Some("GB"), ""),
        ("DOBY", "1990.0", None, "1990"),
        ("DOBY", "1990-03-07", None, "1990"),
        ("DOBY", "90", None, ""),
        ("DOBM", "Jan", None, "01"),
        ("DOBM", "1990-03-07", None, "03"),
        ("DOBD", "1990-03-07T00:00:00", None, "07"),
        ("GEN", "Frau", None, ""),
    ] {
        same(key, raw, home, text);
    }
    for raw in ["ann@example.com", "ann%40example.com", "a@example.com;b@example.com"] {
        assert_eq!(noted("EXTERN_ID", raw), (String::new(), Some(EMAIL_IN_THE_CLEAR)), "{raw}");
    }
}

#[test]
fn a_text_of_a_missing_value_is_no_identifier() {
    let missing =
        ["N/A", "n/a", "N.A.", "#N/A", "(n/a)", "NULL", "null", "None", "-", "s/d", "Unknown"];
    let keys = ["EMAIL", "PHONE", "FN", "LN", "FI", "CT", "ST", "ZIP", "COUNTRY", "GEN", "DOBY"];
    for key in keys.into_iter().chain(["DOBM", "DOBD", "MADID", "EXTERN_ID"]) {
        for raw in missing {
            assert_eq!(noted(key, raw), (String::new(), Some(text::MISSING)), "{key} {raw}");
        }
    }
    for (key, raw, text) in [
        ("COUNTRY", "NA", "na"),
        ("COUNTRY", "na", "na"),
        ("COUNTRY", "N A", ""),
        ("COUNTRY", "U.S.", "us"),
        ("ST", "NA", "na"),
        ("LN", "Na", "na"),
        ("LN", "Null", "null"),
        ("FN", "Nan", "nan"),
        ("CT", "Nanaimo", "nanaimo"),
        ("ZIP", "NA", ""),
        ("ZIP", "none", ""),
    ] {
        let wanted = if text.is_empty() {
            String::new()
        } else {
            HashedIdentifier::of_normalised(text).to_hex()
        };
        assert_eq!(sha(key, raw, None), wanted, "{key} {raw}");
    }
}

#[test]
fn a_number_of_a_user_without_a_country_belongs_to_the_default_country() {
    let keys = schema(&["PHONE", "COUNTRY"]);
    let of_number = |digits| Cell::Hashed(HashedIdentifier::of_normalised(digits));
    for missing in ["N/A", "n/a", "N.A.", "#N/A", ""] {
        let prepared = prepared(&keys, &row(&["020 7183 8750", missing])).unwrap();
        assert_eq!(prepared[0], of_number("442071838750"), "{missing}");
        assert_eq!(prepared[1], Cell::Hashed(HashedIdentifier::of_normalised("gb")));
    }
    let prepared = prepared(&keys, &row(&["061 123 4567", "NA"])).unwrap();
    assert_eq!(prepared[0], of_number("264611234567"));
}

#[test]
fn the_default_country_is_not_that_of_a_user_whose_country_is_not_known() {
    let keys = Schema {
        keys: ["EMAIL", "PHONE", "ST", "ZIP", "COUNTRY"].map(str::to_owned).into(),
        default_country: Some("FR".to_owned()),
    };
    let of = |text| Cell::Hashed(HashedIdentifier::of_normalised(text));
    let hash = |text| HashedIdentifier::of_normalised(text).to_hex();
    let (france, netherlands) = (hash("fr"), hash("nl"));
    let cells = |phone: &str, country: &str| {
        let mut notes = Vec::new();
        let cells = row(&["a@example.com", phone, "California", "1011 AB", country]);
        let prepared = prepare(&keys, 2026, &cells, &mut notes).unwrap();
        (prepared, notes)
    };
    // A number of the Netherlands, whose digits are those of a mobile number of France.
    for country in ["Nederland", "Holanda", "XX", netherlands.as_str()] {
        let (prepared, notes) = cells("06 12345678", country);
        assert_eq!(prepared[1], Cell::Empty, "{country}");
        assert!(notes.contains(&Note { cell: 1, reason: phone::NO_COUNTRY }), "{country}");
        assert_ne!(prepared[4], of("fr"), "{country}");
        assert_eq!(prepared[2..4], [of("ca"), of("1011ab")], "{country}");
        // Its calling code says where it belongs.
        assert_eq!(cells("+31 6 12345678", country).0[1], of("31612345678"), "{country}");
    }
    for country in ["", "?", "--", "n/a", "FR", "France", france.as_str()] {
        let (prepared, _) = cells("06 12345678", country);
        assert_eq!(prepared[1], of("33612345678"), "{country}");
        assert_eq!(prepared[4], of("fr"), "{country}");
    }
    assert_eq!(cells("06 12345678", "NL").0[1], of("31612345678"));
}

#[test]
fn a_sha256_that_is_not_in_hexadecimal_and_an_address_are_no_name() {
    let hex = HashedIdentifier::of_normalised("test").to_hex();
    let upper = hex.to_uppercase();
    for raw in [
        "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFBDwCgg=",
        "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFBDwCgg",
        format!("0x{upper}").as_str(),
        format!("\\x{hex}").as_str(),
        format!("sha256:{hex}").as_str(),
        format!("\"{hex}\"").as_str(),
    ] {
        for key in ["EMAIL", "PHONE", "FN", "LN", "FI", "CT", "ST", "ZIP", "COUNTRY"] {
            assert_eq!(noted(key, raw), (String::new(), Some(HASH_NOT_IN_HEX)), "{key} {raw}");
        }
    }
    for key in ["FN", "LN", "FI", "CT", "ST"] {
        assert_eq!(
            noted(key, "Ann@Example.com"),
            (String::new(), Some(text::REFUSED)),
            "{key}: mixed-up columns"
        );
    }
    let long = "Wolfeschlegelsteinhausenbergerdorff-Schmidt";
    assert_eq!((long.len(), noted("LN", long)), (43, ("hashed".to_owned(), None)));
}

#[test]
fn personal_data_is_not_sent_as_an_external_id() {
    for raw in ["+12025550144", "+1 (202) 555-0144", "tel:+442079460018", "\u{ff0b}442079460018"] {
        assert_eq!(noted("EXTERN_ID", raw), (String::new(), Some(PHONE_IN_THE_CLEAR)), "{raw}");
    }
    for raw in [
        "l @ example.com",
        "r(at)example.com",
        "r [AT] example.com",
        "l1 @example",
        "10045 @ example.com",
        "l \u{ff20} example.com",
    ] {
        assert_eq!(noted("EXTERN_ID", raw), (String::new(), Some(EMAIL_IN_THE_CLEAR)), "{raw}");
    }
    for raw in [
        "Cust-7",
        "12025550144",
        "+1234567",
        "+7A9F/12345678",
        "@anna",
        "u@7",
        "c(at)",
        "10045@store12",
    ] {
        assert_eq!(noted("EXTERN_ID", raw), (raw.to_owned(), None), "{raw}");
    }
}

#[test]
fn changed_and_refused_identifiers_are_noted_with_their_field() {
    let keys = schema(&["EXTERN_ID", "EMAIL", "PHONE"]);
    let mut notes = Vec::new();
    prepare(&keys, 2026, &row(&["7", "mailto:a@example.com.", "12"]), &mut notes).unwrap();
    let noted: Vec<(u8, &str)> = notes.iter().map(|n| (n.cell, n.reason)).collect();
    assert_eq!(noted, [(1, text::MAILTO), (1, text::PUNCTUATION), (2, text::REFUSED)]);
    assert!(notes.iter().all(|n| NOTE_REASONS.contains(&n.reason)));
}

#[test]
fn a_greek_word_ends_with_the_small_letter_of_its_end() {
    for (key, raw, text) in [
        ("LN", "\u{3a3}\u{399}\u{3a3}\u{3a5}\u{3a6}\u{39f}\u{3a3}", "σισυφος"),
        ("LN", "σίσυφος", "σίσυφος"),
        ("FN", "ΝΙΚΟΣ-ΑΛΕΞΗΣ", "νικοςαλεξης"),
        ("FI", "ΣΟΦΙΑ", "σ"),
        ("CT", "ΒΟΛΟΣ", "βολος"),
    ] {
        let wanted = HashedIdentifier::of_normalised(text).to_hex();
        assert_eq!(sha(key, raw, None), wanted, "{key} {raw}");
    }
}

#[test]
fn presentation_forms_are_the_letters_and_digits_that_they_show() {
    for (key, raw, home, text) in [
        ("LN", "ﬁsher", None, "fisher"),
        ("FN", "Ａｎｎａ", None, "anna"),
        ("FN", "\u{1d4d0}nna", None, "anna"),
        ("FN", "ｶﾞｸ", None, "ガク"),
        ("FN", "\u{fe8d}\u{fee1}", None, "\u{627}\u{645}"),
        ("ZIP", "１２３－４５６７", Some("JP"), "1234567"),
        ("ZIP", "９４１０５", Some("US"), "94105"),
        ("COUNTRY", "ＪＰ", None, "jp"),
        ("DOBY", "１９９０", None, "1990"),
        ("DOBM", "５", None, "05"),
        ("GEN", "Ｆ", None, "f"),
        // A vowel of Thai, and an accent for an apostrophe.
        ("FN", "น\u{e49}\u{e33}", None, "น\u{e49}\u{e33}"),
        ("LN", "D\u{b4}Arcy", None, "darcy"),
    ] {
        let wanted = HashedIdentifier::of_normalised(text).to_hex();
        assert_eq!(sha(key, raw, home), wanted, "{key} {raw}");
    }
    assert_eq!(noted("LN", "ﬁsher"), ("hashed".to_owned(), Some(text::SHAPES)));
}

#[test]
fn damaged_identifiers_are_refused_with_the_kind_of_damage() {
    for (key, raw, reason) in [
        ("LN", "M\u{fffd}ller", damage::WRONG_ENCODING),
        ("LN", "MÃ¼ller", damage::WRONG_ENCODING),
        ("FN", "MartÃ\u{ad}n", damage::WRONG_ENCODING),
        ("FI", "Ã–zil", damage::WRONG_ENCODING),
        ("CT", "KÃ¶ln", damage::WRONG_ENCODING),
        ("ST", "QuÃ©bec", damage::WRONG_ENCODING),
        ("LN", "M?ller", damage::WRONG_ENCODING),
        ("EMAIL", "m\u{fffd}ller@example.com", damage::WRONG_ENCODING),
        ("EXTERN_ID", "m\u{fffd}ller", damage::WRONG_ENCODING),
        ("LN", "M&uuml;ller", damage::HTML),
        ("EMAIL", "=a@example.com", damage::FORMULA),
        ("FN", "\u{1f642}", text::REFUSED),
        ("FN", "\u{2764}\u{fe0f}", text::REFUSED),
        ("DOBY", "1900-01-00", text::REFUSED),
        ("DOBM", "1900-01-00", text::REFUSED),
        ("DOBD", "1990-02-30", text::REFUSED),
        ("DOBD", "2023-02-29", text::REFUSED),
        ("DOBD", "1900-02-29", text::REFUSED),
        ("ZIP", "\u{669}\u{664}\u{661}\u{660}\u{665}", text::REFUSED),
        ("DOBY", "2027", text::FUTURE),
        ("DOBY", "2030-01-01", text::FUTURE),
        ("DOBY", "33000", text::REFUSED),
        ("ZIP", "00000", text::REFUSED),
        ("ZIP", "00000-0000", text::REFUSED),
    ] {
        assert_eq!(noted(key, raw), (String::new(), Some(reason)), "{key} {raw}");
    }
    for (key, raw, text) in [
        ("FN", "Anna \u{1f642}", "anna"),
        ("FN", "O", "o"),
        ("LN", "O\u{2019}Brien-Smith", "obriensmith"),
        ("LN", "\u{c5}", "\u{e5}"),
        ("LN", "IRM\u{c3}", "irm\u{e3}"),
        ("LN", "Tom & Ann", "tomann"),
        ("EMAIL", "+a@example.com", "+a@example.com"),
        ("EMAIL", "a=b@example.com", "a=b@example.com"),
        ("EMAIL", "MÃ¼ller <a@example.com>", "a@example.com"),
        ("EMAIL", "a?b@example.com", "a?b@example.com"),
        ("DOBY", "2026", "2026"),
        ("DOBD", "1992-02-29", "29"),
        ("ZIP", "00501", "00501"),
    ] {
        let wanted = HashedIdentifier::of_normalised(text).to_hex();
        assert_eq!(sha(key, raw, None), wanted, "{key} {raw}");
    }
}
