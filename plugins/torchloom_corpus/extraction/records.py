"""What this room supplies, by name. Light."""

from torchloom import Component

NEEDS = ("datatrove", "lxml")
EXTRA = "torchloom[corpus]"

COMPONENTS: list[Component] = [
    Component(
        kind="corpus_step",
        name="trafilatura",
        target="torchloom_corpus.extraction.steps:Trafilatura",
        config="torchloom_corpus.extraction.configs:TrafilaturaConfig",
        summary="The main text of HTML pages, with title, date, address and language",
        source="Barbaresi 2021, https://aclanthology.org/2021.acl-demo.15/",
        needs=(*NEEDS, "trafilatura", "lxml_html_clean"),
        extra=EXTRA,
    ),
    Component(
        kind="corpus_step",
        name="plain_html",
        target="torchloom_corpus.extraction.steps:PlainHtml",
        config="torchloom_corpus.extraction.configs:PlainHtmlConfig",
        summary="All text of HTML pages, tags stripped: the baseline",
        needs=NEEDS,
        extra=EXTRA,
    ),
]
