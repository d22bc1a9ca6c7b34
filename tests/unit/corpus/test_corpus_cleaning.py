"""Cleaning: what each step changes and must not touch, its counts, and the laws that hold for any text."""

import unicodedata
from time import process_time

import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

from hypothesis import given, settings
from hypothesis import strategies as st

from torchloom.errors import ConfigError
from torchloom_corpus.cleaning import configs, steps
from torchloom_corpus.contracts import Document, StepTally


def clean(name, text, **fields):
    """Return what a step makes of a text (None if it is dropped), and its tally."""
    step = getattr(steps, name)(getattr(configs, f"{name}Config")(**fields))
    tally = StepTally(name)
    step.start(tally, 0, 1)
    document = Document(text=text, id="a")
    reason = step.process(document)
    return (document.text if reason is None else None), tally, reason


NAMES = [
    "HtmlRemnants",
    "FixUnicode",
    "NormalizeUnicode",
    "ControlCharacters",
    "Whitespace",
    "BoilerplateLines",
    "MaskPersonalData",
]
PIECES = [
    *["<b>", "</b>", "<p>", "<br/>", "</div>", "<", ">", "a", "&amp;", "&lt;", "amp;", "&#", "38;", "<!--", "-->"],
    *[
        "<script>",
        "</script>",
        " ",
        "\n",
        "\r",
        "\t",
        "\u00a0",
        "\u200d",
        "\u200c",
        "\ufeff",
        "\u00ad",
        "\u0645",
        "\U0001f469",
    ],
    *["\ud800", "\udc00", "\x00", "\x85", "e\u0301", "\ufb01", "â€™", "Ã©", "\U0001f3f4", "\U000e0067", "\u202e"],
    *[
        "Read more",
        "Cookie policy",
        "!",
        "me@example.org",
        "@",
        ".",
        "8.8.8.8",
        "1",
        "+44 20 7946 0958",
        "-",
        "(212) 555-0199",
    ],
]
TEXTS = st.one_of(
    st.text(st.characters()),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zs", "Lu", "Nd", "Po"])),
    st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=150)
@given(text=TEXTS)
def test_cleaning_twice_is_cleaning_once_and_no_text_makes_it_fail(name, text):
    once, _, reason = clean(name, text)
    if once is None:
        assert reason in ("empty", "lorem ipsum")
        return
    again, tally, _ = clean(name, once)
    assert again == once
    assert tally.counts == {}


@settings(deadline=None)
@given(text=TEXTS, form=st.sampled_from(["NFC", "NFKC"]))
def test_normalised_text_is_in_its_form(text, form):
    found, _, reason = clean("NormalizeUnicode", text, form=form)
    assert reason == "empty" if found is None else unicodedata.is_normalized(form, found)


@settings(deadline=None)
@given(text=TEXTS)
def test_masking_leaves_no_address_that_its_own_pattern_finds(text):
    found, _, _ = clean("MaskPersonalData", text)
    assert steps.EMAIL.search(found or "") is None


@settings(deadline=None)
@given(text=TEXTS)
def test_what_control_characters_leaves_can_be_written_as_utf8_and_has_no_control_character(text):
    found, _, _ = clean("ControlCharacters", text)
    (found or "").encode("utf-8")
    assert not [c for c in found or "" if unicodedata.category(c) == "Cc" and c not in "\n\t"]


@pytest.mark.parametrize("name", NAMES)
def test_a_document_left_without_text_is_dropped(name):
    assert clean(name, " \n ")[2] == "empty"


def test_tags_and_entities_are_taken_out_and_counted():
    found, tally, _ = clean(
        "HtmlRemnants",
        'One <b>bold</b> word &amp; <a href="/x?a=1&copy=2" class=y>a link</a>.<br/><p>Two<!-- no --><script>x<y</script>',
    )
    assert found == "One bold word & a link.\n\nTwo"
    assert dict(tally.counts) == {
        "tags": 6,
        "entities": 1,
        "comments": 1,
        "scripts and styles": 1,
        "documents changed": 1,
    }


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and c > d: x = a<b>c",
        "List<int> xs = new ArrayList<>(); Map<String, List<a>> m; Box<p> q; Vec<i>",
        "#include <map>\ntemplate <class T> struct S;",
        "https://example.org/?a=1&copy=2&lt=3",
        "AT&T &c; &notanentity;",
        "x <- 3; y -> z; a <= b >= c; <3",
        "From: Ada <ada@example.org>",
    ],
)
def test_code_and_addresses_are_left_alone_by_html_remnants(text):
    assert clean("HtmlRemnants", text)[0] == text


