"""WARC archives: what is whole is read as it was written, and every damage is counted."""

import gzip
import io
import tracemalloc
import zlib

import pytest

pytest.importorskip("datatrove", reason="needs torchloom[corpus]")

import brotli
import fsspec
from hypothesis import given, settings
from hypothesis import strategies as st
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from torchloom.errors import DataError
from torchloom_corpus.sources.configs import WarcConfig
from torchloom_corpus.sources.warc import Warc, read_warc
from torchloom_corpus.tally import StepTally

PAGES = {f"http://example.org/{n}": f"<html><body><p>Page {n}: {'wörter ' * n}</p></body></html>" for n in range(8)}


def record(url, body, *, gzipped=True, status="200 OK", kind="response", headers=(("Content-Type", "text/html"),)):
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=gzipped)
    http = StatusAndHeaders(status, list(headers), protocol="HTTP/1.1") if kind == "response" else None
    writer.write_record(writer.create_warc_record(url, kind, io.BytesIO(body), length=len(body), http_headers=http))
    return out.getvalue()


def read(folder, data, name="a.warc.gz", **fields):
    (folder / name).write_bytes(data)
    tally = StepTally("warc")
    source = Warc(WarcConfig(path=str(folder / name), **fields))
    assert source.units(folder) == [name]
    return list(source.read(name, tally)), tally


def parse(data, name="a.warc.gz"):
    tally = StepTally("warc")
    return list(read_warc(name, io.BytesIO(data), 10_000_000, tally)), tally


def pages(documents):
    return {document.metadata["url"]: document.text for document in documents}


@pytest.fixture(scope="module")
def members():
    return [record(url, text.encode()) for url, text in PAGES.items()]


@pytest.fixture(scope="module")
def plain():
    return [record(url, text.encode(), gzipped=False) for url, text in PAGES.items()]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.warc", lambda members, plain: b"".join(plain)),
        ("a.warc.gz", lambda members, plain: b"".join(members)),
        ("whole.warc.gz", lambda members, plain: gzip.compress(b"".join(plain))),  # one member for all records
        ("misnamed.warc", lambda members, plain: b"".join(members)),
        ("misnamed.warc.gz", lambda members, plain: b"".join(plain)),
        ("padded.warc.gz", lambda members, plain: b"".join(members) + bytes(512)),
    ],
)
def test_round_trip(tmp_path, members, plain, name, pack):
    documents, tally = read(tmp_path, pack(members, plain), name)
    assert pages(documents) == PAGES
    assert [document.id for document in documents] == [f"{name}/{number}" for number in range(len(PAGES))]
    assert documents[3].metadata == {
        "content_type": "text/html",
        "bytes": len(PAGES["http://example.org/3"].encode()),
        "url": "http://example.org/3",
        "path": f"{name}, record 3",
    }
    assert not tally.dropped


def chunked(body):
    return b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 7]), body[at : at + 7]) for at in range(0, len(body), 7)) + (
        b"0\r\n\r\n"
    )


RAW = zlib.compressobj(wbits=-15)
TEXT = "<html><p>Ein Text über vieles</p></html>"


@pytest.mark.parametrize(
    ("encodings", "body"),
    [
        ({"Content-Encoding": "gzip"}, gzip.compress(TEXT.encode())),
        ({"Content-Encoding": "x-gzip"}, gzip.compress(TEXT.encode())),
        ({"Content-Encoding": "deflate"}, zlib.compress(TEXT.encode())),
        ({"Content-Encoding": "deflate"}, RAW.compress(TEXT.encode()) + RAW.flush()),
        ({"Content-Encoding": "br"}, brotli.compress(TEXT.encode())),
        ({"Content-Encoding": "gzip, br"}, brotli.compress(gzip.compress(TEXT.encode()))),
        ({"Transfer-Encoding": "chunked"}, chunked(TEXT.encode())),
        ({"Transfer-Encoding": "chunked", "Content-Encoding": "gzip"}, chunked(gzip.compress(TEXT.encode()))),
        ({"Transfer-Encoding": "chunked", "Content-Encoding": "br"}, TEXT.encode()),  # undone already
    ],
)
def test_encodings_of_http(tmp_path, encodings, body):
    headers = [("Content-Type", "text/html; charset=utf-8"), *encodings.items()]
    documents, tally = read(tmp_path, record("http://a.org/", body, headers=headers))
    assert [document.text for document in documents] == [TEXT]
    assert not tally.dropped


