"""Sources that read files and data sets: everything readable is read, everything else counted by name and place."""

import gzip
import importlib
import io
import json
import os
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from torchloom.errors import DataError
from torchloom_corpus.sources.books import Epub, Pdf
from torchloom_corpus.sources.configs import (
    EpubConfig,
    HtmlFolderConfig,
    HuggingFaceConfig,
    JsonlConfig,
    ParquetConfig,
    PdfConfig,
    TextFilesSourceConfig,
)
from torchloom_corpus.sources.decoding import decode_html, decode_text
from torchloom_corpus.sources.pages import HtmlFolder, TextFiles
from torchloom_corpus.sources.records import COMPONENTS
from torchloom_corpus.sources.tables import HuggingFace, Jsonl, Parquet
from torchloom_corpus.tally import StepTally

TARGETS = {
    HtmlFolderConfig: HtmlFolder,
    TextFilesSourceConfig: TextFiles,
    JsonlConfig: Jsonl,
    ParquetConfig: Parquet,
    EpubConfig: Epub,
    PdfConfig: Pdf,
    HuggingFaceConfig: HuggingFace,
}


def read(config):
    source, tally = TARGETS[type(config)](config), StepTally("source")
    documents = [document for unit in source.units(Path("unused")) for document in source.read(unit, tally)]
    assert len({document.id for document in documents}) == len(documents)
    return documents, tally


def texts(documents):
    return {document.id: document.text for document in documents}


def examples(tally):
    return {reason: sorted(one["id"] for one in found) for reason, found in tally.examples.items()}


# Encodings


@pytest.mark.parametrize(
    ("header", "meta"),
    [
        (None, None),
        ("utf-8", None),
        (None, "utf-8"),
        ("iso-8859-1", None),
        (None, "windows-1252"),
        ("shift_jis", "koi8-r"),
    ],
)
def test_utf8_is_utf8_whatever_is_declared(header, meta):
    text = f"<html>{f'<meta charset={meta}>' if meta else ''}<p>naïve — 東京</p></html>"
    decoded = decode_html(text.encode(), header and f"text/html; charset={header}")
    assert decoded.text == text
    assert decoded.declared_wrong is any(name not in (None, "utf-8") for name in (header, meta))
    assert not decoded.replaced


SAMPLES = {
    "cp1252": "Le café était fermé à Noël — dommage, dit-il. ",
    "cp1251": "Привет, как дела? Это проверка кодировки. ",
    "koi8-r": "Привет, как дела? Это проверка кодировки. ",
    "shift_jis": "これは日本語の文章です。文字コードを判定します。",
    "euc_jp": "これは日本語の文章です。文字コードを判定します。",
    "iso2022_jp": "これは日本語の文章です。文字コードを判定します。",
    "gb18030": "这是一个中文网页，用来检测编码。",
    "big5": "這是一個中文網頁，用來檢測編碼。",
    "euc_kr": "안녕하세요, 이것은 한국어 문서입니다. ",
    "cp1253": "Καλημέρα κόσμε, τι κάνετε σήμερα; ",
    "cp1256": "مرحبا بالعالم هذا اختبار ",
    "cp1250": "Příliš žluťoučký kůň úpěl ďábelské ódy. ",
    "utf-16": "Any page — in wide characters. ",
    "utf-16-le": "Any page — in wide characters. ",
    "utf-16-be": "Any page — in wide characters. ",
}


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        (encoding, declared)
        for encoding in SAMPLES
        for declared in ("in the header", "in the page", "wrongly", "not at all")
        # ISO 2022's bytes are ASCII: nothing but the declaration tells what they mean.
        if encoding != "iso2022_jp" or declared.startswith("in the")
    ],
)
def test_other_encodings(encoding, declared):
    meta = (
        f'<meta http-equiv="Content-Type" content="text/html; charset={encoding}">' if declared == "in the page" else ""
    )
    text = f"<html><head>{meta}</head><body><p class='some latin markup'>{SAMPLES[encoding] * 4}</p></body></html>"
    header = {"in the header": f"text/html; charset={encoding}", "wrongly": "text/html; charset=utf-8"}.get(declared)
    decoded = decode_html(text.encode(encoding), header)
    assert decoded.text == text
    assert decoded.declared_wrong is (declared == "wrongly")


