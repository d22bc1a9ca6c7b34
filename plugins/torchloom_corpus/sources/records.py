"""What this room supplies, by name. Light."""

from torchloom import Component

SOURCES = "torchloom_corpus.sources"


def _source(name: str, module: str, target: str, config: str, summary: str, *needs: str) -> Component:
    return Component(
        "corpus_source",
        name,
        f"{SOURCES}.{module}:{target}",
        f"{SOURCES}.configs:{config}",
        summary,
        needs=("datatrove", "fsspec", *needs),
        extra="torchloom[corpus]",
    )


HTML = ("charset_normalizer", "w3lib")
COMPONENTS: list[Component] = [
    _source(
        "crawl",
        "crawl",
        "Crawl",
        "CrawlConfig",
        "Web sites, crawled by Scrapy into WARC files",
        *HTML,
        "scrapy",
        "warcio",
    ),
    _source("warc", "warc", "Warc", "WarcConfig", "HTML pages of WARC archives", *HTML, "warcio", "brotli"),
    _source("html_folder", "pages", "HtmlFolder", "HtmlFolderConfig", "Folder of HTML files", *HTML),
    _source("text_files", "pages", "TextFiles", "TextFilesSourceConfig", "Folder of plain-text files", *HTML),
    _source("jsonl", "tables", "Jsonl", "JsonlConfig", "Files of one JSON object a line", "pyarrow"),
    _source("parquet", "tables", "Parquet", "ParquetConfig", "Parquet files", "pyarrow"),
    _source("epub", "books", "Epub", "EpubConfig", "Folder of EPUB books", "lxml"),
    _source("pdf", "books", "Pdf", "PdfConfig", "Folder of PDF files that hold text", "pypdf"),
    _source(
        *("huggingface", "tables", "HuggingFace", "HuggingFaceConfig"),
        *("Dataset of the Hugging Face hub", "datasets", "pyarrow"),
    ),
]