def test_what_is_no_page_is_counted(tmp_path):
    data = b"".join(
        [
            record("http://a.org/1", TEXT.encode()),
            record("http://a.org/2", b"gone", status="404 Not Found"),
            record("http://a.org/3", b"\x89PNG", headers=[("Content-Type", "image/png")]),
            record("http://a.org/4", TEXT.encode(), headers=[]),
            record("http://a.org/5", b"plain words", headers=[]),
            record("http://a.org/6", b"key: value", kind="metadata"),
            record("http://a.org/7", b"  "),
            record(
                "http://a.org/8", b"\x1f\x8b\x08", headers=[("Content-Encoding", "gzip"), ("Content-Type", "text/html")]
            ),
            record("http://a.org/9", b"zzz", headers=[("Content-Encoding", "zstd"), ("Content-Type", "text/html")]),
        ]
    )
    documents, tally = read(tmp_path, data)
    assert pages(documents) == {"http://a.org/1": TEXT, "http://a.org/4": TEXT}
    assert tally.dropped == {"HTTP 404": 1, "not HTML": 2, "empty": 1, "damaged record": 2}
    assert tally.counts == {"records that are no response": 1}
    assert [example["id"] for example in tally.examples["HTTP 404"]] == ["a.warc.gz, record 1: http://a.org/2"]
    assert {example["id"] for example in tally.examples["damaged record"]} == {
        "a.warc.gz, record 7: http://a.org/8: broken or unknown compression 'gzip'",
        "a.warc.gz, record 8: http://a.org/9: broken or unknown compression 'zstd'",
    }


