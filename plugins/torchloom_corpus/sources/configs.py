"""Settings of the sources. Light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchloom.options import option

MEGABYTE = 1_000_000


@dataclass
class FilesConfig:
    """Fields that every source has which reads files."""

    path: str | None = option(
        None, "File, folder or pattern (such as 'pages/*.html'), or an fsspec URL of one (s3://bucket/folder)."
    )
    glob: str = option("**/*", "Which files of a folder are read.")


@dataclass
class PageFilesConfig(FilesConfig):
    """Fields of sources whose documents must fit into memory."""

    max_page_bytes: int = option(
        10 * MEGABYTE, "Larger documents, before or after decompression, are dropped and counted.", ge=1, unit="bytes"
    )


@dataclass
class HtmlFolderConfig(PageFilesConfig):
    """Settings of `html_folder`."""

    glob: str = option("**/*.*htm*", "Which files of a folder are read: .html, .htm, .xhtml and the like.")
    base_url: str | None = option(None, "Address that the folder was saved from; a page's URL is this and its path.")


@dataclass
class TextFilesSourceConfig(PageFilesConfig):
    """Settings of `text_files`."""

    glob: str = option("**/*.txt", "Which files of a folder are read.")
    encoding: str | None = option(None, "Encoding of files that are not UTF-8; detected for each unless given.")


@dataclass
class WarcConfig(PageFilesConfig):
    """Settings of `warc`."""

    glob: str = option("**/*.warc*", "Which files of a folder are read; compressed ones end in .gz.")


@dataclass
class TableConfig:
    """Fields of sources whose records have named values."""

    text_key: str = option("text", "Name of the value that is the document's text.")
    id_key: str | None = option(
        None, "Name of the value by which a document is called, unique among all; file and number unless given."
    )
    content: Literal["text", "html"] = option("text", "Whether the text is plain, or HTML that is to be extracted.")


@dataclass
class JsonlConfig(TableConfig, PageFilesConfig):
    """Settings of `jsonl`."""

    glob: str = option("**/*.json*", "Which files of a folder are read; ones that end in .gz or .zst are decompressed.")


@dataclass
class ParquetConfig(TableConfig, PageFilesConfig):
    """Settings of `parquet`."""

    glob: str = option("**/*.parquet", "Which files of a folder are read.")


@dataclass
class HuggingFaceConfig(TableConfig):
    """Settings of `huggingface`."""

    dataset: str | None = option(None, "Name on the Hugging Face hub, or a folder that holds such a dataset.")
    subset: str | None = option(None, "Which of its configurations; its default unless given.")
    split: str = option("train", "Which of its splits.")
    revision: str | None = option(None, "Commit, tag or branch of it, which makes a build repeatable.")
    max_page_bytes: int = option(10 * MEGABYTE, "Larger documents are dropped and counted.", ge=1, unit="bytes")


@dataclass
class EpubConfig(PageFilesConfig):
    """Settings of `epub`."""

    glob: str = option("**/*.epub", "Which files of a folder are read.")
    max_page_bytes: int = option(
        50 * MEGABYTE, "Books whose chapters together are larger are dropped and counted.", ge=1, unit="bytes"
    )


@dataclass
class PdfConfig(PageFilesConfig):
    """Settings of `pdf`."""

    glob: str = option("**/*.pdf", "Which files of a folder are read.")
    max_page_bytes: int = option(100 * MEGABYTE, "Larger files are dropped and counted.", ge=1, unit="bytes")


@dataclass
class CrawlConfig:
    """Settings of `crawl`."""

    seeds: list[str] = option(list, "Addresses to begin at.")
    max_depth: int | None = option(None, "Links from a seed to a page, at most; no limit unless given.", ge=0)
    max_pages: int | None = option(None, "Pages kept, at most; no limit unless given.", ge=1, unit="pages")
    allowed_domains: list[str] = option(
        list, "Hosts that are followed, with their subdomains; those of the seeds, unless given."
    )
    allow_private: list[str] = option(
        list,
        "Hosts, by the very name in the URL, that may have a private, loopback or link-local address; any other such "
        "host is refused, also when a public name leads there.",
    )
    obey_robots: bool = option(True, "Keep to each host's robots.txt, and to the crawl delay it asks for.")
    delay: float = option(0.5, "Pause between two requests to a host, at least.", ge=0, unit="seconds")
    autothrottle: bool = option(True, "Lengthen the pause to how long a host takes to answer.")
    concurrency: int = option(16, "Requests under way at once, over all hosts.", ge=1)
    concurrency_per_host: int = option(
        8, "Requests under way at once to one host; a pause between them allows one.", ge=1
    )
    retries: int = option(2, "Further attempts at a page after a time-out, a lost connection or a server error.", ge=0)
    timeout: float = option(
        30.0, "How long a page may take, from the connection to its last byte.", gt=0, unit="seconds"
    )
    max_page_bytes: int = option(
        10 * MEGABYTE, "Larger pages, before or after decompression, are dropped and counted.", ge=1, unit="bytes"
    )
    user_agent: str = option("torchloom (+https://pypi.org/project/torchloom)", "Name that servers are told.")
    pages_per_file: int = option(500, "Pages in each WARC file, which is what tasks share.", ge=1, unit="pages")