def test_a_few_lost_bytes_do_not_make_utf8_something_else():
    data = "<p>Größe, Übermut, Straße und Mühe</p>".encode()
    broken = data.replace("ß".encode(), b"\xc3", 1)
    decoded = decode_html(broken)
    assert decoded.text == "<p>Grö\ufffde, Übermut, Straße und Mühe</p>"
    assert (decoded.encoding, decoded.replaced) == ("utf-8", 1)


@pytest.mark.parametrize("header", [None, "text/html; charset=utf-16"])
def test_page_of_single_bytes_that_says_it_is_utf_16(header):
    page = '<html><meta charset="utf-16"><p>un café et déjà la forêt.</p></html>'
    for encoding in ("latin-1", "utf-8"):
        decoded = decode_html(page.encode(encoding), header)
        assert decoded.text == page
        assert decoded.declared_wrong
    assert decode_html(page.encode("utf-16-le"), header).text == page


def test_byte_order_marks_and_null_characters_go():
    assert decode_html(b"\xef\xbb\xbf<p>a\0b</p>").text == "<p>ab</p>"
    assert decode_text("\ufeffwide".encode("utf-16-be")).text == "wide"


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=400),
    st.sampled_from([None, "text/html", "text/html; charset=utf-16", "text/html; charset=x-no"]),
)
def test_any_bytes_are_decoded_to_text_that_can_be_written(data, content_type):
    for decoded in (decode_html(data, content_type), decode_text(data)):
        assert "\0" not in decoded.text
        assert decoded.text.encode("utf-8").decode() == decoded.text


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200))
def test_utf8_round_trip(text):
    assume(not text.startswith(("\ufeff", "\0")))
    assert decode_text(text.encode()).text == text


# Folders


def test_html_folder(tmp_path):
    page = "<html><head><title>T</title></head><body><p>Grüße</p></body></html>"
    (tmp_path / "sub" / "deep er").mkdir(parents=True)
    (tmp_path / "b.html").write_bytes(page.encode())
    (tmp_path / "sub" / "a.htm").write_bytes(page.encode("latin-1"))
    (tmp_path / "sub" / "deep er" / "c.xhtml").write_bytes(page.encode("utf-16"))
    (tmp_path / "null.html").write_bytes(
        b"<p>nu\0ll bytes in a page that is long enough to be text" + b" and more" * 20
    )
    (tmp_path / "empty.html").write_bytes(b" \n")
    (tmp_path / "picture.html").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 2 + bytes(60))
    (tmp_path / "long.html").write_bytes(b"<p>long</p>" * 200)
    (tmp_path / "gone.html").symlink_to(tmp_path / "nowhere")
    (tmp_path / "sub" / "cycle.html").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "notes.txt").write_bytes(b"none of its business")
    config = HtmlFolderConfig(path=str(tmp_path), base_url="https://a.org/docs", max_page_bytes=2000)
    documents, tally = read(config)
    assert texts(documents) == {
        "b.html": page,
        "null.html": "<p>null bytes in a page that is long enough to be text" + " and more" * 20,
        "sub/a.htm": page,
        "sub/deep er/c.xhtml": page,
    }
    assert documents[-1].metadata == {
        "content_type": "text/html",
        "bytes": len(page.encode("utf-16")),
        "url": "https://a.org/docs/sub/deep%20er/c.xhtml",
        "path": "sub/deep er/c.xhtml",
    }
    found = examples(tally)
    assert found.pop("unreadable file") == ["gone.html: No such file or directory", "sub/cycle.html: Is a directory"]
    assert found == {"empty": ["empty.html"], "not HTML": ["picture.html"], "too large": ["long.html"]}
    assert tally.counts == {"decoded from cp1252": 1, "decoded from utf-16-le": 1}
    moved, _ = read(HtmlFolderConfig(path=os.path.relpath(tmp_path), max_page_bytes=2000))
    assert texts(moved) == texts(documents), "what documents are called must not depend on where the folder is"