@pytest.mark.parametrize("encoding", ["gzip", "br", "none"])
def test_a_bomb_costs_no_memory_and_no_other_page(tmp_path, encoding):
    size = 60_000_000
    bomb = {"gzip": gzip.compress, "br": lambda data: brotli.compress(data, quality=1), "none": bytes}[encoding](
        bytes(size)
    )
    headers = [("Content-Type", "text/html"), *([("Content-Encoding", encoding)] if encoding != "none" else [])]
    data = record("http://a.org/bomb", bomb, headers=headers) + record("http://a.org/1", TEXT.encode())
    tracemalloc.start()
    try:
        documents, tally = read(tmp_path, data, max_page_bytes=100_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pages(documents) == {"http://a.org/1": TEXT}
    assert tally.dropped == {"too large": 1}
    assert "bomb" in tally.examples["too large"][0]["id"] or encoding == "none"
    assert peak < 5_000_000, f"{peak} bytes for pages of at most 100,000"


def test_a_flipped_byte_costs_its_own_record_alone(members):
    """Exhaustive over every place of a compressed archive of few records."""
    few = members[:2]
    whole = b"".join(few)
    ends = [len(b"".join(few[: n + 1])) for n in range(len(few))]
    urls = list(PAGES)[:2]
    for place in range(len(whole)):
        hit = next(number for number, end in enumerate(ends) if place < end)
        for bit in (1 << place % 8, 0xFF):
            data = bytearray(whole)
            data[place] ^= bit
            documents, tally = parse(bytes(data))
            got = pages(documents)
            assert got.items() <= PAGES.items(), (place, bit)
            assert set(urls) - set(got) <= {urls[hit]}, (place, bit)
            assert len(got) + sum(tally.dropped.values()) >= len(few), (place, bit, tally.dropped)


def test_a_cut_archive_is_read_up_to_the_cut(members):
    few = members[:2]
    whole = b"".join(few)
    ends = [len(b"".join(few[:n])) for n in range(len(few) + 1)]
    for length in range(1, len(whole)):
        documents, tally = parse(whole[:length])
        complete = sum(end <= length for end in ends) - 1
        assert pages(documents) == dict(list(PAGES.items())[:complete]), length
        assert tally.dropped["damaged record"] == (length not in ends), length


@st.composite
def damages(draw):
    kind = draw(st.sampled_from(["flip", "cut out", "insert", "zero"]))
    return kind, draw(st.floats(0, 1)), draw(st.integers(1, 400)), draw(st.integers(1, 255))


def damaged(data, damage):
    kind, where, length, value = damage
    place = int(where * (len(data) - 1))
    if kind == "flip":
        return data[:place] + bytes([data[place] ^ value]) + data[place + 1 :]
    if kind == "cut out":
        return data[:place] + data[place + length :]
    if kind == "insert":
        return data[:place] + bytes([value]) * length + data[place:]
    return data[:place] + bytes(len(data[place : place + length])) + data[place + length :]


@settings(max_examples=300, deadline=None)
@given(st.lists(damages(), min_size=1, max_size=3))
def test_damage_never_raises_never_alters_a_page_and_is_never_silent(members, damage):
    data = b"".join(members)
    for one in damage:
        data = damaged(data, one)
    documents, tally = parse(data)
    got = pages(documents)
    assert got.items() <= PAGES.items()
    # What is cut out from one record's beginning to another's leaves an archive that nothing is wrong with, also where zeros
    # that end a record stay: between records they are padding.
    whole = {
        b"".join((*members[:a], bytes(zeros), *members[b:]))
        for a in range(9)
        for b in range(a, 9)
        for zeros in range(4)
    }
    if got != PAGES and data not in whole:
        assert tally.dropped
    assert len(documents) == len(got)


@settings(max_examples=300, deadline=None)
@given(damages())
def test_damage_of_an_archive_without_compression(plain, damage):
    """Nothing but the digest protects these; it does not cover the header, hence the address."""
    documents, tally = parse(damaged(b"".join(plain), damage), "a.warc")
    texts = [document.text for document in documents]
    assert set(texts) <= set(PAGES.values())
    missing = set(PAGES.values()) - set(texts)
    assert not missing or tally.dropped or tally.counts or damage[0] == "cut out"
    assert len(missing) <= 2 + damage[2] // 200


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from(["a.warc", "a.warc.gz"]),
    st.sampled_from([b"", b"WARC/1.0\r\n", b"\x1f\x8b\x08"]),
)
def test_anything_may_be_in_a_file(data, name, beginning):
    documents, tally = parse(beginning + data, name)
    assert not documents
    assert tally.dropped or not (beginning + data).strip(b"\0\r\n")


def test_a_file_that_is_missing_or_unreadable_is_told_by_name(tmp_path, members):
    with pytest.raises(DataError, match=r"nowhere: no such file or folder; set source\.path to one"):
        Warc(WarcConfig(path=str(tmp_path / "nowhere"))).units(tmp_path)
    with pytest.raises(DataError, match=r"no file of this folder matches '\*\*/\*\.warc\*'; set source\.glob"):
        Warc(WarcConfig(path=str(tmp_path))).units(tmp_path)
    (tmp_path / "a.warc.gz").write_bytes(b"")
    tally = StepTally("warc")
    source = Warc(WarcConfig(path=str(tmp_path)))
    assert not list(source.read("a.warc.gz", tally))
    assert not list(source.read("gone.warc.gz", tally))
    assert tally.dropped == {"empty": 1, "unreadable file": 1}
    assert tally.examples["unreadable file"][0]["id"] == "gone.warc.gz: No such file or directory"


def test_archives_are_found_on_any_file_system(members):
    system = fsspec.filesystem("memory")
    system.pipe("/crawl/b/two.warc.gz", b"".join(members[4:]))
    system.pipe("/crawl/one.warc.gz", b"".join(members[:4]))
    system.pipe("/crawl/notes.txt", b"no archive")
    for place in ("memory://crawl", "memory://crawl/**/*.warc.gz"):
        tally = StepTally("warc")
        source = Warc(WarcConfig(path=place))
        units = source.units(None)
        assert units == ["b/two.warc.gz", "one.warc.gz"]
        assert pages(document for unit in units for document in source.read(unit, tally)) == PAGES