def test_escaped_twice_is_unescaped_twice():
    assert clean("HtmlRemnants", "a &amp;amp; b &amp;lt;i&amp;gt;c&amp;lt;/i&amp;gt;")[0] == "a & b c"


def test_unicode_is_repaired_and_its_options_are_obeyed():
    assert clean("FixUnicode", "donâ€™t cafÃ© \x1b[31mred\x1b[0m ﬁn")[0] == "don’t café red fin"
    assert clean("FixUnicode", "“x” ﬁ", uncurl_quotes=True, fix_latin_ligatures=False)[0] == '"x" ﬁ'
    assert clean("FixUnicode", "cafÃ©", fix_encoding=False)[0] == "cafÃ©"
    assert clean("FixUnicode", "a &amp; b")[0] == "a &amp; b"


def test_normal_forms():
    assert clean("NormalizeUnicode", "e\u0301 x² ﬁ")[0] == "é x² ﬁ"
    assert clean("NormalizeUnicode", "x² ﬁ", form="NFKC")[0] == "x2 fi"


def test_invisible_characters_are_taken_out_and_line_ends_made_one():
    found, tally, _ = clean("ControlCharacters", "\ufeffa\u00adb\u200bc\x00\x9f\td\r\ne\rf\u2028g\u202eh\ud800i\u200dj")
    assert found == "abc\td\ne\nf\nghij"
    assert dict(tally.counts) == {"line ends": 3, "characters removed": 8, "documents changed": 1}


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f469\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f\u200d\U0001f525 \U0001f44d\U0001f3fd",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian: I want
        "\u0915\u094d\u200d\u0937 \u0915\u094d\u200c\u0937",  # Devanagari, joined and not
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # flag of England
    ],
)
def test_joiners_that_mean_something_survive(text):
    assert clean("ControlCharacters", text)[0] == text


def test_direction_marks_stay_when_wanted():
    assert clean("ControlCharacters", "a\u200fb", keep_bidi=True)[0] == "a\u200fb"
    assert clean("ControlCharacters", "a\u200fb")[0] == "ab"


def test_white_space_is_tidied_and_code_keeps_its_indentation():
    text = "\n\ndef f():  \n    return\u00a01\t\n\n\n\nx = {1:   2}\r\n\n"
    found, tally, _ = clean("Whitespace", text)
    assert found == "def f():\n    return 1\n\nx = {1:   2}"
    assert tally.counts["odd spaces"] == 1
    assert tally.counts["trailing spaces"] == 2
    assert tally.counts["runs of blank lines"] == 1
    found, _, _ = clean("Whitespace", text, indentation=False, collapse=True, max_blank_lines=0)
    assert found == "def f():\nreturn 1\nx = {1: 2}"


@pytest.mark.parametrize(
    "line",
    [
        "Cookie policy",
        "Share on Facebook",
        "Read more...",
        "» READ MORE »",
        "Please enable JavaScript to view the comments powered by Disqus.",
        "Your browser does not support JavaScript or JavaScript is disabled.",
        "We use cookies to improve your experience.",
        "© 2024 Example Ltd. All rights reserved.",
        "Sign up for our newsletter",
        "Skip to main content",
        "Advertisement",
        "Leave a reply",
    ],
)
def test_lines_of_the_site_are_left_out(line):
    found, tally, _ = clean("BoilerplateLines", f"A sentence.\n{line}\nAnother one.")
    assert found == "A sentence.\nAnother one."
    assert tally.counts["lines"] == 1


@pytest.mark.parametrize(
    "line",
    [
        "She wanted to read more.",
        "The cookie policy of the union changed in 1996.",
        "JavaScript is a language.",
        "He shared it on Facebook, and nobody cared.",
        "Print was dead, they said.",
        "",
    ],
)
def test_sentences_about_the_same_things_stay(line):
    text = f"A sentence.\n{line}\nAnother one."
    assert clean("BoilerplateLines", text)[0] == text