def test_a_huge_page_is_never_held(tmp_path):
    with (tmp_path / "huge.html").open("wb") as file:
        file.truncate(200_000_000)
    tracemalloc.start()
    try:
        documents, tally = read(HtmlFolderConfig(path=str(tmp_path), max_page_bytes=1_000_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert not documents
    assert examples(tally) == {"too large": ["huge.html"]}
    assert peak < 3_000_000


def test_text_files(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"Zeilen\r\nbleiben\r\n")
    (tmp_path / "b.txt").write_bytes("\ufeffmit Marke".encode())
    (tmp_path / "c.txt").write_bytes(("Nicht in UTF-8: " + "schöne Grüße, größere Übel. " * 3).encode("latin-1"))
    (tmp_path / "d.txt").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "e.txt").write_bytes(b"")
    documents, tally = read(TextFilesSourceConfig(path=str(tmp_path)))
    assert texts(documents) == {
        "a.txt": "Zeilen\r\nbleiben\r\n",
        "b.txt": "mit Marke",
        "c.txt": "Nicht in UTF-8: " + "schöne Grüße, größere Übel. " * 3,
    }
    assert all("content_type" not in document.metadata for document in documents)
    assert tally.counts == {"decoded from cp1252": 1}
    assert examples(tally) == {"empty": ["e.txt"]} | {
        reason: ["d.txt"] for reason in tally.dropped if reason != "empty"
    }
    assert sum(tally.dropped.values()) == 2
    (russian,), _ = read(TextFilesSourceConfig(path=str(tmp_path / "c.txt"), encoding="cp1251"))
    assert russian.text.startswith("Nicht in UTF-8: schцne"), "an encoding that is given is used"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("**/*.txt", ["a.txt", "x/b.txt", "x/y/c.txt"]),
        ("*.txt", ["a.txt"]),
        ("x/*.txt", ["x/b.txt"]),
        ("x/**", ["x/b.txt", "x/y/c.txt"]),
        ("**/y/*", ["x/y/c.txt"]),
        ("**/*", ["a.txt", "x/b.txt", "x/y/c.txt"]),
    ],
)
def test_which_files_a_pattern_means(tmp_path, pattern, found):
    for name in ("a.txt", "x/b.txt", "x/y/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    assert TextFiles(TextFilesSourceConfig(path=str(tmp_path), glob=pattern)).units(tmp_path) == found
    whole = TextFiles(TextFilesSourceConfig(path=f"{tmp_path}/{pattern}"))
    assert [Path(name).name for name in whole.units(tmp_path)] == [Path(name).name for name in found]


@pytest.mark.parametrize(
    "config", [HtmlFolderConfig, TextFilesSourceConfig, JsonlConfig, ParquetConfig, EpubConfig, PdfConfig]
)
def test_a_place_with_nothing_to_read_is_told_with_the_mend(tmp_path, config):
    with pytest.raises(DataError, match=r"source\.path is not set; give a file, a folder"):
        read(config())
    with pytest.raises(DataError, match=r"/nowhere: no such file or folder; set source\.path to one"):
        read(config(path=str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match=r"no file of this folder matches '.*'; set source\.glob"):
        read(config(path=str(tmp_path)))
    with pytest.raises(
        DataError, match=r"s9://bucket: cannot be listed \(Protocol not known: s9.*\); check source\.path"
    ):
        read(config(path="s9://bucket"))
    (tmp_path / "broken").write_bytes(b"\x00\x01\x02 nothing of the kind \xff" * 50)
    documents, tally = read(config(path=str(tmp_path / "broken")))
    assert len(documents) + sum(tally.dropped.values()) == 1, "a broken file must be counted, and nothing else"


# Tables

LINES = [
    json.dumps({"text": "First.", "url": "http://a.org/1", "date": "2024-05-01", "score": 3}).encode(),
    b'{"text": "cut sh',
    b'["no", "object"]',
    b'{"words": "no text"}',
    b'{"text": 7}',
    b"",
    b'{"text": "not UTF-8: \xff"}',
    b'{"text": "half a pair: \\ud83d"}',
    b'{"text": " "}',
    b'{"text": "' + b"long " * 500 + b'"}',
    b"[" * 100_000,
    '{"text": "Letzte Zeile, ohne Ende: ü", "name": "last"}'.encode(),
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_jsonl(tmp_path, name):
    data = b"\xef\xbb\xbf" + b"\n".join(LINES)
    if name.endswith(".gz"):
        data = gzip.compress(data)
    elif name.endswith(".zst"):
        data = pa.Codec("zstd").compress(data, asbytes=True)
    (tmp_path / name).write_bytes(data)
    documents, tally = read(JsonlConfig(path=str(tmp_path), max_page_bytes=2000))
    assert texts(documents) == {
        f"{name}/1": "First.",
        f"{name}/8": "half a pair: \ufffd",
        f"{name}/12": "Letzte Zeile, ohne Ende: ü",
    }
    assert documents[0].metadata == {
        "url": "http://a.org/1",
        "date": "2024-05-01",
        "path": f"{name}, line 1",
        "bytes": 6,
    }
    assert examples(tally) == {
        "not JSON": sorted(f"{name}, line {number}" for number in (2, 7, 11)),
        "record is not an object": [f"{name}, line 3"],
        "no text under 'text'": [f"{name}, line 4", f"{name}, line 5"],
        "empty": [f"{name}, line 9"],
        "too large": [f"{name}, line 10"],
    }


def test_jsonl_keys_and_html(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "<p>x</p>", "key": 17}\n{"body": "<p>y</p>"}\n')
    config = JsonlConfig(path=str(tmp_path), text_key="body", id_key="key", content="html")
    documents, tally = read(config)
    assert texts(documents) == {"17": "<p>x</p>", "a.jsonl/2": "<p>y</p>"}
    assert {document.metadata["content_type"] for document in documents} == {"text/html"}
    assert not tally.dropped


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_compressed_file_that_is_cut_is_read_up_to_there(tmp_path, kind):
    lines = [json.dumps({"text": f"{number} {os.urandom(300).hex()}"}).encode() + b"\n" for number in range(2000)]
    whole = b"".join(lines)
    packed = gzip.compress(whole) if kind == "gz" else pa.Codec("zstd").compress(whole, asbytes=True)
    for share in (0.0, 0.3, 0.9, 0.9999):
        (tmp_path / f"a.jsonl.{kind}").write_bytes(packed[: int(share * len(packed))])
        documents, tally = read(JsonlConfig(path=str(tmp_path / f"a.jsonl.{kind}")))
        assert [document.text for document in documents] == [
            json.loads(line)["text"] for line in lines[: len(documents)]
        ]
        assert len(documents) >= (share - 0.15) * len(lines)
        assert share == 0 or sum(tally.dropped.values()) == 1, tally.dropped


def test_a_line_without_end_is_not_held(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(60):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"text": "after"}\n')
    tracemalloc.start()
    try:
        documents, tally = read(JsonlConfig(path=str(tmp_path), max_page_bytes=100_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [document.text for document in documents] == ["before", "after"]
    assert examples(tally) == {"too large": ["a.jsonl.gz, line 2"]}
    assert peak < 5_000_000


def test_parquet(tmp_path):
    rows = {
        "text": ["one", None, " ", "x" * 3000, "two"],
        "title": ["T1", "T2", "T3", "T4", None],
        "other": [b"unread"] * 5,
        "number": [10, 11, 12, 13, 14],
    }
    pq.write_table(pa.table(rows), tmp_path / "a.parquet", row_group_size=2)
    pq.write_table(pa.table({"words": ["no text"]}), tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    documents, tally = read(ParquetConfig(path=str(tmp_path), max_page_bytes=2000))
    assert texts(documents) == {"a.parquet/0": "one", "a.parquet/4": "two"}
    assert documents[0].metadata == {"title": "T1", "path": "a.parquet, row 0", "bytes": 3}
    found = examples(tally)
    assert found.pop("broken file")[0].startswith("c.parquet after row 0: ")
    assert found == {
        "no text under 'text'": ["a.parquet, row 1"],
        "empty": ["a.parquet, row 2"],
        "too large": ["a.parquet, row 3"],
        "no column 'text'": ["b.parquet"],
    }
    named, _ = read(ParquetConfig(path=str(tmp_path / "a.parquet"), id_key="number"))
    assert [document.id for document in named] == ["10", "13", "14"]


def test_huggingface_reads_a_folder_without_a_network(tmp_path):
    pytest.importorskip("datasets", reason="needs the package datasets")
    folder = tmp_path / "dataset"
    folder.mkdir()
    for shard in range(3):
        lines = [json.dumps({"text": f"{shard}.{number}", "url": "http://a.org"}) for number in range(4)]
        (folder / f"train-{shard}.jsonl").write_text("\n".join(lines))
    config = HuggingFaceConfig(dataset=str(folder))
    source = HuggingFace(config)
    assert source.units(tmp_path) == ["0", "1", "2"]
    documents, tally = read(config)
    assert [document.text for document in documents] == [
        f"{shard}.{number}" for shard in range(3) for number in range(4)
    ]
    assert documents[5].id == "train-1/1"
    assert not tally.dropped
    with pytest.raises(DataError, match=r"its records have no 'words', but text, url; set source\.text_key"):
        read(HuggingFaceConfig(dataset=str(folder), text_key="words"))
    with pytest.raises(DataError, match=r"/nowhere: cannot be loaded \(.*\); check source\.dataset"):
        read(HuggingFaceConfig(dataset=str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match=r"source\.dataset is not set"):
        read(HuggingFaceConfig())


# Books


def book(path, chapters, *, title="A Book", encrypted=(), spine=None):
    container = (
        '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/content.opf"/></rootfiles></container>'
    )
    items = "".join(
        f'<item id="c{n}" href="{name}" media-type="application/xhtml+xml"/>' for n, name in enumerate(chapters)
    )
    order = "".join(f'<itemref idref="c{n}"/>' for n in (spine or range(len(chapters))))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
        f"<dc:title>{title}</dc:title><dc:language>en-GB</dc:language><dc:date>1999</dc:date></metadata>"
        f'<manifest>{items}<item id="s" href="s.css" media-type="text/css"/></manifest><spine>{order}</spine></package>'
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/container.xml", container)
        archive.writestr("OEBPS/content.opf", package)
        for name, body in chapters.items():
            text = (
                body
                if body.startswith("<?xml")
                else f'<html xmlns="http://www.w3.org/1999/xhtml"><body>{body}</body></html>'
            )
            archive.writestr(f"OEBPS/{name}".replace("%20", " "), text)
        if encrypted:
            data = "".join(
                f'<EncryptedData><CipherData><CipherReference URI="OEBPS/{name}"/></CipherData></EncryptedData>'
                for name in encrypted
            )
            archive.writestr("META-INF/encryption.xml", f"<encryption>{data}</encryption>")


def test_epub(tmp_path):
    chapters = {
        "one.xhtml": "<p>First&nbsp;&amp; <i>foremost</i>.</p>",
        "part%20two.xhtml": "<p>Second: ü.<br/>End</p>",
    }
    book(tmp_path / "good.epub", chapters, title="Salt &amp; Pepper", spine=[1, 0])
    book(tmp_path / "fonts.epub", chapters, encrypted=["font.otf"])
    book(tmp_path / "locked.epub", chapters, encrypted=["one.xhtml"])
    book(tmp_path / "blank.epub", {"one.xhtml": ""})
    book(tmp_path / "bomb.epub", {"one.xhtml": "<p>" + "0" * 3_000_000 + "</p>"})
    entity = '<!DOCTYPE html [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    entity = f'<?xml version="1.0"?>{entity}<html><body><p>It says &x;.</p></body></html>'
    book(tmp_path / "thief.epub", {"one.xhtml": entity})
    (tmp_path / "cut.epub").write_bytes((tmp_path / "good.epub").read_bytes()[:-40])
    (tmp_path / "text.epub").write_bytes(b"no book at all")
    documents, tally = read(EpubConfig(path=str(tmp_path), max_page_bytes=1_000_000))
    by_name = {document.id: document for document in documents}
    assert set(by_name) == {"good.epub", "fonts.epub", "thief.epub"}
    good = by_name["good.epub"]
    assert good.text == (
        "<!DOCTYPE html><html><head><title>Salt &amp; Pepper</title></head><body>"
        "<p>Second: ü.<br>End</p><p>First\u00a0&amp; <i>foremost</i>.</p></body></html>"
    )
    assert {key: good.metadata[key] for key in ("title", "date", "language", "content_type", "path")} == {
        "title": "Salt & Pepper",
        "date": "1999",
        "language": "en",
        "content_type": "text/html",
        "path": "good.epub",
    }
    assert "root:" not in by_name["thief.epub"].text
    found = examples(tally)
    assert [name.partition(":")[0] for name in found.pop("broken file")] == ["cut.epub", "text.epub"]
    assert found == {"encrypted": ["locked.epub"], "empty": ["blank.epub"], "too large": ["bomb.epub"]}


def pdf(pages, *, password=None):
    """Make a PDF of text, without any library that reads it."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    for n, text in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Contents {5 + 2 * n} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>"
        )
        stream = f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET"
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    out += f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n".encode() + (
        f"startxref\n{len(out)}\n%%EOF\n".encode()
    )
    if password is None:
        return out
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(out)))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="RC4-128")
    locked = io.BytesIO()
    writer.write(locked)
    return locked.getvalue()


def test_pdf(tmp_path, caplog):
    (tmp_path / "good.pdf").write_bytes(pdf(["Page one.", "Page two."]))
    (tmp_path / "open.pdf").write_bytes(pdf(["Locked with nothing."], password=""))
    (tmp_path / "locked.pdf").write_bytes(pdf(["Secret."], password="secret"))
    (tmp_path / "scan.pdf").write_bytes(pdf(["", ""]))
    (tmp_path / "cut.pdf").write_bytes(pdf(["Page one.", "Page two."])[:300])
    (tmp_path / "text.pdf").write_bytes(b"no document at all")
    (tmp_path / "large.pdf").write_bytes(pdf(["x" * 5000]))
    documents, tally = read(PdfConfig(path=str(tmp_path), max_page_bytes=4000))
    assert texts(documents) == {"good.pdf": "Page one.\n\nPage two.", "open.pdf": "Locked with nothing."}
    found = examples(tally)
    broken = found.pop("broken file")
    assert [name.partition(":")[0] for name in broken] + found.pop("no text") == ["cut.pdf", "text.pdf", "scan.pdf"]
    assert found == {"encrypted": ["locked.pdf"], "too large": ["large.pdf"]}
    assert not caplog.records, "one odd file in thousands must not fill the terminal"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=8), st.sampled_from([Epub, Pdf]))
def test_damaged_books_never_raise(tmp_path_factory, damage, kind):
    path = tmp_path_factory.mktemp("books") / ("a.epub" if kind is Epub else "a.pdf")
    if kind is Epub:
        book(path, {"one.xhtml": "<p>First.</p>" * 20})
    else:
        path.write_bytes(pdf(["Page one.", "Page two."]))
    data = bytearray(path.read_bytes())
    for where, value in damage:
        data[int(where * (len(data) - 1))] ^= value
    path.write_bytes(bytes(data))
    config = (EpubConfig if kind is Epub else PdfConfig)(path=str(path))
    documents, tally = read(config)
    assert len(documents) + sum(tally.dropped.values()) == 1


def test_declaring_sources_imports_nothing_heavy_and_says_what_each_needs():
    code = (
        "import sys; from torchloom_corpus.sources import configs, records; "
        "heavy = {'torch', 'datatrove', 'lxml', 'scrapy', 'fsspec', 'pyarrow', 'warcio'} & set(sys.modules); "
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    for component in COMPONENTS:
        module, _, target = component.target.partition(":")
        assert hasattr(importlib.import_module(module), target)
        config, _, name = component.config.partition(":")
        made = getattr(importlib.import_module(config), name)()
        assert getattr(importlib.import_module(module), target)(made).config is made
        assert component.needs[0] == "datatrove"
        assert component.extra == "torchloom[corpus]"