def test_own_lines_and_patterns():
    text = "Text.\nMy Site — Home!\nPage 3 of 7\nRead more"
    found, _, _ = clean("BoilerplateLines", text, lines=["my site — home"], patterns=[r"page \d+ of \d+"])
    assert found == "Text.\nRead more"
    with pytest.raises(ConfigError, match=r"steps\.boilerplate_lines\.patterns\[1\]: '\(' is no regular expression"):
        steps.BoilerplateLines(configs.BoilerplateLinesConfig(patterns=["a", "("]))


def test_placeholder_documents_are_dropped_unless_kept():
    text = "Lorem ipsum dolor sit amet."
    assert clean("BoilerplateLines", text)[2] == "lorem ipsum"
    assert clean("BoilerplateLines", text, drop_lorem_ipsum=False)[0] == text


def test_personal_data_is_masked_and_counted_by_kind():
    found, tally, _ = clean(
        "MaskPersonalData",
        "Write to ada.l+x@mail.example.co.uk, or <bob@example.com>. Call +44 20 7946 0958 or (212) 555-0199 or "
        "212-736-5000. From 8.8.8.8 and 2a00:1450:4009:80b::200e.",
    )
    assert found == (
        "Write to <EMAIL>, or <<EMAIL>>. Call <PHONE> or <PHONE> or <PHONE>. From <IP_ADDRESS> and <IP_ADDRESS>."
    )
    assert dict(tally.counts) == {
        "e-mail addresses": 2,
        "phone numbers": 3,
        "IP addresses": 2,
        "documents changed": 1,
    }


@pytest.mark.parametrize(
    "text",
    [
        "version 8.8.4.4, v1.2.3.4, firmware 9.9.9.9, 1.2.3.4.5, 2.14.1, 300.1.1.1",
        "192.168.0.1 127.0.0.1 10.0.0.7 169.254.1.1 ::1 fe80::1 2001:db8::1",
        "2024-05-03, 03.05.2024, 2024-05-03T10:20:30+01:00, 12:30:45",
        "ISBN 978-3-16-148410-0, ISBN-10: 0-306-40615-2, ISBN 212-736-5000",
        "1234567890123 2127365000 3.14159265358979 1,234,567,890 555-1234",
        "a @ b, @handle, std::dead::beef, me@localhost",
        "10.1103/PhysRevLett.116.061102 +1 +2 = +3, +10 %",
    ],
)
def test_what_only_looks_like_personal_data_stays(text):
    assert clean("MaskPersonalData", text)[0] == text


def test_national_numbers_are_masked_for_the_regions_asked_for():
    text = "Tel. 030 901820, id 030901820, am 03.05.2024, ISBN 978-3-16-148410-0"
    assert clean("MaskPersonalData", text)[0] == text
    assert clean("MaskPersonalData", text, regions=["DE"])[0] == text.replace("030 901820", "<PHONE>")
    with pytest.raises(ConfigError, match=r"steps\.mask_personal_data\.regions: there is no country 'XX'"):
        steps.MaskPersonalData(configs.MaskPersonalDataConfig(regions=["XX"]))


def test_replacements_are_the_users_and_an_empty_one_leaves_its_kind():
    text = "a@example.org 8.8.8.8 +44 20 7946 0958"
    found, tally, _ = clean("MaskPersonalData", text, email="email@example.com", ip="", phone="[tel]")
    assert found == "email@example.com 8.8.8.8 [tel]"
    assert tally.counts["e-mail addresses"] == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HtmlRemnants", "<a " + "x " * 100_000),
        ("HtmlRemnants", "<!--" * 50_000 + "<script>" * 20_000),
        ("Whitespace", " " * 200_000 + "x"),
        ("BoilerplateLines", "!" * 200_000 + "x"),
        ("MaskPersonalData", "a-" * 100_000 + "@" + "1." * 50_000),
        ("ControlCharacters", "\u200d" * 200_000 + "\U000e0061" * 2_000),
    ],
)
def test_no_step_takes_time_that_grows_faster_than_its_text(name, text):
    start = process_time()
    clean(name, text)
    assert process_time() - start < 3
